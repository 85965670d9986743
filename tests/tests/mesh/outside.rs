//! Destinations outside the mesh: what is dialled is what was named, or nothing.

use std::net::IpAddr;

use http::Method;
use weft_tests::client::{empty, raw, try_tunnel};
use weft_tests::{App, Client, address};

use super::in_process::Pair;

/// A private server of the caller's host on 127.0.0.1, at a port where the address beside it has none.
async fn private() -> (App, u16) {
    let app = App::start("private", IpAddr::from([127, 0, 0, 1]), 0).await;
    let port = app.address.port();
    (app, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_refuses_is_refused_not_replaced() {
    let client = Pair::start(&[]);
    let (app, port) = private().await;
    let refusing = format!("{}:{port}", address::next());
    let mut through = Client::through(client.proxy(), &refusing).await;
    let answer = through.get_with("/seen", &[("authorization", "Bearer secret")]).await;
    assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
    let (mut tunnel, head) = try_tunnel(client.proxy(), &refusing).await;
    if head.starts_with("HTTP/1.1 200") {
        // The tunnel may be accepted before it is dialled; then it ends without a byte.
        let mut got = Vec::new();
        _ = tokio::io::AsyncReadExt::read_to_end(&mut tunnel, &mut got).await;
        assert_eq!(got, b"");
    }
    assert_eq!(app.served(), 0, "nobody else was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_ports_are_no_destination() {
    let client = Pair::start(&[]);
    for port in [15000, 15080, 15020, 15021] {
        let own = format!("{}:{port}", client.caller);
        let mut through = Client::through(client.proxy(), &own).await;
        let answer = through.call(Method::GET, "/certs", &[], empty()).await.expect("an answer");
        assert_eq!(answer.status, 508, "{own}: {}", answer.text());
        let (_, head) = try_tunnel(client.proxy(), &own).await;
        assert!(head.starts_with("HTTP/1.1 508"), "{own}: {head}");
    }
}

/// Addresses beside the sidecar's own, on ports of its own: nothing listens there, so nobody may answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_address_leads_to_own_ports() {
    let client = Pair::start(&[]);
    for port in [15000, 15080] {
        let other = format!("{}:{port}", address::next());
        let request = format!("GET http://{other}/certs HTTP/1.1\r\nhost: {other}\r\nconnection: close\r\n\r\n");
        let answer = raw(client.proxy(), request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
        assert!(["502", "503", "504", "508"].contains(&status.as_str()), "{other}: {answer}");
    }
}
