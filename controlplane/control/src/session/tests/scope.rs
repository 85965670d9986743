//! Proxies that hold only what they use: what they are told, and when.

use weft_policy::scope::Ask;
use weft_policy::wire::SCOPE;

use super::*;

/// Three services; the route of `web` leads to `canary` as well.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec: {selector: {app: canary}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: foreign, namespace: shop}
spec: {selector: {app: foreign}, clusterIP: 10.77.0.9, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: secret-1, namespace: shop, labels: {app: foreign}}
spec: {address: 10.88.0.7, ports: [{port: 8080}], serviceAccount: foreign}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{kind: Service, group: '', name: web}]
  rules: [{backendRefs: [{name: web, port: 80}, {name: canary, port: 80}]}]
";

const NEW: &str = "
apiVersion: v1
kind: Service
metadata: {name: new, namespace: shop}
spec: {selector: {app: new}, ports: [{port: 80, targetPort: 8080}]}
";

fn service(name: &str) -> Ask {
    Ask::Service(ObjectName::new("shop", name))
}

fn asks(wanted: &[Ask], forgotten: &[Ask]) -> Message {
    let told = |asks: &[Ask]| asks.iter().map(Into::into).collect();
    Message::Asks(v1::Asks { wanted: told(wanted), forgotten: told(forgotten) })
}

/// Hello of a proxy that holds only what it uses and asked for this before.
fn scoped(asked: &[Ask]) -> v1::Hello {
    let mut hello = v1::Hello { proxy_name: "client-1".to_owned(), ..greeting() };
    hello.capabilities.push(SCOPE.to_owned());
    hello.asked = asked.iter().map(Into::into).collect();
    hello
}

async fn connect(control: &Control, asked: &[Ask]) -> Proxy {
    let svid = control.join("shop/client").await;
    Box::pin(Proxy::connect_with(control, &svid, scoped(asked), Bundle::default())).await
}

/// Waits until the control plane has read everything that a proxy said.
async fn until_heard(control: &Control, proxy: &mut Proxy) {
    let report = v1::Report { transport: "said last".to_owned(), ..v1::Report::default() };
    proxy.say(Message::Report(report)).await;
    while !control.call("get", "/api/v1/proxies", Value::Null).await.1.to_string().contains("said last") {}
}

fn names(bundle: &Bundle) -> Vec<&str> {
    bundle.services.keys().map(|name| name.name.as_str()).collect()
}

fn everything(bundle: &Bundle) -> String {
    bundle.objects().values().map(|object| format!("{object:?}")).collect()
}

#[tokio::test]
async fn a_proxy_is_told_of_what_it_asked_for_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{SHOP}")).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    assert_eq!(names(&proxy.bundle), [""; 0]);
    let ranges = proxy.bundle.mesh.as_ref().unwrap().ranges.clone().unwrap();
    assert_eq!(ranges.to_string(), "10.77.0.0/24, 10.88.0.0/24, 127.0.0.0/24");

    proxy.say(asks(&[service("web")], &[])).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("web"))).await;
    assert_eq!(names(&proxy.bundle), ["canary", "web"], "with the backends of its routes");
    assert_eq!(proxy.bundle.routes.len(), 1);
    let told = everything(&proxy.bundle);
    for foreign in ["foreign", "secret", "10.77.0.9", "10.88.0.7"] {
        assert!(!told.contains(foreign), "{foreign} in {told}");
    }

    // What it does not use goes by without a word.
    let revision = control.apply(&SHOP.replace("targetPort: 8080", "targetPort: 8081")).await;
    proxy.take_until(|bundle| bundle.services[&ObjectName::new("shop", "canary")].ports[0].target_port == 8081).await;
    assert!(!everything(&proxy.bundle).contains("foreign"));
    assert!(state(&control, revision, 10_000).await.0);

    proxy.say(asks(&[Ask::address("10.88.0.7".parse().unwrap())], &[service("web")])).await;
    proxy.take_until(|bundle| names(bundle) == ["foreign"]).await;
    assert!(proxy.bundle.routes.is_empty());
    assert!(control.metrics().await.contains("weft_control_asks_total 2"));
}

