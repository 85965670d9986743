//! The hub without a network: whole applies, tokens used once, registrations that outlive a crash.

mod doors;
mod lacks;
mod overtaken;
mod protection;
mod rotation;
mod secrets;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::lint::Severity;
use weft_policy::manifest;
use weft_policy::plan::{Action, Entry, Owner, ProxyKey};
use weft_policy::registration::{Registration, Told};
use weft_policy::resource::{Kind, ObjectKey, Resource};

use super::*;
use crate::token::Grant;

/// A hub on a state folder; opening the same folder again is what a restart does.
pub(crate) fn hub_in(state: &Path, change: impl FnOnce(&mut Config)) -> Arc<Hub> {
    let mut config = Config { state: state.to_owned(), try_filters: false, ..Config::default() };
    change(&mut config);
    let store = Arc::new(Store::open(&state.join("weft.redb"), 1000).unwrap());
    let authority = Arc::new(Authority::open(state, &config.trust_domain, OffsetDateTime::now_utc()).unwrap());
    Hub::start(config, store, authority, Arc::new(Metrics::new()), CancellationToken::new()).unwrap()
}

pub(crate) fn resources(yaml: &str) -> Vec<Resource> {
    manifest::parse("test.yaml", yaml).unwrap().into_iter().map(|document| document.resource).collect()
}

pub(crate) fn csr() -> Vec<u8> {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

pub(crate) fn registration(name: &str, address: &str, service: Option<&str>) -> Registration {
    registration_of(&proxy("p").identity, name, address, service)
}

pub(crate) fn registration_of(identity: &SpiffeId, name: &str, address: &str, service: Option<&str>) -> Registration {
    let told = Told {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        address: address.to_owned(),
        mesh_address: format!("{address}:15008"),
        ports: vec![(8080, weft_policy::bundle::Protocol::Http)],
        service: service.map(str::to_owned),
        weight: 1,
        ..Told::default()
    };
    Registration::new(told, identity).unwrap()
}

/// Its stream is open.
pub(crate) fn enter(hub: &Hub, proxy: &ProxyKey) -> crate::registry::Seat {
    hub.registry().enter(proxy.clone(), Default::default(), OffsetDateTime::now_utc()).unwrap().seat
}

/// A proxy on this machine.
pub(crate) const HERE: Origin = Origin { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_local: true };

pub(crate) fn proxy(name: &str) -> ProxyKey {
    proxy_of(name, "web")
}

pub(crate) fn proxy_of(name: &str, account: &str) -> ProxyKey {
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
    ProxyKey { name: name.to_owned(), identity }
}

pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {address: 127.0.0.11, ports: [{port: 8080}], serviceAccount: web}
";

#[tokio::test]
async fn an_apply_lands_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let applied = hub.apply("me", resources(SHOP), How::DryRun).await.unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (Revision(0), 2));
    assert!(applied.changes[0].diff.contains("+  name: web"), "{}", applied.changes[0].diff);
    assert!(hub.published().world.is_empty(), "a dry run changes nothing");
    assert_eq!(hub.apply("me", resources(SHOP), How::Safely).await.unwrap().revision, Revision(1));
    let again = hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    assert_eq!(again.revision, Revision(1));
    assert!(again.changes.iter().all(|change| change.action == Action::Unchanged));

    let broken = format!(
        "{}\n---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: f, namespace: shop}}\n\
         spec: {{filter: {{name: nowhere}}}}\n",
        SHOP.replace("127.0.0.11", "127.0.0.12")
    );
    let error = hub.apply("me", resources(&broken), How::Safely).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Unsound(_)), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let key = ObjectKey::new(Kind::Workload, "shop", "web-1");
    let workload = hub.published().world.get(&key).unwrap().clone();
    assert_eq!((workload.generation, workload.modified), (1, Revision(1)));
    assert_eq!(hub.store.revision().unwrap(), Revision(1));
}

