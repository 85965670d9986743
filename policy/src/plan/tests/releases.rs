//! Which version of a filter a policy runs, and what runs where its publisher is not trusted.

use std::collections::BTreeMap;

use super::*;
use crate::bundle::{FilterAttachment, FilterLimits};
use crate::resource::FilterSpec;
use crate::resource::filter::STABLE;

const OWN: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuI=\n-----END PUBLIC KEY-----\n";

fn spec(version: &str) -> FilterSpec {
    let digits: String = version.bytes().map(|byte| format!("{byte:02x}")).collect();
    FilterSpec {
        version: version.to_owned(),
        digest: format!("sha256:{digits:0>64}"),
        signature: "c2ln".to_owned(),
        public_key: OWN.to_owned(),
        size: 10,
        abi: "weft:filter@0.1.0".to_owned(),
        capabilities: Vec::new(),
        config_schema: None,
    }
}

/// The shop with these versions of the filter `mine`, each with the channels that it is or was in; `stable` stands for
/// the newest of it.
fn mesh(releases: &[(&str, &[(&str, u64)])], policy: &str, mesh: &str) -> World {
    let text = format!(
        "{SHOP}---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{filter: {{name: mine{policy}}}}}\n{mesh}"
    );
    let mut world = world(&text);
    for (version, channels) in releases {
        let channels = channels.iter().map(|(channel, since)| ((*channel).to_owned(), *since));
        let release = Release { channels: Some(channels.collect()), ..Release::of(spec(version)) };
        world.note_release("mine", release);
    }
    let root = name("weft-system/mine");
    let newest = world.releases(&root).filter_map(|release| Some((release.since(STABLE)?, release.spec.clone())));
    let stable = newest.max_by_key(|(since, _)| *since).map(|(_, spec)| spec);
    if let Some(spec) = stable {
        stand_for(&mut world, spec);
    }
    world
}

/// `stable` stands for this version from now on.
fn stand_for(world: &mut World, spec: FilterSpec) {
    let metadata = crate::resource::Metadata {
        name: "mine".to_owned(),
        namespace: "weft-system".to_owned(),
        ..Default::default()
    };
    let filter = Resource::Filter(crate::resource::Object { metadata, spec });
    world.put(&Owner::Applied, filter, Revision(99), "uid").unwrap();
}

fn attached(world: &World) -> Option<FilterAttachment> {
    filters_for(world, &[name("shop/web-1")]).remove("shop/p")
}

const VERSIONS: &[(&str, &[(&str, u64)])] = &[
    ("1.2.0", &[(STABLE, 1)]),
    ("1.2.9", &[(STABLE, 2)]),
    ("1.10.0", &[(STABLE, 3), ("beta", 4)]),
    ("1.11.0", &[("beta", 5)]),
    ("2.0.0-rc.1", &[("beta", 6)]),
    ("2.0.0", &[]),
];

#[test]
fn a_policy_runs_what_its_channel_stands_for_or_what_it_names() {
    for (policy, expect) in [
        ("", Some("1.10.0")),
        (", channel: stable", Some("1.10.0")),
        (", channel: beta", Some("2.0.0-rc.1")),
        (", channel: nightly", None),
        (", version: 1.2.0", Some("1.2.0")),
        (", version: =1.2.9", Some("1.2.9")),
        (", version: 2.0.0", Some("2.0.0")),
        (", version: 3.0.0", None),
        (", version: ~1.2", Some("1.2.9")),
        (", version: ^1.2", Some("1.10.0")),
        (", version: ^1.2, channel: beta", Some("1.11.0")),
        // Published alone it is in no channel, and a range takes no pre-release.
        (", version: ^2", None),
        (", version: '>=2.0.0-rc.1', channel: beta", None),
    ] {
        let world = mesh(VERSIONS, policy, "");
        let runs = attached(&world).expect("it is attached, be it to nothing");
        assert_eq!(Some(runs.version.as_str()).filter(|version| !version.is_empty()), expect, "{policy}");
        let key = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
        let status = policy_status(&world, Kind::FilterPolicy, world.get(&key).unwrap().resource.metadata());
        assert_eq!(status[1].status, expect.is_some(), "{}", status[1].message);
        let codes: Vec<_> = lint::errors(&world).into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes.contains(&Code::FilterVersion), expect.is_none(), "{policy}: {codes:?}");
    }
}

