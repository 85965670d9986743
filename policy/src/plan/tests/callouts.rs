//! What filters are granted, as their proxies are told of it, and the services that they call.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::tenancy::calling_filter;
use super::*;
use crate::bundle::{CalloutGrant, CalloutService, FilterLimits, Grant, KvGrant, KvScope, OverBody};
use crate::scope::Ask;

const OUTSIDE: &str = "
apiVersion: weft.dev/v1alpha1
kind: ExternalService
metadata: {name: idp, namespace: shop}
spec: {hosts: ['*.idp.example', keys.idp.example], ports: [{port: 443, protocol: http}, {port: 22, protocol: tcp}]}
---
apiVersion: v1
kind: Service
metadata: {name: store, namespace: partner}
spec: {selector: {app: web}, ports: [{name: web, port: 80}, {name: db, port: 5432, appProtocol: tcp}]}
";

/// The attachment of a policy in `shop` that grants `capabilities`.
fn attached(filter: &str, capabilities: &str, more: &str) -> Granted {
    let policy =
        filter_policy("shop/p", &format!("{{filter: {{name: {filter}}}, capabilities: [{capabilities}]{more}}}"));
    let world = shop_and(&format!("{}---\n{OUTSIDE}---\n{policy}", calling_filter()));
    let bundle = bundle(&world, &["shop/web-1"]);
    let filter = bundle.filters["shop/p"].clone();
    Granted { words: filter.capabilities, grants: filter.grants, limits: filter.limits }
}

#[derive(Debug, PartialEq)]
struct Granted {
    words: Vec<String>,
    grants: Vec<Grant>,
    limits: FilterLimits,
}

#[test]
fn what_a_policy_grants_reaches_the_attachment() {
    let body = ", limits: {bodyBytes: 4096, overBody: Pass}";
    let got = attached("quota", "log, crypto, wasi, {kv: {entries: 5, bytes: 2048, scope: Filter}}", body);
    let limits = FilterLimits { body_bytes: 4096, over_body: OverBody::Pass, ..FilterLimits::default() };
    let grants = vec![Grant::Kv(KvGrant { entries: 5, bytes: 2048, scope: KvScope::Filter })];
    let words = ["log", "crypto", "wasi"].map(str::to_owned).to_vec();
    assert_eq!(got, Granted { words, grants, limits });
    let word_alone = attached("quota", "kv", "").grants;
    assert_eq!(word_alone, [Grant::Kv(KvGrant { entries: 10_000, bytes: 1 << 20, scope: KvScope::Policy })]);
}

/// A proxy that runs nothing but the first contract may know nothing of grants: it has to be able to read the
/// attachment.
#[test]
fn a_filter_of_the_first_contract_is_told_what_it_knows() {
    let body = ", limits: {bodyBytes: 4096, overBody: Pass}";
    let got =
        attached("ratelimit", "token-bucket, crypto, wasi, kv, {callout: {services: [{name: web, port: 80}]}}", body);
    let words = vec!["token-bucket".to_owned()];
    assert_eq!(got, Granted { words, grants: Vec::new(), limits: FilterLimits::default() });
}

#[test]
fn callouts_lead_to_what_is_there() {
    fn check(service: &str, expect: Result<&str, &str>) {
        let granted = format!("{{callout: {{services: [{{{service}}}]}}}}");
        let grants: [Grant; 1] = attached("quota", &granted, "").grants.try_into().unwrap();
        let [Grant::Callout(CalloutGrant { services })] = grants else { panic!("{service}: callouts") };
        let [CalloutService { authority, .. }]: [CalloutService; 1] = services.try_into().unwrap();
        assert_eq!(authority.as_deref(), expect.ok(), "{service}");
        let policy = filter_policy("shop/p", &format!("{{filter: {{name: quota}}, capabilities: [{granted}]}}"));
        let world = shop_and(&format!("{}---\n{OUTSIDE}---\n{policy}", calling_filter()));
        let key = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
        let status = policy_status(&world, Kind::FilterPolicy, world.get(&key).unwrap().resource.metadata());
        let resolved = status.iter().find(|condition| condition.kind == "CalloutsResolved").unwrap();
        let told: Vec<_> = lint::check(&world, Scope::Whole)
            .into_iter()
            .filter(|finding| finding.code == Code::CalloutNowhere)
            .map(|finding| (finding.key, finding.message))
            .collect();
        match expect {
            Ok(_) => assert_eq!((resolved.status, told), (true, Vec::new()), "{service}"),
            Err(why) => {
                let message = format!("{why}: callouts to it fail");
                assert_eq!((resolved.status, resolved.reason), (false, "BackendNotFound"), "{service}");
                assert_eq!(resolved.message, message);
                assert_eq!(told, [("spec.capabilities[0].callout.services[0]".to_owned(), message)]);
            }
        }
    }
    check("name: web, port: 80", Ok("web.shop.svc.cluster.local:80"));
    check("name: store, namespace: partner, port: 80", Ok("store.partner.svc.cluster.local:80"));
    check("name: webb, port: 80", Err("Service shop/webb does not exist"));
    check("name: web, port: 81", Err("Service shop/web has no port 81"));
    check(
        "name: store, namespace: partner, port: 5432",
        Err("Service partner/store: port 5432 is declared tcp: it takes no HTTP requests"),
    );
    check("kind: ExternalService, name: idp, port: 443", Ok("keys.idp.example:443"));
    check("kind: ExternalService, name: idp, port: 80", Err("ExternalService shop/idp has no port 80"));
    check(
        "kind: ExternalService, name: idp, port: 22",
        Err("ExternalService shop/idp takes no HTTP requests at port 22; with `tls: {mode: Originate}` it is http"),
    );
    check("kind: ExternalService, name: gone, port: 443", Err("ExternalService shop/gone does not exist"));
}