#[tokio::test]
async fn objects_are_deleted_once_and_namespaces_when_empty() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    hub.apply("me", resources(&format!("{namespace}{SHOP}")), How::Safely).await.unwrap();
    let error = hub.delete("me", ObjectKey::new(Kind::Namespace, "", "shop"), How::Safely).await.unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    for (kind, name) in [(Kind::Workload, "web-1"), (Kind::Service, "web"), (Kind::Namespace, "shop")] {
        hub.delete("me", ObjectKey::new(kind, "shop", name), How::Safely).await.unwrap();
    }
    let error = hub.delete("me", ObjectKey::new(Kind::Service, "shop", "web"), How::Safely).await.unwrap_err();
    assert!(matches!(error, ApplyError::NotFound(_)));
    let actions: Vec<_> = hub.audit(None, 10).await.unwrap().into_iter().map(|(_, e)| e.action).collect();
    assert_eq!(actions, ["delete", "delete", "delete", "apply"]);
}

#[tokio::test]
async fn a_join_token_is_used_once_even_by_many_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let identity: weft_policy::identity::SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let grant = Grant::Join { identity: identity.clone(), uses_left: 1, grants: Grants::default() };
    let token = hub.create_token("me", grant, Some(std::time::Duration::from_secs(60))).await.unwrap();
    let attempts = (0..8).map(|_| {
        let (hub, text) = (hub.clone(), token.text.reveal().to_owned());
        tokio::spawn(async move { hub.join(&text, &csr(), None).await.is_ok() })
    });
    let results = futures_util::future::join_all(attempts).await;
    assert_eq!(results.into_iter().filter(|result| *result.as_ref().unwrap()).count(), 1);
}

#[tokio::test]
async fn refused_joins_say_why_and_leave_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let identity: weft_policy::identity::SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let join = |uses_left| Grant::Join { identity: identity.clone(), uses_left, grants: Grants::default() };
    let refuse = async |text: &str, csr: &[u8]| hub.join(text, csr, None).await.err().unwrap().to_string();
    assert!(refuse("weft_join_nonsense", &csr()).await.contains("not known"));
    let expired = hub.create_token("me", join(1), Some(std::time::Duration::ZERO)).await.unwrap();
    assert!(refuse(expired.text.reveal(), &csr()).await.contains("expired"));
    let operator = hub.create_token("me", Grant::operator(crate::token::Role::Admin), None).await.unwrap();
    assert!(refuse(operator.text.reveal(), &csr()).await.contains("operator's token"));
    let token = hub.create_token("me", join(2), None).await.unwrap();
    assert!(refuse(token.text.reveal(), b"garbage").await.contains("malformed"));
    for _ in 0..2 {
        let signed = hub.join(token.text.reveal(), &csr(), None).await.unwrap();
        assert_eq!(signed.identity, identity);
    }
    assert!(refuse(token.text.reveal(), &csr()).await.contains("used already"));
    hub.sweep_tokens().await.unwrap();
    assert!(refuse(expired.text.reveal(), &csr()).await.contains("expired"));
}

#[tokio::test]
async fn registered_workloads_outlive_a_crash_until_their_grace() {
    let dir = tempfile::tempdir().unwrap();
    {
        let hub = hub_in(dir.path(), |_| {});
        hub.register(&proxy("p1"), HERE, vec![registration("web-1", "127.0.0.11", Some("web"))]).await.unwrap();
        hub.register(&proxy("p2"), HERE, vec![registration("web-2", "127.0.0.12", Some("web"))]).await.unwrap();
        let published = hub.published();
        let service = published.world.service(&ObjectName::new("shop", "web")).unwrap();
        let ports: Vec<_> = service.spec.ports.iter().map(|port| (port.port, port.target_port.clone())).collect();
        let target = Some(weft_policy::resource::core::TargetPort::Number(8080));
        assert_eq!(ports, [(80, target.clone()), (8080, target)]);
        assert_eq!(published.revision, Revision(2));
        hub.register(&proxy("p1"), HERE, vec![registration("web-1", "127.0.0.11", Some("web"))]).await.unwrap();
        assert_eq!(hub.published().revision, Revision(2), "the same again is no change");
        enter(&hub, &proxy("p1"));
        let error = hub.delete("me", ObjectKey::new(Kind::Workload, "shop", "web-1"), How::Safely).await.unwrap_err();
        assert!(error.to_string().contains("lives with the proxy p1"), "{error}");
    }
    let hub = hub_in(dir.path(), |config| config.restart_grace_ms = 50);
    let has = |hub: &Hub, name: &str| hub.published().world.workload(&ObjectName::new("shop", name)).is_some();
    assert!(has(&hub, "web-1") && has(&hub, "web-2"));
    assert_eq!(hub.registry().list(Revision(0), Revision(0)).iter().filter(|p| p.is_expected).count(), 2);
    enter(&hub, &proxy("p1"));
    let mut published = hub.subscribe();
    let gone = published.wait_for(|_| !has(&hub, "web-2"));
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap().unwrap();
    assert!(has(&hub, "web-1"), "its proxy is back");
    assert_eq!(hub.published().last_removal, hub.published().revision);
}

