//! Destinations outside the mesh: what is dialled is what was named, or nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_policy::bundle::{Bundle, Protocol};
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

/// `localhost` means this machine; where the mesh has a workload there, a name is no way past its identity and its policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_a_workload_is_refused() {
    let (app, port) = private().await;
    let pair = Pair::start_with(&[(port, Protocol::Http)], |_, bundle| {
        let endpoints = bundle.services.values_mut().flat_map(|service| service.endpoints.values_mut());
        endpoints.for_each(|endpoint| endpoint.addresses = ["127.0.0.1", "::1"].map(|ip| ip.parse().unwrap()).to_vec());
    });
    let named = format!("localhost:{port}");
    let answer = Client::through(pair.proxy(), &named).await.get("/who").await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("a workload of the mesh"), "{}", answer.text());
    let (_, head) = try_tunnel(pair.proxy(), &named).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(app.served(), 0);
}

/// The app listens on one of the addresses that the name has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_a_name_is_tried() {
    let client = Pair::start(&[]);
    let (app, port) = private().await;
    let named = format!("localhost:{port}");
    assert_eq!(Client::through(client.proxy(), &named).await.get("/who").await.text(), "private");
    assert_eq!(Client::h1_in_tunnel(client.proxy(), &named).await.get("/who").await.text(), "private");
    assert_eq!(app.served(), 2);
}

/// Somebody outside who hands every connection to `back`; how many there were.
async fn mirror(back: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((address::next(), 0)).await.unwrap();
    let (own, count) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(back).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (own, count)
}

/// A request that comes back by somebody outside is known by its Via: at once to whoever sent it, after one turn of the loop to a
/// proxy that it reaches from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_through_somebody_outside_is_broken() {
    let pair = Pair::start(&[]);
    for (back, turns) in [(pair.proxy(), 1), (SocketAddr::new(pair.origin, 15080), 2)] {
        let (outside, connections) = mirror(back).await;
        let answer = Client::through(pair.proxy(), &outside.to_string()).await.get("/who").await;
        assert_eq!(answer.status, 508, "{}", answer.text());
        assert!(answer.text().contains("a loop"), "{}", answer.text());
        assert_eq!(connections.load(Ordering::SeqCst), turns);
    }
}

/// A gateway outside that sends each request back for a service of the mesh, and passes `Via` on.
async fn gateway(back: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((address::next(), 0)).await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let via = head.lines().find(|line| line.starts_with("via: ")).expect("it came by a proxy");
            let mut far = TcpStream::connect(back).await.unwrap();
            let request = format!("GET http://origin:8080/who HTTP/1.1\r\nhost: origin:8080\r\n{via}\r\n\r\n");
            far.write_all(request.as_bytes()).await.unwrap();
            _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    });
    own
}

/// An app calls its own gateway, which calls a service by the same proxy: a way back, and no loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_back_for_something_else_is_served() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("app", pair.origin, 8080).await;
    let outside = gateway(pair.proxy()).await;
    let answer = Client::through(pair.proxy(), &outside.to_string()).await.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "app".to_owned()));
}

/// A socket that is there and takes no connection: its queue is full.
struct Full {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Full {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(0).unwrap();
        let (address, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
        let soon = Duration::from_millis(200);
        while let Ok(Ok(stream)) = tokio::time::timeout(soon, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// `connectTimeout` of the mesh holds for whatever is dialled: an address outside, an app, a peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connect_timeout_is_the_meshs() {
    let silent = tokio::net::UdpSocket::bind((address::next(), 0)).await.unwrap();
    let mesh_address = silent.local_addr().unwrap();
    let quick = |bundle: &mut Bundle| bundle.mesh.as_mut().expect("settings").connect_timeout_ms = 300;
    let pair = Pair::start_with(&[(8080, Protocol::Http), (6000, Protocol::Tcp)], |_, bundle| quick(bundle));
    let deaf = Pair::start_with(&[(8080, Protocol::Http)], |_, bundle| {
        quick(bundle);
        let endpoints = bundle.services.values_mut().flat_map(|service| service.endpoints.values_mut());
        endpoints.for_each(|endpoint| endpoint.mesh_address = mesh_address);
    });
    let outside = Full::at(SocketAddr::new(address::next(), 0)).await;
    let (_app, _tcp) =
        (Full::at(SocketAddr::new(pair.origin, 8080)).await, Full::at(SocketAddr::new(pair.origin, 6000)).await);
    let asked = [
        (pair.proxy(), outside.address.to_string(), 502),
        (pair.proxy(), "origin:8080".to_owned(), 503),
        (deaf.proxy(), "origin:8080".to_owned(), 503),
    ];
    for (proxy, destination, status) in asked {
        let began = Instant::now();
        let answer = Client::through(proxy, &destination).await.get("/who").await;
        assert_eq!(answer.status, status, "{destination}: {}", answer.text());
        // Not the five seconds that are the default; a request tries more than once.
        assert!(began.elapsed() < Duration::from_secs(4), "{destination}: {:?}", began.elapsed());
    }
    for (destination, status) in [(outside.address.to_string(), " 502 "), ("origin:6000".to_owned(), " 503 ")] {
        let began = Instant::now();
        let (_, head) = try_tunnel(pair.proxy(), &destination).await;
        assert!(head.contains(status), "{destination}: {head}");
        assert!(began.elapsed() < Duration::from_secs(4), "{destination}: {:?}", began.elapsed());
    }
}
