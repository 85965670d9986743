//! Control streams over real TLS and gRPC: deltas, refusals, removals at once, reconnection, crashes.

use std::time::Duration;

use serde_json::{Value, json};
use weft_policy::bundle::{Bundle, ObjectName, PathMatch};
use weft_policy::delta::{Key, Object};
use weft_policy::wire::v1::proxy_message::Message;
use weft_policy::wire::{ENVELOPES, FILTER_CONTRACT, encode, v1};

mod closed;
mod floods;
mod grants;
mod older;
mod reports;
mod scope;
mod stages;

use super::*;
use crate::app::tests::{Control, Proxy, greeting, workload};
use crate::artifact::tests::publication;

const WEB: &str = "
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

const GUARD: &str = "
apiVersion: weft.dev/v1alpha1
kind: FilterPolicy
metadata: {name: guard, namespace: shop}
spec: {filter: {name: guard}}
";

/// A filter, published; in its binary there is nothing to run.
async fn publish(control: &Control, name: &str) {
    let publication = publication(name, "1.0.0", "weft:filter/log@0.1.0");
    control.app.hub.publish_filter("me", publication).await.unwrap();
}

fn route(path: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec:\n  parentRefs: [{{kind: Service, group: '', name: web, port: 80}}]\n  rules:\n  \
         - matches: [{{path: {{type: Exact, value: {path}}}}}]\n    backendRefs: [{{name: web, port: 80}}]\n"
    )
}

fn has_path(bundle: &Bundle, path: &str) -> bool {
    let matches = bundle.routes.values().flat_map(|route| &route.rules).flat_map(|rule| &rule.matches);
    matches.filter_map(|m| m.path.as_ref()).any(|found| *found == PathMatch::Exact(path.to_owned()))
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn endpoints(bundle: &Bundle) -> Vec<String> {
    let service = bundle.services.get(&web());
    service.map(|service| service.endpoints.keys().map(|name| name.name.clone()).collect()).unwrap_or_default()
}

/// The state of one proxy as the API tells it.
async fn state(control: &Control, revision: u64, wait_ms: u64) -> (bool, Vec<(String, String, String)>) {
    let path = format!("/api/v1/revisions/{revision}/status?wait_ms={wait_ms}");
    let (status, body) = control.call("get", &path, Value::Null).await;
    assert_eq!(status, 200, "{body}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let proxies = body["proxies"].as_array().unwrap();
    let proxies = proxies.iter().map(|p| (text(&p["name"]), text(&p["state"]), text(&p["reason"]))).collect();
    (body["complete"].as_bool().unwrap(), proxies)
}

#[tokio::test]
async fn a_proxy_gets_the_world_then_differences() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect(&control, &svid, "client-1", None, Bundle::default()).await;
    let first = proxy.take().await;
    assert!(first.full && !first.subtractive);
    assert_eq!(endpoints(&proxy.bundle), ["web-1"]);
    assert_eq!(proxy.bundle.mesh.as_ref().unwrap().trust_domain.as_str(), "cluster.local");

    let revision = control.apply(&route("/a")).await;
    let second = proxy.delta().await;
    // The service too: its undeclared port takes no opaque traffic any more, which would pass by the route.
    assert!(matches!(&second.upserts[..], [Object::Service(_), Object::Route(_)]), "{second:?}");
    let (complete, proxies) = state(&control, revision, 0).await;
    assert!(!complete);
    assert_eq!((proxies[0].1.as_str(), proxies[0].2.as_str()), ("behind", "sent, not answered yet"));
    proxy.accept(&second).await;
    let (complete, proxies) = state(&control, revision, 10_000).await;
    assert!(complete, "{proxies:?}");

    // Each proxy holds the names of namespaces.
    control.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n").await;
    let third = proxy.delta().await;
    assert!(matches!(&third.upserts[..], [Object::Mesh(_)]), "{third:?}");
    proxy.accept(&third).await;
    // Nothing new for this proxy: it is in step without a word.
    let elsewhere = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {team: quiet}}\n";
    let revision = control.apply(elsewhere).await;
    assert!(state(&control, revision, 10_000).await.0);
    let (_, body) = control.call("get", "/api/v1/proxies", Value::Null).await;
    let shown = &body["proxies"][0];
    assert_eq!(shown["identity"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!((&shown["state"], &shown["revision"]), (&json!("synced"), &json!(revision)));
}

#[tokio::test]
async fn a_refused_object_is_held_back_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&format!("{WEB}---\n{}", route("/good"))).await;
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect(&control, &svid, "client-1", None, Bundle::default()).await;
    proxy.take().await;

    let second = WEB.replace("web-1", "web-2").replace("127.0.0.11", "127.0.0.12");
    let revision = control.apply(&format!("{second}---\n{}", route("/bad"))).await;
    let delta = proxy.delta().await;
    let key = delta.upserts.iter().map(Object::key).find(|key| matches!(key, Key::Route(_))).unwrap();
    let nack = v1::Nack {
        revision: delta.revision.0,
        key: Some(v1::Key::from(&key)),
        reason: "can't do that".to_owned(),
        ..Default::default()
    };
    proxy.say(Message::Nack(nack)).await;
    proxy.take_until(|bundle| endpoints(bundle).len() == 2).await;
    assert!(has_path(&proxy.bundle, "/good"));
    let (complete, proxies) = state(&control, revision, 10_000).await;
    assert!(!complete);
    assert_eq!(proxies[0].1, "refused");
    assert!(proxies[0].2.contains("HTTPRoute shop/r") && proxies[0].2.contains("can't do that"), "{proxies:?}");
    assert!(control.metrics().await.contains("weft_control_nacks_total 1"));
    let notes = async || {
        let question = json!({"from": "shop/client", "to": "web"});
        let (status, body) = control.call("post", "/api/v1/explain", question).await;
        assert_eq!(status, 200, "{body}");
        body["notes"].to_string()
    };
    let told = notes().await;
    assert!(told.contains("proxy client-1 does without HTTPRoute shop/r") && told.contains("can't do that"), "{told}");

    let revision = control.apply(&route("/better")).await;
    proxy.take_until(|bundle| has_path(bundle, "/better")).await;
    assert!(state(&control, revision, 10_000).await.0);
    let told = notes().await;
    assert!(!told.contains("does without"), "{told}");
}