#[tokio::test]
async fn an_operator_removes_a_silent_workload() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.register(&proxy("p1"), HERE, vec![registration("web-1", "127.0.0.11", Some("web"))]).await.unwrap();
    hub.delete("me", ObjectKey::new(Kind::Workload, "shop", "web-1"), How::Safely).await.unwrap();
    let published = hub.published();
    assert!(published.world.workload(&ObjectName::new("shop", "web-1")).is_none());
    assert_eq!(published.last_removal, published.revision);
    assert_eq!(published.claims.holder(&ObjectName::new("shop", "web-1")), None);
}

#[tokio::test]
async fn nobody_takes_over_a_workload() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", resources(&SHOP.replace("serviceAccount: web", "serviceAccount: other")), How::Safely)
        .await
        .unwrap();
    let error = hub.register(&proxy("p1"), HERE, vec![registration("web-1", "127.0.0.11", None)]).await.unwrap_err();
    assert!(error.to_string().contains("another identity"), "{error}");
    enter(&hub, &proxy("p1"));
    hub.register(&proxy("p1"), HERE, vec![registration("web-2", "127.0.0.12", None)]).await.unwrap();
    let error = hub.register(&proxy("p2"), HERE, vec![registration("web-2", "127.0.0.13", None)]).await.unwrap_err();
    assert!(error.to_string().contains("connected proxy p1"), "{error}");
    let error = hub.register(&proxy("p1"), HERE, vec![registration("web-3", "127.0.0.12", Some("web"))]).await;
    error.unwrap();
    let labels = &hub.published().world.workload(&ObjectName::new("shop", "web-3")).unwrap().metadata.labels.clone();
    assert_eq!(labels["app"], "web", "the labels that the existing service selects");
    assert!(hub.published().world.workload(&ObjectName::new("shop", "web-2")).is_none(), "replaced by web-3");
}

#[tokio::test]
async fn standing_behind_a_service_is_granted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.register(&proxy("web-1"), HERE, vec![registration("web-1", "127.0.0.11", Some("web"))]).await.unwrap();
    let evil = proxy_of("evil", "evil");
    let try_behind = async |service: Option<&str>| {
        hub.register(&evil, HERE, vec![registration_of(&evil.identity, "evil", "127.0.0.66", service)]).await
    };
    let reason = try_behind(Some("web")).await.unwrap_err().to_string();
    let expect = "workload shop/evil: service: account spiffe://cluster.local/ns/shop/sa/evil may not stand behind Service \
                  shop/web: join with a token that grants it (weft token create --service web), or list evil in the \
                  Service's annotation weft.dev/accounts";
    assert_eq!(reason, expect);
    assert!(try_behind(Some("new")).await.is_err(), "nor behind one that is made for it");
    assert_eq!(hub.published().world.of_kind(Kind::Workload).count(), 1);

    // By the Service.
    let listed = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, annotations: \
                  {weft.dev/accounts: 'evil'}}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
    hub.apply("me", resources(listed), How::Safely).await.unwrap();
    try_behind(Some("web")).await.unwrap();
    let behind = |hub: &Hub| {
        let world = &hub.published().world;
        let bundle = weft_policy::plan::bundle_for(world, &[], Revision(1), "");
        bundle.services[&ObjectName::new("shop", "web")].endpoints.len()
    };
    assert_eq!(behind(&hub), 2);
    // A workload leaves at once when the Service lists its account no more; an account's own Service needs no list.
    hub.apply("me", resources(&listed.replace("'evil'", "'good'")), How::Safely).await.unwrap();
    assert_eq!(behind(&hub), 1);
    let reason = try_behind(Some("web")).await.unwrap_err().to_string();
    assert!(reason.contains("may not stand behind"), "{reason}");

    // By the token.
    let grants = Grants { services: ["web".to_owned()].into(), ..Grants::default() };
    let grant = Grant::Join { identity: evil.identity.clone(), uses_left: 1, grants };
    let token = hub.create_token("me", grant, None).await.unwrap();
    hub.join(token.text.reveal(), &csr(), None).await.unwrap();
    try_behind(Some("web")).await.unwrap();
    assert_eq!(behind(&hub), 2);
    drop(hub);
    let hub = hub_in(dir.path(), |_| {});
    assert!(hub.published().claims.grants(&evil.identity).services.contains("web"), "kept");
    let refused =
        hub.audit(None, 100).await.unwrap().into_iter().filter(|(_, e)| e.action == "workload.refused").count();
    assert_eq!(refused, 3);
}