#[tokio::test]
async fn what_does_not_exist_is_answered_and_told_of_as_soon_as_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    let nobody = Ask::address("10.0.0.99".parse().unwrap());
    proxy.say(asks(&[service("new"), nobody.clone()], &[])).await;
    let answer = proxy.take().await;
    assert_eq!((answer.answered, answer.upserts.len()), ([service("new"), nobody].into(), 0));
    proxy.say(asks(&[service("new")], &[])).await;
    assert_eq!(proxy.take().await.answered, [service("new")].into(), "it asks again, and is told again");
    control.apply(NEW).await;
    proxy.take_until(|bundle| names(bundle) == ["new"]).await;
    control.apply(&NEW.replace("selector: {app: new},", "selector: {app: new}, clusterIP: 10.0.0.99,")).await;
    proxy.take_until(|bundle| bundle.services.values().any(|service| service.vip.is_some())).await;
    let (status, body) = control.call("delete", "/api/v1/resources/services/shop/new", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    proxy.take_until(|bundle| names(bundle).is_empty()).await;
    assert!(proxy.bundle.answered.contains(&service("new")), "that it is gone is known");
}

/// With changes gathered for a minute, a first call waits for none of them.
#[tokio::test]
async fn an_answer_overtakes_what_is_gathered() {
    let dir = tempfile::tempdir().unwrap();
    let slow = |config: &mut crate::config::Config| {
        (config.coalesce_quiet_ms, config.coalesce_max_ms) = (60_000, 60_000);
    };
    let control = Control::start_with(dir.path(), slow).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    let first = proxy.delta().await;
    control.apply(NEW).await;
    proxy.say(asks(&[service("web")], &[])).await;
    proxy.accept(&first).await;
    control.apply(SHOP).await;
    let answer = proxy.take().await;
    assert_eq!(answer.answered, [service("web")].into());
    proxy.say(asks(&[service("new")], &[])).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("new"))).await;
    assert!(names(&proxy.bundle).contains(&"new"));
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_told_only_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{NEW}")).await;
    let mut proxy = connect(&control, &[service("web"), service("gone")]).await;
    proxy.take().await;
    assert_eq!(names(&proxy.bundle), ["web"]);
    let held = proxy.bundle.clone();
    drop(proxy);
    let known = held.objects();
    let known = known.values().map(encode).map(|it| v1::ObjectVersion { key: it.key, version: it.version });
    let hello = v1::Hello { known: known.collect(), ..scoped(&[service("web"), service("gone"), service("new")]) };
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect_with(&control, &svid, hello, held).await;
    let delta = proxy.take().await;
    assert_eq!(
        delta.upserts.iter().map(Object::key).collect::<Vec<_>>(),
        [Key::Service(ObjectName::new("shop", "new"))]
    );
    assert_eq!(delta.answered, [service("web"), service("gone"), service("new")].into());
}

/// "There is no such service" of one that the proxy could not read would lead out of the mesh.
#[tokio::test]
async fn what_a_proxy_refused_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{NEW}")).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    proxy.say(asks(&[service("web"), service("new")], &[])).await;
    let delta = proxy.delta().await;
    let key = Some((&Key::Service(web())).into());
    let nack = v1::Nack { revision: delta.revision.0, key, reason: "can't".to_owned(), view: proxy.view };
    proxy.say(Message::Nack(nack)).await;
    proxy.take_until(|bundle| names(bundle) == ["new"]).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("new"))).await;
    assert!(!proxy.bundle.answered.contains(&service("web")));
    control.apply(&WEB.replace("port: 80", "port: 81")).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("web"))).await;
    assert_eq!(names(&proxy.bundle), ["new", "web"]);
}

/// An object that is refused spoils no answer for longer than the delta that it came in.
#[tokio::test]
async fn a_refused_object_keeps_no_other_answer_back() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    proxy.say(asks(&[service("web"), service("gone")], &[])).await;
    let delta = proxy.delta().await;
    let key = Some((&Key::Service(web())).into());
    let nack = v1::Nack { revision: delta.revision.0, key, reason: "can't".to_owned(), view: proxy.view };
    proxy.say(Message::Nack(nack)).await;
    // There is nothing else to tell.
    proxy.take_until(|bundle| bundle.answered.contains(&service("gone"))).await;
    assert!(!proxy.bundle.answered.contains(&service("web")));
}

/// A proxy that is told of a filter for its workload and does not answer yet, with that delta and its view.
async fn preparing(control: &Control, direction: &str) -> (Proxy, weft_policy::delta::Delta, u64) {
    publish(control, "guard").await;
    control.apply(&format!("{WEB}---\n{SHOP}")).await;
    let svid = control.join("shop/web").await;
    let workloads = vec![workload("web-2", "shop", "127.0.0.22", Some("web"))];
    let hello = v1::Hello { proxy_name: "web-2".to_owned(), workloads, ..scoped(&[]) };
    let mut proxy = Box::pin(Proxy::connect_with(control, &svid, hello, Bundle::default())).await;
    let is_in_discovery = |bundle: &Bundle| endpoints(bundle).iter().any(|name| name == "web-2");
    proxy.take_until(|bundle| is_in_discovery(bundle) && names(bundle) == ["canary", "web"]).await;
    control.apply(&GUARD.replace("spec: {", &format!("spec: {{direction: {direction}, "))).await;
    let delta = proxy.delta().await;
    assert!(delta.upserts.iter().any(|object| matches!(object, Object::Filter(_))), "{delta:?}");
    let view = proxy.view;
    (proxy, delta, view)
}

