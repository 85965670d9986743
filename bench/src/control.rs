//! `bench control`: what proxies cost the control plane, and how soon they know. The control plane is a process of its own
//! and is what is accounted; the proxies are simulated in this one, each with join, TLS and answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::first_calls::{self, Case};
use crate::options::Control;
use crate::process::{Process, Usage};
use crate::report::{self, write_pair};
use crate::statistics::{count, median, ms, percentile};
use crate::steady::{self, Pace, Steady};
use crate::swarm::{Place, Swarm};
use crate::weft::{Host, NAMESPACE, Operator, service};

const ADDRESS: &str = "127.91.0.30";
/// Nobody hears anything for so long: all is told.
const QUIET: Duration = Duration::from_secs(2);
/// A size that takes longer than this for one step is not carried.
const PATIENCE: Duration = Duration::from_secs(300);
/// Endpoints that leave, one after the other.
const LEAVING: usize = 5;

/// What one number of proxies and services came to.
#[derive(Debug, Serialize)]
struct Row {
    proxies: usize,
    services: usize,
    /// Resident memory of the control plane for each proxy, over what it had without any.
    kib_per_proxy: f64,
    /// From the first connection until every proxy has everything.
    connect_seconds: f64,
    connect_cpu_seconds: f64,
    /// An endpoint leaves: until the proxies know, and the processor time until all is quiet.
    leave_p50_ms: f64,
    leave_p99_ms: f64,
    leave_cpu_seconds: f64,
    /// One service changes: the same.
    change_p99_ms: f64,
    change_cpu_seconds: f64,
    /// An identity is banned: until the proxies know.
    ban_p99_ms: f64,
    /// Changes by the API, so many a second for a while.
    steady: Option<Steady>,
    /// Everybody's connection breaks and all come back at once.
    return_seconds: f64,
    return_cpu_seconds: f64,
}

pub(crate) fn run(options: &Control) -> Result<()> {
    let mut rows = Vec::new();
    for size in options.sizes.iter().filter(|size| !size.is_empty()) {
        let (proxies, services) = size.split_once('x').context("a size is PROXIESxSERVICES")?;
        let (proxies, services) = (proxies.parse()?, services.parse()?);
        let row =
            measure(options, proxies, services).with_context(|| format!("{proxies} proxies, {services} services"))?;
        eprintln!("weft-bench: {}", serde_json::to_string(&row)?);
        rows.push(row);
    }
    let cases = match options.first_calls {
        0 => Vec::new(),
        calls => first_calls::measure(&options.places.binaries, calls).context("first calls")?,
    };
    let text = format!("{}{}", markdown(&rows, options.uses), first_calls::markdown(&cases));
    write_pair(&options.places.reports, "control", &text, &Figures { rows, first_calls: cases })
}

#[derive(Debug, Serialize)]
struct Figures {
    rows: Vec<Row>,
    first_calls: Vec<Case>,
}

