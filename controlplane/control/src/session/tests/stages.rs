//! What a proxy has in force, and what it is still making ready.

use super::*;

fn key(name: &str) -> v1::Key {
    (&Key::Filter(name.to_owned())).into()
}

/// A proxy that serves, and then has a filter on its way: the delta with it, and the version of the filter.
async fn staging(control: &Control) -> (Proxy, u64, u64) {
    publish(control, "guard").await;
    control.apply(&format!("{WEB}---\n{}", route("/a"))).await;
    let svid = control.join("shop/web").await;
    let own = Some(workload("web-2", "shop", "127.0.0.22", Some("web")));
    let mut proxy = Proxy::connect(control, &svid, "web-2", own, Bundle::default()).await;
    proxy.take_until(|bundle| endpoints(bundle).len() == 2).await;
    let revision = control.apply(GUARD).await;
    let delta = proxy.delta().await;
    let object = delta.upserts.iter().find(|object| matches!(object, Object::Filter(_))).expect("it brings the filter");
    let version = encode(object).version;
    proxy.bundle.apply(&delta);
    let pending = vec![key("shop/guard")];
    proxy.say(Message::Ack(v1::Ack { revision: delta.revision.0, pending, ..Default::default() })).await;
    (proxy, revision, version)
}

/// Nothing waits for a filter that is being compiled but who asked for it.
#[tokio::test]
async fn what_comes_after_a_filter_does_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut proxy, revision, version) = staging(&control).await;
    control.apply(&route("/b")).await;
    proxy.take_until(|bundle| has_path(bundle, "/b")).await;
    let told = async {
        loop {
            let (complete, proxies) = state(&control, revision, 0).await;
            // The answer to what came after it is on its way.
            if proxies[0].2 != "sent, not answered yet" {
                return (complete, proxies[0].1.clone(), proxies[0].2.clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(crate::app::tests::PATIENCE, told).await.expect("it is answered in time");
    let expected = "in force, but for what it is still making ready: Filter shop/guard";
    assert_eq!(told, (false, "behind".to_owned(), expected.to_owned()));
    // Whoever asks is told that it does not run yet.
    let report = |state: &str| {
        let filter = v1::FilterState { name: "shop/guard".to_owned(), state: state.to_owned(), ..Default::default() };
        Message::Report(v1::Report { filters: vec![filter], ..Default::default() })
    };
    let note = "filter shop/guard is not known to be in force at web-2: compiling";
    let is_noted = async |wanted: bool| {
        let mut last = Vec::new();
        let looked = async {
            loop {
                let query = json!({ "from": "shop/client", "to": "web", "path": "/b" });
                let (status, body) = control.call("post", "/api/v1/explain", query).await;
                assert_eq!(status, 200, "{body}");
                let notes = body["notes"].as_array().cloned().unwrap_or_default();
                if notes.iter().any(|told| *told == note) == wanted {
                    return;
                }
                last = notes;
                // Calls in a minute have a limit.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(crate::app::tests::PATIENCE, looked).await;
        assert!(in_time.is_ok(), "{wanted}: {last:?}");
    };
    proxy.say(report("compiling")).await;
    is_noted(true).await;
    proxy.say(report("loaded")).await;
    is_noted(false).await;
    let loaded = vec![v1::ObjectVersion { key: Some(key("shop/guard")), version }];
    proxy.say(Message::Settled(v1::Settled { loaded, refused: Vec::new() })).await;
    let (complete, proxies) = state(&control, revision, 10_000).await;
    assert!(complete, "{proxies:?}");
}

#[tokio::test]
async fn a_filter_that_turns_out_to_be_no_use_is_refused_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut proxy, revision, version) = staging(&control).await;
    let reason = "compiling it takes too much".to_owned();
    // Word of another version is none.
    for (told, reason) in [(version + 1, "late".to_owned()), (version, reason)] {
        let refused = vec![v1::Unusable { key: Some(key("shop/guard")), version: told, reason }];
        proxy.say(Message::Settled(v1::Settled { loaded: Vec::new(), refused })).await;
    }
    let (complete, proxies) = state(&control, revision, 10_000).await;
    let expected = "Filter shop/guard: compiling it takes too much";
    assert_eq!((complete, proxies[0].1.as_str(), proxies[0].2.as_str()), (false, "refused", expected));
    // It can be taken away, though the proxy has no version of it that is known here.
    let (status, body) = control.call("delete", "/api/v1/resources/filterpolicies/shop/guard", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    proxy.take_until(|bundle| !bundle.filters.contains_key("shop/guard")).await;
}

/// Callers that were sent to it before would be told that it has no configuration yet.
#[tokio::test]
async fn a_proxy_is_in_discovery_from_its_first_ack_on() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let client = control.join("shop/client").await;
    let mut watcher = Proxy::connect(&control, &client, "client-1", None, Bundle::default()).await;
    watcher.take_until(|bundle| endpoints(bundle) == ["web-1"]).await;
    let svid = control.join("shop/web").await;
    let own = || Some(workload("web-2", "shop", "127.0.0.22", Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "web-2", own(), Bundle::default()).await;
    let first = proxy.delta().await;
    // A later change tells that nobody was sent to it meanwhile.
    control.apply(&route("/a")).await;
    watcher.take_until(|bundle| has_path(bundle, "/a")).await;
    assert_eq!(endpoints(&watcher.bundle), ["web-1"]);
    proxy.accept(&first).await;
    watcher.take_until(|bundle| endpoints(bundle).len() == 2).await;
    // One that comes back with what it holds serves all the time; one that lost it does not.
    let held = proxy.bundle.clone();
    drop(proxy);
    let mut back = Proxy::connect(&control, &svid, "web-2", own(), held).await;
    back.take_until(|bundle| has_path(bundle, "/a")).await;
    control.apply(&route("/b")).await;
    watcher.take_until(|bundle| has_path(bundle, "/b")).await;
    assert_eq!(endpoints(&watcher.bundle).len(), 2);
    drop(back);
    let _emptied = Proxy::connect(&control, &svid, "web-2", own(), Bundle::default()).await;
    watcher.take_until(|bundle| endpoints(bundle) == ["web-1"]).await;
}
