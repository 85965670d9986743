//! Worlds in, findings out. Every code is shown by its own example, and the page about the codes is the table's.

use proptest::prelude::*;

use super::reference::BASE;
use super::*;
use crate::bundle::Revision;
use crate::identity::TrustDomain;
use crate::manifest;
use crate::plan::tests::shared::{steps, take};
use crate::plan::tests::tenancy::{drawn, tenants};
use crate::plan::{Owner, work};

/// Filters that every mesh has.
const SHIPPED: [(&str, &str); 3] = [("authz", "[]"), ("fault", "[]"), ("ratelimit", "[token-bucket]")];

/// A world of these documents beside those of the examples, without the filters named.
fn world_without(text: &str, absent: &[&str]) -> World {
    let shipped = SHIPPED.iter().filter(|(name, _)| !absent.contains(name)).map(|(name, capabilities)| {
        format!(
            "---\n{{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {{name: {name}, namespace: weft-system}}, spec: \
             {{version: 1.0.0, digest: 'sha256:{}', signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.1.0', \
             capabilities: {capabilities}}}}}\n",
            "a".repeat(64)
        )
    });
    let text = format!("{BASE}{}---\n{text}", shipped.collect::<String>());
    let documents = manifest::parse("world.yaml", &text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    let mut world = World::new(TrustDomain::default());
    for (index, document) in documents.into_iter().enumerate() {
        let revision = Revision(u64::try_from(index).unwrap() + 1);
        world.put(&Owner::Applied, document.resource, revision, "uid").unwrap();
    }
    world
}

fn world(text: &str) -> World {
    world_without(text, &[])
}

/// Findings as lines, with their places.
fn lint(text: &str, scope: Scope) -> Vec<String> {
    let line = |finding: &Finding| {
        let Finding { code, severity, object, key, message } = finding;
        format!("{} {code} {object}: {key}: {message}", severity.as_str())
    };
    check(&world(text), scope).iter().map(line).collect()
}

fn told(text: &str, expect: &[&str]) {
    assert_eq!(lint(text, Scope::Whole), expect, "{text}");
}

#[test]
fn a_host_outside_is_claimed_once() {
    let external = |name: &str, hosts: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: ExternalService, metadata: {{name: {name}, namespace: shop}}, spec: {{hosts: \
             [{hosts}], ports: [{{port: 443, protocol: tls}}]}}}}\n"
        )
    };
    let text = [external("z", "a.example, b.example"), external("a", "c.example, b.example")].join("---\n");
    told(
        &text,
        &[
            "warning WEFT217 ExternalService shop/a: spec.hosts[1]: for this host the older ExternalService shop/z holds at the ports \
           that both have",
        ],
    );
}

fn access(spec: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: p, namespace: shop}}, spec: {spec}}}\n"
    )
}

fn route(name: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: shop}}, spec: \
         {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: {rules}}}}}\n"
    )
}

const TO_WEB: &str = "backendRefs: [{name: web, port: 80}]";

#[test]
fn every_example_shows_its_code_and_nothing_is_found_beside_them() {
    assert_eq!(lint("", Scope::Whole), [""; 0], "the objects of the examples");
    // Found by the parser, by a comparison with what was before, in what a control plane lacks, and by trying.
    let elsewhere = [
        Code::Unfit,
        Code::Unprotects,
        Code::Opens,
        Code::GrantedBySelector,
        Code::AuthzMissing,
        Code::NeverPublished,
        Code::PolicyRefused,
        Code::PolicyUntried,
        Code::FilterYanked,
        Code::PublisherDistrusted,
    ];
    assert!(CODES.len() >= 25);
    for about in CODES {
        if about.example.is_empty() {
            assert!(elsewhere.contains(&about.code), "{} has no example", about.code);
            continue;
        }
        let findings = check(&world(about.example), Scope::Whole);
        let own = findings.iter().find(|finding| finding.code == about.code);
        let own = own.unwrap_or_else(|| panic!("{} is not in {findings:#?}", about.code));
        assert_eq!(own.severity, about.severity, "{own:?}");
        let is_refused = errors(&world(about.example)).iter().any(|finding| finding.place() == own.place());
        assert_eq!(is_refused, about.severity == Severity::Error, "{own:?}");
    }
    let unpublished = errors(&world_without(&access("{rules: []}"), &["authz"]));
    assert_eq!(unpublished.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::AuthzMissing]);
}