/// Hello of a proxy of another release, which can do this and no more.
fn of_another_release(name: &str, capabilities: &[&str]) -> v1::Hello {
    let capabilities = capabilities.iter().map(|it| (*it).to_owned()).collect();
    v1::Hello { proxy_name: name.to_owned(), capabilities, ..greeting() }
}

/// It would drop what it does not know, and let more through.
#[tokio::test]
async fn a_proxy_that_cannot_read_objects_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let hello = of_another_release("web-1", &["quic", "wit-0.1", "peer-word"]);
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    let refusal = proxy.refusal().await;
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(refusal.message().contains("update the proxy") && refusal.message().contains("envelopes"), "{refusal}");
}

/// A proxy with another contract can't run the filter that protects its workload: it is told nothing rather than to
/// serve without, and people see why. A proxy that has an earlier state goes on with it, but for what it can't do.
#[tokio::test]
async fn an_object_that_a_proxy_cannot_do_is_withheld_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    publish(&control, "guard").await;
    control.apply(&format!("{WEB}---\n{GUARD}")).await;
    let svid = control.join("shop/web").await;
    let serving = |address| Some(workload("web-2", "shop", address, Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "web-2", serving("127.0.0.22"), Bundle::default()).await;
    proxy.take_until(|bundle| bundle.filters.contains_key("shop/guard") && bundle.mesh.is_some()).await;
    let held = proxy.bundle.clone();
    drop(proxy);

    let of_another_release = |name| v1::Hello {
        workloads: vec![workload(name, "shop", "127.0.0.22", Some("web"))],
        ..of_another_release(name, &["quic", ENVELOPES, "wit-0.9"])
    };
    let newborn = Proxy::connect_with(&control, &svid, of_another_release("web-2"), Bundle::default()).await;
    control.apply(&WEB.replace("8080", "8081")).await;
    let revision = control.apply(&route("/new")).await;
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "web-2").unwrap().2;
    assert!(!complete && why.contains("Filter shop/guard: withheld: it requires wit-0.1"), "{states:?}");
    drop(newborn);

    let known = held.objects();
    let known = known.values().map(encode).map(|it| v1::ObjectVersion { key: it.key, version: it.version });
    let hello = v1::Hello { known: known.collect(), ..of_another_release("web-2") };
    let mut earlier = Proxy::connect_with(&control, &svid, hello, held).await;
    earlier.take_until(|bundle| has_path(bundle, "/new")).await;
    assert!(earlier.bundle.filters.contains_key("shop/guard"), "it keeps the filter that it runs");
    drop(earlier);
    // With the contract of today everything is sent.
    let capabilities = vec![ENVELOPES.to_owned(), FILTER_CONTRACT.to_owned()];
    let hello = v1::Hello { capabilities, ..of_another_release("web-2") };
    let mut updated = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    updated.take_until(|bundle| has_path(bundle, "/new") && bundle.filters.contains_key("shop/guard")).await;
}

