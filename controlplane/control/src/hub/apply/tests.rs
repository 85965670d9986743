//! Restrictions that go with an object.

mod templates;

use super::*;
use crate::hub::tests::{SHOP, guarded, hub_in, resources, tamper};

#[tokio::test]
async fn the_mesh_is_not_opened_by_deleting_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let mesh = |spec: &str| {
        resources(&format!("{{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {{name: mesh}}, spec: {spec}}}"))
    };
    let key = ObjectKey::new(Kind::Mesh, "", "mesh");
    hub.apply("me", mesh("{egress: RegistryOnly}"), How::Safely).await.unwrap();
    let refused = hub.delete("me", key.clone(), How::Safely).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "Mesh mesh: without it applications reach every destination outside (egress RegistryOnly); --force does it all the same"
    );
    hub.delete("me", key.clone(), How::Forced).await.unwrap();
    hub.apply("me", mesh("{egress: RegistryOnly}"), How::Safely).await.unwrap();
    // Who writes it otherwise wants it so.
    hub.apply("me", mesh("{egress: Allow}"), How::Safely).await.unwrap();
    hub.delete("me", key, How::Safely).await.unwrap();
}

#[tokio::test]
async fn what_opens_by_an_edit_of_the_policy_is_told_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let closed = guarded(&hub).await;
    hub.apply("me", resources(&closed), How::Safely).await.unwrap();
    let open = closed.replace("rules: []", "rules: [{name: all}]");
    let told = "Workload shop/web-1 opens: a connection to port 8080 by spiffe://cluster.local/ns/any/sa/any would be let in, \
                and is not now";
    let key = ObjectKey::new(Kind::AccessPolicy, "shop", "guard");
    for how in [How::DryRun, How::Safely] {
        let applied = hub.apply("me", resources(&open), how).await.unwrap();
        let found: Vec<_> = applied.findings.iter().filter(|finding| finding.code == Code::Opens).collect();
        assert_eq!(found.len(), 1, "{:?}", applied.findings);
        assert_eq!((found[0].message.as_str(), found[0].severity, &found[0].object), (told, Severity::Warning, &key));
    }
    let audited = async || hub.audit(None, 1).await.unwrap().remove(0).1;
    let entry = audited().await;
    assert!(entry.detail.starts_with("opens: shop/web-1 by AccessPolicy shop/guard: a connection"), "{entry:?}");
    // The other way round nothing opens, and deleting it all does.
    let applied = hub.apply("me", resources(&closed), How::Safely).await.unwrap();
    assert!(applied.findings.iter().all(|finding| finding.code != Code::Opens), "{:?}", applied.findings);
    let removed = hub.delete_if("me", key, How::Safely, Expected::new()).await.unwrap();
    assert_eq!(removed.findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>(), [told]);
    let entry = audited().await;
    assert!(entry.action == "delete" && entry.detail.starts_with("opens: shop/web-1"), "{entry:?}");
}

#[tokio::test]
async fn a_filter_policy_that_cannot_be_read_closes_until_it_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    hub_in(dir.path(), |_| {}).apply("me", resources(SHOP), How::Safely).await.unwrap();
    let broken = r#"{"entry":{"resource":{"spec":{"targetRefs":[{"kind":"Service","name":"web"}]}}}}"#;
    tamper(dir.path(), &[("filterpolicies/shop/limit", broken)]);
    let hub = hub_in(dir.path(), |_| {});
    let stand_in = ObjectKey::new(Kind::AccessPolicy, "shop", "limit.unreadable-filter-policy");
    let published = hub.published();
    let Resource::AccessPolicy(closed) = &published.world.get(&stand_in).unwrap().resource else { panic!("no policy") };
    assert_eq!((closed.spec.rules.len(), closed.spec.target_refs[0].name.as_str()), (0, "web"));
    hub.delete("me", ObjectKey::new(Kind::FilterPolicy, "shop", "limit"), How::Safely).await.unwrap();
    assert!(hub.published().world.get(&stand_in).is_none(), "and nothing stays closed");
}

/// As after a control plane went back to a release that does not know what the policy grants.
#[tokio::test]
async fn a_filter_policy_of_calls_that_cannot_be_read_lets_none_out_until_it_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    hub_in(dir.path(), |_| {}).apply("me", resources(SHOP), How::Safely).await.unwrap();
    let broken = r#"{"entry":{"resource":{"spec":{"direction":"Outbound","capabilities":[{"later":{}}]}}}}"#;
    tamper(dir.path(), &[("filterpolicies/shop/calls", broken)]);
    let hub = hub_in(dir.path(), |_| {});
    let runs = |hub: &Hub| {
        let filters = weft_policy::plan::filters_for(&hub.published().world, &[ObjectName::new("shop", "web-1")]);
        filters.get("shop/calls.unreadable-filter-policy").cloned()
    };
    let closed = runs(&hub).expect("a filter in its place");
    let config: weft_policy::authz::Config = serde_json::from_str(&closed.config.0).unwrap();
    assert_eq!((closed.direction, closed.filter.as_str()), (weft_policy::bundle::Direction::Outbound, "authz"));
    assert_eq!(
        config.policies.iter().map(|it| (it.action, it.rules.len())).collect::<Vec<_>>(),
        [(weft_policy::authz::Action::Deny, 0)]
    );
    hub.delete("me", ObjectKey::new(Kind::FilterPolicy, "shop", "calls"), How::Safely).await.unwrap();
    assert!(runs(&hub).is_none(), "and nothing stays closed");
}

