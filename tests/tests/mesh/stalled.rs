//! Readers that stop reading beside callers that go on: what they cost the others, and what is held for them. HTTP/1, HTTP/2, gRPC
//! and TCP, a quarter each, through two proxies in this process.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_policy::bundle::Protocol;
use weft_proxy::stalls::StallSums;
use weft_tests::client::{empty, tunnel};
use weft_tests::wait::LIMIT;
use weft_tests::{App, Client};

use super::in_process::Pair;

/// More than anything on the way can hold.
const LARGE: &str = "/bytes/1073741824";
const MIB: u64 = 1 << 20;
/// A busy machine makes loopback look far away.
const NEVER_FAR: u64 = 60_000;

/// A pair of proxies and what is behind it.
struct Ground {
    pair: Pair,
    _apps: [App; 2],
    _source: Source,
}

impl Ground {
    async fn new(limits: &Value) -> Self {
        let ports = [(8080, Protocol::Http), (8081, Protocol::Grpc), (6000, Protocol::Tcp)];
        let pair = Pair::start_limited(&ports, limits);
        let apps = [App::start("one", pair.origin, 8080).await, App::start("two", pair.origin, 8081).await];
        let source = Source::start(pair.origin, 6000).await;
        Self { pair, _apps: apps, _source: source }
    }

    /// Waits for a state of the caller's proxy and the origin's.
    async fn until(&self, what: &str, condition: impl Fn(&[StallSums]) -> bool) -> Vec<StallSums> {
        let end = Instant::now() + LIMIT * 4;
        loop {
            let stalls = self.pair.stalls();
            if condition(&stalls) {
                return stalls;
            }
            assert!(Instant::now() < end, "never: {what}; {stalls:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A TCP application that sends for as long as somebody takes it.
struct Source(tokio::task::JoinHandle<()>);

impl Source {
    async fn start(ip: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        Self(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let piece = vec![b'w'; 64 * 1024];
                    while stream.write_all(&piece).await.is_ok() {}
                });
            }
        }))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One who has asked for much and reads nothing. HTTP/1 and TCP have a connection each.
enum Reader {
    Http { body: Incoming, _connection: Option<Client> },
    Tcp(TcpStream),
}

impl Reader {
    /// Reads `bytes` at least.
    async fn read(&mut self, bytes: usize) -> Result<(), String> {
        let mut read = 0;
        while read < bytes {
            read += match self {
                Reader::Http { body, .. } => match body.frame().await {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(error)) => return Err(format!("{error:?}")),
                    None => return Err("the end".to_owned()),
                },
                Reader::Tcp(stream) => {
                    let mut piece = vec![0; 64 * 1024];
                    match stream.read(&mut piece).await {
                        Ok(0) => return Err("the end".to_owned()),
                        Ok(read) => read,
                        Err(error) => return Err(error.to_string()),
                    }
                }
            };
        }
        Ok(())
    }
}

async fn reader(client: Client, headers: &[(&str, &str)]) -> Reader {
    let mut client = client;
    let body = client.start(Method::GET, LARGE, headers, empty()).await.unwrap().into_body();
    Reader::Http { body, _connection: Some(client) }
}

/// As many readers of each kind, one kind after another. Those of HTTP/2 share connections.
async fn readers(proxy: SocketAddr, of_each: usize) -> Vec<Reader> {
    let mut readers = Vec::new();
    for _ in 0..of_each {
        readers.push(reader(Client::through(proxy, "origin:8080").await, &[]).await);
    }
    for (authority, headers) in
        [("origin:8080", &[][..]), ("origin:8081", &[("content-type", "application/grpc"), ("te", "trailers")][..])]
    {
        let mut left = of_each;
        while left > 0 {
            let mut client = Client::h2_in_tunnel(proxy, authority).await;
            let here = left.min(50);
            for _ in 0..here {
                let answer = client.start(Method::GET, LARGE, headers, empty()).await.unwrap();
                readers.push(Reader::Http { body: answer.into_body(), _connection: None });
            }
            left -= here;
            if let Some(Reader::Http { _connection, .. }) = readers.last_mut() {
                *_connection = Some(client);
            }
        }
    }
    for _ in 0..of_each {
        readers.push(Reader::Tcp(tunnel(proxy, "origin:6000").await));
    }
    readers
}