#[test]
fn numbers_are_ascending_and_codes_are_read_again() {
    assert!(CODES.windows(2).all(|pair| pair[0].number < pair[1].number));
    for about in CODES {
        assert_eq!(about.id().parse(), Ok(about.code));
    }
    assert_eq!(Code::ServicePort.to_string(), "WEFT204");
    assert!("WEFT999".parse::<Code>().is_err());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the page is written anew where that is asked for")]
fn the_page_says_what_the_table_says() {
    let page = include_str!("../../../docs/lint.md");
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lint.md"), reference()).unwrap();
    }
    assert!(page == reference(), "docs/lint.md differs: write it anew by `weft lint --codes > docs/lint.md`");
}

#[test]
fn what_leaves_open_is_an_error_and_what_closes_too_much_a_warning() {
    let check = |spec: &str, severity: Severity, code: Code| {
        let found = check(&world(&access(spec)), Scope::Whole);
        let found = found.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("{spec}: {found:?}"));
        assert_eq!(found.severity, severity, "{spec}: {found:?}");
    };
    let (error, warning) = (Severity::Error, Severity::Warning);
    for (entry, except, code) in [
        ("to: [{methods: ['*']}]", "to: [{notMethods: ['*'], paths: [/x]}]", Code::AnyMethod),
        ("to: [{ports: [80]}]", "to: [{notPorts: [80]}]", Code::ServicePort),
        (
            "from: [{principals: ['spiffe://b/ns/a/sa/b']}]",
            "from: [{notPrincipals: ['spiffe://b/*']}]",
            Code::ForeignPrincipal,
        ),
    ] {
        check(&format!("{{action: Deny, rules: [{{{entry}}}]}}"), error, code);
        check(&format!("{{action: Allow, rules: [{{{entry}}}]}}"), warning, code);
        check(&format!("{{action: Deny, rules: [{{{except}}}]}}"), warning, code);
        check(&format!("{{action: Allow, rules: [{{{except}}}]}}"), error, code);
    }
    for never in [
        "to: [{methods: [GET], notMethods: [GET, PUT]}]",
        "to: [{paths: [/a], notPaths: ['*']}]",
        "to: [{ports: [8080], notPorts: [8080]}]",
        "to: [{headers: [{name: x-a, present: false}, {name: X-A, exact: b}]}]",
        "to: [{headers: [{name: x-a, exact: ' b'}]}]",
        "to: [{headers: [{name: x-a, prefix: ' b'}]}]",
        "from: [{namespaces: [shop], notNamespaces: [shop]}]",
        "from: [{namespaces: [other], serviceAccounts: [shop/web]}]",
        "from: [{serviceAccounts: [shop/web], notNamespaces: [shop]}]",
        "from: [{namespaces: [shop], notPrincipals: ['*']}]",
        "from: [{ipBlocks: [10.1.0.0/16, 10.2.0.1], notIpBlocks: [10.0.0.0/8]}]",
        "to: [{hosts: [a.example, '*.b.example'], notHosts: ['*.example']}]",
    ] {
        check(&format!("{{action: Deny, rules: [{{{never}}}]}}"), error, Code::Contradiction);
        check(&format!("{{action: Allow, rules: [{{{never}}}]}}"), warning, Code::Contradiction);
    }
}

#[test]
fn what_can_hold_is_left_alone() {
    told(&access("{rules: [{from: [{principals: ['spiffe://cluster.local/*', 'spiffe://*', '*']}]}]}"), &[]);
    told(
        &access(
            "{action: Deny, rules: [{from: [{namespaces: [shop]}], to: [{methods: [GET, PURGE], ports: [8080], \
             headers: [{name: x-a, exact: 'a, b'}]}]}]}",
        ),
        &[],
    );
    told(
        &route(
            "r",
            &format!(
                "[{{matches: [{{path: {{type: Exact, value: /a}}}}, {{path: {{value: /a}}}}, {{path: {{value: /a}}, method: \
                 GET}}], {TO_WEB}}}, {{{TO_WEB}}}]"
            ),
        ),
        &[],
    );
}