/// A delta that brings a filter takes its time; what that filter does not judge waits for none of it.
#[tokio::test]
async fn an_answer_overtakes_a_delta_whose_filter_is_being_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut proxy, filtered, view) = preparing(&control, "Inbound").await;
    control.apply(NEW).await;
    proxy.say(asks(&[service("foreign"), service("gone")], &[])).await;
    let ahead = proxy.delta().await;
    assert!(ahead.ahead && ahead.removals.is_empty());
    let told: Vec<_> = ahead.upserts.iter().map(Object::key).collect();
    assert_eq!(told, [Key::Service(ObjectName::new("shop", "foreign"))]);
    assert_eq!(ahead.answered, [service("foreign"), service("gone")].into());
    proxy.say(asks(&[service("new")], &[])).await;
    let second = proxy.delta().await;
    assert!(second.ahead && second.answered.contains(&service("new")));
    // It is gone before the proxy is ready: what went ahead is taken away.
    let (status, body) = control.call("delete", "/api/v1/resources/services/shop/new", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    proxy.view = view;
    proxy.accept(&filtered).await;
    let rest = proxy.take().await;
    assert!(!rest.ahead && rest.removals == [Key::Service(ObjectName::new("shop", "new"))], "{rest:?}");
    assert_eq!(rest.answered, [service("foreign"), service("gone"), service("new")].into());
    assert_eq!(names(&proxy.bundle), ["canary", "foreign", "web"]);
    assert!(control.metrics().await.contains("weft_control_answers_ahead_total 2"));
}

#[tokio::test]
async fn a_call_that_a_filter_judges_waits_for_the_filter() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut proxy, filtered, view) = preparing(&control, "Outbound").await;
    proxy.say(asks(&[service("foreign")], &[])).await;
    until_heard(&control, &mut proxy).await;
    proxy.view = view;
    proxy.accept(&filtered).await;
    let rest = proxy.take().await;
    assert!(!rest.ahead && rest.answered == [service("foreign")].into(), "{rest:?}");
}

/// Of a change that it holds nothing of a proxy gets nothing, whatever it still owes.
#[tokio::test]
async fn who_waits_for_a_change_waits_for_those_that_hold_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{SHOP}")).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    proxy.say(asks(&[service("web")], &[])).await;
    let owed = proxy.delta().await;
    let foreign = control
        .apply(&SHOP.replace("clusterIP: 10.77.0.9, ports: [{port: 80,", "clusterIP: 10.77.0.9, ports: [{port: 81,"))
        .await;
    assert_eq!(state(&control, foreign, 10_000).await, (true, vec![]));
    let own = control.apply(&WEB.replace("port: 80", "port: 81")).await;
    let (complete, proxies) = state(&control, own, 0).await;
    assert!(!complete && proxies[0].0 == "client-1", "{proxies:?}");
    proxy.accept(&owed).await;
    proxy.take_until(|bundle| bundle.services.get(&super::web()).is_some_and(|web| web.ports[0].port == 81)).await;
    let (complete, proxies) = state(&control, own, 10_000).await;
    assert!(complete && proxies.len() == 1, "{proxies:?}");
    assert_eq!(state(&control, foreign, 10_000).await, (true, vec![]), "it was not concerned");
}