#[tokio::test]
async fn labels_are_no_way_behind_a_service() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    let evil = proxy_of("evil", "evil");
    let labelled = |label: &str| {
        let told = Told {
            namespace: "shop".to_owned(),
            name: "evil".to_owned(),
            address: "127.0.0.66".to_owned(),
            mesh_address: "127.0.0.66:15008".to_owned(),
            labels: [("app".to_owned(), label.to_owned())].into(),
            ..Told::default()
        };
        vec![Registration::new(told, &evil.identity).unwrap()]
    };
    let reason = hub.register(&evil, HERE, labelled("web")).await.unwrap_err().to_string();
    assert!(reason.starts_with("workload shop/evil: labels: app=web would put it behind Service shop/web"), "{reason}");
    // A new Service takes every workload that its labels select, and the operator is told of their accounts.
    hub.register(&evil, HERE, labelled("future")).await.unwrap();
    let future = SHOP.split("---").next().unwrap().replace("web", "future");
    let applied = hub.apply("me", resources(&future), How::Safely).await.unwrap();
    assert!(applied.findings.iter().any(|finding| finding.message.contains("may stand behind it from now on")));
    hub.release(&evil, "test").await;
    hub.register(&evil, HERE, labelled("future")).await.unwrap();
}

#[tokio::test]
async fn a_name_stays_its_accounts_while_its_proxy_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (victim, evil) = (proxy_of("victim", "victim"), proxy_of("evil", "evil"));
    let register = async |hub: &Arc<Hub>, proxy: &ProxyKey| {
        let registration = registration_of(&proxy.identity, "victim", "127.0.0.11", None);
        hub.register(proxy, HERE, vec![registration]).await.map_err(|error| error.to_string())
    };
    register(&hub, &victim).await.unwrap();
    let lost = register(&hub, &evil).await.unwrap_err();
    assert!(lost.contains("while its proxy is expected back"), "{lost}");
    hub.release(&victim, "said goodbye").await;
    assert!(hub.published().world.is_empty());
    let gone = register(&hub, &evil).await.unwrap_err();
    assert!(gone.contains("is spiffe://cluster.local/ns/shop/sa/victim's and stays so for a day"), "{gone}");
    drop(hub);
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(register(&hub, &evil).await.unwrap_err(), gone, "also after a restart");
    register(&hub, &victim).await.unwrap();
    hub.release(&victim, "for good").await;
    hub.delete("me", ObjectKey::new(Kind::Workload, "shop", "victim"), How::Safely).await.unwrap();
    register(&hub, &evil).await.unwrap();
}

#[tokio::test]
async fn nobody_is_where_another_is() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (victim, evil) = (proxy_of("victim", "victim"), proxy_of("evil", "evil"));
    enter(&hub, &victim);
    let own = registration_of(&victim.identity, "victim", "127.0.0.11", None);
    hub.register(&victim, HERE, vec![own]).await.unwrap();
    let same = registration_of(&evil.identity, "evil", "127.0.0.11", None);
    let reason = hub.register(&evil, HERE, vec![same]).await.unwrap_err().to_string();
    assert_eq!(reason, "workload shop/evil: address: 127.0.0.11 is the address of Workload shop/victim");

    let far = Origin { address: "192.0.2.7".parse().unwrap(), is_local: false };
    let outside = registration_of(&evil.identity, "evil", "198.51.100.1", None);
    let reason = hub.register(&evil, far, vec![outside.clone()]).await.unwrap_err().to_string();
    assert!(reason.contains("grant it by a join token, weft token create --address 198.51.100.1"), "{reason}");
    let grants = Grants { addresses: ["198.51.100.0/24".parse().unwrap()].into(), ..Grants::default() };
    let grant = Grant::Join { identity: evil.identity.clone(), uses_left: 1, grants };
    let token = hub.create_token("me", grant, None).await.unwrap();
    hub.join(token.text.reveal(), &csr(), Some("192.0.2.7".parse().unwrap())).await.unwrap();
    hub.register(&evil, far, vec![outside]).await.unwrap();
}

