//! Filters that are swapped and go wrong in whole proxies under load: each answer carries the version and configuration that
//! made it, none an old one once every proxy has said that it has the new one; nothing is lost or counted twice; what traps
//! leaves no memory behind.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use tokio::task::JoinSet;
use weft_tests::client::empty;
use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

use super::hostile::tampered::{TRAP, renamed, tampered};
use super::in_process::wasm;

const SERVICE: &str = "books";

struct Shop {
    mesh: Mesh,
    _app: App,
    server: Sidecar,
    caller: Sidecar,
}

impl Shop {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let server = Workload::server(SERVICE, 8080, "http");
        let app = App::start(SERVICE, server.ip, 8080).await;
        let server = mesh.sidecar(server).await;
        let caller = mesh.sidecar(Workload::client("reader")).await;
        let shop = Self { mesh, _app: app, server, caller };
        eventually("the service answers", || async {
            (Client::through(shop.caller.proxy(), SERVICE).await.get("/who").await.status == 200).then_some(())
        })
        .await;
        let key = shop.key();
        shop.weft(&["filter", "keygen", "--out", &key]);
        shop
    }

    fn key(&self) -> String {
        self.mesh.folder().join("publisher.key").display().to_string()
    }

    /// A command that does what it is told.
    fn weft(&self, arguments: &[&str]) {
        let printed = self.mesh.weft(arguments);
        assert_eq!(printed.code, 0, "{arguments:?}: {}{}", printed.out, printed.err);
    }

    fn publish(&self, binary: &[u8], name: &str, version: &str, further: &[&str]) {
        let file = self.mesh.folder().join(format!("{name}-{version}.wasm"));
        std::fs::write(&file, binary).unwrap();
        let (file, key) = (text(&file), self.key());
        let arguments = ["filter", "publish", file, "--name", name, "--version", version, "--key", &key];
        self.weft(&[&arguments[..], further].concat());
    }

    /// Attaches a filter to the service, and returns once every proxy concerned has said that it has it.
    fn attach(&self, policy: &str, filter: &str, config: &str) {
        self.mesh.apply(&manifest(policy, filter, config));
    }

    /// The answer to one request by a connection of its own.
    async fn ask(&self, headers: &[(&str, &str)]) -> weft_tests::Answer {
        Client::through(self.caller.proxy(), SERVICE).await.get_with("/who", headers).await
    }

    /// Requests that were answered 200, as both proxies have counted them.
    async fn counted(&self) -> [f64; 2] {
        let good = [("response_code", "200"), ("destination_service_name", SERVICE)];
        let count = |scrape: weft_tests::Scrape| scrape.sum("istio_requests_total", &good);
        [count(self.caller.metrics().await), count(self.server.metrics().await)]
    }
}

fn manifest(policy: &str, filter: &str, config: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {{name: {policy}, namespace: default}}, spec: \
         {{targetRefs: [{{kind: Service, name: {SERVICE}}}], filter: {{{filter}}}, onFailure: Deny, limits: \
         {{callTimeoutMs: 100}}, config: {config}}}}}\n"
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}

/// Load whose answers are numbered by the filter that made them.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// The number that is in force at every proxy, and the last that was told.
    in_force: AtomicU64,
    told: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Load {
    /// `connections` clients that together send `rate` requests a second.
    fn start(self: &Arc<Self>, proxy: SocketAddr, rate: u32, connections: u32) -> JoinSet<()> {
        let pause = Duration::from_secs(1) * connections / rate;
        (0..connections).map(|_| Arc::clone(self).run(proxy, pause)).collect()
    }

    async fn run(self: Arc<Self>, proxy: SocketAddr, pause: Duration) {
        let mut client = Client::through(proxy, SERVICE).await;
        let mut next = tokio::time::interval(pause);
        while !self.stop.load(Ordering::SeqCst) {
            next.tick().await;
            let oldest = self.in_force.load(Ordering::SeqCst);
            self.sent.fetch_add(1, Ordering::SeqCst);
            match client.call(Method::GET, "/who", &[], empty()).await {
                Ok(answer) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    let possible = oldest..=self.told.load(Ordering::SeqCst);
                    let number = answer.header("x-marker").parse::<u64>();
                    if answer.status != 200 || !number.as_ref().is_ok_and(|number| possible.contains(number)) {
                        self.fault(format!("{} by {number:?}, not {possible:?}: {}", answer.status, answer.text()));
                    }
                }
                Err(error) => {
                    self.fault(error.0);
                    client = Client::through(proxy, SERVICE).await;
                }
            }
        }
    }

    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    async fn more(&self, count: u64) {
        let enough = self.answered.load(Ordering::SeqCst) + count;
        eventually("load goes on", || async { (self.answered.load(Ordering::SeqCst) > enough).then_some(()) }).await;
    }
}

/// Two filters by turns, each with another configuration, which the other one does not take: both put its number into the answer.
fn numbered(shop: &Shop, number: u64) {
    let (version, config) = match number % 2 {
        0 => ("1.0.0", format!("{{mode: marker, value: '{number}'}}")),
        _ => ("2.0.0", format!("{{response: {{set: [{{name: x-marker, value: '{number}'}}]}}}}")),
    };
    shop.attach("swapped", &format!("name: swapped, version: {version}"), &config);
}