/// Ahead of it, requests of the route would find a backend without endpoints. An endpoint that is gone leaves at once.
#[tokio::test]
async fn a_backend_that_is_no_longer_needed_goes_together_with_its_route() {
    const ENDPOINT: &str = "
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: canary-1, namespace: shop, labels: {app: canary}}
spec: {address: 127.0.0.12, ports: [{port: 8080}], serviceAccount: canary}
";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut proxy = connect(&control, &[service("web")]).await;
    let delete = async |paths: &[&str]| {
        for path in paths {
            let (status, body) = control.call("delete", &format!("/api/v1/resources/{path}"), Value::Null).await;
            assert_eq!(status, 200, "{body}");
        }
    };
    for gone in [&["httproutes/shop/r"][..], &["httproutes/shop/r", "services/shop/canary"]] {
        control.apply(&format!("{WEB}---\n{SHOP}---\n{ENDPOINT}")).await;
        let canary = |bundle: &Bundle| bundle.services.get(&ObjectName::new("shop", "canary")).cloned();
        proxy.take_until(|bundle| canary(bundle).is_some_and(|service| service.endpoints.len() == 1)).await;
        delete(gone).await;
        while canary(&proxy.bundle).is_some() {
            let delta = proxy.take().await;
            assert!(!delta.subtractive, "{gone:?}: {delta:?}");
        }
        assert!(proxy.bundle.routes.is_empty(), "{gone:?}");
    }

    control.apply(&format!("{SHOP}---\n{ENDPOINT}")).await;
    let service = ObjectName::new("shop", "canary");
    proxy.take_until(|bundle| bundle.services.contains_key(&service)).await;
    delete(&["workloads/shop/canary-1"]).await;
    let workload = ObjectName::new("shop", "canary-1");
    let delta = proxy.take().await;
    assert!(delta.subtractive && delta.removals == [Key::Endpoint { service, workload }], "{delta:?}");
}

/// By the mesh's settings a proxy knows what to ask for: one that has older ones is told everything.
#[tokio::test]
async fn a_proxy_with_older_settings_of_the_mesh_need_not_ask() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{SHOP}")).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    assert_eq!(names(&proxy.bundle), [""; 0]);
    let mesh = "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {egress: RegistryOnly}\n";
    control.apply(mesh).await;
    let delta = proxy.delta().await;
    let nack = v1::Nack {
        revision: delta.revision.0,
        key: Some((&Key::Mesh).into()),
        reason: "can't".to_owned(),
        view: proxy.view,
    };
    proxy.say(Message::Nack(nack)).await;
    proxy.take_until(|bundle| names(bundle) == ["canary", "foreign", "web"]).await;
    // As long as that is so it is told of every change, and of nothing twice.
    control
        .apply(&SHOP.replace("clusterIP: 10.77.0.9, ports: [{port: 80,", "clusterIP: 10.77.0.9, ports: [{port: 81,"))
        .await;
    let told: Vec<_> = proxy.take().await.upserts.iter().map(Object::key).collect();
    assert_eq!(told, [Key::Service(ObjectName::new("shop", "foreign"))]);
    // Settings that it takes: it holds what it asks for and no more.
    control.apply(&mesh.replace("RegistryOnly", "Allow")).await;
    proxy.take_until(|bundle| names(bundle).is_empty()).await;
    assert_eq!(proxy.bundle.mesh.as_ref().unwrap().egress, weft_policy::bundle::Egress::Allow);
}

/// Of two deltas of one revision the answer to the first is none to the second.
#[tokio::test]
async fn an_answer_is_to_a_view_of_a_revision() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    let first = proxy.view;
    proxy.say(asks(&[service("web")], &[])).await;
    let second = proxy.delta().await;
    assert!(proxy.view > first && second.revision.0 == revision);
    proxy.say(Message::Ack(v1::Ack { revision, view: first, ..Default::default() })).await;
    proxy.say(asks(&[service("late")], &[])).await;
    until_heard(&control, &mut proxy).await;
    assert!(control.metrics().await.contains("weft_control_pushes_total 2"), "the second is not answered yet");
    proxy.accept(&second).await;
    let third = proxy.take().await;
    assert_eq!(third.answered, [service("late")].into());
}

/// It stays connected, since it must hear of policies, and its other calls go on.
#[tokio::test]
async fn a_proxy_that_asks_without_end_is_answered_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_absent_asks_per_proxy = 10).await;
    control.apply(&format!("{WEB}---\n{NEW}")).await;
    let absent = |count: usize| (0..count).map(|index| service(&format!("n{index}"))).collect::<Vec<_>>();
    let mut proxy = connect(&control, &absent(1_000)).await;
    assert_eq!(proxy.take().await.answered.len(), 10);
    proxy.say(asks(&absent(1_000), &[])).await;
    assert_eq!(proxy.take().await.answered.len(), 10, "those that it may know of are answered again");
    let throttled = "weft_control_throttled_total{reason=\"asks\"} 2";
    let text = control.metrics().await;
    assert!(text.contains(throttled) && text.contains("weft_control_subscriptions 10"), "{text}");
    // What is there is told all the same.
    proxy.say(asks(&[service("new")], &[])).await;
    proxy.take_until(|bundle| names(bundle) == ["new"]).await;
    // There is room again.
    proxy.say(asks(&[service("late")], &absent(1_000))).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("late"))).await;
}