/// A proxy of an earlier release passes over an object of a kind that it does not know, which nobody takes for held then.
#[tokio::test]
async fn what_a_proxy_skips_is_held_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{}", route("/good"))).await;
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect(&control, &svid, "client-1", None, Bundle::default()).await;
    let delta = proxy.delta().await;
    let key = delta.upserts.iter().map(Object::key).find(|key| matches!(key, Key::Route(_))).unwrap();
    proxy
        .say(Message::Ack(v1::Ack { revision: delta.revision.0, skipped: vec![(&key).into()], ..Default::default() }))
        .await;
    let (_, states) = state(&control, revision, 10_000).await;
    assert!(states[0].2.contains("HTTPRoute shop/r: skipped: this proxy does not know its kind"), "{states:?}");
}

#[tokio::test]
async fn endpoints_leave_at_once_and_ahead_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    // No delta but removals would come within the test.
    let slow = |config: &mut crate::config::Config| (config.coalesce_quiet_ms, config.coalesce_max_ms) = (5_000, 5_000);
    let control = Control::start_with(dir.path(), slow).await;
    control.apply(WEB).await;
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect(&control, &svid, "client-1", None, Bundle::default()).await;
    proxy.take().await;
    let (status, _) = control.call("delete", "/api/v1/resources/workloads/shop/web-1", Value::Null).await;
    assert_eq!(status, 200);
    let delta = tokio::time::timeout(Duration::from_secs(2), proxy.take()).await.unwrap();
    assert!(delta.subtractive);
    let gone = Key::Endpoint { service: web(), workload: ObjectName::new("shop", "web-1") };
    assert_eq!(delta.removals, [gone]);
    assert!(endpoints(&proxy.bundle).is_empty());
}

#[tokio::test]
async fn registered_workloads_come_and_go_with_their_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let client = control.join("shop/client").await;
    let mut watcher = Proxy::connect(&control, &client, "client-1", None, Bundle::default()).await;
    watcher.take().await;
    let svid = control.join("shop/web").await;
    let register = |name: &str, address: &str| Some(workload(name, "shop", address, Some("web")));
    let mut one = Proxy::connect(&control, &svid, "web-1", register("web-1", "127.0.0.11"), Bundle::default()).await;
    let mut two = Proxy::connect(&control, &svid, "web-2", register("web-2", "127.0.0.12"), Bundle::default()).await;
    one.take_until(|bundle| bundle.workloads.contains_key("shop/web-1")).await;
    two.take_until(|bundle| bundle.workloads.contains_key("shop/web-2")).await;
    watcher.take_until(|bundle| endpoints(bundle).len() == 2).await;
    let endpoint = &watcher.bundle.services[&web()].endpoints[&ObjectName::new("shop", "web-1")];
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), svid.identity);
    assert_eq!(endpoint.mesh_address, "127.0.0.11:15008".parse().unwrap());

    // One says goodbye, the other one's process dies.
    one.say(Message::Draining(v1::Draining {})).await;
    watcher.take_until(|bundle| endpoints(bundle) == ["web-2"]).await;
    drop(two);
    let suspect = async || {
        let (_, body) = control.call("get", "/api/v1/proxies", Value::Null).await;
        body["proxies"].as_array().unwrap().iter().any(|proxy| proxy["reason"].as_str().unwrap().starts_with("suspect"))
    };
    let mut changes = control.app.hub.registry().watch();
    while !suspect().await {
        changes.changed().await.unwrap();
    }
    // It is the last one: it stays, whatever peers say.
    watcher.say(unreachable("web-2")).await;
    stays(&mut watcher, &["web-2"]).await;
}