#[test]
fn who_names_a_yanked_version_keeps_it_and_is_told() {
    let yank = |world: &mut World, version: &str| {
        let mut release = world.release(&name("weft-system/mine"), version).unwrap().clone();
        release.yanked = true;
        world.note_release("mine", release);
    };
    for (policy, expect) in [(", version: ~1.2", "1.2.0"), (", version: 1.2.9", "1.2.9"), ("", "1.10.0")] {
        let mut world = mesh(VERSIONS, policy, "");
        yank(&mut world, "1.2.9");
        assert_eq!(attached(&world).unwrap().version, expect, "{policy}");
        let told = lint::check(&world, Scope::Whole).into_iter().any(|finding| finding.code == Code::FilterYanked);
        assert_eq!(told, expect == "1.2.9", "{policy}");
    }
}

#[test]
fn a_channel_knows_what_it_stood_for_before() {
    let root = name("weft-system/mine");
    let before = |world: &World, channel: &str| {
        world.before_in_channel(&root, channel).map(|release| release.spec.version.clone())
    };
    let world = mesh(VERSIONS, "", "");
    assert_eq!(before(&world, STABLE).as_deref(), Some("1.2.9"));
    assert_eq!(before(&world, "beta").as_deref(), Some("1.11.0"));
    assert_eq!(before(&world, "nightly"), None);
    assert_eq!(world.channels_of(&root, "1.10.0"), [STABLE]);
    assert_eq!(world.channels_of(&root, "1.2.9"), [""; 0]);
    // Versions from before there were channels were all for everybody.
    let mut world = mesh(&[], "", "");
    for version in ["1.9.0", "1.10.0", "1.2.0"] {
        world.note_release("mine", Release { channels: None, ..Release::of(spec(version)) });
    }
    stand_for(&mut world, spec("1.10.0"));
    assert_eq!(before(&world, STABLE).as_deref(), Some("1.9.0"));
    let marks = world.release(&root, "1.2.0").unwrap().marks();
    assert_eq!(marks, BTreeMap::from([(STABLE.to_owned(), 0)]));
}

