//! Filters that do what no filter should, between two proxies of one worker each: they cost their own requests what the
//! documentation says, and two hundred requests of others, in the same instance at the same time, nothing.

pub(super) mod tampered;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weft_filter_host::{CompileLimits, Compiler, FilterStats, Host, HostConfig};
use weft_policy::bundle::{
    CalloutGrant, CalloutService, Direction, FilterAttachment, Grant, KvGrant, KvScope, Protocol,
};
use weft_policy::component::MAX_BYTES;
use weft_tests::client::{empty, full, with_trailers};
use weft_tests::{App, Client, TcpApp, eventually, process};

use super::in_process::{Filter, Of, Pair, attach_all, attach_with, specification, wasm};
use tampered::{LOOP, TRAP, padded, renamed, tampered};

const OTHERS: usize = 200;
const AUTHORITY: &str = "origin:8080";

/// Requests of others: as many at a time, each answered as if nothing were.
struct Others {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<u64>,
}

impl Others {
    fn start(proxy: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..OTHERS).map(|_| Self::ask(proxy, Arc::clone(&stop))).collect();
        Self { stop, tasks }
    }

    async fn ask(proxy: SocketAddr, stop: Arc<AtomicBool>) -> u64 {
        let mut client = Client::through(proxy, AUTHORITY).await;
        let mut answered = 0;
        while !stop.load(Ordering::SeqCst) {
            let answer = client.call(Method::GET, "/slow/200", &[], empty()).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "origin"), "after {answered} good ones");
            answered += 1;
        }
        answered
    }

    /// Ends them.
    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let answered = self.tasks.join_all().await;
        assert!(answered.iter().all(|answered| *answered > 0), "each of them was answered: {answered:?}");
    }
}