#[tokio::test]
async fn who_moves_keeps_the_place_that_is_held_and_gets_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (moving, other) = (proxy_of("web-1", "web"), proxy_of("web-2", "web"));
    let from = |address: &str| Origin { address: address.parse().unwrap(), is_local: false };
    let at = |name: &str, address: &str| vec![registration_of(&moving.identity, name, address, None)];
    enter(&hub, &moving);
    hub.register(&moving, from("192.0.2.7"), at("web-1", "192.0.2.7")).await.unwrap();
    hub.register(&moving, from("192.0.2.8"), at("web-1", "192.0.2.7")).await.unwrap();
    let reason = hub.register(&moving, from("192.0.2.8"), at("web-1", "192.0.2.9")).await.unwrap_err().to_string();
    assert!(reason.contains("not where its proxy speaks from"), "{reason}");
    hub.register(&other, from("192.0.2.8"), at("web-2", "192.0.2.7")).await.unwrap_err();
}

#[tokio::test]
async fn what_an_older_release_registered_keeps_its_name_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 10).unwrap();
    let mut found = apply::load(&store, &store.frozen().unwrap(), &TrustDomain::default(), "").unwrap();
    for resource in resources(SHOP) {
        Arc::make_mut(&mut found.world).insert(Entry::applied(resource, Revision(1), String::new()));
    }
    let (key, owner) = (ObjectKey::new(Kind::Workload, "shop", "web-1"), proxy_of("p", "other"));
    Arc::make_mut(&mut found.world).hand_over(&key, &Owner::Proxy(owner.clone()));
    let adopted = claims(&store, &found).unwrap();
    assert!(adopted.grants(&owner.identity).services.contains("web"));
    assert_eq!(adopted.holder(&key.object_name()).unwrap().identity, owner.identity);
    let again = apply::load(&store, &store.frozen().unwrap(), &TrustDomain::default(), "").unwrap();
    assert_eq!(claims(&store, &again).unwrap(), adopted, "once and for all");
}

/// The shop with a policy that protects its workload, on a hub that has the filter for it.
pub(crate) async fn guarded(hub: &Arc<Hub>) -> String {
    let publication = crate::artifact::tests::publication("authz", "1.0.0", "weft:filter/log@0.1.0");
    hub.publish_filter(SYSTEM, publication).await.unwrap();
    format!(
        "{SHOP}---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: guard, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, name: web}}], action: Allow, rules: []}}\n"
    )
}

#[tokio::test]
async fn another_trust_domain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(hub_in(dir.path(), |_| {}));
    let store = Arc::new(Store::open(&dir.path().join("weft.redb"), 10).unwrap());
    let error = trust_domain(&store, "other.example").unwrap_err().to_string();
    assert!(error.contains("cluster.local") && error.contains("other.example"), "{error}");
}

/// Replaces records of a folder's store, as another program or a fault would.
pub(crate) fn tamper(state: &Path, records: &[(&str, &str)]) {
    let store = Store::open(&state.join("weft.redb"), 1000).unwrap();
    let put = |(key, json): &(&str, &str)| Write::PutObject { key: (*key).to_owned(), json: (*json).to_owned() };
    store.commit(None, records.iter().map(put).collect()).unwrap();
}

#[tokio::test]
async fn records_that_cannot_be_read_are_left_aside_and_everything_else_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: only-web, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: web}]
  rules: [{from: [{serviceAccounts: [shop/web]}]}]
