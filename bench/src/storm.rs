//! `bench storm`: three tiers, `a` calls `b` calls `c`, of which one endpoint fails, then all are slow, then all fail. What reaches
//! `c` for each request of `a`, how many are answered, and when the endpoint that fails is left out and asked again: with the retries
//! of the mesh within their budget, with clients that try again by themselves, and with Envoy as it comes.

mod tiers;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::tiers::{Tier, Way, World, call, serve};
use crate::options::Storm;
use crate::process::{Process, wait_for};
use crate::report::{self, write_pair};
use crate::statistics::{count, ms, percentile};
use crate::weft::{Attached, Host, NAMESPACE, Operator, Pair, service, sidecar};

const CONTROL: &str = "127.91.0.50";
const A: &str = "127.91.0.51";
const B: &str = "127.91.0.52";
const C: [&str; 2] = ["127.91.0.53", "127.91.0.54"];
/// Envoy's listeners for what `a` and `b` send.
const ENVOYS: [u16; 2] = [19_301, 19_302];

const PORT: u16 = 19_080;
/// Further tries of a request, whoever makes them.
const RETRIES: u32 = 3;
/// How long one of `c` takes, and how long where it is slow: longer than an attempt may.
const QUICK: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(400);
const ATTEMPT_MS: [u64; 2] = [1_000, 250];
/// An endpoint that was left out is asked again within this, or it is told as not.
const AGAIN: Duration = Duration::from_secs(45);
/// So long nobody asks it: it is left out.
const SILENCE: Duration = Duration::from_secs(1);

/// Who tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Setup {
    Weft,
    WeftClientsRetry,
    Envoy,
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Self::Weft => "Weft, its retries within the budget",
            Self::WeftClientsRetry => "Weft, `a` and `b` try again by themselves",
            Self::Envoy => "Envoy, its retries and defaults",
        }
    }

    fn tries(self) -> u32 {
        match self {
            Self::WeftClientsRetry => 1 + RETRIES,
            Self::Weft | Self::Envoy => 1,
        }
    }
}

/// What `c` does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Calm,
    OneFails,
    /// Until the one that failed is asked again.
    Again,
    Slow,
    AllFail,
    After,
}

const PHASES: [Phase; 7] =
    [Phase::Calm, Phase::OneFails, Phase::Again, Phase::Slow, Phase::Calm, Phase::AllFail, Phase::After];

/// One phase of one setup.
#[derive(Debug, Serialize)]
struct Row {
    setup: Setup,
    phase: Phase,
    offered: usize,
    /// Answered 200.
    good: usize,
    p99_ms: f64,
    /// Requests at `b` and at `c` for each one that was offered.
    at_b: f64,
    at_c: f64,
}

/// One setup.
#[derive(Debug, Serialize)]
struct Told {
    setup: Setup,
    /// From its first failure until nobody asked it any more; `None`: it was asked until it was well.
    left_out_ms: Option<f64>,
    /// From when it was well until it was asked.
    asked_again_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Figures {
    machine: String,
    commit: String,
    rows: Vec<Row>,
    told: Vec<Told>,
}

struct Sent {
    took: Duration,
    is_good: bool,
}

pub(crate) fn run(options: &Storm) -> Result<()> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let world = Arc::new(World::default());
    world.weather(QUICK, 0);
    runtime.block_on(async {
        serve(&world, Tier::B, B).await?;
        for (number, address) in C.iter().enumerate() {
            serve(&world, Tier::C(number), address).await?;
        }
        anyhow::Ok(())
    })?;
    let mut figures =
        Figures { machine: report::machine(), commit: report::commit(), rows: Vec::new(), told: Vec::new() };
    let mesh = Mesh::start(options, scratch.path())?;
    let mut setups = vec![Setup::Weft, Setup::WeftClientsRetry];
    match options.places.envoy.exists() {
        true => setups.push(Setup::Envoy),
        false => eprintln!("weft-bench: {} is not there: without Envoy", options.places.envoy.display()),
    }
    for setup in setups {
        let _envoys = prepare(setup, options, &mesh, scratch.path())?;
        let ways = ways(setup);
        world.lead(ways[1].clone());
        let is_ready = || runtime.block_on(call(&ways[0])) == 200;
        wait_for(&format!("{} answers", setup.name()), Duration::from_secs(30), is_ready)?;
        runtime.block_on(weathered(setup, options, &world, &ways[0], &mut figures));
        mesh.check()?;
    }
    write_pair(&options.places.reports, "storm", &markdown(options, &figures), &figures)
}