/// So many swaps of version and configuration at so many requests a second.
async fn swaps(shop: &Shop, swaps: u64, rate: u32) {
    shop.publish(&wasm("hostile2"), "swapped", "1.0.0", &[]);
    shop.publish(&wasm("header-edit"), "swapped", "2.0.0", &[]);
    numbered(shop, 1);
    let (load, before) = (Arc::new(Load::default()), shop.counted().await);
    load.told.store(1, Ordering::SeqCst);
    load.in_force.store(1, Ordering::SeqCst);
    let tasks = load.start(shop.caller.proxy(), rate, 40);
    for number in 2..=swaps + 1 {
        load.told.store(number, Ordering::SeqCst);
        numbered(shop, number);
        load.in_force.store(number, Ordering::SeqCst);
        load.more(u64::from(rate) / 10).await;
    }
    load.stop.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    let faults = load.faults.lock().unwrap().clone();
    let (sent, answered) = (load.sent.load(Ordering::SeqCst), load.answered.load(Ordering::SeqCst));
    eprintln!("{swaps} swaps, {sent} requests");
    assert!(faults.is_empty(), "{} of {sent}: {:#?}", faults.len(), &faults[..faults.len().min(5)]);
    assert_eq!(sent, answered, "each request was answered");
    eventually("both proxies have counted what was sent, no more and no less", || async {
        let counted = shop.counted().await;
        let since = [counted[0] - before[0], counted[1] - before[1]];
        assert!(since.iter().all(|count| *count <= sent as f64), "{since:?} of {sent}");
        (since == [sent as f64; 2]).then_some(())
    })
    .await;
}

/// A version that the operator takes back is gone; the time from the command to the last answer of it.
async fn rollback(shop: &Shop) -> Duration {
    let before = wasm("starter");
    shop.publish(&before, "rolled", "1.0.0", &[]);
    shop.attach("rolled", "name: rolled", "{}");
    shop.publish(&renamed(&before, "x-greeting", "x-farewell"), "rolled", "1.1.0", &["--make-current"]);
    let shown = async || shop.ask(&[("x-show", "1")]).await.text();
    eventually("the new version is in force", || async { shown().await.contains("x-farewell").then_some(()) }).await;
    let began = Instant::now();
    shop.weft(&["filter", "rollback", "rolled"]);
    let (mut last, mut good) = (began, 0);
    while good < 50 {
        let (asked, shown) = (Instant::now(), shown().await);
        let (is_old, is_new) = (shown.contains("x-farewell"), shown.contains("x-greeting"));
        assert!(is_old != is_new, "one of the two versions answers: {shown}");
        (last, good) = if is_old { (asked, 0) } else { (last, good + 1) };
        assert!(began.elapsed() < weft_tests::wait::LIMIT, "the old version is not gone");
    }
    last - began
}

/// What so many failed calls of this kind leave in the memory of the proxy, in KiB.
async fn left_by(shop: &Shop, does: &str, times: u32) -> u64 {
    let ask = async |does: &str, expect: u16| {
        let answer = shop.ask(&[("x-do", does)]).await;
        assert_eq!(answer.status, expect, "{does}: {}", answer.text());
    };
    // Connections and buffers have their places before anything is measured.
    for _ in 0..50 {
        ask("nothing", 200).await;
    }
    let before = shop.server.process.resident_kib();
    for _ in 0..times {
        ask(does, 503).await;
    }
    ask("nothing", 200).await;
    shop.server.process.resident_kib().saturating_sub(before)
}

const MOST_KIB: u64 = 8 << 10;

async fn traps_leave_nothing(shop: &Shop, deeds: &[&str]) {
    shop.publish(&wasm("hostile2"), "hostile", "1.0.0", &[]);
    shop.attach("hostile", "name: hostile", "{mode: told}");
    for does in deeds {
        let left = left_by(shop, does, 1_000).await;
        eprintln!("1,000 times {does}: {left} KiB more");
        assert!(left <= MOST_KIB, "1,000 times {does}: {left} KiB more");
    }
}

/// A filter that does not even start is refused where its policy is written: no proxy hears of it.
fn what_never_starts_is_refused(shop: &Shop) {
    shop.publish(&tampered(&wasm("starter"), |module| module.start(TRAP)), "stillborn", "1.0.0", &[]);
    let policy = manifest("stillborn", "name: stillborn", "{}");
    let printed = shop.mesh.weft_reading(&policy, &["apply", "-f", "-"]);
    assert!(printed.code == 1 && printed.err.contains("while it started"), "{}{}", printed.out, printed.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn swaps_lose_nothing_a_rollback_goes_back_and_traps_leave_no_memory() {
    let shop = Shop::start().await;
    swaps(&shop, 5, 300).await;
    rollback(&shop).await;
    what_never_starts_is_refused(&shop);
    traps_leave_nothing(&shop, &["trap-panic"]).await;
}

mod long {
    use std::time::Duration;

    use super::{Shop, rollback, swaps, traps_leave_nothing};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "takes minutes and the whole machine: cargo xtask test --long"]
    async fn fifty_swaps_at_two_thousand_requests_a_second_lose_nothing() {
        swaps(&Shop::start().await, 50, 2_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "says how long something takes, which needs the whole machine: cargo xtask test --long"]
    async fn a_rollback_is_in_force_within_two_seconds() {
        let took = rollback(&Shop::start().await).await;
        eprintln!("the last answer of the version that was taken back: after {took:?}");
        assert!(took <= Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes: cargo xtask test --long"]
    async fn traps_of_every_kind_leave_no_memory() {
        let deeds = ["trap-panic", "trap-unreachable", "memory", "stack", "flood", "cookie-large", "loop"];
        traps_leave_nothing(&Shop::start().await, &deeds).await;
    }
}
