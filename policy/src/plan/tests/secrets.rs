//! Secrets that filters are handed, and what becomes of policies without theirs.

use std::sync::Arc;

use super::*;
use crate::bundle::{FilterAttachment, Grant, GrantedSecret, OnFailure, SecretGrant};
use crate::explain::{Query, explain};
use crate::secret::SecretBytes;

/// A filter of a contract that knows secrets.
fn signing_filter() -> String {
    let known = SHOP.split("---\n").find(|text| text.contains("name: ratelimit")).unwrap();
    let known = known.replace("name: ratelimit", "name: signer").replace("filter@0.1.0", "filter@0.2.0");
    known.replace("[log, token-bucket]", "[log, secret, crypto]")
}

fn secret(namespace: &str, values: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {{name: s, namespace: {namespace}}}\nspec: {{stringData: \
         {{{values}}}}}\n"
    )
}

const GRANTED: &str =
    "capabilities: [{secret: {values: [{name: s, key: token}]}}, {crypto: {keys: [{name: s, key: hmac, as: sig}]}}]";

fn mesh(secrets: &str, more: &str) -> World {
    let policy = filter_policy("shop/p", &format!("{{filter: {{name: signer}}, {GRANTED}{more}}}"));
    shop_and(&format!("{}---\n{policy}{secrets}", signing_filter()))
}

fn attached(world: &World, workload: &str) -> Option<FilterAttachment> {
    bundle(world, &[workload]).filters.get("shop/p").cloned()
}

fn values(attachment: &FilterAttachment) -> [Vec<(&str, &[u8])>; 2] {
    [true, false].map(|is_secret| {
        let grants = attachment.grants.iter().filter(|grant| matches!(grant, Grant::Secret(_)) == is_secret);
        grants.flat_map(Grant::secrets).map(|secret| (secret.name.as_str(), secret.value.reveal())).collect()
    })
}

#[test]
fn a_policy_is_handed_the_values_that_it_names_under_the_names_that_it_gives() {
    let world =
        mesh(&secret("shop", "token: t1, hmac: h1, other: o1"), ", targetRefs: [{kind: Workload, name: web-1}]");
    let told = attached(&world, "shop/web-1").unwrap();
    assert_eq!(values(&told), [vec![("token", &b"t1"[..])], vec![("sig", &b"h1"[..])]]);
    assert_eq!(told.capabilities, ["crypto"]);
    assert_eq!(attached(&world, "shop/web-2"), None, "who does not run the filter is told nothing");
    let one = GrantedSecret { name: "token".to_owned(), value: SecretBytes::new(b"t1") };
    assert!(told.grants.contains(&Grant::Secret(SecretGrant { values: vec![one] })));
}

#[test]
fn a_policy_without_all_of_its_secrets_is_closed() {
    fn check(secrets: &str, expect: &str) {
        let world = mesh(secrets, "");
        let closed = attached(&world, "shop/web-1").unwrap();
        assert_eq!((closed.filter.as_str(), closed.grants.len()), ("authz", 0), "{expect}");
        let config: authz::Config = serde_json::from_str(&closed.config.0).unwrap();
        let engine = authz::Engine::new(&config).unwrap();
        let decision = engine.decide(&authz::Request::connection(None, 8080));
        assert!(!decision.allowed && decision.rule.unwrap().starts_with("shop/p.secret-missing"), "{expect}");
        let query = serde_json::json!({"from": "partner/api", "to": "web.shop"});
        let query: Query = serde_json::from_value(query).unwrap();
        let told = explain(&world, &query).unwrap();
        assert_eq!((told.allowed, told.status), (false, Some(403)), "{expect}");
        assert!(told.rule.unwrap().starts_with("shop/p.secret-missing"), "{expect}");
        let key = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
        let status = policy_status(&world, Kind::FilterPolicy, world.get(&key).unwrap().resource.metadata());
        let resolved = status.iter().find(|condition| condition.kind == "SecretsResolved").unwrap();
        assert_eq!((resolved.status, resolved.reason), (false, "SecretNotFound"), "{expect}");
        assert_eq!(resolved.message, format!("{expect}: what it would judge is refused (onFailure: Deny)"));
        let found = lint::check(&world, Scope::Whole);
        let found: Vec<_> = found.iter().filter(|finding| finding.code == Code::SecretMissing).collect();
        assert!(!found.is_empty() && found.iter().all(|finding| finding.object == key), "{expect}");
    }
    let both = "Secret shop/s does not exist; Secret shop/s does not exist";
    check("", both);
    check(&secret("partner", "token: t1, hmac: h1"), both);
    check(&secret("weft-system", "token: t1, hmac: h1"), both);
    check(&secret("shop", "hmac: h1"), "Secret shop/s has no value token");

    let there = mesh(&secret("shop", "token: t1, hmac: h1"), "");
    let key = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
    let status = policy_status(&there, Kind::FilterPolicy, there.get(&key).unwrap().resource.metadata());
    assert!(status.iter().any(|condition| condition.kind == "SecretsResolved" && condition.status));
    assert!(lint::check(&there, Scope::Whole).iter().all(|finding| finding.code != Code::SecretMissing));

    // Where requests may do without it, it is left out.
    let mut allows = mesh("", "");
    let Resource::FilterPolicy(mut policy) = allows.get(&key).unwrap().resource.clone() else { panic!("a policy") };
    policy.spec.on_failure = OnFailure::Allow;
    allows.put(&Owner::Applied, Resource::FilterPolicy(policy), Revision(100), "uid").unwrap();
    assert_eq!(attached(&allows, "shop/web-1"), None);
}

/// What a store shows in place of a value, and what can't be opened, is no value.
#[test]
fn what_is_not_known_is_not_handed_out() {
    let key = ObjectKey::new(Kind::Secret, "shop", "s");
    for text in ["redacted (2 bytes, sha256 0000..)", "sealed:AAAA"] {
        let mut world = mesh(&secret("shop", "token: t1, hmac: h1"), "");
        let mut record = world.get(&key).unwrap().resource.revealed().unwrap();
        record["spec"]["data"]["hmac"] = text.into();
        world.put(&Owner::Applied, serde_json::from_value(record).unwrap(), Revision(100), "uid").unwrap();
        assert_eq!(attached(&world, "shop/web-1").unwrap().filter, "authz", "{text}");
    }
    let mut unread = mesh(&secret("shop", "token: t1, hmac: h1"), "");
    unread.remove(&key);
    unread.note_unreadable(key);
    assert_eq!(attached(&unread, "shop/web-1").unwrap().filter, "authz");
}

#[test]
fn a_rotation_reaches_those_who_run_the_filter() {
    let world = mesh(&secret("shop", "token: t1, hmac: h1"), "");
    let shared = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
    let mut rotated = world.clone();
    let text = secret("shop", "token: t2, hmac: h1");
    let new = manifest::parse("", text.trim_start_matches("---\n")).unwrap().remove(0).resource;
    rotated.put(&Owner::Applied, new, Revision(100), "uid").unwrap();
    let served = [name("shop/web-1")];
    let asked = std::collections::BTreeSet::new();
    let scope = shared.scope(&served, &asked);
    let next = shared.next(Arc::new(rotated.clone()), "ROOTS");
    assert!(next.concerns(&shared, &served, &asked, &scope), "it is told at once");
    assert_eq!(values(&attached(&rotated, "shop/web-1").unwrap())[0], [("token", &b"t2"[..])]);
    assert_eq!(rotated.get(&ObjectKey::new(Kind::Secret, "shop", "s")).unwrap().generation, 2);
}