/// For many leases nothing but these endpoints is there.
async fn stays(watcher: &mut Proxy, expect: &[&str]) {
    let long = tokio::time::sleep(Duration::from_millis(500));
    tokio::pin!(long);
    loop {
        tokio::select! {
            () = &mut long => return,
            _ = watcher.take() => assert_eq!(endpoints(&watcher.bundle), expect),
        }
    }
}

/// The word of a peer that tried in vain.
fn unreachable(workload: &str) -> Message {
    let workload = v1::ObjectName { namespace: "shop".to_owned(), name: workload.to_owned() };
    let peers = vec![v1::PeerWord { workload: Some(workload), reached: false }];
    Message::Report(v1::Report { peers, ..Default::default() })
}

/// A proxy that says which peers it reaches.
async fn telling(control: &Control, svid: &crate::app::tests::Svid) -> Proxy {
    let hello = v1::Hello { proxy_name: "client-1".to_owned(), ..greeting() };
    Proxy::connect_with(control, svid, hello, Bundle::default()).await
}

#[tokio::test]
async fn silence_removes_nobody_that_peers_reach() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let mut watcher = telling(&control, &svid).await;
    watcher.take().await;
    let mut proxies = Vec::new();
    for n in 1..=4 {
        let registration = Some(workload(&format!("web-{n}"), "shop", &format!("127.0.0.1{n}"), Some("web")));
        let mut proxy = Proxy::connect(&control, &svid, &format!("web-{n}"), registration, Bundle::default()).await;
        proxy.take().await;
        proxies.push(proxy);
    }
    watcher.take_until(|bundle| endpoints(bundle).len() == 4).await;
    drop(proxies.split_off(2));
    // Their leases are over after 50 ms, and nobody says a word against them.
    stays(&mut watcher, &["web-1", "web-2", "web-3", "web-4"]).await;
    watcher.say(unreachable("web-3")).await;
    watcher.take_until(|bundle| endpoints(bundle) == ["web-1", "web-2", "web-4"]).await;
    // Half of a service may go at once.
    watcher.say(unreachable("web-4")).await;
    watcher.take_until(|bundle| endpoints(bundle) == ["web-1", "web-2"]).await;
    drop(proxies.remove(1));
    watcher.say(unreachable("web-2")).await;
    stays(&mut watcher, &["web-1", "web-2"]).await;
}

