//! Typed policies as attachments, the order of chains, and access policies that are audited.

use super::*;
use crate::bundle::FilterAttachment;

fn typed(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

#[test]
fn typed_policies_run_in_their_phases() {
    let text = [
        typed("RateLimitPolicy", "p", "{limits: [{requests: 3}], order: -5}"),
        typed("FaultPolicy", "p", "{mode: Audit, abort: {reset: true}}"),
        typed("JwtPolicy", "off", "{mode: Off, issuers: [{issuer: a, jwks: {keys: [{kty: RSA, n: a, e: b}]}}]}"),
        filter_policy(
            "shop/p",
            "{filter: {name: ratelimit}, phase: Connection, order: 9, capabilities: [token-bucket]}",
        ),
        filter_policy("shop/q", "{filter: {name: ratelimit}, order: -7, capabilities: [token-bucket]}"),
        access("shop/all", "{}"),
    ];
    let world = shop_and(&text.join("---\n"));
    let bundle = bundle(&world, &["shop/web-1"]);
    let mut chain: Vec<&FilterAttachment> = bundle.filters.values().collect();
    chain.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    let names: Vec<_> = chain.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(names, ["shop/p", "shop/p#FaultPolicy", "shop/p#RateLimitPolicy", "shop/q", "weft-system/authz"]);
    assert_eq!(chain[3].order, -7, "one without a phase is where every release had it");
    let limit = &bundle.filters["shop/p#RateLimitPolicy"];
    assert_eq!(
        (limit.filter.as_str(), limit.version.as_str(), limit.mode),
        ("ratelimit", "2.0.0", FilterMode::Enforce)
    );
    assert_eq!(limit.capabilities, ["token-bucket"]);
    assert_eq!(limit.config.0, r#"{"limits":[{"key":"none","per_seconds":1,"requests":3}]}"#);
    let conditions = |kind: Kind| {
        let key = ObjectKey::new(kind, "shop", "p");
        let status = policy_status(&world, kind, world.get(&key).unwrap().resource.metadata());
        status.into_iter().map(|it| (it.kind, it.status, it.key)).collect::<Vec<_>>()
    };
    let good = |kind| (kind, true, String::new());
    assert_eq!(conditions(Kind::RateLimitPolicy), [good("Accepted"), good("ResolvedRefs")]);
    let lacking = ("ResolvedRefs", false, "spec".to_owned());
    assert_eq!(conditions(Kind::FaultPolicy), [good("Accepted"), lacking], "the filter is not there");
}

#[test]
fn audited_access_is_decided_beside_what_is_enforced() {
    fn check(world: &World, expect: &[(&str, FilterMode, &[&str])]) {
        let bundle = bundle(world, &["shop/web-1"]);
        let got: Vec<_> = bundle.filters.values().collect();
        assert_eq!(got.len(), expect.len(), "{got:?}");
        for (filter, (name, mode, policies)) in got.iter().zip(expect) {
            let config: authz::Config = serde_json::from_str(&filter.config.0).unwrap();
            let named: Vec<&str> = config.policies.iter().map(|policy| policy.name.as_str()).collect();
            assert!(filter.authorization);
            assert_eq!((filter.name.as_str(), filter.mode, named.as_slice()), (*name, *mode, *policies));
        }
    }
    let of = |a: &str, b: &str| {
        shop_and(
            &[access("shop/a", &format!("{{mode: {a}}}")), access("shop/b", &format!("{{mode: {b}}}"))].join("---\n"),
        )
    };
    let (enforced, audited) =
        (("weft-system/authz", FilterMode::Enforce), ("weft-system/authz#audit", FilterMode::Audit));
    check(&of("Off", "Off"), &[]);
    check(&of("Audit", "Off"), &[(audited.0, audited.1, &["shop/a"])]);
    check(&of("Enforce", "Off"), &[(enforced.0, enforced.1, &["shop/a"])]);
    check(
        &of("Enforce", "Audit"),
        &[(enforced.0, enforced.1, &["shop/a"]), (audited.0, audited.1, &["shop/a", "shop/b"])],
    );
    let mut without = of("Audit", "Off");
    without.remove(&ObjectKey::new(Kind::Filter, "weft-system", "authz"));
    check(&without, &[]);
    let opened = openings(&of("Enforce", "Off"), &of("Audit", "Off"));
    assert_eq!(opened.iter().map(|it| it.workload.to_string()).collect::<Vec<_>>(), ["shop/web-1", "shop/web-2"]);
    assert!(openings(&of("Audit", "Off"), &of("Off", "Off")).is_empty());
}
