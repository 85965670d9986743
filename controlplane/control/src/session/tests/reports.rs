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
    proxy.take().await;
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
