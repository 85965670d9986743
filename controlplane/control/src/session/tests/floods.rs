//! Proxies that say too much, and too much at a time: each loses its own stream, and nobody else notices.

use super::*;
use crate::app::tests::Svid;

async fn connected(control: &Control, svid: &Svid, name: &str) -> Proxy {
    let mut proxy = Proxy::connect(control, svid, name, None, Bundle::default()).await;
    proxy.take().await;
    proxy
}

/// The words with which a stream ends.
async fn end(mut proxy: Proxy) -> String {
    loop {
        if let Err(reason) = proxy.try_delta().await {
            return reason;
        }
    }
}

#[tokio::test]
async fn who_says_too_much_loses_its_stream_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_messages_per_minute = 5).await;
    let (loud, quiet) = (control.join("shop/loud").await, control.join("shop/quiet").await);
    let mut proxy = connected(&control, &loud, "loud-1").await;
    let mut other = connected(&control, &quiet, "quiet-1").await;
    // With the acknowledgement before them they are six.
    for _ in 0..5 {
        proxy.say(Message::Report(v1::Report::default())).await;
    }
    assert_eq!(end(proxy).await, "too many messages");
    let metrics = control.metrics().await;
    assert!(metrics.contains("weft_control_throttled_total{reason=\"messages\"} 1"), "{metrics}");
    control.apply(WEB).await;
    other.take_until(|bundle| bundle.services.contains_key(&web())).await;
}

#[tokio::test]
async fn a_message_has_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_message_bytes = 64 << 10).await;
    let svid = control.join("shop/web").await;
    let hello = v1::Hello { version: "x".repeat(128 << 10), proxy_name: "web-1".to_owned(), ..greeting() };
    let large = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    end(large).await;
    let mut proxy = connected(&control, &svid, "web-1").await;
    let key = v1::Key { name: "x".repeat(128 << 10), ..Default::default() };
    let nack = v1::Nack { key: Some(key), ..Default::default() };
    proxy.say(Message::Nack(nack)).await;
    end(proxy).await;
    let (_, list) = control.call("get", "/api/v1/proxies", Value::Null).await;
    assert_eq!(list["proxies"].as_array().map(Vec::len), Some(1), "{list}");
    connected(&control, &svid, "web-1").await;
}