";
    hub_in(dir.path(), |_| {}).apply("me", resources(SHOP), How::Safely).await.unwrap();
    let odd = r#"{"entry":{"resource":{"kind":"Workload"}}}"#;
    let resource = &resources(policy)[0];
    let kept = serde_json::json!({
        "entry": {"resource": resource, "uid": "u", "generation": 1, "created": 1, "modified": 1},
    });
    let broken_policy = kept.to_string().replace("serviceAccounts", "serviceAccountz");
    tamper(
        dir.path(),
        &[("workloads/shop/web-1", odd), ("meshes//default", "{"), ("accesspolicies/shop/only-web", &broken_policy)],
    );
    let config = Config { state: dir.path().to_owned(), ports: crate::config::Ports::ANY, ..Config::default() };
    let findings = crate::check::findings(&config).faults;
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings.iter().any(|told| told.contains("workloads/shop/web-1 can't be read")), "{findings:?}");

    let hub = hub_in(dir.path(), |_| {});
    let published = hub.published();
    assert!(published.world.service(&ObjectName::new("shop", "web")).is_some());
    assert!(published.world.workload(&ObjectName::new("shop", "web-1")).is_none());
    assert_eq!(published.unreadable["workloads/shop/web-1"].record, odd);
    assert!(hub.metrics().render().contains("weft_control_store_unreadable_records 3"));
    // Nothing opens because a policy was damaged.
    let key = ObjectKey::new(Kind::AccessPolicy, "shop", "only-web");
    let Resource::AccessPolicy(closed) = &published.world.get(&key).unwrap().resource else { panic!("no policy") };
    assert_eq!((closed.spec.rules.len(), closed.spec.target_refs[0].name.as_str()), (0, "web"));

    // The old record is set aside byte for byte when another replaces it or when it is deleted.
    hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    hub.delete("me", key, How::Safely).await.unwrap();
    hub.delete("me", ObjectKey::new(Kind::Mesh, "", "default"), How::Safely).await.unwrap();
    assert!(hub.published().unreadable.is_empty());
    drop((hub, published));
    let hub = hub_in(dir.path(), |_| {});
    assert!(hub.published().unreadable.is_empty());
    let aside = hub.blocking(Store::set_aside).await.unwrap();
    let aside: Vec<_> = aside.iter().map(|(key, record)| (key.as_str(), record.as_str())).collect();
    assert!(aside.contains(&("objects/workloads/shop/web-1/0", odd)), "{aside:?}");
    assert!(aside.contains(&("objects/accesspolicies/shop/only-web/1", broken_policy.as_str())), "{aside:?}");
    assert!(aside.contains(&("objects/meshes//default/2", "{")), "{aside:?}");
}

#[tokio::test]
async fn a_full_disk_is_said_while_it_lasts_and_forgotten_after() {
    let dir = tempfile::tempdir().unwrap();
    let (store, room) = crate::store::tests::on_small_disk(&dir.path().join("weft.redb"));
    let config = Config { state: dir.path().to_owned(), ..Config::default() };
    let authority = Authority::open(dir.path(), &config.trust_domain, OffsetDateTime::now_utc()).unwrap();
    let (store, metrics) = (Arc::new(store), Arc::new(Metrics::new()));
    let hub = Hub::start(config, store, Arc::new(authority), metrics, CancellationToken::new()).unwrap();
    room.store(0, Ordering::SeqCst);
    let error = hub.apply("me", resources(SHOP), How::Safely).await.unwrap_err();
    assert!(crate::chain(&error).contains("No space left"), "{}", crate::chain(&error));
    hub.tend_store().await;
    assert!(hub.store_fault().unwrap().to_string().contains("No space left"));
    assert!(hub.metrics().render().contains("weft_control_store_failing 1"));
    assert!(hub.published().world.is_empty());
    room.store(u64::MAX / 2, Ordering::SeqCst);
    hub.tend_store().await;
    assert_eq!(hub.store_fault(), None);
    assert!(hub.metrics().render().contains("weft_control_store_failing 0"));
    assert!(hub.metrics().render().contains("weft_control_store_failures_total 1"));
    assert_eq!(hub.apply("me", resources(SHOP), How::Safely).await.unwrap().revision, Revision(1));
    hub.create_token("me", Grant::operator(crate::token::Role::Viewer), None).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_failed_and_landed_is_what_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut landed = 0;
    for room in [0, 600, 5_000, 20_000, 500_000, u64::MAX / 2] {
        let path = dir.path().join(room.to_string());
        std::fs::create_dir(&path).unwrap();
        let (store, left) = crate::store::tests::on_small_disk(&path.join("weft.redb"));
        let config = Config { state: path.clone(), ..Config::default() };
        let authority = Authority::open(dir.path(), &config.trust_domain, OffsetDateTime::now_utc()).unwrap();
        let (store, metrics) = (Arc::new(store), Arc::new(Metrics::new()));
        let hub = Hub::start(config, store.clone(), Arc::new(authority), metrics, CancellationToken::new()).unwrap();
        left.store(room, Ordering::SeqCst);
        let applied = hub.apply("me", resources(SHOP), How::Safely).await;
        left.store(u64::MAX / 2, Ordering::SeqCst);
        hub.tend_store().await;
        hub.create_token("me", Grant::operator(crate::token::Role::Viewer), None).await.unwrap();
        assert_eq!(hub.published().revision, store.revision().unwrap(), "{room}");
        assert_eq!(hub.published().world.len(), store.objects::<serde_json::Value>().unwrap().read.len(), "{room}");
        landed += u32::from(applied.is_err() && hub.published().revision == Revision(1));
        if applied.is_ok() {
            assert_eq!(hub.published().revision, Revision(1), "{room}");
            break;
        }
    }
    assert!(landed > 0, "no commit failed and landed: the test shows nothing");
}

