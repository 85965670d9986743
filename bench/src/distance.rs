//! `bench distance`: one large body between two hosts with a round trip between them, through a pair of sidecars and by plain
//! TCP in turn, each way. Both use the same congestion control on the same link.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bulk::{self, Way};
use crate::chain::Bench;
use crate::link::{self, FAR, Line, Link, NEAR};
use crate::load::Entry;
use crate::options::Distance;
use crate::process::{Process, wait_for};
use crate::report::{self, Verdict, write_pair};
use crate::statistics::{Median, median, ratio};
use crate::weft::{Attached, Host, Pair, start_pair};

/// What weft may take for a body, of what plain TCP takes.
const GOAL: f64 = 1.25;
/// A queue of so many bytes is that of a usual router at 1 Gbit/s.
const QUEUE: u32 = 4 << 20;

#[derive(Debug, Serialize)]
struct Row {
    rtt_ms: u32,
    way: &'static str,
    plain_seconds: f64,
    weft_seconds: f64,
    /// The first body after a start, whose connection is as new as that of each plain one.
    weft_first_seconds: f64,
    ratio: Option<Median>,
}

pub(crate) fn run(options: &Distance) -> Result<()> {
    let mut rows = Vec::new();
    for rtt_ms in &options.rtt {
        rows.extend(at(options, *rtt_ms).with_context(|| format!("a round trip of {rtt_ms} ms"))?);
    }
    write_pair(&options.places.reports, "distance", &markdown(options, &rows), &rows)
}

fn host(end: link::End) -> Host {
    Host { namespace: Some(end.namespace), address: end.address.to_owned() }
}

fn at(options: &Distance, rtt_ms: u32) -> Result<Vec<Row>> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let bytes = options.mebibytes << 20;
    let upload = bulk::file_to_upload(scratch.path(), bytes)?;
    let one_way = Duration::from_micros(u64::from(rtt_ms) * 500);
    let _link = Link::new(Line { one_way, megabits: options.megabits, queue: QUEUE })?;
    let (near, far) = (host(NEAR), host(FAR));
    let _origin = origin(scratch.path(), &far, bytes)?;
    let bench = Bench::new(&options.places, scratch.path())?;
    let pair = Pair {
        name: "weft",
        binaries: options.places.binaries.clone(),
        manifest: "weft.yaml",
        control: far.clone(),
        callee: far.clone(),
        caller: near.clone(),
        workers: 2,
        attached: Attached::default(),
    };
    let mut chain = start_pair(&bench, &pair)?;
    let plain = Entry { address: format!("{}:19080", far.address), forward_to: None, headers: Vec::new() };
    let transfer = |entry: &Entry, way| bulk::transfer(near.command("curl"), entry, way, bytes, &upload);
    let mut rows = Vec::new();
    for way in [Way::Down, Way::Up] {
        let (mut plains, mut wefts) = (Vec::new(), Vec::new());
        let weft_first_seconds = transfer(&chain.entry, way)?;
        for _ in 0..options.rounds {
            plains.push(transfer(&plain, way).context("plain")?);
            wefts.push(transfer(&chain.entry, way).context("weft")?);
        }
        chain.check()?;
        let row = Row {
            rtt_ms,
            way: way.name(),
            plain_seconds: median(&plains),
            weft_seconds: median(&wefts),
            weft_first_seconds,
            ratio: ratio(&wefts, &plains),
        };
        eprintln!("weft-bench: {rtt_ms} ms {}: plain {plains:.2?}, weft {wefts:.2?}", row.way);
        rows.push(row);
    }
    Ok(rows)
}

/// The origin on its host.
fn origin(folder: &Path, far: &Host, bytes: u64) -> Result<Process> {
    let mut command = far.command(std::env::current_exe().context("our own program")?);
    let address = format!("{}:19080", far.address);
    let origin = Process::start("origin", folder, command.args(["origin", &address, &bytes.to_string()]))?;
    let answers = || answers(far.command("curl"), &address);
    wait_for("the origin answers", Duration::from_secs(10), answers)?;
    Ok(origin)
}

fn answers(mut curl: Command, address: &str) -> bool {
    curl.args(["-sf", "--max-time", "2", &format!("http://{address}/")]).output().is_ok_and(|out| out.status.success())
}

fn markdown(options: &Distance, rows: &[Row]) -> String {
    let mut text = format!(
        "# A large body over a distance\n\n{}; commit {}. One body of {} MiB at a time between two hosts (namespaces) over a \
         link of {} Mbit/s with a queue of {} MiB, {} each way, plain TCP (a new connection each) and a pair of sidecars (their \
         connection stays) in turn; CUBIC on both. Everything shares the machine. The ratio is the median of pairs with its \
         interval of 95 %; it may be {GOAL}, and is missed where the whole interval lies above.\n\n| round trip | way | plain s \
         | weft s | weft s, the first after a start | weft / plain | |\n|---|---|---|---|---|---|---|\n",
        report::machine(),
        report::commit(),
        options.mebibytes,
        options.megabits,
        QUEUE >> 20,
        options.rounds
    );
    for row in rows {
        let Row { rtt_ms, way, plain_seconds: plain, weft_seconds: weft, weft_first_seconds: first, ratio } = row;
        let (ratio, verdict) = match ratio {
            Some(ratio) => (ratio.to_string(), Verdict::of(ratio, GOAL).word()),
            None => ("none".to_owned(), "not measured"),
        };
        _ = writeln!(text, "| {rtt_ms} ms | {way} | {plain:.2} | {weft:.2} | {first:.2} | {ratio} | {verdict} |");
    }
    text
}