/// From `a` to `b` and from `b` to `c`.
fn ways(setup: Setup) -> [Way; 2] {
    let tries = setup.tries();
    [(A, "b", ENVOYS[0]), (B, "c", ENVOYS[1])].map(|(from, to, envoy)| match setup {
        Setup::Weft | Setup::WeftClientsRetry => {
            let host = format!("{to}.{NAMESPACE}");
            Way { address: format!("{from}:15080"), target: format!("http://{host}/"), host, tries }
        }
        Setup::Envoy => {
            Way { address: format!("127.0.0.1:{envoy}"), target: "/".to_owned(), host: to.to_owned(), tries }
        }
    })
}

/// All phases of one setup.
async fn weathered(setup: Setup, options: &Storm, world: &Arc<World>, way: &Way, figures: &mut Figures) {
    let usual = Duration::from_secs(options.seconds.into());
    let (mut failed_at, mut well_at) = (Instant::now(), Instant::now());
    for phase in PHASES {
        let (delay, failing, length) = match phase {
            Phase::Calm | Phase::After => (QUICK, 0, usual),
            Phase::OneFails => (QUICK, 1, usual * 2),
            Phase::Again => (QUICK, 0, AGAIN),
            Phase::Slow => (SLOW, 0, usual),
            Phase::AllFail => (QUICK, 0b11, usual),
        };
        let began = Instant::now();
        world.weather(delay, failing);
        match phase {
            Phase::OneFails => failed_at = began,
            Phase::Again => well_at = began,
            Phase::Calm | Phase::Slow | Phase::AllFail | Phase::After => {}
        }
        let is_over = || phase == Phase::Again && first(world, began).next().is_some();
        let sent = load(way, options.rate, length, is_over).await;
        let row = row(setup, phase, &sent, (world, began));
        eprintln!("weft-bench: {}", serde_json::to_string(&row).unwrap_or_default());
        figures.rows.push(row);
    }
    let last = first(world, failed_at).take_while(|at| *at < well_at).last();
    let left_out = last.filter(|last| well_at.duration_since(*last) > SILENCE);
    let asked_again = first(world, well_at).next();
    figures.told.push(Told {
        setup,
        left_out_ms: left_out.map(|last| ms(last.duration_since(failed_at))),
        asked_again_ms: left_out.and(asked_again).map(|at| ms(at.duration_since(well_at))),
    });
}

/// Arrivals at the first of `c` since then.
fn first(world: &World, since: Instant) -> impl Iterator<Item = Instant> {
    let arrivals = world.arrivals().into_iter();
    arrivals.filter(move |(at, tier)| *tier == Tier::C(0) && *at >= since).map(|(at, _)| at)
}

/// So many requests a second, whatever becomes of those before.
async fn load(way: &Way, rate: u32, length: Duration, mut is_over: impl FnMut() -> bool) -> Vec<Sent> {
    let (began, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_secs(1) / rate.max(1)));
    let mut calls = JoinSet::new();
    while began.elapsed() < length && !is_over() {
        tick.tick().await;
        let way = way.clone();
        calls.spawn(async move {
            let began = Instant::now();
            let is_good = call(&way).await == 200;
            Sent { took: began.elapsed(), is_good }
        });
    }
    calls.join_all().await
}