pub(crate) fn web() -> weft_policy::identity::SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

async fn joined(hub: &Arc<Hub>) -> Holder {
    let made = hub.create_token("me", join_grant(1), None).await.unwrap();
    held(&hub.join(made.text.reveal(), &csr(), None).await.unwrap())
}

pub(crate) fn join_grant(uses_left: u32) -> Grant {
    let json = serde_json::json!({"kind": "join", "identity": web(), "uses_left": uses_left});
    serde_json::from_value(json).unwrap()
}

pub(crate) fn held(signed: &SignedIdentity) -> Holder {
    let now = OffsetDateTime::now_utc();
    let serial = signed.issued.serial.clone();
    Holder { identity: signed.identity.clone(), serial, not_before: now, not_after: signed.issued.not_after }
}

/// The same certificate, had it ended so many days ago.
fn ended(holder: &Holder, days: i64) -> Holder {
    Holder { not_after: OffsetDateTime::now_utc() - time::Duration::days(days), ..holder.clone() }
}

#[tokio::test]
async fn a_certificate_that_ended_is_renewed_within_the_grace_by_its_last_holder_only() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let first = joined(&hub).await;
    let refused = async |holder: &Holder| hub.renew(holder, &csr()).await.err().unwrap().to_string();
    let text = refused(&ended(&first, 8)).await;
    assert!(text.contains("longer ago than the grace of 604800 s") && text.contains("weft token create"), "{text}");
    let second = held(&hub.renew(&ended(&first, 6), &csr()).await.unwrap());
    let text = refused(&ended(&first, 1)).await;
    assert!(text.contains("was renewed before") && text.contains("shop/web"), "{text}");
    // While it lasts, a certificate whose renewal was lost on the way is renewed again.
    hub.renew(&second, &csr()).await.unwrap();
    hub.renew(&second, &csr()).await.unwrap();
    let stranger = Holder { serial: "4a:bc".to_owned(), ..ended(&second, 1) };
    let text = refused(&stranger).await;
    assert!(text.contains("is not known here"), "{text}");
    // The store knows after a restart.
    let third = joined(&hub).await;
    drop(hub);
    let hub = hub_in(dir.path(), |config| config.identity_grace_seconds = 3 * 24 * 3600);
    hub.renew(&ended(&third, 2), &csr()).await.unwrap();
    let fourth = joined(&hub).await;
    assert!(hub.renew(&ended(&fourth, 4), &csr()).await.is_err());
    hub.sweep_issued().await.unwrap();
    hub.renew(&ended(&fourth, 1), &csr()).await.unwrap();
}

#[tokio::test]
async fn a_banned_identity_is_kept_out_until_it_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let holder = joined(&hub).await;
    hub.register(&proxy("web-1"), HERE, vec![registration("web-1", "127.0.0.11", Some("web"))]).await.unwrap();
    let (ban, _) = hub.ban("me", web(), "broken into".to_owned()).await.unwrap();
    assert_eq!((ban.by.as_str(), ban.reason.as_str()), ("me", "broken into"));
    assert!(hub.published().world.registered().next().is_none(), "its endpoints stay");
    let token = hub.create_token("me", join_grant(1), None).await.unwrap();
    for hub in [hub.clone(), hub_in_again(&dir, hub)] {
        for text in [
            hub.renew(&holder, &csr()).await.err().unwrap().to_string(),
            hub.renew(&ended(&holder, 1), &csr()).await.err().unwrap().to_string(),
            hub.join(token.text.reveal(), &csr(), None).await.err().unwrap().to_string(),
        ] {
            assert!(text.contains("is banned since") && text.contains("weft proxy unban"), "{text}");
        }
        assert_eq!(format!("{:?}", hub.watch_kept_out().message()).matches("sa/web").count(), 1);
    }
    let hub = hub_in(dir.path(), |_| {});
    hub.unban("me", &web()).await.unwrap();
    assert!(matches!(hub.unban("me", &web()).await, Err(BanError::NotBanned(_))));
    hub.renew(&ended(&holder, 1), &csr()).await.unwrap();
    hub.join(token.text.reveal(), &csr(), None).await.unwrap();
}

