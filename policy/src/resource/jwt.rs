//! `JwtPolicy`: whose tokens requests must carry. It becomes the shipped filter `jwt`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::attaching::{self, Frame, Typed};
use super::capability::Capability;
use super::filter::{Phase, PolicyMode, deny};
use super::value::SECOND_MS;
use super::{TargetRef, value};
use crate::bundle::{Direction, ObjectName, OnFailure};

/// Keys of all issuers together, and claims that are told: the filter takes no more.
const MAX_KEYS: usize = 32;
const MAX_CLAIMS: usize = 16;
const MAX_LEEWAY_MS: u64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// Beside other policies of its phase: smaller runs earlier, equals by name.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default = "deny")]
    pub on_failure: OnFailure,
    pub issuers: Vec<IssuerSpec>,
    /// The header that holds the token. Absent: `authorization`, behind `Bearer`.
    #[serde(default, deserialize_with = "value::matchable_header_option", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Requests without a token pass, without claims; a bad token never does.
    #[serde(default)]
    pub optional: bool,
    /// The token goes no further.
    #[serde(default)]
    pub remove_token: bool,
    /// That clocks may differ by, whole seconds. Absent: 1m.
    #[serde(
        default,
        rename = "leeway",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub leeway_ms: Option<u64>,
    /// Told to the filters behind and the access log as `filter.jwt.CLAIM`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimSpec>,
}

/// Whose tokens count, with the keys that they are signed by: no issuer's key makes a token of another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerSpec {
    /// As tokens name it in `iss`.
    pub issuer: String,
    /// Of which a token must name one. Empty: any will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    pub jwks: JwksSpec,
}

/// A JSON Web Key Set, as issuers publish it.
//= rfc7517#section-5
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JwksSpec {
    pub keys: Vec<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimSpec {
    pub claim: String,
    /// Tells the app, too; what a caller sends under this name never passes.
    #[serde(default, deserialize_with = "value::matchable_header_option", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// What is wrong about a key, with the member. Its numbers are the filter's to judge.
fn wrong_key(key: &Map<String, Value>) -> Option<(&'static str, String)> {
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    if key.contains_key("d") {
        return Some(("d", "this is a private key; give its public part alone".to_owned()));
    }
    match (member("kty"), member("crv")) {
        (Some("RSA"), _) | (Some("EC"), Some("P-256")) | (Some("OKP"), Some("Ed25519")) => None,
        (Some("oct"), _) => {
            let message = "a shared secret would be told to whoever may read the policy; public keys are expected";
            Some(("kty", message.to_owned()))
        }
        (Some("EC"), _) => Some(("crv", "P-256 is expected".to_owned())),
        (Some("OKP"), _) => Some(("crv", "Ed25519 is expected".to_owned())),
        (_, _) => Some(("kty", "RSA, EC or OKP is expected".to_owned())),
    }
}

impl IssuerSpec {
    /// Keys are inside the issuer.
    fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.issuer.is_empty() {
            wrong.push(("issuer".to_owned(), "is empty".to_owned()));
        }
        if self.jwks.keys.is_empty() {
            wrong.push(("jwks.keys".to_owned(), "is empty: no token would count".to_owned()));
        }
        for (index, key) in self.jwks.keys.iter().enumerate() {
            wrong.extend(wrong_key(key).map(|(member, message)| (format!("jwks.keys[{index}].{member}"), message)));
        }
        wrong
    }

    fn config(&self) -> Value {
        json!({"issuer": self.issuer, "audiences": self.audiences, "keys": self.jwks.keys})
    }
}

impl JwtPolicySpec {
    /// Everything that is wrong; keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = self.check_targets();
        wrong.extend(self.check_issuers());
        if let Some(ms) = self.leeway_ms.filter(|ms| *ms > MAX_LEEWAY_MS || !ms.is_multiple_of(SECOND_MS)) {
            let message = format!("{} is out of range: whole seconds, 0s to 1h", value::duration_text(ms));
            wrong.push(("leeway".to_owned(), message));
        }
        if self.claims.len() > MAX_CLAIMS {
            let message = format!("has {} claims; at most {MAX_CLAIMS} are allowed", self.claims.len());
            wrong.push(("claims".to_owned(), message));
        }
        for (index, _) in self.claims.iter().enumerate().filter(|(_, claim)| claim.claim.is_empty()) {
            wrong.push((format!("claims[{index}].claim"), "is empty".to_owned()));
        }
        wrong
    }

    /// The callee wants the token: a caller's own proxy that refused its own app would keep nobody out.
    fn check_targets(&self) -> Vec<(String, String)> {
        let routes = self.target_refs.iter().enumerate().filter(|(_, target)| target.kind.route().is_some());
        let mut wrong: Vec<_> = routes
            .map(|(index, _)| {
                let message = "no JwtPolicy is for a route: it judges at the callee, which decides none".to_owned();
                (format!("targetRefs[{index}].kind"), message)
            })
            .collect();
        if wrong.is_empty() {
            wrong = attaching::check_frame(self);
        }
        wrong
    }

    fn check_issuers(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.issuers.is_empty() {
            wrong.push(("issuers".to_owned(), "is empty: no token would count".to_owned()));
        }
        let keys: usize = self.issuers.iter().map(|issuer| issuer.jwks.keys.len()).sum();
        if keys > MAX_KEYS {
            wrong.push(("issuers".to_owned(), format!("have {keys} keys in all; at most {MAX_KEYS} are allowed")));
        }
        let mut names = BTreeSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let at = |key: &str| format!("issuers[{index}].{key}");
            wrong.extend(issuer.check().into_iter().map(|(key, message)| (at(&key), message)));
            if !names.insert(&issuer.issuer) {
                wrong.push((at("issuer"), format!("{:?} is listed already", issuer.issuer)));
            }
        }
        wrong
    }
}

impl Typed for JwtPolicySpec {
    const FILTER: &'static str = "jwt";
    const PHASE: Phase = Phase::AuthN;

    fn frame(&self) -> Frame<'_> {
        let Self { target_refs, order, mode, on_failure, .. } = self;
        let direction = Direction::Inbound;
        Frame { targets: target_refs, direction, order: *order, mode: *mode, on_failure: *on_failure }
    }

    fn capabilities() -> Vec<Capability> {
        vec![Capability::Crypto(None)]
    }

    fn config(&self, _: &ObjectName) -> Value {
        let providers: Vec<_> = self.issuers.iter().map(IssuerSpec::config).collect();
        let mut config = json!({"providers": providers, "optional": self.optional, "remove": self.remove_token});
        if let Some(header) = &self.header {
            config["header"] = header.clone().into();
        }
        if let Some(ms) = self.leeway_ms {
            config["leeway_seconds"] = (ms / SECOND_MS).into();
        }
        if !self.claims.is_empty() {
            let claim = |it: &ClaimSpec| match &it.header {
                Some(header) => json!({"claim": it.claim, "header": header}),
                None => json!({"claim": it.claim}),
            };
            config["claims"] = self.claims.iter().map(claim).collect();
        }
        config
    }
}

#[cfg(test)]
mod tests {
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
        let many = vec![KEY; 33].join(", ");
        let text = format!("{{issuers: [{{issuer: a, jwks: {{keys: [{many}]}}}}]}}");
        check(&text, &["issuers: have 33 keys in all; at most 32 are allowed"]);
    }
}
