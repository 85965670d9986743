//! HTTP and TCP as an application may expect them, through a pair of sidecars over QUIC: the same as without them. Each
//! behaviour is tested through whole processes, and through two proxies in this process by each way in.

use http::{Method, Version};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::app::{bytes, message};
use weft_tests::client::{empty, full, try_tunnel, tunnel};
use weft_tests::{App, Client, Mesh, TcpApp, Workload, eventually};

mod stage;

use super::in_process::Of;
use stage::{Stage, Way};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_behaves() {
    http1(Stage::processes(Way::Explicit).await).await;
}

async fn http1(stage: Stage) {
    let mut client = stage.client().await;

    let answer = client.get("/who").await;
    assert_eq!((answer.text().as_str(), answer.version), ("reviews-1", Version::HTTP_11));

    // Names of a service: in the own namespace, with namespace, whole, with port, in any case.
    for name in ["origin.default", "origin.default.svc.cluster.local", "origin.default.mesh.local", "ORIGIN:80"] {
        assert_eq!(Client::through(stage.proxy(), name).await.get("/who").await.text(), "reviews-1", "{name}");
    }

    // A body both ways, of known length and chunked, empty ones included.
    for size in [0, 1, 1_000, 300_000] {
        let sent = vec![b'x'; size];
        assert_eq!(client.post("/echo", sent.clone()).await.body, sent, "{size} bytes");
    }
    let answer = client.call(Method::POST, "/digest", &[], bytes(5_000_000)).await.unwrap();
    assert_eq!(answer.text(), "5000000");
    assert_eq!(client.get("/bytes/5000000").await.body.len(), 5_000_000);

    // Status codes and heads as the app sent them.
    for code in [204, 304, 404, 500, 503] {
        assert_eq!(client.get(&format!("/status/{code}")).await.status, code);
    }
    let head = client.call(Method::HEAD, "/who", &[], empty()).await.unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), ("9", 0));
    assert_eq!(client.call(Method::OPTIONS, "/seen", &[], empty()).await.unwrap().status, 200);

    // Trailers of a chunked answer, where the client said that it takes them.
    let answer = client.get_with("/trailers", &[("te", "trailers")]).await;
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers.expect("trailers").get("x-sum").expect("the trailer"), "42");

    // An answer before the request is complete.
    let mut early = stage.client().await;
    let answer = early.call(Method::POST, "/early", &[], bytes(200_000)).await;
    assert!(answer.is_ok_and(|answer| answer.status == 413), "an early answer arrives");

    // An answer that breaks off must not look complete.
    let mut cut = stage.client().await;
    assert!(cut.call(Method::GET, "/cut", &[], empty()).await.is_err(), "a broken body is an error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_the_applications() {
    headers(Stage::processes(Way::Explicit).await).await;
}

async fn headers(stage: Stage) {
    let mut client = stage.client().await;
    let sent = [
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("connection", "x-hop"),
        ("x-hop", "gone"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("weft-dst", "127.0.0.1:1"),
        ("weft-source", "liar"),
        ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/default/sa/admin"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let seen: serde_json::Value = serde_json::from_str(&client.get_with("/seen?a=b&c", &sent).await.text()).unwrap();
    assert_eq!(seen["target"], "/seen?a=b&c");
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
    let values = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("host"), [stage.host()]);
    assert_eq!(values("x-twice"), ["one", "two"]);
    for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "weft-dst", "weft-source"] {
        assert_eq!(values(gone), Vec::<&str>::new(), "{gone} must not reach the app");
    }
    assert_eq!(values("traceparent"), ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]);
    let certificate = values("x-forwarded-client-cert").join(",");
    assert!(
        certificate.contains(&format!("spiffe://cluster.local/ns/default/sa/{}", stage.account())),
        "{certificate}"
    );
    assert!(!certificate.contains("admin"), "an app's own word on its identity is dropped: {certificate}");

    let answer = client.get("/who").await;
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("weft-")), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_http1_is_refused() {
    malformed_http1(Stage::processes(Way::Explicit).await).await;
}