#[tokio::test]
async fn when_most_proxies_are_lost_at_once_their_endpoints_stay() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let mut proxies = Vec::new();
    for n in 1..=8 {
        let registration = Some(workload(&format!("web-{n}"), "shop", &format!("127.0.0.1{n}"), Some("web")));
        let mut proxy = Proxy::connect(&control, &svid, &format!("web-{n}"), registration, Bundle::default()).await;
        proxy.take().await;
        proxies.push(proxy);
    }
    let mut watcher = proxies.remove(0);
    watcher.take_until(|bundle| endpoints(bundle).len() == 8).await;
    drop(proxies);
    let registry = control.app.hub.registry();
    let mut changes = registry.watch();
    let lost = changes.wait_for(|_| registry.suspects().len() == 7);
    tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap().unwrap();
    let all: Vec<_> = (1..=8).map(|n| format!("web-{n}")).collect();
    stays(&mut watcher, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_crash_of_the_control_plane_loses_nothing_and_costs_a_delta_only() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(&route("/a")).await;
    let svid = control.join("shop/web").await;
    let register = || Some(workload("web-1", "shop", "127.0.0.11", Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "web-1", register(), Bundle::default()).await;
    proxy.take_until(|bundle| endpoints(bundle) == ["web-1"]).await;
    let revision = proxy.bundle.revision;
    // These copies are the files that a crash would leave: taken as they are, while the process lives.
    for entry in ["weft.redb", "ca.pem", "operator.token"] {
        std::fs::copy(dir.path().join(entry), crashed.path().join(entry)).unwrap();
    }
    std::fs::create_dir(crashed.path().join("ca")).unwrap();
    for entry in ["ca/root.key", "ca/intermediate.pem"] {
        std::fs::copy(dir.path().join(entry), crashed.path().join(entry)).unwrap();
    }
    drop(control);

    let control = Control::start(crashed.path()).await;
    let watcher_svid = control.join("shop/client").await;
    let mut watcher = Proxy::connect(&control, &watcher_svid, "client-1", None, Bundle::default()).await;
    watcher.take().await;
    assert_eq!(endpoints(&watcher.bundle), ["web-1"], "known from before the crash");
    let (complete, proxies) = state(&control, revision.0, 0).await;
    assert!(!complete, "a proxy that is expected back is waited for: {proxies:?}");
    let known = proxy.bundle.clone();
    let mut proxy = Proxy::connect(&control, &svid, "web-1", register(), known.clone()).await;
    let delta = proxy.take().await;
    assert!(!delta.full && delta.upserts.is_empty() && delta.removals.is_empty(), "{delta:?}");
    let before = Bundle { revision: delta.revision, ..known };
    assert_eq!(proxy.bundle, before);
    let (complete, proxies) = state(&control, revision.0, 10_000).await;
    assert!(complete, "{proxies:?}");
}

fn mesh_address(text: &str) -> v1::WorkloadRegistration {
    v1::WorkloadRegistration { mesh_address: text.to_owned(), ..workload("web-1", "shop", "127.0.0.11", None) }
}

fn labelled(value: &str) -> v1::WorkloadRegistration {
    let labels = [("app".to_owned(), value.to_owned())].into();
    v1::WorkloadRegistration { labels, ..workload("web-1", "shop", "127.0.0.11", None) }
}

#[tokio::test]
async fn a_proxy_speaks_for_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    for (registration, expect) in [
        (workload("web-1", "kube-system", "127.0.0.11", None), "certificate is for namespace shop"),
        (workload("web-1", "shop", "0.0.0.0", None), "address: 0.0.0.0 stands for every address"),
        (workload("web-1", "shop", "nonsense", None), "address"),
        (workload("Web/1", "shop", "127.0.0.11", None), "workload \"Web/1\": name: "),
        (workload("a..b", "shop", "127.0.0.11", None), "workload \"a..b\": name: "),
        (workload("web-1", "shop", "127.0.0.11", Some("my.app")), "service: \"my.app\" is not the name"),
        (workload("web-1", "shop", "127.0.0.11", Some("localhost")), "service: \"localhost\" is reserved"),
        (mesh_address("0.0.0.0:15008"), "mesh_address: 0.0.0.0 stands"),
        (mesh_address("[::]:15008"), "mesh_address: :: stands"),
        (mesh_address("127.0.0.11:0"), "mesh_address: port 0"),
        (labelled("one\ntwo"), "labels: \"app\" its value"),
        (labelled(&"x".repeat(20_000)), "bytes; at most 16384"),
    ] {
        let mut proxy = Proxy::connect(&control, &svid, "p", Some(registration), Bundle::default()).await;
        let error = proxy.try_delta().await.unwrap_err();
        assert!(error.contains(expect), "{error}");
    }
    let hello = v1::Hello { proxy_name: "../../etc".to_owned(), ..greeting() };
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    assert!(proxy.try_delta().await.unwrap_err().contains("proxy_name"));
    assert!(control.app.hub.published().world.is_empty());
    let metrics = control.metrics().await;
    let counted = "weft_control_registrations_refused_total{reason=\"invalid\"} 12";
    assert!(metrics.contains(counted), "{metrics}");
    // The refused registrations left nothing behind that could stop the next start.
    control.app.stop().await;
    Control::start(dir.path()).await;
}

#[tokio::test]
async fn the_newest_stream_of_a_proxy_wins() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let register = || Some(workload("web-1", "shop", "127.0.0.11", Some("web")));
    let mut old = Proxy::connect(&control, &svid, "web-1", register(), Bundle::default()).await;
    old.take().await;
    let mut new = Proxy::connect(&control, &svid, "web-1", register(), old.bundle.clone()).await;
    new.take().await;
    let reason = loop {
        if let Err(reason) = old.try_delta().await {
            break reason;
        }
    };
    assert!(reason.contains("newer stream"), "{reason}");
    drop(old);
    control.apply(&WEB.replace("web-1", "web-9").replace("127.0.0.11", "127.0.0.19")).await;
    new.take_until(|bundle| bundle.services.contains_key(&web())).await;
    assert!(new.bundle.workloads.contains_key("shop/web-1"), "the old stream's end took nothing away");
}

