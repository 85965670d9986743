//! Forms in which applications speak that meet only here, on the way through two proxies: a caller and an app of different
//! versions, WebSockets in each of them, gRPC-Web, a workload's second address.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use h2::ext::Protocol as Asked;
use http::{Method, Request, Response, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_policy::bundle::{AppVersion, Bundle, Protocol};
use weft_tests::app::message;
use weft_tests::client::{full, tunnel};
use weft_tests::{App, Client, address};

use super::in_process::{Of, Pair};

/// A pair whose app is spoken to in HTTP/2 only.
fn pair_for_h2() -> Pair {
    Pair::start_with(&[(8080, Protocol::Http)], |of, bundle: &mut Bundle| {
        if of == Of::Origin {
            let ports = bundle.workloads.values_mut().flat_map(|workload| &mut workload.ports);
            ports.for_each(|port| port.app_version = AppVersion::Http2);
        }
    })
}

/// An app that speaks HTTP/2 only: it says so, and echoes in a WebSocket.
async fn h2_only(ip: IpAddr) {
    let listener = TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_h2(stream));
        }
    });
}

async fn serve_h2(stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let asked = request.extensions().get::<Asked>().map(|asked| asked.as_str().to_owned());
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            if asked.as_deref() != Some("websocket") {
                let said = format!("{} over HTTP/2", request.method());
                send.send_data(said.into(), true).unwrap();
                return;
            }
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                _ = body.flow_control().release_capacity(piece.len());
                send.send_data(piece, false).unwrap();
            }
            _ = send.send_data(Bytes::new(), true);
        });
    }
}

/// An app of HTTP/1.1 that takes a WebSocket and echoes.
async fn h1_websocket(ip: IpAddr) {
    let listener = TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                assert!(head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: "), "{head}");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                _ = tokio::io::copy(&mut read, &mut write).await;
                _ = write.shutdown().await;
            });
        }
    });
}

/// Reads the head of a message.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Opens a WebSocket as HTTP/2 has it (RFC 8441) and hears what it says in it.
async fn echo_in_h2(pair: &Pair) {
    let stream = tunnel(pair.proxy(), "origin:8080").await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    weft_tests::eventually("its settings", || async { client.is_extended_connect_protocol_enabled().then_some(()) })
        .await;
    let request = Request::connect("http://origin:8080/chat").version(Version::HTTP_2);
    let request = request.extension(Asked::from_static("websocket")).body(()).unwrap();
    let (answer, mut send) = client.send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut heard = answer.into_body();
    for said in ["hello", "again"] {
        send.send_data(said.into(), false).unwrap();
        assert_eq!(heard.data().await.unwrap().unwrap(), said);
    }
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(rest) = heard.data().await {
        assert!(rest.unwrap().is_empty());
    }
    driver.abort();
}

/// The same in HTTP/1.1.
async fn echo_in_h1(pair: &Pair) {
    let mut stream = tunnel(pair.proxy(), "origin:8080").await;
    let request = "GET /chat HTTP/1.1\r\nhost: origin:8080\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_crosses_between_the_versions() {
    let pair = pair_for_h2();
    h2_only(pair.origin).await;
    echo_in_h2(&pair).await;
    echo_in_h1(&pair).await;
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    h1_websocket(pair.origin).await;
    echo_in_h2(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_of_http2_only_is_reached_from_http1() {
    let pair = pair_for_h2();
    h2_only(pair.origin).await;
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get("/").await.text(), "GET over HTTP/2");
    assert_eq!(client.post("/", "body").await.text(), "POST over HTTP/2");
    let mut client = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get("/").await.text(), "GET over HTTP/2");
}

/// An app that answers each request with these bytes and ends the connection.
async fn saying(ip: IpAddr, answer: Vec<u8>) {
    let listener = TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                head(&mut stream).await;
                let mut request = vec![0; message(b"1+1").len()];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, message(b"1+1"), "the message arrives as it was sent");
                stream.write_all(&answer).await.unwrap();
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_web_passes_with_its_trailers_in_the_body() {
    const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let body = [&message(b"2")[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n"].concat();
    let said = format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n", WEB.1, body.len());
    saying(pair.origin, [said.as_bytes(), &body].concat()).await;
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let answer = client.call(Method::POST, "/calc.Calc/Add", &[WEB], full(message(b"1+1"))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, WEB.1));
    assert_eq!((&answer.body[..], answer.trailers), (&body[..], None));
    // Where there is no app the proxy answers in the form of its client.
    let nobody = Pair::start(&[(8080, Protocol::Http)]);
    let mut client = Client::h1_in_tunnel(nobody.proxy(), "origin:8080").await;
    let answer = client.call(Method::POST, "/calc.Calc/Add", &[WEB], full(message(b"1+1"))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "14"));
    assert_eq!(answer.header("content-type"), WEB.1);
}

/// A client of HTTP/1.1 reads no status in trailers: an answer that breaks off breaks off for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_answer_of_grpc_type_looks_complete_to_no_client_of_http1() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let said = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    saying(pair.origin, said.to_vec()).await;
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let fields = [("content-type", "application/grpc")];
    let answer = client.call(Method::POST, "/calc.Calc/Add", &fields, full(message(b"1+1"))).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workloads_second_address_is_reached_through_the_mesh() {
    let second = address::next();
    let pair = Pair::start_with(&[(8080, Protocol::Http)], |_, bundle| {
        let endpoints = bundle.services.values_mut().flat_map(|service| service.endpoints.values_mut());
        endpoints.for_each(|endpoint| endpoint.addresses = vec![second]);
        let served = bundle.workloads.values_mut().filter(|workload| workload.name.name == "origin");
        served.for_each(|workload| workload.addresses = vec![second]);
    });
    let app = App::start("app", pair.origin, 8080).await;
    let mut client = Client::through(pair.proxy(), &format!("{second}:8080")).await;
    assert_eq!(client.get("/who").await.text(), "app", "the app is where it listens");
    let arrived = pair.series(Of::Origin).sum("istio_requests_total", &[("reporter", "destination")]);
    assert_eq!((arrived, app.served()), (1.0, 1), "by the proxy of its workload");
    pair.change(Of::Caller, &HashMap::new(), |_| {});
    assert_eq!(client.get("/who").await.text(), "app");
}