#[test]
fn an_external_service_of_another_namespace_is_for_that_one() {
    let policy = filter_policy(
        "partner/p",
        "{filter: {name: quota}, capabilities: [{callout: {services: [{kind: ExternalService, name: idp, namespace: shop, port: 443}]}}]}",
    );
    let world = shop_and(&format!("{}---\n{OUTSIDE}---\n{policy}", calling_filter()));
    let told = |world: &World| {
        let found = lint::check(world, Scope::Whole).into_iter().find(|finding| finding.code == Code::CalloutNowhere);
        found.unwrap().message
    };
    let expect = "ExternalService shop/idp is for its own namespace only: callouts to it fail";
    assert_eq!(told(&world), expect);
    let without = shop_and(&format!("{}---\n{policy}", calling_filter()));
    assert_eq!(told(&without), expect, "nobody is told whether there is one");
}

/// A JwtPolicy that has keys fetched grants its filter that, and is told where the service is not there.
#[test]
fn keys_that_are_fetched_lead_to_what_is_there() {
    let jwt = calling_filter().replace("name: quota", "name: jwt").replace("[log,", "[log, crypto,");
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: JwtPolicy\nmetadata: {name: p, namespace: shop}\nspec: {issuers: [{issuer: a, jwks: \
                  {callout: {name: store, namespace: partner, port: 80, path: /keys}}}]}\n";
    let without = shop_and(&format!("{jwt}---\n{policy}"));
    let told = lint::check(&without, Scope::Whole).into_iter().find(|finding| finding.code == Code::CalloutNowhere);
    let message = "Service partner/store does not exist: callouts to it fail".to_owned();
    assert_eq!(told.map(|finding| (finding.key, finding.message)), Some(("spec".to_owned(), message)));
    let world = shop_and(&format!("{jwt}---\n{OUTSIDE}---\n{policy}"));
    let attached = bundle(&world, &["shop/web-1"]).filters["shop/p#JwtPolicy"].clone();
    let callout = attached.grants.iter().find_map(|grant| match grant {
        Grant::Callout(callout) => Some(callout.services.clone()),
        Grant::Kv(_) | Grant::Secret(_) | Grant::CryptoKeys(_) => None,
    });
    let authority = Some("store.partner.svc.cluster.local:80".to_owned());
    assert_eq!(callout, Some(vec![CalloutService { name: "service/partner/store:80".to_owned(), authority }]));
    let scope = scope_of(&world, &[name("shop/web-1")], &BTreeSet::new());
    assert!(scope.contains(&name("partner/store")), "{scope:?}");
}

/// A proxy that holds what it uses holds what its filters call, from the moment that it is there.
#[test]
fn what_a_filter_calls_is_in_scope() {
    let policy = filter_policy(
        "shop/p",
        "{targetRefs: [{kind: Workload, name: web-1}], filter: {name: quota}, capabilities: [{callout: {services: [{name: store, \
         namespace: partner, port: 80}]}}]}",
    );
    let world = shop_and(&format!("{}---\n{policy}", calling_filter()));
    let scope = |world: &World, served: &str| -> Vec<String> {
        scope_of(world, &[name(served)], &BTreeSet::new()).iter().map(ToString::to_string).collect()
    };
    assert_eq!(scope(&world, "shop/web-1"), ["shop/web"], "what is not there is not held");
    let (served, asked) = ([name("shop/web-1")], BTreeSet::<Ask>::new());
    let shared = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
    let before = shared.scope(&served, &asked);
    assert!(!shared.of_scope(&served, &before).is_empty());
    let mut grown = world.clone();
    let store = manifest::parse("", OUTSIDE.split("---").nth(1).unwrap()).unwrap().remove(0).resource;
    grown.put(&Owner::Applied, store, Revision(99), "uid").unwrap();
    assert_eq!(scope(&grown, "shop/web-1"), ["partner/store", "shop/web"]);
    assert_eq!(scope(&grown, "shop/web-2"), ["shop/web", "shop/web-v2"], "another's filter");
    let next = shared.next(Arc::new(grown), "ROOTS");
    assert!(!next.of_scope(&served, &next.scope(&served, &asked)).is_empty());
    assert!(next.concerns(&shared, &served, &asked, &before), "it is told at once");
}