#[test]
fn a_redirect_has_to_lead_elsewhere() {
    fn check(matches: &str, redirect: &str, expect: bool) {
        let rules =
            format!("[{{matches: [{matches}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]");
        let text = "warning WEFT121 HTTPRoute shop/r: spec.rules[0].filters[0].requestRedirect: it leads to the address that was \
                    asked for";
        told(&route("r", &rules), &[text][..usize::from(expect)]);
    }
    let prefix = |to: &str| format!("{{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}}}");
    check("", "{}", true);
    check("{path: {value: /a}}", "{statusCode: 308}", true);
    check("{path: {value: /a}}", &prefix("/a"), true);
    check("{path: {value: /a}}", &prefix("/b"), false);
    check("", "{path: {type: ReplaceFullPath, replaceFullPath: /x}}", false);
    check("", "{hostname: shop.example}", false);
    check("", "{scheme: https}", false);
    check("", "{port: 8081}", false);
}

#[test]
fn a_service_for_which_a_route_decides_needs_no_selector() {
    let parent = "{apiVersion: v1, kind: Service, metadata: {name: front, namespace: shop}, spec: {ports: [{port: 80, appProtocol: http}]}}\n";
    told(parent, &["warning WEFT303 Service shop/front: spec.selector: no workload ever stands behind it"]);
    let attached =
        route("r", &format!("[{{{TO_WEB}}}]")).replace("kind: Service, name: web}]", "kind: Service, name: front}]");
    told(&format!("{parent}---\n{attached}"), &[]);
}

#[test]
fn what_was_perhaps_meant_is_said() {
    let to = |backend: &str| route("r", &format!("[{{backendRefs: [{{name: {backend}, port: 80}}]}}]"));
    let missing = "warning WEFT103 HTTPRoute shop/r: spec.rules[0].backendRefs[0]: Service shop";
    told(&to("wbe"), &[&format!("{missing}/wbe does not exist; did you mean `web`?")]);
    told(&to("orders"), &[&format!("{missing}/orders does not exist")]);
    told(
        &access("{rules: [{from: [{serviceAccounts: [shop/wep], namespaces: [shop]}]}]}"),
        &[
            "warning WEFT207 AccessPolicy shop/p: spec.rules[0].from[0].serviceAccounts[0]: no workload has the account \
           shop/wep; did you mean `web`?",
        ],
    );
    let service = "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}, spec: {selector: {aap: web}, ports: [{port: 80}]}}";
    told(
        service,
        &[
            "warning WEFT302 Service shop/b: spec.selector: no workload of namespace shop has these labels; did you mean \
           app: web?",
        ],
    );
}

#[test]
fn a_rule_behind_one_for_everything_is_told() {
    let second =
        "[{name: all, BACKENDS}, {matches: [{path: {value: /}}, {path: {value: /a}}, {path: {value: /a/}}], BACKENDS}]"
            .replace("BACKENDS", TO_WEB);
    told(
        &route("r", &second),
        &[
            "warning WEFT108 HTTPRoute shop/r: spec.rules[1].matches[0]: is never met: spec.rules[0] holds for every \
             request and comes first",
            "warning WEFT108 HTTPRoute shop/r: spec.rules[1].matches[2]: is never met: spec.rules[1].matches[1] has the \
             same conditions and comes first",
        ],
    );
    let older = format!("[{{matches: [{{headers: [{{name: x-a, value: b}}]}}], {TO_WEB}}}]");
    let younger = format!("[{{matches: [{{headers: [{{name: x-a, value: b}}, {{name: x-a, value: c}}]}}], {TO_WEB}}}]");
    let findings = check(&world(&format!("{}---\n{}", route("z", &older), route("a", &younger))), Scope::Whole);
    let shadowed = findings.iter().find(|finding| finding.code == Code::ShadowedRoute).unwrap();
    assert_eq!(shadowed.object.name, "a", "the younger is behind, whatever its name");
}

#[test]
fn files_alone_refuse_nothing_for_what_is_elsewhere() {
    let text = format!(
        "{}---\n{}",
        access("{targetRefs: [{kind: Service, name: orders}], rules: [{from: [{serviceAccounts: [pay/pay]}]}]}"),
        "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: f, namespace: shop}, spec: {filter: {name: own}}}"
    );
    let lines = lint(&text, Scope::Files);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in &lines {
        assert!(line.starts_with("note ") && line.ends_with("; judged by these files alone"), "{line}");
    }
    // Of workloads nothing is said where none are written down: they register themselves.
    let alone = manifest::parse("a.yaml", &access("{rules: [{from: [{serviceAccounts: [pay/pay]}]}]}")).unwrap();
    let mut world = World::new(TrustDomain::default());
    world.put(&Owner::Applied, alone.into_iter().next().unwrap().resource, Revision(1), "").unwrap();
    let codes: Vec<_> = check(&world, Scope::Files).into_iter().map(|finding| finding.code).collect();
    assert!(codes.is_empty(), "shipped filters are in no file: {codes:?}");
    let unsafe_alone = lint(&access("{action: Deny, rules: [{to: [{methods: ['*']}]}]}"), Scope::Files);
    assert!(unsafe_alone[0].starts_with("error WEFT201"), "{unsafe_alone:?}");
}

