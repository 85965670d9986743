//! A declared protocol is law, however slow, split or odd the bytes come, and by whatever door: with a filter that answers every
//! request at a port declared http, nothing but that answer, or a refusal, ever comes back, and the app hears of nothing.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_tests::client::{empty, tunnel};
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use super::rogue::{Peer, VALID, dial, stolen, uri};

const FAULT: &str = "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: closed, namespace: default}\nspec:\n  \
                     targetRefs: [{kind: Service, name: shop}]\n  filter: {name: fault, namespace: weft-system}\n  \
                     capabilities: []\n  config: {abort: {status: 418, percentage: 100}}\n";

/// Pieces of a connection's bytes, each sent so long after the one before.
type Pieces = &'static [(u64, &'static [u8])];

struct Shop {
    mesh: Mesh,
    caller: Sidecar,
    shop: Sidecar,
    app: App,
}

async fn shop() -> Shop {
    let mesh = Mesh::start().await;
    let workload = Workload::server("shop", 8080, "http");
    let app = App::start("shop", workload.ip, 8080).await;
    let slow = serde_json::json!({"http_head_timeout_ms": 1500, "first_bytes_timeout_s": 3});
    let shop = mesh.sidecar(workload.setting("limits", slow.clone())).await;
    let caller = mesh.sidecar(Workload::client("caller").setting("limits", slow)).await;
    eventually("the shop is reachable", || async {
        (Client::through(caller.proxy(), "shop").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    mesh.apply(FAULT);
    eventually("the filter is attached", || async {
        (Client::through(caller.proxy(), "shop").await.get("/who").await.status == 418).then_some(())
    })
    .await;
    Shop { mesh, caller, shop, app }
}

/// Sends the pieces and reads what comes until the end; the statuses of the answers.
async fn say(mut stream: TcpStream, pieces: Pieces) -> Vec<u16> {
    stream.set_nodelay(true).unwrap();
    for (after, bytes) in pieces {
        tokio::time::sleep(Duration::from_millis(*after)).await;
        if stream.write_all(bytes).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection does not end: {:?}", String::from_utf8_lossy(&answer));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let statuses = text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text[at + 9..].get(..3)?.parse().ok());
    statuses.collect()
}

const CLOSE: &[u8] = b"GET /who HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// Bytes that an odd client sends inside a tunnel, and the status of its answer; 0: none.
const ODD: &[(&str, Pieces, u16)] = &[
    ("at once", &[(0, CLOSE)], 418),
    ("the first byte late", &[(300, CLOSE)], 418),
    ("the first byte alone", &[(0, b"G"), (300, b"ET /who HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")], 418),
    ("two bytes, a pause", &[(0, b"GE"), (400, b"T /who HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")], 418),
    ("an empty line first", &[(0, b"\r\n"), (0, CLOSE)], 418),
    ("an empty line, a pause", &[(0, b"\r\n"), (400, CLOSE)], 418),
    ("a pause, a line feed alone, a pause", &[(300, b"\n"), (300, CLOSE)], 400),
    (
        "a method of 40 letters",
        &[(0, b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMN /who HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")],
        418,
    ),
    (
        "a method of 40 letters, split",
        &[
            (0, b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ"),
            (300, b"KLMN /who HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"),
        ],
        418,
    ),
    (
        "half a request line, the rest late",
        &[(0, b"GET /w"), (400, b"ho HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")],
        418,
    ),
    ("half a request line and no more", &[(0, b"GET /who HT")], 408),
    ("a line without a version", &[(0, b"GET /who\r\n\r\n")], 400),
    ("a TLS hello", &[(0, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")], 400),
    ("bytes of no protocol", &[(0, b"\x00\x00\x00\x00\r\n\r\n")], 400),
    ("a greeting of SSH", &[(0, b"SSH-2.0-OpenSSH_9\r\n\r\n")], 400),
    ("nothing", &[], 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn odd_first_bytes_at_a_port_declared_http_pass_by_no_filter() {
    let shop = shop().await;
    let before = shop.app.served();
    let own = SocketAddr::new(shop.shop.workload.ip, 8080).to_string();
    let mut asked = Vec::new();
    for authority in ["shop:80", "shop.default.svc.cluster.local:80", own.as_str()] {
        for (what, pieces, status) in ODD {
            let (proxy, authority) = (shop.caller.proxy(), authority.to_owned());
            asked.push(tokio::spawn(async move {
                let statuses = say(tunnel(proxy, &authority).await, pieces).await;
                let expected: &[u16] = if *status == 0 { &[] } else { &[*status] };
                assert_eq!(statuses, expected, "{what}, by {authority}");
            }));
        }
    }
    for one in asked {
        one.await.unwrap();
    }
    assert_eq!(shop.app.served(), before, "the app hears of nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_door_passes_by_the_filter_of_a_port_declared_http() {
    let shop = shop().await;
    let before = shop.app.served();
    let own = SocketAddr::new(shop.shop.workload.ip, 8080);
    // HTTP/2 with prior knowledge, in a tunnel and to the proxy itself.
    for mut client in [
        Client::h2_in_tunnel(shop.caller.proxy(), "shop:80").await,
        Client::h2_in_tunnel(shop.caller.proxy(), &own.to_string()).await,
        Client::h2_through(shop.caller.proxy(), "shop").await,
        Client::h2_through(shop.caller.proxy(), &own.to_string()).await,
    ] {
        assert_eq!(client.get("/who").await.status, 418);
    }
    // CONNECT in HTTP/2, to the port by name and by address.
    for authority in ["shop:80".to_owned(), own.to_string()] {
        let status = h2_connect(shop.caller.proxy(), &authority).await;
        assert!((400..600).contains(&status), "{authority}: {status}");
    }
    // A peer that asks for a byte tunnel, or for another protocol inside one.
    let mallory = stolen(&shop.mesh, &[uri("spiffe://cluster.local/ns/default/sa/mallory")], VALID);
    let peer = Peer::new(dial(Some(&mallory), shop.shop.at(15008), "h3").await.expect("a good certificate gets in"));
    let (status, _) = peer.ask(Method::CONNECT, &own.to_string(), None, &[]).await.expect("an answer");
    assert_eq!(status, 400, "a declared port takes no tunnel");
    let to = own.to_string();
    let (status, _) = peer.ask(Method::GET, "shop", Some("/who"), &[("weft-dst", &to)]).await.expect("an answer");
    assert_eq!(status, 418);
    // An upgrade is a request like any other.
    let mut client = Client::through(shop.caller.proxy(), "shop").await;
    let fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    assert_eq!(client.call(Method::GET, "/who", &fields, empty()).await.expect("an answer").status, 418);
    assert_eq!(shop.app.served(), before, "the app hears of nothing");
}

/// CONNECT over HTTP/2 to the explicit proxy; its status.
async fn h2_connect(proxy: SocketAddr, authority: &str) -> u16 {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut request = http::Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().unwrap();
    *request.headers_mut() = HeaderMap::new();
    let (answer, _body) = sender.send_request(request, false).unwrap();
    let status = answer.await.unwrap().status().as_u16();
    driving.abort();
    status
}