#[tokio::test]
async fn a_ban_reaches_every_proxy_and_ends_its_own_session_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let (good, bad) = (control.join("shop/good").await, control.join("shop/bad").await);
    let mut other = Proxy::connect(&control, &good, "good-1", None, Bundle::default()).await;
    let mut banned =
        Proxy::connect(&control, &bad, "bad-1", Some(workload("bad-1", "shop", "127.0.0.12", None)), Bundle::default())
            .await;
    other.take().await;
    banned.take().await;
    let (status, body) = control.call("post", "/api/v1/bans", json!({"proxy": "bad-1", "reason": "x"})).await;
    assert_eq!((status, &body["ban"]["identity"]), (200, &json!(bad.identity)), "{body}");
    let begun = std::time::Instant::now();
    other.until_denied(&[&bad.identity]).await;
    let reason = loop {
        match banned.try_delta().await {
            Ok(_) => {}
            Err(reason) => break reason,
        }
    };
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(reason.contains("is banned since"), "{reason}");
    let error = control.grpc(Some(&bad)).await.connect(tokio_stream::empty()).await.err().unwrap();
    assert_eq!(error.code(), tonic::Code::PermissionDenied);
    assert!(control.metrics().await.contains("weft_control_banned_identities 1"));
    // A proxy that connects later is told at once.
    let mut late = Proxy::connect(&control, &good, "good-2", None, Bundle::default()).await;
    late.until_denied(&[&bad.identity]).await;
    let path = format!("/api/v1/bans/{}", bad.identity.replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(control.call("delete", &path, Value::Null).await.0, 200);
    late.until_denied(&[]).await;
    Proxy::connect(&control, &bad, "bad-1", None, Bundle::default()).await.take().await;
}

#[tokio::test]
async fn an_evicted_proxy_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let registered = || Some(workload("web-9", "shop", "127.0.0.19", Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "web-9", registered(), Bundle::default()).await;
    proxy.take().await;
    let mut peer = Proxy::connect(&control, &control.join("shop/api").await, "api-1", None, Bundle::default()).await;
    peer.take().await;
    assert_eq!(control.call("post", "/api/v1/proxies/nobody/evict", json!({})).await.0, 404);
    let (status, body) = control.call("post", "/api/v1/proxies/web-9/evict", json!({})).await;
    assert_eq!(status, 200, "{body}");
    let (_, body) = control.call("get", "/api/v1/resources/workloads?namespace=shop", Value::Null).await;
    assert_eq!(body["items"].as_array().unwrap().len(), 0, "{body}");
    let reason = loop {
        match proxy.try_delta().await {
            Ok(_) => {}
            Err(reason) => break reason,
        }
    };
    assert!(reason.contains("evicted by an operator"), "{reason}");
    // Whoever it is connected to hears by which certificate to know it.
    peer.until_evicted(&svid).await;
    let mut back = Proxy::connect(&control, &svid, "web-9", registered(), Bundle::default()).await;
    back.take_until(|bundle| !bundle.workloads.is_empty()).await;
}

#[tokio::test]
async fn a_proxy_that_is_ahead_is_left_alone_until_an_operator_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(WEB).await;
    let svid = control.join("shop/web").await;
    let mut proxy = Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    proxy.take().await;
    let lineage = proxy.lineage.clone().unwrap();
    drop(proxy);
    // It has seen more of this store than the store has now.
    let hello = v1::Hello {
        proxy_name: "web-1".to_owned(),
        current_revision: revision + 5,
        lineage: Some(lineage),
        ..greeting()
    };
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    let delta = proxy.delta().await;
    assert!(delta.upserts.is_empty() && delta.removals.is_empty() && !delta.full, "{delta:?}");
    let (complete, states) = state(&control, revision, 0).await;
    assert!(!complete && states[0].1 == "refused" && states[0].2.contains("weft store accept"), "{states:?}");
    assert!(control.metrics().await.contains("weft_control_proxies_left_alone 1"));
    let (_, store) = control.call("get", "/api/v1/store", Value::Null).await;
    let ahead = &store["ahead"];
    assert_eq!((&ahead["proxies"], &ahead["names"]), (&json!(1), &json!(["web-1"])), "{store}");
    assert!(ahead["reason"].as_str().unwrap().contains("weft store accept"), "{store}");
    let before = u64::try_from(crate::now_unix()).unwrap();
    let (status, body) = control.call("post", "/api/v1/store/accept", json!({})).await;
    let epoch = body["epoch"].as_u64().unwrap();
    assert!(status == 200 && epoch >= before, "{body}");
    proxy.take_until(|bundle| bundle.mesh.is_some()).await;
    assert_eq!(proxy.lineage.as_ref().unwrap().epoch, epoch);
    let (complete, states) = state(&control, revision, 5_000).await;
    assert!(complete, "{states:?}");
    // Now nobody is ahead, and there is nothing to accept.
    let (_, store) = control.call("get", "/api/v1/store", Value::Null).await;
    assert!(store.get("ahead").is_none() && store["epoch"] == epoch, "{store}");
    let (status, refused) = control.call("post", "/api/v1/store/accept", json!({})).await;
    assert!(status == 409 && refused.to_string().contains("nothing to accept"), "{refused}");
}

