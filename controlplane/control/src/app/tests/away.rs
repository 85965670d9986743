//! A store on the network that nobody answers for: what a control plane still tells, and the words for what it can't.

use super::several::OneStore;
use super::*;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_memory_is_told_while_the_store_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = OneStore::open(dir.path());
    let config = Config { replica_timeout_ms: 1_000, ..Control::config(dir.path()) };
    let app = App::start_over(config, Store::over(store.clone(), 1_000).unwrap()).await.unwrap();
    let control = Control::of(app, dir.path());
    control.apply(WEB).await;
    let svid = control.join("shop/web").await;
    let mut proxy = Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    proxy.take().await;
    let read = async |path: &str| control.call("get", path, Value::Null).await;
    let (status, banned) = control.call("post", "/api/v1/bans", json!({ "proxy": "shop/other" })).await;
    assert_eq!(status, 200, "{banned}");
    let (_, before) = read("/api/v1/bans").await;
    assert_eq!(before["bans"][0]["by_name"], "first-operator", "{before}");
    let (status, rotated) = control.call("post", "/api/v1/authority/rotate", json!({ "signer": "root" })).await;
    assert_eq!(status, 200, "{rotated}");

    store.go_away();
    for path in ["/api/v1/resources/services/shop/web", "/api/v1/resources/workloads", "/api/v1/lint", "/api/v1/store"]
    {
        let (status, answer) = read(path).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let (status, proxies) = read("/api/v1/proxies").await;
    assert_eq!((status, &proxies["proxies"][0]["name"]), (200, &json!("web-1")), "{proxies}");
    // Whoever made it has no name but is the same.
    let (status, bans) = read("/api/v1/bans").await;
    let by = |told: &Value, what: &str| told["bans"][0][what].as_str().unwrap_or_default().to_owned();
    assert_eq!((status, by(&bans, "by"), by(&bans, "by_name")), (200, by(&before, "by"), String::new()), "{bans}");
    assert!(by(&bans, "by").starts_with("operator:"), "{bans}");
    // Both roots are known, and that it is not known who needs the old one.
    let (status, shown) = read("/api/v1/authority").await;
    assert_eq!((status, &shown["previous"]), (200, &rotated["previous"]), "{shown}");
    assert!(shown["left"].is_null(), "{shown}");
    assert!(shown["left_unknown"].as_str().unwrap().contains("can't be reached: nobody answers"), "{shown}");
    for path in ["/api/v1/tokens", "/api/v1/events", "/api/v1/filters", "/api/v1/filters/authz"] {
        let (status, answer) = read(path).await;
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(
            status == 503 && text.contains("only in the store") && !text.contains("may have been made"),
            "{answer}"
        );
    }
    // A change is told of in words for a change.
    let body = json!({ "documents": documents(WEB) });
    let (status, answer) = control.call("post", "/api/v1/apply", body).await;
    assert!(status == 503 && answer.to_string().contains("may have been made"), "{answer}");
}
