//! Grants over the wire: withdrawn by a call, told to the proxy, gained by another token.

use super::*;

#[tokio::test]
async fn a_proxy_hears_by_name_what_was_withdrawn_and_comes_back_by_another_token() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(WEB).await;
    let svid = control.join("shop/canary").await;
    let granting = json!({ "kind": "join", "service_account": "shop/canary", "services": ["web"], "uses": 2 });
    let (_, token) = control.call("post", "/api/v1/tokens", granting).await;
    let gain = async || {
        let request = v1::GainRequest { token: token["token"].as_str().unwrap().to_owned() };
        control.grpc(Some(&svid)).await.gain(request).await.unwrap().into_inner().granted
    };
    assert_eq!(gain().await, ["service=web"]);
    assert_eq!(gain().await, [""; 0], "nothing is new");
    let registered = || Some(workload("canary-1", "shop", "127.0.0.12", Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "canary-1", registered(), Bundle::default()).await;
    proxy.take_until(|bundle| endpoints(bundle).len() == 2).await;
    let (_, list) = control.call("get", "/api/v1/grants", Value::Null).await;
    assert_eq!(list["grants"][0]["identity"], json!(svid.identity));
    assert_eq!(list["grants"][0]["services"], json!(["web"]));

    let withdrawal = json!({ "proxy": "canary-1", "services": ["web"] });
    let (status, body) = control.call("post", "/api/v1/grants/withdraw", withdrawal.clone()).await;
    assert_eq!((status, &body["left"][0]["workload"]), (200, &json!("shop/canary-1")), "{body}");
    assert_eq!(body["tokens"], json!([token["name"]]), "it has a use left");
    let notice = proxy.notice().await;
    assert!(notice.reconnect, "{notice:?}");
    let expected = "service=web: workload shop/canary-1 may not stand behind Service shop/web any longer";
    assert!(notice.reason.contains(expected), "{notice:?}");
    let (status, body) = control.call("post", "/api/v1/grants/withdraw", withdrawal).await;
    assert_eq!(status, 404, "{body}");
    let mut back = Proxy::connect(&control, &svid, "canary-1", registered(), Bundle::default()).await;
    let refused = back.refusal().await;
    assert!(refused.message().contains("may not stand behind Service shop/web"), "{}", refused.message());

    assert_eq!(gain().await, ["service=web"]);
    let mut back = Proxy::connect(&control, &svid, "canary-1", registered(), Bundle::default()).await;
    back.take_until(|bundle| endpoints(bundle).len() == 2).await;
}

#[tokio::test]
async fn a_proxy_that_could_not_be_served_joins_by_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let token = control.join_token("shop/web").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let join = async |capabilities: &[&str]| {
        let capabilities = capabilities.iter().map(|it| (*it).to_owned()).collect();
        let csr_der = crate::app::tests::csr(&key);
        let version = "9".to_owned();
        let request = v1::JoinRequest { token: token.clone(), csr_der, version, capabilities, ..Default::default() };
        control.grpc(None).await.join(request).await
    };
    let refused = join(&["quic"]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("lacks the capability \"envelopes\""), "{}", refused.message());
    join(&["quic", ENVELOPES]).await.expect("the token is as good as before");
}

#[tokio::test]
async fn a_proxy_of_another_account_leaves_the_token_as_good_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let token = control.join_token("shop/web").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let join = async |account: &str| {
        let (token, csr_der, service_account) = (token.clone(), crate::app::tests::csr(&key), account.to_owned());
        let request = v1::JoinRequest { token, csr_der, service_account, ..Default::default() };
        control.grpc(None).await.join(request).await.map(|answer| answer.into_inner().workload_identity)
    };
    for (account, why) in [
        ("shop/wep", "is for spiffe://cluster.local/ns/shop/sa/web, and the proxy is configured for shop/wep"),
        ("other/web", "and the proxy is configured for other/web"),
        ("a\u{1b}[2J", "and the proxy is configured for a\\u{1b}[2J"),
    ] {
        let refused = join(account).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    assert_eq!(join("shop/web").await.unwrap(), "spiffe://cluster.local/ns/shop/sa/web");
}