/// Cloned machines: one name, one certificate, and each its own start.
#[tokio::test]
async fn of_two_with_one_name_the_later_start_stays() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let hello = |incarnation| v1::Hello {
        proxy_name: "web-1".to_owned(),
        workloads: vec![workload("web-1", "shop", "127.0.0.11", Some("web"))],
        incarnation,
        ..greeting()
    };
    let connect = async |incarnation| Proxy::connect_with(&control, &svid, hello(incarnation), Bundle::default()).await;
    let mut first = connect(5).await;
    first.take().await;
    // From that on it is in discovery.
    let in_discovery = async {
        while control.app.hub.published().revision.0 < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::app::tests::PATIENCE, in_discovery).await.expect("it is counted in");
    let revision = control.app.hub.published().revision;
    // An earlier start is refused in one exchange and hears that it should keep away; nobody else notices.
    let refusal = connect(4).await.refusal().await;
    assert_eq!(refusal.code(), tonic::Code::AlreadyExists);
    assert!(refusal.message().contains("another proxy named web-1"), "{refusal}");
    assert_eq!(refusal.metadata().get("weft-reconnect").unwrap(), "false");
    assert_eq!(control.app.hub.published().revision, revision);
    // A later one takes over, and the one before is told the same.
    let mut second = connect(6).await;
    second.take().await;
    let notice = first.notice().await;
    assert!(!notice.reconnect, "{notice:?}");
    let metrics = control.metrics().await;
    assert!(metrics.contains("weft_control_name_conflicts_total 2"), "{metrics}");
}

/// A machine that was copied while its proxy ran, or proxies that tell no incarnation.
#[tokio::test]
async fn two_that_replace_each_other_are_parted() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let connect = async || Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    let mut holder = connect().await;
    holder.take().await;
    for _ in 0..3 {
        let mut next = connect().await;
        next.take().await;
        holder = next;
    }
    let refusal = connect().await.refusal().await;
    assert!(refusal.message().contains("the two replace each other"), "{refusal}");
    control.apply(WEB).await;
    holder.take_until(|bundle| endpoints(bundle) == ["web-1"]).await;
}

#[tokio::test]
async fn nothing_that_a_proxy_says_steers_a_terminal_or_forges_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/client").await;
    let evil = "a\n\u{1b}[2J\u{202e}forged";
    let hello = v1::Hello { proxy_name: "client-1".to_owned(), version: evil.to_owned(), ..greeting() };
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    proxy.take().await;
    control.apply(WEB).await;
    let delta = proxy.delta().await;
    let key = delta.upserts.iter().map(Object::key).find(|key| matches!(key, Key::Service(_))).unwrap();
    let (revision, key) = (delta.revision.0, Some(v1::Key::from(&key)));
    proxy.say(Message::Nack(v1::Nack { revision, key, reason: evil.to_owned(), ..Default::default() })).await;
    let mut changes = control.app.hub.registry().watch();
    let told = loop {
        let all = control.app.hub.registry().list(Revision(0), Revision(0));
        let status = all.into_iter().find(|status| status.key.name == "client-1").unwrap();
        if !status.held.is_empty() {
            break [status.held.join(" "), status.reason, status.introduction.version];
        }
        changes.changed().await.unwrap();
    };
    assert!(told[0].contains("a\\n\\u{1b}[2J") && told[2].starts_with("a\\n"), "{told:?}");
    let hidden = |character: char| character.is_control() || character == '\u{202e}';
    assert!(!told.iter().any(|text| text.contains(hidden)), "{told:?}");
}
