//! Somebody with a viewer's token who means harm: he learns what a viewer may read, changes nothing, and holds up nobody.

use futures_util::future::join_all;

use super::*;
use crate::app::tests::{PATIENCE, Proxy};

/// Many objects that say nothing to each other, and a route that looks at a service for each of them.
fn many(count: usize) -> Vec<Value> {
    let service = |number: usize| SERVICE.replace("name: web", &format!("name: web-{number}"));
    let route = |number: usize| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r-{number}, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: web-{number}}}], rules: [{{backendRefs: \
             [{{name: web-{number}, port: 80}}]}}]}}\n"
        )
    };
    documents(&(0..count).map(|number| format!("{}---\n{}---\n", service(number), route(number))).collect::<String>())
}

#[tokio::test]
async fn a_viewer_that_does_its_worst_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SERVICE).await;
    let viewer = token(&control, "viewer").await;
    let dry = json!({ "documents": many(200), "dry_run": true });
    let flood = (0..40).map(|_| control.call_as(&viewer, "post", "/api/v1/apply", dry.clone()));
    let flood = async { join_all(flood).await.into_iter().map(|(status, _)| status).collect::<Vec<_>>() };
    let work = async {
        for number in 0..5 {
            control.apply(&SERVICE.replace("name: web", &format!("name: other-{number}"))).await;
        }
        let svid = control.join("shop/web").await;
        let mut proxy = Proxy::connect(&control, &svid, "web-1", None, Default::default()).await;
        proxy.take().await;
        let ban = json!({ "proxy": "shop/evil", "reason": "x" });
        assert_eq!(control.call("post", "/api/v1/bans", ban).await.0, 200);
        control.app.hub.published().revision
    };
    let work = async { tokio::time::timeout(PATIENCE, work).await.expect("nobody waits for a viewer") };
    let (statuses, revision) = tokio::join!(flood, work);
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    assert_eq!(control.app.hub.published().revision, revision, "nothing of it was applied");

    let wet = json!({ "documents": many(1) });
    let admin = json!({ "kind": "operator", "role": "admin" });
    let join = json!({ "kind": "join", "service_account": "shop/web" });
    for (method, path, body) in [
        ("post", "/api/v1/apply", wet),
        ("delete", "/api/v1/resources/services/shop/web", Value::Null),
        ("post", "/api/v1/tokens", admin),
        ("post", "/api/v1/tokens", join),
        ("get", "/api/v1/tokens", Value::Null),
        ("delete", "/api/v1/tokens/first-operator", Value::Null),
        ("post", "/api/v1/bans", json!({ "proxy": "web-1", "reason": "a\n\u{1b}[2J" })),
        ("post", "/api/v1/proxies/web-1/evict", json!({})),
        ("post", "/api/v1/store/accept", json!({})),
    ] {
        let (status, answer) = control.call_as(&viewer, method, path, body).await;
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    // Every attempt is told, and pushes nothing out that an operator did.
    let mut told = control.app.hub.watch_events();
    let looked = async {
        loop {
            let (_, log) = control.call("get", "/api/v1/events?limit=1000", Value::Null).await;
            let entries = log["entries"].as_array().unwrap().clone();
            if entries.iter().filter(|entry| entry["refused"].as_str().is_some_and(|it| it.starts_with("403"))).count()
                >= 9
            {
                return entries;
            }
            told.changed().await.unwrap();
        }
    };
    let entries = tokio::time::timeout(PATIENCE, looked).await.expect("each attempt is an event");
    let applied = entries.iter().filter(|entry| entry["action"] == "apply" && entry["refused"].is_null()).count();
    assert_eq!(applied, 6, "{entries:?}");
}
