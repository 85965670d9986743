//! JwtPolicies as the attachments that they are, and what is wrong about others.

use super::*;

const KEY: &str = "{kty: OKP, crv: Ed25519, kid: '1', x: MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc}";

fn spec(text: &str) -> JwtPolicySpec {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn it_is_the_filter_policy_of_the_shipped_filter() {
    let text = format!(
        "{{issuers: [{{issuer: a, audiences: [b], jwks: {{keys: [{KEY}]}}}}], header: X-Token, optional: true, leeway: 5s, \
         removeToken: true, claims: [{{claim: sub, header: X-User}}, {{claim: roles}}]}}"
    );
    let policy = attaching::tested(&spec(&text));
    let config = json!({
        "providers": [{"issuer": "a", "audiences": ["b"], "keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc"}]}],
        "header": "x-token", "optional": true, "remove": true, "leeway_seconds": 5,
        "claims": [{"claim": "sub", "header": "x-user"}, {"claim": "roles"}],
    });
    assert_eq!(policy["config"], config);
    assert_eq!((&policy["phase"], &policy["onFailure"]), (&json!("AuthN"), &json!("Deny")));
    assert_eq!((&policy["capabilities"], &policy["direction"]), (&json!(["crypto"]), &json!("Inbound")));
    assert!(spec(&text).check().is_empty());
}

#[test]
fn keys_that_are_fetched_come_with_the_grants_for_it() {
    let fetched = |issuer: &str, more: &str| format!("{{issuer: {issuer}, jwks: {{callout: {{{more}}}}}}}");
    let text = format!(
        "{{issuers: [{}, {}, {}]}}",
        fetched("a", "name: idp, port: 80, path: /keys, cache: 1m, stale: 0s, timeout: 250ms"),
        fetched("b", "name: idp, port: 80, path: /other"),
        fetched("c", "kind: ExternalService, name: idp, namespace: weft-system, port: 443, path: '/keys?v=1'"),
    );
    assert!(spec(&text).check().is_empty());
    let policy = attaching::tested(&spec(&text));
    let providers = json!([
        {"issuer": "a", "audiences": [], "jwks": {"callout": "service//idp:80", "path": "/keys", "cache_seconds": 60,
            "stale_seconds": 0, "timeout_ms": 250}},
        {"issuer": "b", "audiences": [], "jwks": {"callout": "service//idp:80", "path": "/other"}},
        {"issuer": "c", "audiences": [], "jwks": {"callout": "external/weft-system/idp:443", "path": "/keys?v=1"}},
    ]);
    assert_eq!(policy["config"]["providers"], providers);
    let services = json!([
        {"kind": "ExternalService", "name": "idp", "namespace": "weft-system", "port": 443,
            "as": "external/weft-system/idp:443"},
        {"name": "idp", "port": 80, "as": "service//idp:80"},
    ]);
    let kv = json!({"kv": {"entries": 128, "bytes": 2_097_152, "scope": "Policy"}});
    assert_eq!(policy["capabilities"], json!(["crypto", kv, {"callout": {"services": services}}]));
}

#[test]
fn every_mistake_is_told() {
    fn check(text: &str, expect: &[&str]) {
        let wrong = spec(text).check();
        let wrong: Vec<_> = wrong.iter().map(|(key, message)| format!("{key}: {message}")).collect();
        assert_eq!(wrong, expect, "{text}");
    }
    let secret = "a shared secret would be told to whoever may read the policy; public keys are expected";
    check(
        "{leeway: 1ms, targetRefs: [{kind: HTTPRoute, name: r}], claims: [{claim: ''}], issuers: [{issuer: '', jwks: {keys: []}}, \
         {issuer: '', jwks: {keys: [{kty: oct, k: a}, {kty: EC, crv: P-384}, {kty: RSA, d: a}, {}]}}]}",
        &[
            "targetRefs[0].kind: no JwtPolicy is for a route: it judges at the callee, which decides none",
            "issuers[0].issuer: is empty",
            "issuers[0].jwks.keys: is empty: no token would count",
            "issuers[1].issuer: is empty",
            &format!("issuers[1].jwks.keys[0].kty: {secret}"),
            "issuers[1].jwks.keys[1].crv: P-256 is expected",
            "issuers[1].jwks.keys[2].d: this is a private key; give its public part alone",
            "issuers[1].jwks.keys[3].kty: RSA, EC or OKP is expected",
            "issuers[1].issuer: \"\" is listed already",
            "leeway: 1ms is out of range: whole seconds, 0s to 1h",
            "claims[0].claim: is empty",
        ],
    );
    check("{issuers: []}", &["issuers: is empty: no token would count"]);
    check(
        &format!(
            "{{mode: Audit, issuers: [{{issuer: a, jwks: {{keys: [{KEY}], callout: {{name: a, port: 1, path: /}}}}}}, {{issuer: b, \
             jwks: {{callout: {{name: b, port: 1, path: /../x, cache: 9s, stale: 1500ms, timeout: 11s}}}}}}]}}"
        ),
        &[
            "mode: an audited filter waits for nothing, so no keys are fetched; Enforce or Off is expected",
            "issuers[0].jwks.callout: stands beside keys: one of them is expected",
            "issuers[1].jwks.callout.path: \"/../x\" is no path that all servers take alike",
            "issuers[1].jwks.callout.cache: 9s is out of range: whole seconds, 10s to 24h",
            "issuers[1].jwks.callout.stale: 1s500ms is out of range: whole seconds, 0s to 168h",
            "issuers[1].jwks.callout.timeout: 11s is out of range: 1ms to 10s",
        ],
    );
    let issuers = (0..17).map(|at| format!("{{issuer: a{at}, jwks: {{callout: {{name: a{at}, port: 1, path: /}}}}}}"));
    let text = format!("{{issuers: [{}]}}", issuers.collect::<Vec<_>>().join(", "));
    check(&text, &["issuers: fetch keys of 17 services; at most 16 are allowed"]);
    let many = vec![KEY; 33].join(", ");
    let text = format!("{{issuers: [{{issuer: a, jwks: {{keys: [{many}]}}}}]}}");
    check(&text, &["issuers: have 33 keys in all; at most 32 are allowed"]);
}