#[test]
fn a_claim_that_a_policy_tells_is_no_finding() {
    let policy = |claims: &str, more: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: p, namespace: shop}},
 spec: {{rules: [{{from: [{{claims: [{{name: role, exact: guest}}]}}]}}]}}}}
---
{{apiVersion: weft.dev/v1alpha1, kind: JwtPolicy, metadata: {{name: j, namespace: shop}},
 spec: {{issuers: [{{issuer: a, jwks: {{keys: [{{kty: OKP, crv: Ed25519, x: MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc}}]}}}}], claims: {claims}{more}}}}}"
        )
    };
    let findings = |text: &str| {
        let found = check(&world(text), Scope::Whole).into_iter().filter(|it| it.code == Code::ClaimNotTold);
        found.map(|it| it.message).collect::<Vec<_>>()
    };
    assert_eq!(findings(&policy("[{claim: Role}]", "")), [""; 0]);
    let nobody = "no JwtPolicy tells the claim role at Workload shop/";
    for text in [policy("[{claim: roles}]", ""), policy("[{claim: role}]", ", mode: Audit")] {
        assert!(findings(&text)[0].starts_with(nobody), "{text} {:?}", findings(&text));
    }
}

#[test]
fn a_workload_on_another_port_than_its_services_is_told_as_it_joins() {
    let text =
        "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: web-2, namespace: shop, labels: {app: web}},
 spec: {address: 10.0.0.9, ports: [{port: 9090}]}}";
    let world = world(text);
    let of = |name: &str| of_workload(&world, world.workload(&name.parse().unwrap()).unwrap());
    let [finding] = &of("shop/web-2")[..] else { panic!("one finding") };
    assert_eq!(finding.code, Code::UnservedByWorkload);
    assert_eq!(
        finding.message,
        "stands behind Service shop/web, which leads to port 8080 of its workloads, and serves port 9090: it is no \
         endpoint of it"
    );
    assert_eq!(of("shop/web-1"), []);
}

#[test]
fn an_error_in_other_words_is_no_new_one() {
    let mut first = errors(&world(&access("{action: Deny, rules: [{to: [{ports: [80]}]}]}"))).remove(0);
    let again = first.clone();
    first.message.push_str(" and more");
    assert_eq!(first.place(), again.place());
}

/// `count` entries of a list, apart by commas.
fn entries(count: usize, entry: impl Fn(usize) -> String) -> String {
    (0..count).map(entry).collect::<Vec<_>>().join(", ")
}

#[test]
fn parts_of_a_deny_rule_are_not_multiplied_with_each_other() {
    let from = entries(1_000, |number| format!("{{namespaces: [a{number}]}}"));
    let to = entries(1_000, |number| format!("{{ports: [{}]}}", number + 1));
    let deny = access(&format!("{{action: Deny, rules: [{{from: [{from}], to: [{to}]}}]}}"));
    let allow =
        "{rules: [{from: [{namespaces: [a7]}], to: [{ports: [9]}]}, {from: [{namespaces: [b]}], to: [{ports: [9]}]}]}";
    let allow = access(allow).replace("name: p,", "name: q,");
    let world = world(&format!("{deny}---\n{allow}"));
    let mut contradicted = Vec::new();
    let work = work::of(|| {
        let found = check(&world, Scope::Whole).into_iter().filter(|finding| finding.code == Code::Contradicted);
        contradicted = found.map(|finding| (finding.object.name, finding.key)).collect();
    });
    assert_eq!(contradicted, [("q".to_owned(), "spec.rules[0]".to_owned())]);
    // Each of the 2,000 parts and each of some 2,000 entries with the few names that there are; 1,000,000 are the pairs.
    assert!((2_000..50_000).contains(&work), "{work}");
}