/// Many streams are no way around it, and what is there takes no place.
#[tokio::test]
async fn the_proxies_of_an_account_share_what_they_may_ask_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let few = |config: &mut crate::config::Config| config.limits.max_absent_asks_per_account = 10;
    let control = Control::start_with(dir.path(), few).await;
    control.apply(&format!("{WEB}---\n{NEW}")).await;
    let absent = |of: &str, count: usize| (0..count).map(|index| service(&format!("{of}{index}"))).collect::<Vec<_>>();
    let svid = control.join("shop/client").await;
    let named = |name: &str, asked: &[Ask]| v1::Hello { proxy_name: name.to_owned(), ..scoped(asked) };
    let mut first =
        Box::pin(Proxy::connect_with(&control, &svid, named("one", &absent("a", 7)), Bundle::default())).await;
    assert_eq!(first.take().await.answered.len(), 7);
    let hello = named("two", &[absent("b", 7), vec![service("web"), service("new")]].concat());
    let mut second = Box::pin(Proxy::connect_with(&control, &svid, hello, Bundle::default())).await;
    assert_eq!(second.take().await.answered.len(), 5);
    first.say(asks(&[], &absent("a", 4))).await;
    until_heard(&control, &mut first).await;
    second.say(asks(&absent("b", 7), &[])).await;
    second.take_until(|bundle| bundle.answered.len() == 9).await;
    // One of another account has places of its own.
    let svid = control.join("shop/other").await;
    let mut other =
        Box::pin(Proxy::connect_with(&control, &svid, named("other", &absent("c", 7)), Bundle::default())).await;
    assert_eq!(other.take().await.answered.len(), 7);
}

/// A delta that is never answered is no reason to remember without end.
#[tokio::test]
async fn a_silent_proxy_may_ask_for_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_absent_asks_per_proxy = 10).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    let first = proxy.delta().await;
    for round in 0..20 {
        let names: Vec<_> = (0..50).map(|index| service(&format!("n{round}-{index}"))).collect();
        proxy.say(asks(&names, &[])).await;
    }
    proxy.accept(&first).await;
    assert_eq!(proxy.take().await.answered.len(), 10);
}

/// Who asks and withdraws in a loop makes the control plane look no more often than changes do.
#[tokio::test]
async fn a_proxy_that_asks_too_often_is_answered_with_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let slow = |config: &mut crate::config::Config| {
        (config.coalesce_quiet_ms, config.coalesce_max_ms) = (200, 10_000);
        config.limits.max_questions_per_minute = 5;
    };
    let control = Control::start_with(dir.path(), slow).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    for _ in 0..50 {
        proxy.say(asks(&[service("web")], &[])).await;
        proxy.say(asks(&[], &[service("web")])).await;
    }
    proxy.say(asks(&[service("web"), service("late")], &[])).await;
    proxy.take_until(|bundle| bundle.answered.contains(&service("late"))).await;
    assert_eq!(names(&proxy.bundle), ["web"]);
    let text = control.metrics().await;
    let of = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(of("weft_control_throttled_total{reason=\"asks\"}") >= 90.0, "{text}");
    assert!(of("weft_control_pushes_total") < 15.0, "{text}");
}

/// A proxy of another release that does not ask is told everything, and that it is everything.
#[tokio::test]
async fn a_proxy_that_cannot_ask_is_told_everything() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{SHOP}")).await;
    let svid = control.join("shop/client").await;
    let hello = v1::Hello { capabilities: greeting().capabilities, ..scoped(&[service("web")]) };
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    proxy.take().await;
    assert_eq!(names(&proxy.bundle), ["canary", "foreign", "web"]);
    assert_eq!((proxy.bundle.mesh.as_ref().unwrap().ranges.clone(), proxy.view), (None, 0));
    assert!(proxy.bundle.answered.is_empty());
}

/// An explanation says which proxies of the caller have to ask first.
#[tokio::test]
async fn what_is_not_held_yet_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let mut proxy = connect(&control, &[]).await;
    proxy.take().await;
    let reason = async || {
        let question = json!({"from": "shop/client", "to": "web"});
        let (status, body) = control.call("post", "/api/v1/explain", question).await;
        assert_eq!(status, 200, "{body}");
        body["reason"].as_str().unwrap().to_owned()
    };
    let before = reason().await;
    assert!(before.ends_with("; not held yet by client-1: the first call asks for it"), "{before}");
    proxy.say(asks(&[service("web")], &[])).await;
    proxy.take().await;
    assert_eq!(reason().await, before.split("; not held").next().unwrap());
}
