//! What is sent, and what answers say: by tables, and on HTTP/1 over loopback.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_policy::bundle::StatusRange;
use weft_transport::h1;
use weft_transport::http::HttpLimits;

use super::*;

fn http() -> HealthProbe {
    let statuses = vec![StatusRange { from: 200, to: 299 }, StatusRange { from: 401, to: 401 }];
    HealthProbe::Http(HttpProbe { path: "/healthz?full".to_owned(), host: None, statuses })
}

fn head(status: u16, fields: &[(&'static str, &str)]) -> ResponseHead {
    let fields = fields.iter().map(|&(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: fields.collect() }
}

/// Asks a server that answers with these bytes: what it was sent, and what came of it.
async fn asked(probe: HealthProbe, answered: &'static [u8]) -> (String, Found) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let serving = async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert!(server.read_buf(&mut read).await.unwrap() > 0, "it ended");
        }
        server.write_all(answered).await.unwrap();
        String::from_utf8(read).unwrap()
    };
    let asking = async {
        let mut client = h1::ClientConn::new(client, HttpLimits::default().h1());
        let (head, body) = request(&probe, "web.shop").unwrap();
        let streams = client.send(&head, body.is_none()).await.unwrap();
        match answer(streams, body, &probe, Party::App).await {
            Ok(found) | Err(found) => found,
        }
    };
    let both = async { tokio::join!(serving, asking) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("nothing waits for ever")
}

#[tokio::test]
async fn a_get_is_sent_and_its_status_judged() {
    let (sent, found) = asked(http(), b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok").await;
    assert!(sent.starts_with("GET /healthz?full HTTP/1.1\r\n"), "{sent}");
    let fields = sent.to_ascii_lowercase();
    assert!(
        fields.contains("\r\nhost: web.shop\r\n") && fields.contains("\r\nuser-agent: weft-health-check\r\n"),
        "{sent}"
    );
    assert_eq!(found, Found::passed());
    let (_, found) = asked(http(), b"HTTP/1.1 103 \r\n\r\nHTTP/1.1 401 \r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(found, Found::passed());
    let (_, found) = asked(http(), b"HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(found, Found::failed("answered 503"));
    let (_, found) = asked(http(), b"HTTP/1.1 200 \r\ncontent-length: 9\r\n\r\nok").await;
    assert_eq!(found.checked(), Checked::Failed, "it broke off: {found:?}");
    let (_, found) = asked(http(), b"").await;
    assert_eq!(found.checked(), Checked::Failed, "it was not answered: {found:?}");
    // What an app says of itself under the names of proxies is not believed.
    let (_, found) = asked(http(), b"HTTP/1.1 403 \r\nweft-reply: x\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(found, Found::failed("answered 403"));
}

#[test]
fn what_a_proxy_answers_itself_is_of_the_app_only_where_it_can_not_be_had() {
    fn check(status: u16, fields: &[(&'static str, &str)], expect: Option<Checked>) {
        let told = of_the_proxy(&head(status, fields)).map(|found| found.checked());
        assert_eq!(told, expect, "{status} {fields:?}");
    }
    let own = ("weft-reply", "inbound;filter;shop/x;authorization");
    check(403, &[], None);
    check(403, &[own], Some(Checked::Nothing));
    check(421, &[own], Some(Checked::Nothing));
    check(503, &[own, ("weft-unserved", "1")], Some(Checked::Failed));
    check(504, &[own], Some(Checked::Failed));
    check(200, &[own], None);
    check(200, &[own, ("grpc-status", "7")], Some(Checked::Nothing));
    check(200, &[own, ("grpc-status", "14")], Some(Checked::Failed));
    let found = of_the_proxy(&head(403, &[own])).unwrap();
    assert!(found.is_refused());
    assert_eq!(found.why(), "its proxy answered 403: inbound;filter;shop/x;authorization");
}

#[test]
fn a_question_is_a_framed_message() {
    assert_eq!(question(""), &b"\0\0\0\0\0"[..]);
    assert_eq!(question("a.B"), &b"\0\0\0\0\x05\x0a\x03a.B"[..]);
    let long = question(&"x".repeat(200));
    assert_eq!((&long[..8], long.len()), (&b"\0\0\0\0\xcb\x0a\xc8\x01"[..], 208));
    let (head, _) = request(&HealthProbe::Grpc(String::new()), "web.shop").unwrap();
    assert_eq!((head.version, head.headers["te"].to_str().unwrap()), (Version::HTTP_2, "trailers"));
    assert!(request(&HealthProbe::Tcp, "web.shop").is_none());
}

#[test]
fn only_serving_is_well() {
    fn check(status: Option<&str>, in_trailers: bool, body: &[u8], expect: Result<(), &str>) {
        let none: &[(&'static str, &str)] = &[];
        let fields: Vec<_> = status.into_iter().map(|status| ("grpc-status", status)).collect();
        let (at_once, later) = if in_trailers { (none, &fields[..]) } else { (&fields[..], none) };
        let found = of_grpc(&head(200, at_once), Some(&head(200, later).headers), body);
        let told = if found == Found::passed() { Ok(()) } else { Err(found.why()) };
        assert_eq!(told, expect, "{status:?} {body:?}");
    }
    let serving = b"\0\0\0\0\x02\x08\x01";
    check(Some("0"), true, serving, Ok(()));
    check(Some("0"), true, b"\0\0\0\0\x02\x08\x02", Err("is NOT_SERVING"));
    check(Some("0"), true, b"\0\0\0\0\0", Err("is UNKNOWN"));
    check(Some("0"), true, b"\0\0\0\0\x02\x08\x09", Err("is in a status that is not known"));
    // Fields of later versions, of each type.
    let later = b"\0\0\0\0\x16\x10\x96\x01\x1a\x01x\x21abcdefgh\x2dabcd\x08\x01";
    check(Some("0"), true, later, Ok(()));
    for broken in [
        &b""[..],
        b"\0\0\0",
        b"\0\0\0\0\x03\x08\x01",
        b"\x01\0\0\0\x02\x08\x01",
        b"\0\0\0\0\x01\x08",
        b"\0\0\0\0\x01\x0b",
    ] {
        check(Some("0"), true, broken, Err("answered with what is no HealthCheckResponse"));
    }
    check(Some("12"), false, b"", Err("answered grpc-status 12"));
    check(Some("5"), true, serving, Err("answered grpc-status 5"));
    check(None, true, serving, Err("answered without a grpc-status"));
    let found = of_grpc(&head(404, &[]), None, b"");
    assert_eq!(found.why(), "answered 404");
}

#[test]
fn a_failure_is_of_the_endpoint_or_of_nobody() {
    let check = |failure: Failure, expect| assert_eq!(Found::of(&failure).checked(), expect, "{failure}");
    let tunnel = |status| Failure::TunnelRefused { status, told: String::new() };
    check(tunnel(StatusCode::FORBIDDEN), Checked::Nothing);
    check(tunnel(StatusCode::BAD_GATEWAY), Checked::Failed);
    check(Failure::PeerUnserved { told: String::new() }, Checked::Failed);
    check(Failure::PeerConnect { address: String::new(), reason: String::new() }, Checked::Failed);
    check(Failure::NotReady, Checked::Nothing);
    assert!(Found::of(&tunnel(StatusCode::FORBIDDEN)).is_refused());
}