/// A hub on a copy of the store's file, as after a restart.
fn hub_in_again(dir: &tempfile::TempDir, before: Arc<Hub>) -> Arc<Hub> {
    let copy = dir.path().join("again");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(before.config.state.join("weft.redb"), copy.join("weft.redb")).unwrap();
    hub_in(&copy, |_| {})
}

#[tokio::test]
async fn tokens_are_listed_and_end_when_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let viewer = || Grant::operator(crate::token::Role::Viewer);
    let named = hub.create_named_token("me", Some("ci"), viewer(), None).await.unwrap();
    let join = hub.create_token("me", join_grant(2), None).await.unwrap();
    hub.create_token("me", viewer(), Some(std::time::Duration::ZERO)).await.unwrap();
    let listed: Vec<_> = hub.tokens().await.unwrap().iter().map(|it| it.called().to_owned()).collect();
    assert!(listed.len() == 2 && listed.contains(&"ci".to_owned()) && listed.contains(&join.id), "{listed:?}");
    assert_eq!(hub.revoke_tokens("me", |it| it.called() == "ci").await.unwrap().len(), 1);
    let id = join.id.clone();
    assert_eq!(hub.revoke_tokens("me", move |it| it.id == id).await.unwrap().len(), 1);
    assert_eq!(hub.revoke_tokens("me", |it| it.called() == "ci").await.unwrap().len(), 0);
    assert!(hub.token(named.text.hash()).await.unwrap().is_none());
    let error = hub.join(join.text.reveal(), &csr(), None).await.err().unwrap();
    assert!(matches!(error, JoinError::Unknown), "{error}");
    assert_eq!(hub.audit(None, 10).await.unwrap()[0].1.action, "token.revoke");
}

#[tokio::test]
async fn a_store_that_was_lost_or_set_back_leads_nobody_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let (old, lineage) = {
        let hub = hub_in(dir.path(), |_| {});
        let old = std::fs::read(&path).unwrap();
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        hub.remember_store();
        assert_eq!(hub.may_lead(None), Ok(()));
        (old, hub.lead().lineage.clone())
    };
    let followed = (lineage.clone(), Revision(1));
    {
        let hub = hub_in(dir.path(), |_| {});
        assert_eq!(hub.may_lead(Some(&followed)), Ok(()));
        assert!(hub.may_lead(Some(&(lineage.clone(), Revision(2)))).is_err(), "a proxy is ahead");
    }
    // Set back: by this folder's memory nobody is led, new proxies neither.
    std::fs::write(&path, &old).unwrap();
    {
        let hub = hub_in(dir.path(), |_| {});
        let reason = hub.may_lead(None).unwrap_err();
        assert!(reason.contains("at revision 0, it was at 1") && reason.contains("weft store accept"), "{reason}");
        let accepted = hub.accept_store("me").await.unwrap();
        assert!(accepted.store == lineage.store && accepted.epoch > 1_700_000_000, "{accepted:?}");
        assert_eq!((hub.may_lead(None), hub.may_lead(Some(&followed))), (Ok(()), Ok(())));
    }
    assert_eq!(hub_in(dir.path(), |_| {}).may_lead(Some(&followed)), Ok(()));
    // Lost: the new one has another id.
    for empty in [true, false] {
        match empty {
            true => std::fs::write(&path, b"").unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        let hub = hub_in(dir.path(), |_| {});
        let reason = hub.may_lead(None).unwrap_err();
        assert!(reason.contains("this is not store"), "{reason}");
        let accepted = hub.accept_store("me").await.unwrap();
        assert!(accepted.store != lineage.store && !accepted.supersedes.is_empty());
        assert_eq!(hub.may_lead(None), Ok(()));
    }
}