/// What came of the requests of a phase, those that were under way at its end included.
fn row(setup: Setup, phase: Phase, sent: &[Sent], (world, began): (&World, Instant)) -> Row {
    let arrived: Vec<Tier> =
        world.arrivals().into_iter().filter(|(at, _)| *at >= began).map(|(_, tier)| tier).collect();
    let offered = sent.len();
    let each = |is: fn(&Tier) -> bool| {
        count(arrived.iter().filter(|tier| is(tier)).count() as u64) / count(offered.max(1) as u64)
    };
    let took: Vec<f64> = sent.iter().map(|sent| ms(sent.took)).collect();
    Row {
        setup,
        phase,
        offered,
        good: sent.iter().filter(|sent| sent.is_good).count(),
        p99_ms: percentile(&took, 99.0),
        at_b: each(|tier| *tier == Tier::B),
        at_c: each(|tier| matches!(tier, Tier::C(_))),
    }
}

/// Weft's control plane and a sidecar beside each application.
struct Mesh {
    folder: std::path::PathBuf,
    binaries: std::path::PathBuf,
    processes: std::cell::RefCell<Vec<Process>>,
}

impl Mesh {
    fn start(options: &Storm, scratch: &Path) -> Result<Self> {
        let (binaries, folder) = (options.places.binaries.clone(), scratch.join("weft"));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut control = Command::new(binaries.join("weft-control"));
        control.arg("--state").arg(folder.join("control")).args(["--bind", CONTROL]);
        let control = Process::start("storm-control", &folder, &mut control)?;
        let mesh = Self { folder, binaries, processes: vec![control].into() };
        let host = |address: &str| Host { namespace: None, address: address.to_owned() };
        let (control, binaries) = (host(CONTROL), mesh.binaries.clone());
        let pair = Pair {
            name: "storm",
            binaries,
            manifest: "",
            control: control.clone(),
            callee: host(B),
            caller: host(A),
            workers: 2,
            attached: Attached::default(),
        };
        let operator = mesh.operator(&control);
        operator.wait()?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        operator.apply(&[namespace, service("b", "b", (80, PORT)), service("c", "c", (80, PORT))])?;
        for (account, address) in [("b", B), ("c-1", C[0]), ("c-2", C[1]), ("client", A)] {
            let sidecar = sidecar(&operator, &pair, account, &host(address), CONTROL)?;
            mesh.processes.borrow_mut().push(sidecar);
        }
        Ok(mesh)
    }

    fn operator<'m>(&'m self, host: &'m Host) -> Operator<'m> {
        Operator { binaries: &self.binaries, folder: &self.folder, host }
    }

    fn check(&self) -> Result<()> {
        self.processes.borrow_mut().iter_mut().try_for_each(Process::check)
    }
}

/// What a setup needs beside the mesh.
fn prepare(setup: Setup, options: &Storm, mesh: &Mesh, scratch: &Path) -> Result<Vec<Process>> {
    match setup {
        Setup::Weft | Setup::WeftClientsRetry => {
            let host = Host { namespace: None, address: CONTROL.to_owned() };
            let policies = ["b", "c"].into_iter().zip(ATTEMPT_MS);
            let policies: Vec<Value> = policies.map(|(name, attempt)| policy(setup, name, attempt)).collect();
            mesh.operator(&host).apply(&policies)?;
            Ok(Vec::new())
        }
        Setup::Envoy => {
            let to = [vec![B], C.to_vec()].into_iter().zip(ENVOYS).zip(ATTEMPT_MS);
            to.map(|((to, port), attempt)| {
                let file = scratch.join(format!("envoy-{port}.json"));
                std::fs::write(&file, serde_json::to_string_pretty(&envoy(port, &to, attempt))?)?;
                let mut envoy = Command::new(&options.places.envoy);
                envoy.args(["--concurrency", "2", "--log-level", "warn", "--use-dynamic-base-id", "-c"]).arg(file);
                Process::start(&format!("envoy-{port}"), scratch, &mut envoy)
            })
            .collect()
        }
    }
}

/// The TrafficPolicy of a service: defaults, and retries where the mesh makes them.
fn policy(setup: Setup, service: &str, attempt_ms: u64) -> Value {
    let mut spec = json!({
        "targetRefs": [{"kind": "Service", "name": service}],
        "outlierDetection": {},
        "timeouts": {"request": "2s", "backendRequest": format!("{attempt_ms}ms")},
    });
    if setup == Setup::Weft {
        spec["retry"] = json!({"codes": [503], "attempts": RETRIES, "backoff": "25ms"});
    }
    let metadata = json!({"name": service, "namespace": NAMESPACE});
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": metadata, "spec": spec})
}