/// A caller that behaves.
struct Caller {
    h1: Client,
    grpc: Client,
}

impl Caller {
    async fn new(proxy: SocketAddr) -> Self {
        let (h1, grpc) =
            (Client::through(proxy, "origin:8080").await, Client::h2_in_tunnel(proxy, "origin:8081").await);
        Self { h1, grpc }
    }

    /// The 99th percentile of `calls` of each kind; the best of five times, since a busy machine has hiccups of its own.
    async fn p99(&mut self, calls: usize) -> Duration {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let mut took = Vec::new();
            for _ in 0..calls {
                for client in [&mut self.h1, &mut self.grpc] {
                    let began = Instant::now();
                    assert_eq!(client.get("/who").await.status, 200);
                    took.push(began.elapsed());
                }
            }
            took.sort_unstable();
            best = best.min(took[took.len() * 99 / 100]);
        }
        best
    }
}

/// Resident memory of this process: both proxies, the clients and the applications.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// `of_each` readers of each kind stall; a caller beside them keeps its pace, and the budget holds.
async fn stall(of_each: usize, calls: usize, budget: u64) {
    let readers_in_all = of_each as u64 * 4;
    let limits = json!({
        "stalled_bytes": budget, "quic_far_from_ms": NEVER_FAR, "peer_streams_per_connection": 512,
    });
    // The same without readers, measured in turn: what else runs on this machine delays both.
    let (ground, quiet) = (Ground::new(&limits).await, Ground::new(&limits).await);
    let (mut caller, mut beside) = (Caller::new(ground.pair.proxy()).await, Caller::new(quiet.pair.proxy()).await);
    caller.p99(calls).await;
    let mut before = (beside.p99(calls).await, resident());
    let mut readers = readers(ground.pair.proxy(), of_each).await;
    let all_stalled =
        |stalls: &[StallSums]| stalls.iter().all(|it| it.streams + it.resets >= readers_in_all && it.bytes <= budget);
    let stalls = ground.until("every reader has stalled in both proxies", all_stalled).await;
    let mut after = (caller.p99(calls).await, resident());
    for _ in 0..20 {
        if after.0 <= before.0 * 2 {
            break;
        }
        before.0 = beside.p99(calls).await;
        after.0 = caller.p99(calls).await;
    }
    eprintln!(
        "{readers_in_all} readers stalled: p99 without them {:?}, beside them {:?}; resident {} -> {} MiB; caller's proxy {:?}; origin's {:?}",
        before.0,
        after.0,
        before.1 / MIB,
        after.1 / MIB,
        stalls[0],
        stalls[1]
    );
    assert!(after.0 <= before.0 * 2, "p99 is {:?} without them and {:?} beside them", before.0, after.0);
    // Both proxies keep to the budget; what their clients hold beside it is in this process, too.
    assert!(after.1.saturating_sub(before.1) <= 2 * budget, "{} MiB more", (after.1 - before.1) / MIB);
    assert!(stalls.iter().all(|it| it.resets == 0), "the budget was enough for all");
    // Those of HTTP/2 share their clients' windows, and would have to be read all at once. Not too many: the kernel lets what
    // it buffers for a socket grow once it is read, and has a limit for all.
    let some = of_each.min(15);
    let (of_h1, of_tcp) = (0..some, of_each * 3..of_each * 3 + some);
    for nth in of_h1.chain(of_tcp) {
        let read = tokio::time::timeout(LIMIT, readers[nth].read(256 * 1024)).await;
        read.unwrap_or_else(|_| panic!("reader {nth} is stuck: {:?}", ground.pair.stalls()))
            .expect("it goes on where it stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_cost_the_others_nothing() {
    stall(15, 40, 256 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_budget_the_longest_stalled_are_reset_and_no_others() {
    const BUDGET: u64 = 9 * MIB;
    let limits = json!({"stalled_bytes": BUDGET, "stalled_after_ms": 300, "quic_far_from_ms": NEVER_FAR});
    let ground = Ground::new(&limits).await;
    let proxy = ground.pair.proxy();
    let mut caller = Caller::new(proxy).await;
    let mut moving = reader(Client::through(proxy, "origin:8080").await, &[]).await;
    let mut old = readers(proxy, 5).await;
    let many = old.len() as u64;
    let within = ground.until("the first have stalled", |stalls| stalls.iter().all(|it| it.streams >= many)).await;
    assert!(within.iter().all(|it| it.bytes <= BUDGET && it.resets == 0), "{within:?}");
    let mut young = readers(proxy, 5).await;
    let over = ground.until("the budget holds by resets", |stalls| {
        let here = stalls[0];
        stalls.iter().all(|it| it.bytes <= BUDGET) && here.streams + here.resets >= many * 2 && here.resets > 0
    });
    let (over, moved) = tokio::join!(over, moving.read(8 * 1024 * 1024));
    moved.expect("one that reads is not touched");
    // Which of the first go is a matter of microseconds; those that came later do not.
    let ends = old.iter_mut().map(|reader| tokio::time::timeout(LIMIT / 6, reader.read(4 * 1024 * 1024)));
    let told: Vec<_> =
        futures_util::future::join_all(ends).await.into_iter().flatten().filter_map(Result::err).collect();
    assert!(!told.is_empty() && told.len() as u64 <= over[0].resets + over[1].resets, "{told:?} {over:?}");
    assert!(told.iter().all(|told| told != "the end"), "what was cut never looks complete: {told:?}");
    for nth in (0..5).chain(15..20) {
        let read = tokio::time::timeout(LIMIT, young[nth].read(256 * 1024)).await;
        read.unwrap_or_else(|_| panic!("{nth} is stuck")).expect("one that stalled later goes on");
    }
    assert_eq!(caller.h1.get("/who").await.status, 200);
    assert_eq!(caller.grpc.get("/who").await.status, 200);
}

/// An application that accepts and never reads: uploads stall in both proxies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_nobody_takes_are_within_the_budget_too() {
    const BUDGET: u64 = 2 * MIB;
    let limits = json!({"stalled_bytes": BUDGET, "stalled_after_ms": 300, "quic_far_from_ms": NEVER_FAR});
    let ports = [(8080, Protocol::Http), (6000, Protocol::Tcp)];
    let pair = Pair::start_limited(&ports, &limits);
    let mut deaf = Vec::new();
    for (port, _) in ports {
        let listener = TcpListener::bind((pair.origin, port)).await.unwrap();
        deaf.push(tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        }));
    }
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let proxy = pair.proxy();
        callers.spawn(async move {
            let mut client = Client::through(proxy, "origin:8080").await;
            let answer = client.call(Method::POST, "/", &[], weft_tests::app::bytes(1 << 30)).await;
            answer.map_or_else(|error| error.0, |answer| answer.text())
        });
        callers.spawn(async move {
            let mut stream = tunnel(proxy, "origin:6000").await;
            let piece = vec![b'w'; 64 * 1024];
            loop {
                if let Err(error) = stream.write_all(&piece).await {
                    return error.to_string();
                }
            }
        });
    }
    let mut told = Vec::new();
    let some = async {
        while told.len() < 5 {
            told.push(callers.join_next().await.unwrap().unwrap());
        }
    };
    tokio::time::timeout(LIMIT * 4, some).await.unwrap_or_else(|_| panic!("{:?}", pair.stalls()));
    let end = Instant::now() + LIMIT;
    while pair.stalls().iter().any(|it| it.bytes > BUDGET) {
        assert!(Instant::now() < end, "{:?}", pair.stalls());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    deaf.iter().for_each(tokio::task::JoinHandle::abort);
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a thousand readers take minutes and file descriptors"]
    async fn a_thousand_stalled_readers_cost_the_others_nothing() {
        weft_proxy::descriptors::raise();
        stall(250, 200, 512 * MIB).await;
    }
}