/// Another release wrote what this one can't read, or a byte is wrong: what is read of it holds, and it is told.
#[tokio::test]
async fn of_a_traffic_policy_that_cannot_be_read_holds_what_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let policies = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: NAME, namespace: shop}, spec: {targetRefs: \
                    [{kind: Service, name: web}], limits: {maxActiveRequests: 7}}}\n";
    let shop = hub_in(dir.path(), |_| {});
    shop.apply("me", resources(SHOP), How::Safely).await.unwrap();
    let first = shop.apply("me", resources(&policies.replace("NAME", "first")), How::Safely).await.unwrap().revision.0;
    shop.apply("me", resources(&policies.replace("NAME", "second")), How::Safely).await.unwrap();
    drop(shop);
    let broken = r#"{"entry":{"created":CREATED,"resource":{"spec":{"targetRefs":[{"kind":"Service","name":"web"}],
        "loadBalancing":{"algorithm":"Later"},"limits":{"maxActiveRequests":3},"later":{}}}}}"#;
    tamper(dir.path(), &[("trafficpolicies/shop/first", &broken.replace("CREATED", &first.to_string()))]);
    let hub = hub_in(dir.path(), |_| {});
    let web = ObjectName::new("shop", "web");
    let told = |hub: &Hub| {
        let world = hub.published().world.clone();
        let settings = weft_policy::plan::effective(&world, &web).into_iter();
        let limits =
            settings.filter(|it| it.policy().is_some()).map(|it| format!("{} by {}", it.value, it.policy().unwrap()));
        let Some(Resource::TrafficPolicy(policy)) =
            world.get(&ObjectKey::new(Kind::TrafficPolicy, "shop", "first")).map(|it| it.resource.clone())
        else {
            panic!("no policy")
        };
        let status = weft_policy::plan::traffic_status(&world, &policy).remove(0);
        (limits.collect::<Vec<_>>(), status.status, status.reason)
    };
    let held = vec!["3 active requests of each proxy by shop/first".to_owned()];
    assert_eq!(told(&hub), (held, false, "Unreadable"), "it is the older one still");
    assert_eq!(hub.published().unreadable.len(), 1);
    hub.apply("me", resources(&policies.replace("NAME", "first")), How::Safely).await.unwrap();
    let held = vec!["7 active requests of each proxy by shop/first".to_owned()];
    assert_eq!(told(&hub).0, held);
    assert_eq!((told(&hub).1, hub.published().unreadable.len()), (true, 0), "put right it is as any other");
}

const ROUTES: &str = "
apiVersion: v1
kind: Service
metadata: {name: till, namespace: shop}
spec: {selector: {app: till}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: open, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: consumer, namespace: bank}
spec:
  parentRefs: [{group: '', kind: Service, name: web, namespace: shop}]
  rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]
";

/// Whether a request of a caller in `from` to a service has an endpoint to go to, by any route.
fn is_open(hub: &Hub, from: &str, to: &str) -> bool {
    let query = serde_json::from_value(serde_json::json!({ "from": format!("{from}/a"), "to": to })).unwrap();
    let explanation = weft_policy::explain::explain(&hub.published().world, &query).unwrap();
    explanation.status != Some(500)
}

#[tokio::test]
async fn a_route_that_cannot_be_read_closes_what_it_was_attached_to_until_it_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let world = resources(&format!("{SHOP}---{ROUTES}"));
    hub_in(dir.path(), |_| {}).apply("me", world, How::Safely).await.unwrap();
    let check = |records: &[(&str, &str)], expect: [bool; 4]| {
        tamper(dir.path(), records);
        let hub = hub_in(dir.path(), |_| {});
        let open = [("shop", "web"), ("shop", "till"), ("bank", "web.shop"), ("bank", "till.shop")];
        assert_eq!(open.map(|(from, to)| is_open(&hub, from, to)), expect, "{records:?}");
        hub
    };
    drop(check(&[], [true; 4]));
    // It may have filtered what the other route of the service lets pass. A consumer of another namespace has its own.
    let attached =
        r#"{"entry":{"resource":{"spec":{"parentRefs":[{"group":"","kind":"Service","name":"web"}],"rules":7}}}}"#;
    let hub = check(&[("httproutes/shop/strict", attached)], [false, true, true, true]);
    assert_eq!(hub.published().unreadable.len(), 1);
    let web = ObjectName::new("shop", "web");
    let bundle = weft_policy::plan::bundle_for(&hub.published().world, &[web], Revision(1), "");
    assert_eq!(bundle.routes.len(), 2, "each of them leads nowhere");
    assert!(
        bundle
            .routes
            .values()
            .flat_map(|route| &route.rules)
            .all(|rule| rule.backends.iter().all(|it| it.service.is_none()))
    );
    let strict = ROUTES.split("---").nth(1).unwrap().replace("name: open", "name: strict");
    hub.apply("me", resources(&strict), How::Safely).await.unwrap();
    assert!(is_open(&hub, "shop", "web"), "it was put right");
    drop(hub);
    // One of a consumer closes the service for its own callers.
    let foreign = r#"{"entry":{"resource":{"spec":{"parentRefs":[{"group":"","kind":"Service","name":"till","namespace":"shop"}]}}}}"#;
    drop(check(&[("httproutes/bank/strict", foreign)], [true, true, true, false]));
    // Of a record that says nothing at all nobody knows where it was attached.
    let hub = check(&[("httproutes/bank/strict", "{")], [true, true, false, false]);
    hub.delete("me", ObjectKey::new(Kind::HttpRoute, "bank", "strict"), How::Safely).await.unwrap();
    assert!(is_open(&hub, "bank", "web.shop") && is_open(&hub, "bank", "till.shop"), "and nothing stays closed");
}
