//! What proxies report of themselves, as people see it.

use super::*;

/// The one proxy as the API shows it.
async fn shown(control: &Control) -> Value {
    let (status, body) = control.call("get", "/api/v1/proxies", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["proxies"].as_array().unwrap().len(), 1, "{body}");
    body["proxies"][0].clone()
}

/// Waits until it is shown as wanted.
async fn becomes(control: &Control, wanted: impl Fn(&Value) -> bool) -> Value {
    let looked = async {
        loop {
            let found = shown(control).await;
            if wanted(&found) {
                return found;
            }
        }
    };
    tokio::time::timeout(crate::app::tests::PATIENCE, looked).await.expect("it is shown in time")
}

fn report(certificate_not_after_unix: i64) -> Message {
    let transport = "quic".to_owned();
    Message::Report(v1::Report { certificate_not_after_unix, transport, staleness_ms: 5, ..Default::default() })
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_with_the_next_report_and_places_are_real() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let own = v1::WorkloadRegistration {
        mesh_address: "127.0.0.11:25008".to_owned(),
        ..workload("web-1", "shop", "127.0.0.11", Some("web"))
    };
    let mut proxy = Proxy::connect(&control, &svid, "web-1", Some(own), Bundle::default()).await;
    proxy.take_until(|bundle| endpoints(bundle) == ["web-1"]).await;
    let revision = control.app.hub.published().revision;
    for (until, expect) in [(1_000_000, "1970-01-12T13:46:40Z"), (2_000_000, "1970-01-24T03:33:20Z")] {
        proxy.say(report(until)).await;
        let seen = becomes(&control, |seen| seen["certificate_not_after"] == expect).await;
        assert_eq!(seen["mesh_addresses"], json!(["127.0.0.11:25008"]), "where it takes mesh traffic");
        assert_eq!(
            (&seen["address"], &seen["transport"]),
            (&json!("127.0.0.1"), &json!("quic")),
            "where it speaks from"
        );
    }
    assert_eq!(control.app.hub.published().revision, revision, "nothing has changed meanwhile");
    // One that is away is the longer behind, and was heard the longer ago.
    drop(proxy);
    let seen = becomes(&control, |seen| seen["state"] == "disconnected" && seen["staleness_ms"] != 0).await;
    assert!(seen["heard_ms"].as_u64() >= seen["staleness_ms"].as_u64(), "{seen}");
}

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

#[tokio::test]
async fn whoever_peers_refuse_is_explained_as_such_whatever_rules_say() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(SHOP).await;
    let svid = control.join("shop/web").await;
    let own = workload("web-1", "shop", "127.0.0.11", Some("web"));
    let mut proxy = Proxy::connect(&control, &svid, "web-1", Some(own), Bundle::default()).await;
    proxy.take().await;
    let explained = async |wanted: &dyn Fn(&Value) -> bool| {
        let looked = async {
            loop {
                let query = json!({ "from": "shop/api", "to": "web.shop" });
                let (status, body) = control.call("post", "/api/v1/explain", query).await;
                assert_eq!(status, 200, "{body}");
                if wanted(&body) {
                    return body;
                }
            }
        };
        tokio::time::timeout(crate::app::tests::PATIENCE, looked).await.expect("it is explained so in time")
    };
    let is_barred = |body: &Value| body["barred"] == true;
    explained(&|body| body["allowed"] == true).await;
    proxy.say(report(1_000_000)).await;
    let said = explained(&is_barred).await;
    let reason = said["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(
            "nobody connects to shop/web-1: the certificate of proxy web-1 is over since 1970-01-12T13:46:40Z"
        ),
        "{reason}"
    );
    assert_eq!((&said["status"], &said["allowed"]), (&json!(503), &json!(false)));
    proxy.say(report(crate::now_unix() + 3_600)).await;
    explained(&|body| body["allowed"] == true).await;
    // The caller, though no proxy of it was ever seen.
    let ban = json!({ "proxy": "shop/api", "reason": "sold" });
    assert_eq!(control.call("post", "/api/v1/bans", ban).await.0, 200);
    let said = explained(&is_barred).await;
    let reason = said["reason"].as_str().unwrap();
    let banned = "nobody accepts its connections: spiffe://cluster.local/ns/shop/sa/api is banned since ";
    assert!(reason.starts_with(banned) && reason.contains("(sold)") && reason.contains("weft proxy unban"), "{reason}");
    assert_eq!(control.call("delete", "/api/v1/bans/shop%2Fapi", Value::Null).await.0, 200);
    explained(&|body| body["allowed"] == true).await;
    // The callee, whose endpoints leave.
    assert_eq!(control.call("post", "/api/v1/proxies/web-1/evict", Value::Null).await.0, 200);
    let said = explained(&|body| body["status"] == 503).await;
    let notes = said["notes"].as_array().unwrap();
    let told = |note: &Value| {
        note.as_str().unwrap().starts_with("proxy web-1 (spiffe://cluster.local/ns/shop/sa/web) was evicted")
    };
    assert!(notes.iter().any(told), "{said}");
    assert_eq!(control.app.hub.evicted_lately().len(), 1);
}