#[test]
fn a_filter_of_a_publisher_who_is_not_trusted_any_more_does_not_run() {
    let publishers = |key: &str| {
        let key = key.replace('\n', "\\n");
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{filterPublishers: [\"{key}\"]}}\n"
        )
    };
    let trusted = attached(&mesh(VERSIONS, "", &publishers(OWN))).unwrap();
    assert_eq!((trusted.filter.as_str(), trusted.version.as_str()), ("mine", "1.10.0"));

    let world = mesh(VERSIONS, "", &publishers(OTHER));
    let closed = attached(&world).unwrap();
    assert_eq!((closed.filter.as_str(), closed.authorization), ("authz", false));
    let config: authz::Config = serde_json::from_str(&closed.config.0).unwrap();
    let engine = authz::Engine::new(&config).unwrap();
    let request = authz::Request::connection(Some("spiffe://cluster.local/ns/shop/sa/web"), 8080);
    let decision = engine.decide(&request);
    assert!(!decision.allowed && decision.rule.unwrap().starts_with("shop/p.publisher-not-trusted"), "{decision:?}");
    let told = lint::check(&world, Scope::Whole);
    let told = told.iter().find(|finding| finding.code == Code::PublisherDistrusted).unwrap();
    assert!(told.message.contains("is refused (onFailure: Deny)"), "{}", told.message);

    // One for a route keeps no other request back.
    let of_route = "}, targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], \
                    direction: Outbound, limits: {memoryBytes: 16777216";
    let closed = attached(&mesh(VERSIONS, of_route, &publishers(OTHER))).unwrap();
    assert_eq!((closed.filter.as_str(), closed.rules.len()), ("authz", 1));

    // Where requests may do without it, it is left out; what ships with the control plane needs no key.
    let mut allows = mesh(VERSIONS, "", &publishers(OTHER));
    let key = ObjectKey::new(Kind::FilterPolicy, "shop", "p");
    let Resource::FilterPolicy(mut policy) = allows.get(&key).unwrap().resource.clone() else { panic!("a policy") };
    policy.spec.on_failure = crate::bundle::OnFailure::Allow;
    allows.put(&Owner::Applied, Resource::FilterPolicy(policy), Revision(100), "uid").unwrap();
    assert_eq!(attached(&allows), None);
    let mut shipped = mesh(VERSIONS, "", &publishers(OTHER));
    let mut release = shipped.release(&name("weft-system/mine"), "1.10.0").unwrap().clone();
    release.shipped = true;
    shipped.note_release("mine", release);
    let attachment = attached(&shipped).unwrap();
    assert_eq!((attachment.version.as_str(), attachment.shipped), ("1.10.0", true));
}

#[test]
fn a_publisher_is_trusted_with_the_names_that_it_has() {
    let unlimited = |key: &str| {
        let key = key.replace('\n', "\\n");
        format!(
            "---\n{{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {{name: mesh}}, spec: {{filterPublishers: [\"{key}\"]}}}}\n"
        )
    };
    let limited = |name: &str, key: &str, filters: &str| {
        let key = key.replace('\n', "\\n");
        format!(
            "---\n{{apiVersion: weft.dev/v1alpha1, kind: FilterPublisher, metadata: {{name: {name}}}, spec: {{keys: [\"{key}\"], \
             filters: [{filters}]}}}}\n"
        )
    };
    let check = |publishers: &str, expect: bool| {
        let world = mesh(VERSIONS, "", publishers);
        let filter = if expect { "mine" } else { "authz" };
        assert_eq!(attached(&world).unwrap().filter, filter, "{publishers}");
        let told = lint::check(&world, Scope::Whole);
        assert_eq!(told.iter().all(|finding| finding.code != Code::PublisherDistrusted), expect, "{publishers}");
    };
    for (filters, expect) in
        [("mine", true), ("'mi*'", true), ("'*'", true), ("yours, 'acme-*'", false), ("min", false)]
    {
        check(&limited("p", OWN, filters), expect);
        check(&limited("p", OTHER, filters), false);
        check(&(limited("p", OTHER, "'*'") + &limited("q", OWN, filters)), expect);
        check(&(unlimited(OTHER) + &limited("p", OWN, filters)), expect);
        check(&(unlimited(OWN) + &limited("p", OTHER, filters)), true);
    }
    // One that can't be read is there, and trusts nobody.
    let mut unread = mesh(VERSIONS, "", "");
    assert!(unread.trusts_everybody());
    unread.note_unreadable(ObjectKey::new(Kind::FilterPublisher, "", "p"));
    assert_eq!(attached(&unread).unwrap().filter, "authz");
}

#[test]
fn what_ships_is_handed_out_in_a_contract_that_a_proxy_runs() {
    let mut world = mesh(VERSIONS, "", "");
    let root = name("weft-system/mine");
    let of = |version: &str, abi: &str| FilterSpec { abi: format!("weft:filter@{abi}"), ..spec(version) };
    for (version, abi) in [("1.2.9", "0.1.0"), ("1.10.0", "0.2.0"), ("1.2.0", "0.1.3"), ("2.0.0", "0.2.0")] {
        let known = world.release(&root, version).unwrap().clone();
        world.note_release("mine", Release { shipped: true, spec: of(version, abi), ..known });
    }
    stand_for(&mut world, of("1.10.0", "0.2.0"));
    let today = attached(&world).unwrap();
    assert_eq!((today.version.as_str(), today.contract.as_str()), ("1.10.0", "wit-0.2"));
    let given =
        |world: &World, filter: &FilterAttachment, contract: &str| world.shipped_for(filter, |it| it == contract);
    let older = given(&world, &today, "wit-0.1").unwrap();
    let spec = world.published_version(&root, "1.2.9").unwrap();
    let FilterSpec { version, digest, signature, public_key: public_key_pem, .. } = spec.clone();
    let contract = "wit-0.1".to_owned();
    let expect = FilterAttachment { version, digest, signature, public_key_pem, contract, ..today.clone() };
    assert_eq!(older, expect, "with the configuration of today");
    assert_eq!(given(&world, &today, "wit-0.9"), None);
    // What an earlier contract has no place for is not left out.
    let limits = FilterLimits { body_bytes: 7, ..today.limits.clone() };
    assert_eq!(given(&world, &FilterAttachment { limits, ..today.clone() }, "wit-0.1"), None);
    // Nobody's own filter is taken for another version of it.
    let known = world.release(&root, "1.10.0").unwrap().clone();
    world.note_release("mine", Release { shipped: false, ..known });
    assert_eq!(given(&world, &today, "wit-0.1"), None);
}