/// How a request ends: with this status and this in its body, or broken off. Where a peer's reset overtakes the head of its
/// answer, the caller's proxy answers 502 in its place.
#[derive(Debug, Clone, Copy)]
enum End {
    Answer(u16, &'static str),
    BrokenOff,
}

const TRAPPED: End = End::Answer(503, "filter_trapped");
const TIMED_OUT: End = End::Answer(503, "filter_timed_out");
const INVALID: End = End::Answer(503, "filter_result_invalid");
/// It failed in the middle of a message whose answer had not begun.
const MIDWAY: End = End::Answer(503, "ended the stream: filter_trapped");
const MIDWAY_LATE: End = End::Answer(503, "ended the stream: filter_timed_out");

const PANIC: &[&str] = &["unreachable"];
const TIMEOUT: &[&str] = &["timeout"];
const RESULT: &[&str] = &["invalid_result"];

/// Deeds that the filter is told, how a request ends by them, and the kind of failure that is counted.
const DEEDS: &[(&str, End, &[&str])] = &[
    ("trap-panic", TRAPPED, PANIC),
    ("trap-index", TRAPPED, PANIC),
    ("trap-overflow", TRAPPED, PANIC),
    ("trap-unreachable", TRAPPED, PANIC),
    ("memory", TRAPPED, &["memory"]),
    // A call has two stacks: the engine's, and the compiler's own at the start of the memory. Either may end first.
    ("stack", TRAPPED, &["stack_overflow", "out_of_bounds"]),
    ("loop", TIMED_OUT, TIMEOUT),
    ("pseudo", INVALID, RESULT),
    ("framing", INVALID, RESULT),
    ("identity", INVALID, RESULT),
    ("bad-path", INVALID, RESULT),
    ("split", INVALID, RESULT),
    ("attribute-bad", INVALID, RESULT),
    ("request-status", INVALID, RESULT),
    ("status", INVALID, RESULT),
    ("flood", INVALID, RESULT),
    ("edits-65", INVALID, RESULT),
    ("edit-other", INVALID, RESULT),
    ("verdict-other", INVALID, RESULT),
    ("cookie-large", INVALID, RESULT),
    ("wait-long", INVALID, RESULT),
    ("wait-forever@tick", INVALID, RESULT),
    ("trap-panic@tick", TRAPPED, PANIC),
    ("loop@tick", TIMED_OUT, TIMEOUT),
    ("trap-panic@callout", TRAPPED, PANIC),
    ("loop@callout", TIMED_OUT, TIMEOUT),
    ("trap-panic@request-body", MIDWAY, PANIC),
    ("loop@request-body", MIDWAY_LATE, TIMEOUT),
    ("trap-panic@request-trailers", MIDWAY, PANIC),
    ("trap-panic@response-head", TRAPPED, PANIC),
    ("loop@response-head", TIMED_OUT, TIMEOUT),
    ("trap-panic@response-body", End::BrokenOff, PANIC),
    ("loop@response-body", End::BrokenOff, TIMEOUT),
    ("trap-panic@response-trailers", End::BrokenOff, PANIC),
    ("trap-panic@reply-body", End::BrokenOff, PANIC),
    ("loop@reply-body", End::BrokenOff, TIMEOUT),
    ("reset@reply-body", End::BrokenOff, &[]),
    // The end of a stream changes nothing any more, whatever a filter says or does there.
    ("trap-panic@done", End::Answer(200, ""), PANIC),
    ("loop@done", End::Answer(200, ""), TIMEOUT),
    ("reset@done", End::Answer(200, ""), &[]),
    ("log-bomb", End::Answer(200, ""), &[]),
    ("kv-bomb", End::Answer(200, "200 taken, 16 there"), &[]),
    ("callout-bomb", End::Answer(200, "sent, sent, sent, sent, "), &[]),
    ("callout-body", End::Answer(200, "x-said"), &[]),
    ("denied", End::Answer(200, "does not grant"), &[]),
];

/// One that is told its deeds by requests, asks for every hook, and may keep values and ask the app.
fn told(pair: &Pair, of: Of, direction: Direction) {
    let service = CalloutService {
        name: "quota".to_owned(),
        authority: Some("origin.default.svc.cluster.local:8080".to_owned()),
    };
    let kv = KvGrant { entries: 16, bytes: 1 << 20, scope: KvScope::Policy };
    let grants = [Grant::Kv(kv), Grant::Callout(CalloutGrant { services: vec![service] })];
    attach_with(pair, of, &[hostile(direction, r#"{"mode": "told", "at": "every"}"#)], |it| {
        it.grants = grants.to_vec();
        bounded(it);
    });
}

fn hostile(direction: Direction, config: &'static str) -> Filter {
    Filter { component: "hostile2", direction, config, authorization: false }
}

/// Time for two hundred large values and no more.
fn bounded(attachment: &mut FilterAttachment) {
    attachment.limits.call_timeout_ms = 20;
}

fn stats(pair: &Pair, of: Of) -> Arc<FilterStats> {
    pair.shared(of).filter_host.stats().pop().expect("one filter").stats
}

/// Failures of the filter by kind, as they are exported.
fn failures(stats: &FilterStats) -> BTreeMap<&'static str, u64> {
    stats.failures().into_iter().collect()
}

/// Those that came since.
fn since(before: &BTreeMap<&'static str, u64>, stats: &FilterStats) -> BTreeMap<&'static str, u64> {
    let grown = failures(stats).into_iter().map(|(kind, count)| (kind, count - before[kind]));
    grown.filter(|(_, count)| *count > 0).collect()
}

/// A request that tells the filter what to do, by a connection of its own.
async fn request(proxy: SocketAddr, does: &str) -> Ended {
    let hook = does.split_once('@').map_or("", |(_, hook)| hook);
    let (method, path, body) = match hook {
        "request-body" => (Method::POST, "/digest", full("a body")),
        "request-trailers" => (Method::POST, "/digest", with_trailers("body", &[("x-sum", "1")])),
        "response-trailers" => (Method::GET, "/trailers", empty()),
        _ => (Method::GET, "/who", empty()),
    };
    let has_trailers = hook.ends_with("trailers");
    let mut client = match has_trailers {
        true => Client::h2_in_tunnel(proxy, AUTHORITY).await,
        false => Client::through(proxy, AUTHORITY).await,
    };
    // The app shows what it was sent, but where the body that it sends itself counts.
    let shown: &[_] = if has_trailers { &[] } else { &[("x-show", "1")] };
    let headers = [&[("x-do", does)][..], shown].concat();
    let answer = client.call(method, path, &headers, body).await;
    answer.map(|answer| (answer.status.as_u16(), answer.text())).ok()
}

/// Status and body, unless it broke off.
type Ended = Option<(u16, String)>;

/// Has one of the proxies suffer each deed so many times.
async fn deeds(pair: &Pair, of: Of, rounds: u64) {
    let stats = stats(pair, of);
    for (does, end, kinds) in DEEDS {
        let before = failures(&stats);
        for _ in 0..rounds {
            let ended = request(pair.proxy(), does).await;
            let is_so = match (end, &ended) {
                (End::Answer(status, word), Some((found, body))) => found == status && body.contains(word),
                (End::BrokenOff, None) => true,
                (End::BrokenOff, Some((found, body))) => {
                    of == Of::Origin && *found == 502 && body.contains("reset by the peer")
                }
                (End::Answer(..), None) => false,
            };
            assert!(is_so, "{does} at {of:?}: {ended:?}, not {end:?}");
        }
        let expect = if kinds.is_empty() { 0 } else { rounds };
        let is_counted = || async {
            let found = since(&before, &stats);
            let known = found.keys().all(|kind| kinds.contains(kind));
            assert!(known, "{does} at {of:?}: {found:?}, not {kinds:?}");
            (found.values().sum::<u64>() == expect).then_some(())
        };
        eventually(&format!("{does} at {of:?} counts {expect} failures"), is_counted).await;
    }
    assert_eq!(pair.shared(of).filter_callouts.used(), 0, "{of:?}: what was asked is over");
}

/// Far more metrics and sets of labels than there is room for.
fn metric_flood(pair: &Pair) {
    attach_with(pair, Of::Origin, &[hostile(Direction::Inbound, r#"{"mode": "metric-bomb"}"#)], bounded);
    let overflows = stats(pair, Of::Origin).metric_overflows.value();
    // Each instance that is configured says it all again.
    assert!(overflows >= 1_000 && overflows.is_multiple_of(1_000), "{overflows} of 2,000 sets of labels found no room");
    attach_all(pair, Of::Origin, &[]);
}

/// What of a connection's bytes comes back to the client through a filter that traps or loops.
async fn connections(pair: &Pair) {
    for (config, kind) in [
        (r#"{"mode": "trap-panic", "at": "connection"}"#, "unreachable"),
        (r#"{"mode": "loop", "at": "connection"}"#, "timeout"),
        (r#"{"mode": "trap-panic", "at": "stream-data"}"#, "unreachable"),
        (r#"{"mode": "loop", "at": "stream-data"}"#, "timeout"),
    ] {
        attach_with(pair, Of::Origin, &[hostile(Direction::Inbound, config)], bounded);
        let stats = stats(pair, Of::Origin);
        let before = failures(&stats);
        let mut stream = TcpStream::connect(pair.proxy()).await.unwrap();
        stream.write_all(b"CONNECT origin:6000 HTTP/1.1\r\nhost: origin:6000\r\n\r\nto and fro").await.unwrap();
        let mut said = Vec::new();
        // Whether it ends in good order says nothing here: it does end.
        let read = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut said)).await;
        let said = String::from_utf8_lossy(&said);
        assert!(read.is_ok() && !said.contains("to and fro"), "{config}: {said}");
        let expect = BTreeMap::from([(kind, 1)]);
        eventually("it is counted once", || async { (since(&before, &stats) == expect).then_some(()) }).await;
    }
    attach_all(pair, Of::Origin, &[]);
}

/// As a proxy compiles and starts what it is told.
fn host(wall: Duration) -> Host {
    let compile = CompileLimits { wall, ..CompileLimits::default() };
    let compiler = Compiler::Child(process::binary("weft-proxy"));
    Host::new(HostConfig { compiler, compile, max_instances: 8, ..HostConfig::default() }).expect("a host")
}

/// Binaries that are no filters, or none that can start: what a proxy says of each.
async fn binaries() {
    let sound = wasm("starter");
    let (patient, hasty) = (host(CompileLimits::default().wall), host(Duration::from_millis(50)));
    for (what, binary, word, host) in [
        ("nonsense", b"no wasm".to_vec(), "not a WebAssembly binary", &patient),
        ("a core module", b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module", &patient),
        ("half of one", sound[..sound.len() / 2].to_vec(), "not a valid WebAssembly component", &patient),
        ("a huge one", padded(&sound, MAX_BYTES), "bytes, and at most", &patient),
        (
            "an import that nobody has",
            renamed(&wasm("hostile2"), "weft:filter/kv@", "weft:filter/kx@"),
            "which the world 0.2 of this release does not have",
            &patient,
        ),
        ("a start that loops", tampered(&sound, |it| it.start(LOOP)), "filter_timed_out: while it started", &patient),
        ("a start that traps", tampered(&sound, |it| it.start(TRAP)), "(unreachable): while it started", &patient),
        (
            "a table that grows",
            tampered(&sound, |it| it.start_with_growing_table()),
            "filter_timed_out: while it started",
            &patient,
        ),
        ("a table that is large", tampered(&sound, |it| it.table(1_000_000)), "table", &patient),
        ("a memory that is large", tampered(&sound, |it| it.memory(2_000)), "memory", &patient),
        ("long to compile", tampered(&sound, |it| it.bomb(500, 200)), "compiling it takes too much", &hasty),
    ] {
        let filter = Filter { component: "starter", direction: Direction::Inbound, config: "{}", authorization: false };
        let (spec, host) = (specification(filter, &binary), host.clone());
        let prepared = tokio::task::spawn_blocking(move || host.prepare(&spec, &binary).map(drop));
        match prepared.await.expect("nothing of it panics") {
            Err(error) => assert!(error.to_string().contains(word), "{what}: {error}"),
            Ok(()) => panic!("{what} is ready"),
        }
    }
}

async fn nobody_else_pays(rounds: u64) {
    weft_proxy::descriptors::raise();
    let pair = Pair::start(&[(8080, Protocol::Http), (6000, Protocol::Tcp)]);
    let _apps = (App::start("origin", pair.origin, 8080).await, TcpApp::start(pair.origin, 6000, "").await);
    let others = Others::start(pair.proxy());
    for (of, direction) in [(Of::Caller, Direction::Outbound), (Of::Origin, Direction::Inbound)] {
        told(&pair, of, direction);
        deeds(&pair, of, rounds).await;
        attach_all(&pair, of, &[]);
    }
    metric_flood(&pair);
    connections(&pair).await;
    binaries().await;
    others.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_filter_costs_its_own_requests_and_no_other() {
    nobody_else_pays(1).await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes: cargo xtask test --long"]
    async fn a_hostile_filter_costs_its_own_requests_and_no_other_for_long() {
        super::nobody_else_pays(100).await;
    }
}