fn measure(options: &Control, proxies: usize, services: usize) -> Result<Row> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let folder = scratch.path();
    let host = Host { namespace: None, address: ADDRESS.to_owned() };
    let mut control = Command::new(options.places.binaries.join("weft-control"));
    control.arg("--config").arg(configuration(folder)?);
    let mut control = Process::start("weft-control", folder, &mut control)?;
    let operator = Operator { binaries: &options.places.binaries, folder, host: &host };
    operator.wait()?;
    operator.apply_all(services, |index| numbered(index, 80))?;
    let uses = proxies.to_string();
    let mut tokens = Vec::new();
    for index in 0..services.min(proxies) {
        let service = format!("s{index}");
        let token = operator.join_token(&service, &["--address", "10.64.0.0/10", "--uses", &uses, "--ttl", "1h"])?;
        tokens.push((service, token));
    }
    let ca_pem = std::fs::read_to_string(folder.join("control/ca.pem")).context("the root")?;
    let mut swarm = Swarm::new(Place { address: format!("https://{ADDRESS}:15012"), ca_pem }, options.uses)?;
    swarm.join(proxies, &tokens)?;
    let mut watch = Watch { control: &mut control, swarm: &mut swarm };

    let before = watch.control.usage();
    let connect = watch.during(
        "all connect",
        |_| proxies,
        |swarm| {
            swarm.connect();
            Ok(())
        },
    )?;
    let grown = count(connect.after.pss_kib) - count(before.pss_kib);

    let (leave_ms, leave_cpu) = watch.leaving(proxies, services)?;
    let used = services.min(proxies) / 2;
    let change =
        watch.during("a service changes", |swarm| swarm.users(used), |_| operator.apply(&[numbered(used, 81)]))?;
    let ban = watch.during("an identity is banned", Swarm::connected, |_| {
        operator.weft(&["proxy", "ban", &format!("{NAMESPACE}/nobody")]).map(drop)
    })?;
    let steady = watch.changing(options, services.min(proxies), &folder.join("control"))?;
    let back = watch.during("all come back", Swarm::connected, |swarm| {
        swarm.disconnect()?;
        swarm.connect();
        Ok(())
    })?;
    Ok(Row {
        proxies,
        services,
        kib_per_proxy: grown / count(proxies as u64),
        connect_seconds: connect.took(),
        connect_cpu_seconds: connect.cpu.as_secs_f64(),
        leave_p50_ms: percentile(&leave_ms, 50.0),
        leave_p99_ms: percentile(&leave_ms, 99.0),
        leave_cpu_seconds: median(&leave_cpu),
        change_p99_ms: percentile(&change.told_ms, 99.0),
        change_cpu_seconds: change.cpu.as_secs_f64(),
        ban_p99_ms: percentile(&ban.denied_ms.into_values().collect::<Vec<_>>(), 99.0),
        steady,
        return_seconds: back.took(),
        return_cpu_seconds: back.cpu.as_secs_f64(),
    })
}

/// One step, from its beginning until all is quiet.
struct Step {
    after: Usage,
    cpu: Duration,
    /// When each proxy heard last of it, in milliseconds.
    told_ms: Vec<f64>,
    /// When each proxy heard that an endpoint left.
    left_ms: BTreeMap<usize, f64>,
    /// When each proxy heard who is kept out.
    denied_ms: BTreeMap<usize, f64>,
}

impl Step {
    /// Seconds until the last was told.
    fn took(&self) -> f64 {
        self.told_ms.iter().copied().fold(0.0, f64::max) / 1_000.0
    }
}

struct Watch<'w> {
    control: &'w mut Process,
    swarm: &'w mut Swarm,
}

impl Watch<'_> {
    /// Endpoints leave: when each proxy hears of it, and the processor time.
    fn leaving(&mut self, proxies: usize, services: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut leave_ms, mut leave_cpu) = (Vec::new(), Vec::new());
        for index in 0..LEAVING.min(proxies / 2) {
            let step = self.during(
                "one leaves",
                |swarm| swarm.users(index % services.min(proxies)),
                |swarm| swarm.drain(index),
            )?;
            leave_ms.extend(step.left_ms.values().copied());
            leave_cpu.push(step.cpu.as_secs_f64());
            if step.left_ms.is_empty() {
                bail!("nobody was told that an endpoint left");
            }
        }
        Ok((leave_ms, leave_cpu))
    }

    /// Services in turn change all the time.
    fn changing(&mut self, options: &Control, services: usize, state: &Path) -> Result<Option<Steady>> {
        let pace = Pace { a_second: options.changes, seconds: options.changes_seconds };
        if pace.a_second == 0 || pace.seconds == 0 {
            return Ok(None);
        }
        let api = steady::api(format!("https://{ADDRESS}:15013"), state)?;
        steady::changes(&api, pace, services, moved, (self.control, self.swarm)).map(Some)
    }

    /// `concerned`: so many are told of it, by who is connected once it has begun.
    fn during(
        &mut self,
        what: &str,
        concerned: impl Fn(&Swarm) -> usize,
        begin: impl FnOnce(&mut Swarm) -> Result<()>,
    ) -> Result<Step> {
        let before = self.control.usage();
        let began = Instant::now();
        begin(self.swarm)?;
        let (mut last, mut left_ms, mut denied_ms) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        loop {
            let all = concerned(self.swarm);
            match self.swarm.next(QUIET) {
                Some(told) => {
                    let ms = ms(told.at.duration_since(began));
                    last.insert(told.proxy, ms);
                    if !told.left.is_empty() {
                        left_ms.entry(told.proxy).or_insert(ms);
                    }
                    if told.denies {
                        denied_ms.entry(told.proxy).or_insert(ms);
                    }
                }
                None if last.len() >= all => break,
                None => {}
            }
            if began.elapsed() > PATIENCE {
                bail!("{what}: {} of {all} proxies were told within {PATIENCE:?}", last.len());
            }
        }
        self.swarm.check()?;
        self.control.check()?;
        let after = self.control.usage();
        Ok(Step {
            after,
            cpu: after.cpu.saturating_sub(before.cpu),
            told_ms: last.into_values().collect(),
            left_ms,
            denied_ms,
        })
    }
}

