//! What a filter that never ends does to the requests beside it on one worker, and what a thousand traps leave in memory. One
//! filter does to each request as its header says, so that the same pair is measured with bad requests and without.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::line::Line;
use super::{Extent, Setup, policy, start, told_component};
use crate::chain::{Bench, Chain};
use crate::load::{self, Closed, Entry};
use crate::statistics::count;
use crate::weft::Attached;

const NUMBER: u8 = 12;
/// What one call may take.
const BUDGET_MS: u64 = 5;
/// Good requests that are under way all the time.
const GOOD: u32 = 200;
/// How often a request comes that never ends.
const EVERY: Duration = Duration::from_secs(1);
/// A round has some of them.
const ROUND_SECONDS: u32 = 5;
/// What it may make of the others' time.
const TIME_GOAL: f64 = 2.0;
const TRAPS: u32 = 1_000;
/// As many traps come before, so that what the first ones need for good is there.
const TRAPS_BEFORE: u32 = 100;
/// What a thousand may leave, in MiB.
const MEMORY_GOAL: f64 = 8.0;

pub(super) fn measure(bench: &Bench<'_>, extent: Extent, components: &Path) -> Result<Vec<Line>> {
    let _origin = bench.origin()?;
    let limits = json!({"limits": {"callTimeoutMs": BUDGET_MS}});
    let policies = vec![policy("told", "told", &limits, &json!({"mode": "told"}))];
    let attached = Attached { components: told_component(components), policies };
    let mut chain = start(bench, Setup { number: NUMBER, name: "told", workers: 1, attached, headers: Vec::new() })?;
    let mut lines = loops(bench, extent, &mut chain)?;
    lines.push(traps(extent, &mut chain)?);
    Ok(lines)
}

fn loops(bench: &Bench<'_>, extent: Extent, chain: &mut Chain) -> Result<Vec<Line>> {
    let (mut quiet, mut beside): (Vec<Closed>, Vec<Closed>) = (Vec::new(), Vec::new());
    for round in 0..extent.rounds {
        let mut turns = [("pass", 200, &mut quiet), ("loop", 503, &mut beside)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (does, status, seen) in turns {
            let closed = good(bench, &chain.entry, does, status).with_context(|| format!("beside `{does}`"))?;
            eprintln!("weft-bench: beside `{does}`: p50 {:.2} ms, p99 {:.2} ms", closed.p50_ms, closed.p99_ms);
            seen.push(closed);
        }
        chain.check()?;
    }
    let compared = |of: fn(&Closed) -> f64| {
        let pairs = beside.iter().zip(&quiet);
        pairs.map(|(beside, quiet)| of(beside) / of(quiet).max(f64::MIN_POSITIVE)).collect::<Vec<f64>>()
    };
    let line = |percentile: &str, values: Vec<f64>| {
        let what = format!("{percentile} of {GOOD} requests at a time beside an endless one a second, of that without");
        Line::of(what, "x", values, Some(TIME_GOAL))
    };
    Ok(vec![line("p50", compared(|seen| seen.p50_ms)), line("p99", compared(|seen| seen.p99_ms))])
}

/// Good requests all the time, with one every second that has the filter do something and is answered with `status`.
fn good(bench: &Bench<'_>, entry: &Entry, does: &str, status: u16) -> Result<Closed> {
    std::thread::scope(|scope| {
        let (say, over) = channel();
        let beside = scope.spawn(move || one_a_second(entry, does, status, &over));
        let seen = load::closed_loop(entry, GOOD, ROUND_SECONDS, &bench.scratch);
        drop(say);
        let sent = beside.join().map_err(|_| anyhow!("whoever sends beside the load panicked"))??;
        ensure!(sent > 1, "only {sent} requests of `{does}` were sent");
        seen
    })
}

/// Until the other end of `over` is gone; how many were sent.
fn one_a_second(entry: &Entry, does: &str, status: u16, over: &Receiver<()>) -> Result<u32> {
    let mut sent = 0;
    loop {
        let seen = ask(entry, does)?;
        ensure!(seen == status, "`{does}` was answered {seen}, not {status}");
        sent += 1;
        match over.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(sent),
        }
    }
}

fn traps(extent: Extent, chain: &mut Chain) -> Result<Line> {
    let trap = |times: u32| -> Result<()> {
        for _ in 0..times {
            let status = ask(&chain.entry, "trap-panic")?;
            ensure!(status == 503, "a trap was answered {status}");
        }
        Ok(())
    };
    trap(TRAPS_BEFORE)?;
    let mut grown = Vec::new();
    for _ in 0..extent.processes {
        let before = chain.callee().rss_kib;
        trap(TRAPS)?;
        grown.push((count(chain.callee().rss_kib) - count(before)) / 1024.0);
    }
    chain.check()?;
    Ok(Line::of(format!("memory after {TRAPS} more traps"), "MiB", grown, Some(MEMORY_GOAL)))
}

/// One request on a connection of its own; the status of its answer.
fn ask(entry: &Entry, does: &str) -> Result<u16> {
    let mut stream =
        TcpStream::connect(&entry.address).with_context(|| format!("cannot connect to {}", entry.address))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let host = entry.host();
    let request = format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\nx-do: {does}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("no answer to its end")?;
    status(&answer).with_context(|| format!("no answer: {:?}", String::from_utf8_lossy(&answer)))
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_answer() {
        for (answer, expect) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some(503)),
            ("HTTP/1.1 200\r\n\r\n", Some(200)),
            ("HTTP/2 200\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(answer.as_bytes()), expect, "{answer}");
        }
    }
}