/// A listener in front of a cluster: what is not said is Envoy's default, its limit of three retries at a time among it.
fn envoy(port: u16, to: &[&str], attempt_ms: u64) -> Value {
    let address = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let endpoints: Vec<Value> = to.iter().map(|to| json!({"endpoint": {"address": address(to, PORT)}})).collect();
    let attempt = format!("{}.{:03}s", attempt_ms / 1_000, attempt_ms % 1_000);
    let retry = json!({"retry_on": "5xx", "num_retries": RETRIES, "per_try_timeout": attempt});
    let routes = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": "next", "timeout": "2s", "retry_policy": retry},
    }]);
    let connections = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "storm",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": connections});
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address("127.0.0.1", port), "filter_chains": [{"filters": [filter]}]}],
        "clusters": [{
            "name": "next",
            "type": "STATIC",
            "connect_timeout": "1s",
            "outlier_detection": {},
            "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }})
}

fn markdown(options: &Storm, figures: &Figures) -> String {
    let mut text = format!(
        "# A storm of retries\n\n{}; commit {}. `a` calls `b`, `b` calls `c`, which has two endpoints; {} requests a second, \
         {} s for each phase, at most {RETRIES} further tries at each tier. One of `c` fails (503), then both take {} ms where \
         an attempt may take {} ms, then both fail. Everything shares the machine: counts mean much, times little. Envoy is one \
         proxy for each hop, in plain text.\n\n\
         | | phase | offered | answered | for each: at b | at c | p99 ms |\n|---|---|---|---|---|---|---|\n",
        figures.machine,
        figures.commit,
        options.rate,
        options.seconds,
        SLOW.as_millis(),
        ATTEMPT_MS[1]
    );
    for Row { setup, phase, offered, good, p99_ms, at_b, at_c } in &figures.rows {
        let phase = match phase {
            Phase::Calm => "calm",
            Phase::OneFails => "one fails",
            Phase::Again => "it is well, until it is asked",
            Phase::Slow => "both are slow",
            Phase::AllFail => "both fail",
            Phase::After => "afterwards",
        };
        let share = 100.0 * count(*good as u64) / count((*offered).max(1) as u64);
        _ = writeln!(
            text,
            "| {} | {phase} | {offered} | {share:.1} % | {at_b:.2} | {at_c:.2} | {p99_ms:.0} |",
            setup.name()
        );
    }
    text.push_str("\n| | left out after s | asked again after s |\n|---|---|---|\n");
    for Told { setup, left_out_ms, asked_again_ms } in &figures.told {
        let seconds = |time: &Option<f64>| time.map_or_else(|| "not".to_owned(), |ms| format!("{:.2}", ms / 1_000.0));
        _ = writeln!(text, "| {} | {} | {} |", setup.name(), seconds(left_out_ms), seconds(asked_again_ms));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_compared_with_what_was_offered() {
        let sent = |is_good| Sent { took: Duration::from_millis(8), is_good };
        let (world, began) = (World::default(), Instant::now());
        let row = row(Setup::Weft, Phase::AllFail, &[sent(true), sent(false)], (&world, began));
        assert_eq!((row.offered, row.good, row.at_b, row.at_c, row.p99_ms), (2, 1, 0.0, 0.0, 8.0));
    }

    #[test]
    fn only_one_setup_asks_the_mesh_to_try_again_and_only_one_tries_itself() {
        let retries = |setup| policy(setup, "c", 250)["spec"]["retry"]["attempts"].as_u64();
        assert_eq!((retries(Setup::Weft), Setup::Weft.tries()), (Some(3), 1));
        assert_eq!((retries(Setup::WeftClientsRetry), Setup::WeftClientsRetry.tries()), (None, 4));
        let [to_b, to_c] = ways(Setup::Weft);
        assert_eq!((to_b.target.as_str(), to_c.address.as_str()), ("http://b.bench/", "127.91.0.52:15080"));
        let cluster = &envoy(19_301, &C, 250)["static_resources"]["clusters"][0];
        let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 2);
    }
}