/// As it comes, but for its place, and that all proxies are at one address.
fn configuration(folder: &Path) -> Result<String> {
    let path = folder.join("control.yaml");
    let text = serde_json::json!({
        "bind": ADDRESS,
        "state": folder.join("control"),
        "limits": { "max_connections_of_one": 12_288, "max_streams_per_account": 12_288, "max_joins_per_minute": 600_000 },
    });
    std::fs::write(&path, serde_json::to_string_pretty(&text)?)?;
    Ok(path.display().to_string())
}

fn numbered(index: usize, port: u16) -> serde_json::Value {
    let name = format!("s{index}");
    service(&name, &name, (port, 8_080))
}

/// The same service at another port, for the nth change.
fn moved(index: usize, nth: u32) -> serde_json::Value {
    numbered(index, 10_000 + u16::try_from(nth % 50_000).unwrap_or_default())
}

fn told(steady: &Steady) -> String {
    let Steady { a_second, told_p50_ms, told_p99_ms, told_max_ms, answered_p99_ms, cpu_ms_per_change } = steady;
    format!(
        "{a_second:.0}, {told_p50_ms:.0}, {told_p99_ms:.0}, {told_max_ms:.0}, {answered_p99_ms:.0}, {cpu_ms_per_change:.1}"
    )
}

fn markdown(rows: &[Row], uses: usize) -> String {
    let mut text = format!(
        "# What proxies cost the control plane\n\n{}; commit {}. The control plane is a process of its own and is what is \
         accounted; the proxies are simulated in another on the same machine, each with its join, TLS and answers, and each \
         stands behind one of the services and is told of {}. An endpoint leaves and a service changes while everybody is \
         connected: until the proxies know, and the processor time until all is quiet again. Steady changes: services in \
         turn, each by a call of its own; from the call until each proxy that uses the service knows.\n\n| proxies x \
         services | KiB a proxy | all connect: s, CPU-s | an endpoint leaves: p50, p99 ms, CPU-s | a service changes: p99 \
         ms, CPU-s | an identity is banned: p99 ms | steady changes: a second, told p50, p99, max ms, answered p99 ms, \
         CPU-ms each | all come back: s, CPU-s |\n|---|---|---|---|---|---|---|---|\n",
        report::machine(),
        report::commit(),
        if uses == 0 { "all of them".to_owned() } else { format!("the {uses} that it uses") },
    );
    for row in rows {
        _ = writeln!(
            text,
            "| {} x {} | {:.0} | {:.1}, {:.1} | {:.0}, {:.0}, {:.2} | {:.0}, {:.2} | {:.0} | {} | {:.1}, {:.1} |",
            row.proxies,
            row.services,
            row.kib_per_proxy,
            row.connect_seconds,
            row.connect_cpu_seconds,
            row.leave_p50_ms,
            row.leave_p99_ms,
            row.leave_cpu_seconds,
            row.change_p99_ms,
            row.change_cpu_seconds,
            row.ban_p99_ms,
            row.steady.as_ref().map_or_else(|| "not run".to_owned(), told),
            row.return_seconds,
            row.return_cpu_seconds
        );
    }
    text
}