async fn malformed_http1(stage: Stage) {
    let host = "host: origin\r\n";
    let table = [
        (
            format!("GET http://origin/ HTTP/1.1\r\n{host}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc"),
            400,
        ),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}content-length: 3\r\ncontent-length: 2\r\n\r\nabc"), 400),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}content-length: -1\r\n\r\n"), 400),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}transfer-encoding: identity\r\n\r\n"), 400),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}no colon here\r\n\r\n"), 400),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}x y: z\r\n\r\n"), 400),
        (format!("GET http://origin/ HTTP/9.9\r\n{host}\r\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: ho|st|\r\n\r\n".to_owned(), 400),
        (format!("GET http://origin/a%c0%afb HTTP/1.1\r\n{host}connection: close\r\n\r\n"), 400),
        (format!("GET http://origin/{} HTTP/1.1\r\n{host}\r\n", "x".repeat(20_000)), 414),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}{}\r\n", "x-a: b\r\n".repeat(200)), 431),
        (format!("GET http://origin/ HTTP/1.1\r\n{host}x-long: {}\r\n\r\n", "x".repeat(100_000)), 431),
    ];
    let before = stage.app.served();
    for (request, status) in table {
        let answer = stage.raw(request.as_bytes()).await;
        let shown: String = request.chars().take(120).collect();
        let got = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
        let fits = got == status || (status == 400 && got == 505) || (status == 414 && got == 431);
        assert!(fits, "{shown:?} got {answer:?}");
    }
    assert_eq!(stage.app.served(), before, "none of them reached the app");

    // A good request, then a bad one on the same connection: the first is answered.
    for bad in ["GET nonsense\r\n\r\n", "G@T http://origin/ HTTP/1.1\r\nhost: origin\r\n\r\n"] {
        let both = format!("GET http://origin/who HTTP/1.1\r\n{host}\r\n{bad}");
        let answer = stage.raw(both.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 400"), "{bad}: {answer}");
    }
    // The explicit proxy speaks HTTP only: what isn't is answered as such.
    let answer = stage.raw(b"\x00\x01\x02\x03 not HTTP\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    if !stage.has_counters() {
        return;
    }
    let metrics = stage.metrics(Of::Caller).await;
    let refused = |reason| metrics.sum("weft_malformed_requests_total", &[("side", "outbound"), ("reason", reason)]);
    assert!(refused("framing") >= 4.0 && refused("host") >= 2.0, "{}", metrics.lines("malformed"));
    assert!(refused("target_too_long") >= 1.0 && refused("malformed") >= 2.0, "{}", metrics.lines("malformed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2c_behaves() {
    h2c(Stage::processes(Way::Explicit).await).await;
}

async fn h2c(stage: Stage) {
    let mut client = Client::h2_in_tunnel(stage.proxy(), "origin:80").await;
    let answer = client.get("/who").await;
    assert_eq!((answer.text().as_str(), answer.version), ("reviews-1", Version::HTTP_2));
    let sent = vec![b'y'; 300_000];
    assert_eq!(client.post("/echo", sent.clone()).await.body, sent);
    assert_eq!(client.get("/status/404").await.status, 404);
    assert_eq!(client.get("/trailers").await.trailers.expect("trailers").get("x-sum").expect("the trailer"), "42");
    assert!(client.call(Method::GET, "/cut", &[], empty()).await.is_err(), "a reset reaches the client");

    // The app sees HTTP/2 as well.
    let seen: serde_json::Value = serde_json::from_str(&client.get("/seen").await.text()).unwrap();
    assert_eq!(seen["version"], "HTTP/2.0");

    // HTTP/1.1 inside a tunnel is found and treated as HTTP.
    let mut h1 = Client::h1_in_tunnel(stage.proxy(), "origin:80").await;
    assert_eq!(h1.get("/who").await.text(), "reviews-1");
    let metrics = stage.metrics(Of::Origin).await;
    let labels = [("reporter", "destination"), ("connection_security_policy", "mutual_tls"), ("response_code", "200")];
    assert!(metrics.sum("istio_requests_total", &labels) >= 6.0, "{}", metrics.lines("istio_requests_total"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_behaves() {
    grpc(Stage::processes(Way::Explicit).await).await;
}

async fn grpc(stage: Stage) {
    let mut client = Client::h2_in_tunnel(stage.proxy(), "origin:80").await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let two = [message(b"hello"), message(b"again")].concat();
    for (method, sent, expected) in [
        ("Unary", message(b"hello").to_vec(), message(b"hello").to_vec()),
        ("Bidi", two.clone(), two.clone()),
        ("ClientStream", two, message(b"20").to_vec()),
        ("ServerStream", message(b"").to_vec(), [message(b"one"), message(b"two"), message(b"three")].concat()),
    ] {
        let answer = client.call(Method::POST, &format!("/test.Echo/{method}"), &grpc, full(sent)).await.unwrap();
        assert_eq!(answer.body, expected, "{method}");
        let trailers = answer.trailers.unwrap_or_else(|| panic!("{method} has trailers"));
        assert_eq!(trailers.get("grpc-status").expect("a status"), "0", "{method}");
    }
    let missing = client.call(Method::POST, "/test.Echo/Missing", &grpc, empty()).await.unwrap();
    assert_eq!((missing.header("grpc-status"), missing.header("grpc-message")), ("5", "no such thing"));

    // An error of the mesh itself is told as gRPC: no such service port.
    let mut nowhere = Client::h2_through(stage.proxy(), "origin:81").await;
    let answer = nowhere.call(Method::POST, "/test.Echo/Unary", &grpc, empty()).await.unwrap();
    assert_eq!(answer.status, 200, "gRPC errors travel as 200");
    assert_ne!(answer.header("grpc-status"), "0");
    assert!(!answer.header("grpc-message").is_empty());
    let metrics = stage.metrics(Of::Origin).await;
    let labels = [("request_protocol", "grpc"), ("grpc_response_status", "5")];
    assert_eq!(metrics.sum("istio_requests_total", &labels), 1.0, "{}", metrics.lines("grpc"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_stream_holds_up_nobody() {
    slow_stream(Stage::processes(Way::Explicit).await).await;
}

async fn slow_stream(stage: Stage) {
    let mut slow = Client::h2_in_tunnel(stage.proxy(), "origin:80").await;
    // 64 MiB that nobody reads.
    let unread = slow.start(Method::GET, "/bytes/67108864", &[], empty()).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let door = stage.door;
        tasks.push(tokio::spawn(async move {
            let mut client = door.client().await;
            for _ in 0..20 {
                assert_eq!(client.get("/bytes/100000").await.body.len(), 100_000);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let collected = unread.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(collected.len(), 67_108_864, "and the slow one is complete when it is read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once() {
    many_connections(Stage::processes(Way::Explicit).await).await;
}

async fn many_connections(stage: Stage) {
    let before = stage.app.served();
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let door = stage.door;
        tasks.push(tokio::spawn(async move {
            let mut client = door.client().await;
            for size in 0..50 {
                let sent = vec![b'z'; size * 37];
                assert_eq!(client.post("/echo", sent.clone()).await.body, sent);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(stage.app.served() - before, 64 * 50);
    let counted =
        |labels: &'static [(&str, &str)], metrics: weft_tests::Scrape| metrics.sum("istio_requests_total", labels);
    eventually("both sides counted every request", || async {
        let source = counted(&[("reporter", "source")], stage.metrics(Of::Caller).await);
        let destination = counted(&[("reporter", "destination")], stage.metrics(Of::Origin).await);
        // The one more: what found out that the service is reachable.
        (source >= 3_200.0 && destination >= 3_200.0 && (source - destination).abs() < 3.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_behaves() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("store", 6000, "tcp").port(6001, "tcp");
    let _echo = TcpApp::start(workload.ip, 6000, "").await;
    let _first = TcpApp::start(workload.ip, 6001, "220 ready\r\n").await;
    let server = mesh.sidecar(workload).await;
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: store, namespace: default}\nspec:\n  selector: {app: store}\n  \
         ports:\n  - {name: a, port: 6000, targetPort: 6000, appProtocol: tcp}\n  - {name: b, port: 6001, targetPort: 6001, \
         appProtocol: tcp}\n",
    );
    let client = mesh.sidecar(Workload::client("teller")).await;
    eventually("store is reachable", || async {
        let (mut stream, head) = try_tunnel(client.proxy(), "store:6001").await;
        let mut greeting = [0; 11];
        (head.contains(" 200") && stream.read_exact(&mut greeting).await.is_ok()).then_some(())
    })
    .await;

    // The client speaks first; half-close is carried, and what comes after it too.
    let mut stream = tunnel(client.proxy(), "store:6000").await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let (written, all) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut got)
    );
    written.unwrap();
    all.unwrap();
    assert_eq!(got.len(), sent.len() + 3);
    assert!(got.starts_with(&sent) && got.ends_with(b"bye"));

    // The server speaks first.
    let mut stream = tunnel(client.proxy(), "store.default.svc.cluster.local:6001").await;
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    stream.write_all(b"HELO").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"HELO");
    drop(stream);
    let labels = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
    eventually("bytes and connections are counted", || async {
        let metrics = server.metrics().await;
        let sent = metrics.sum("istio_tcp_sent_bytes_total", &labels);
        let closed = metrics.sum("istio_tcp_connections_closed_total", &labels);
        (sent >= 1_000_000.0 && closed >= 3.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_outside_the_mesh_pass() {
    let mesh = Mesh::start().await;
    let client = mesh.sidecar(Workload::client("tourist")).await;
    let outside = App::start("outside", weft_tests::address::next(), 9000).await;
    let mut through = Client::through(client.proxy(), &outside.address.to_string()).await;
    assert_eq!(through.get("/who").await.text(), "outside");
    let mut tunnelled = Client::h1_in_tunnel(client.proxy(), &outside.address.to_string()).await;
    assert_eq!(tunnelled.get("/who").await.text(), "outside");
    let metrics = client.metrics().await;
    assert!(metrics.sum("weft_passthrough_connections_total", &[]) >= 2.0, "{}", metrics.lines("passthrough"));
}

/// The same through two proxies in this process, by each way in.
mod in_process {
    macro_rules! by_each_way {
        ($($name:ident)*) => {
            mod explicit {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::super::$name(super::super::Stage::in_process(super::super::Way::Explicit).await).await;
                })*
            }
            mod tunnel {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::super::$name(super::super::Stage::in_process(super::super::Way::Tunnel).await).await;
                })*
            }
        };
    }

    by_each_way!(http1 headers malformed_http1 h2c grpc slow_stream many_connections);
}