#[test]
fn hints_are_looked_for_so_long_and_no_longer() {
    let services = entries(500, |number| {
        format!(
            "{{kind: Service, apiVersion: v1, metadata: {{name: s{number}, namespace: shop}}, spec: {{selector: {{app: web}}}}}}"
        )
    });
    let targets = entries(1_000, |number| format!("{{kind: Service, name: t{number}}}"));
    let policy = access(&format!("{{targetRefs: [{targets}], rules: [{{}}]}}"));
    let world = world(&format!("{{kind: List, apiVersion: v1, items: [{services}]}}\n---\n{policy}"));
    let mut told = 0;
    let work = work::of(|| {
        told = check(&world, Scope::Whole).iter().filter(|finding| finding.code == Code::TargetMissing).count();
    });
    assert_eq!(told, 1_000, "each is told, with a hint or without");
    let most = u64::try_from(lens::MAX_COMPARED).unwrap();
    assert!((most..most + 20_000).contains(&work), "{work}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_a_change_brings_is_found_near_it(
        a in proptest::collection::vec(drawn(), 0..8),
        b in proptest::collection::vec(drawn(), 0..8),
        steps in steps(),
    ) {
        let mut world = tenants(&a, &b);
        for (index, step) in steps.iter().enumerate() {
            let before = world.clone();
            take(&mut world, step, index as u64 + 100);
            let near = Near::between(&before, &world, []);
            let new = |before: &[Finding], after: Vec<Finding>| {
                let known: BTreeSet<_> = before.iter().map(Finding::place).collect();
                after.into_iter().filter(|finding| !known.contains(&finding.place())).collect::<Vec<_>>()
            };
            let all = new(&errors(&before), errors(&world));
            let found = new(&errors_near(&before, &near), errors_near(&world, &near));
            prop_assert_eq!(found, all, "{:?} after {:?}", step, &steps[..index]);
            // What is told of an object that changed is what is told of it where all are looked at.
            let touched = before.differing(&world);
            let of = |findings: Vec<Finding>| -> Vec<_> {
                findings.into_iter().filter(|finding| touched.contains(&finding.object)).collect()
            };
            prop_assert_eq!(of(check_near(&world, &near)), of(check(&world, Scope::Whole)), "{:?}", step);
        }
    }
}

#[test]
fn of_capabilities_of_jwt_those_are_missed_that_its_keys_take() {
    let denied = |providers: &str| {
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {{name: jwt, namespace: weft-system}}, spec: {{version: \
             1.0.0, digest: 'sha256:{}', signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: \
             [crypto, kv, callout]}}}}\n---\n{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {{name: p, \
             namespace: shop}}, spec: {{filter: {{name: jwt}}, capabilities: [crypto], config: {{providers: [{providers}]}}}}}}",
            "c".repeat(64)
        );
        check(&world(&text), Scope::Whole).iter().filter(|finding| finding.code == Code::DeniedCapability).count()
    };
    assert_eq!(denied("{issuer: a, keys: []}"), 0, "keys that stand there");
    assert_eq!(denied("{issuer: a, keys: []}, {issuer: b, jwks: {callout: idp, path: /keys}}"), 2, "kv and callout");
}

#[test]
fn of_a_route_that_is_not_there_no_rule_is_missed() {
    let text = "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: p, namespace: shop}, spec: {direction: \
                Outbound, filter: {name: ratelimit}, capabilities: [token-bucket], targetRefs: [{group: \
                gateway.networking.k8s.io, kind: HTTPRoute, name: absent, sectionName: buy}]}}";
    let found = lint(text, Scope::Whole);
    let expect = "warning WEFT212 FilterPolicy shop/p: spec.targetRefs[0]: HTTPRoute shop/absent does not exist";
    assert!(found.iter().any(|line| line == expect), "{found:?}");
}

#[test]
fn a_callout_that_extauth_names_is_granted() {
    let told = |service: &str| {
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Filter, metadata: {{name: extauth, namespace: weft-system}}, spec: {{version: \
             1.0.0, digest: 'sha256:{}', signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.2.0', capabilities: \
             [callout]}}}}\n---\n{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {{name: p, namespace: shop}}, spec: \
             {{filter: {{name: extauth}}, capabilities: [{{callout: {{services: [{{name: auth, port: 80, as: asked}}]}}}}], config: \
             {{service: {service}}}}}}}",
            "c".repeat(64)
        );
        lint(&text, Scope::Whole).into_iter().filter(|line| line.contains("spec.config")).collect::<Vec<_>>()
    };
    assert_eq!(told("asked"), Vec::<String>::new());
    let expect = "warning WEFT421 FilterPolicy shop/p: spec.config.service: the policy's capability callout has no service auth: \
                  nobody is asked";
    assert_eq!(told("auth"), [expect], "its name is the one behind as");
}
