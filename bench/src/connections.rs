//! `bench connections`: new connections a second, each of one request, and what idle ones hold in memory.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::chain::{Bench, Chain};
use crate::load::Entry;
use crate::options::Connections;
use crate::report::{self, write_pair};
use crate::statistics::count;

const NAMES: &[&str] = &["weft", "haproxy", "envoy-h2"];

/// New connections of one chain end here, however fast it is: no port is used up.
const MOST: u64 = 200_000;

#[derive(Debug, Serialize)]
struct Row {
    chain: &'static str,
    connections_per_second: f64,
    cpu_seconds_per_1000: f64,
    idle: u32,
    pss_mib_before: f64,
    pss_mib_idle: f64,
    kib_per_connection: f64,
}

pub(crate) fn run(options: &Connections) -> Result<()> {
    open_files(u64::from(options.idle) * 2 + 1_000)?;
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let bench = Bench::new(&options.places, scratch.path())?;
    let _origin = bench.origin()?;
    let mut rows = Vec::new();
    for name in options.places.chosen(NAMES)? {
        let mut chain = bench.start(name).with_context(|| format!("chain {name}"))?;
        let row = measure(options, &mut chain).with_context(|| format!("connections of {name}"))?;
        eprintln!(
            "weft-bench: {name:<9} {:>6.0} connections/s, {:.1} KiB for an idle one",
            row.connections_per_second, row.kib_per_connection
        );
        rows.push(row);
    }
    write_pair(&options.places.reports, "connections", &markdown(options, &rows), &rows)
}

/// Raises the limit of open files, which the proxies inherit.
fn open_files(wanted: u64) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < wanted) {
        bail!("only {:?} files may be open, {wanted} are needed", limit.maximum);
    }
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).context("the limit of open files")?;
    }
    Ok(())
}

fn measure(options: &Connections, chain: &mut Chain) -> Result<Row> {
    let before = chain.usage();
    let (opened, took) = new_ones(options, &chain.entry)?;
    let after = chain.usage();
    let held = idle_ones(options, &chain.entry)?;
    let idle = chain.usage();
    chain.check()?;
    drop(held);
    let grown = count(idle.pss_kib) - count(after.pss_kib);
    Ok(Row {
        chain: chain.name,
        connections_per_second: count(opened) / took.as_secs_f64(),
        cpu_seconds_per_1000: (after.cpu - before.cpu).as_secs_f64() * 1_000.0 / count(opened).max(1.0),
        idle: options.idle,
        pss_mib_before: count(after.pss_kib) / 1024.0,
        pss_mib_idle: count(idle.pss_kib) / 1024.0,
        kib_per_connection: grown / f64::from(options.idle.max(1)),
    })
}

/// Opens, asks, reads to the end and closes, for the time that was asked for.
fn new_ones(options: &Connections, entry: &Entry) -> Result<(u64, Duration)> {
    let began = Instant::now();
    let end = began + Duration::from_secs(options.seconds.into());
    let each = MOST / u64::from(options.clients.max(1));
    let failed = Mutex::new(None);
    let request = request(entry, "close");
    let opened = std::thread::scope(|scope| {
        let client = || {
            let mut opened = 0;
            while Instant::now() < end && opened < each {
                match once(entry, &request) {
                    Ok(()) => opened += 1,
                    Err(error) => {
                        *failed.lock().expect("no holder panics") = Some(error);
                        break;
                    }
                }
            }
            opened
        };
        let clients: Vec<_> = (0..options.clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client doesn't panic")).sum::<u64>()
    });
    match failed.into_inner().expect("no holder panics") {
        Some(error) => Err(error),
        None => Ok((opened, began.elapsed())),
    }
}

fn request(entry: &Entry, connection: &str) -> String {
    let before = entry.forward_to.as_ref().map_or_else(String::new, |host| format!("http://{host}"));
    format!("GET {before}/ HTTP/1.1\r\nhost: {}\r\nconnection: {connection}\r\n\r\n", entry.host())
}

fn dial(entry: &Entry) -> Result<TcpStream> {
    let stream = TcpStream::connect(&entry.address).with_context(|| format!("cannot connect to {}", entry.address))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn once(entry: &Entry, request: &str) -> Result<()> {
    let mut stream = dial(entry)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("no answer to its end")?;
    is_answer(&answer)
}

fn is_answer(answer: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(answer);
    if !text.starts_with("HTTP/1.1 200") || !text.contains("weft-bench-") {
        bail!("not the origin's answer: {text:?}");
    }
    Ok(())
}

/// Connections that have had an answer and stay.
fn idle_ones(options: &Connections, entry: &Entry) -> Result<Vec<TcpStream>> {
    let request = request(entry, "keep-alive");
    let mut held = Vec::new();
    for number in 0..options.idle {
        let mut stream = dial(entry).with_context(|| format!("idle connection {number}"))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 2048];
        while is_answer(&answer).is_err() || !answer.ends_with(b"\n") {
            let read = stream.read(&mut piece).with_context(|| format!("idle connection {number}"))?;
            if read == 0 {
                bail!("idle connection {number} was closed: {:?}", String::from_utf8_lossy(&answer));
            }
            answer.extend_from_slice(&piece[..read]);
        }
        held.push(stream);
    }
    Ok(held)
}

fn markdown(options: &Connections, rows: &[Row]) -> String {
    let mut text = format!(
        "# Connections\n\n{}; commit {}. New ones for {} s from {} clients, each of one request; then {} idle ones, each after one \
         request. Client, both proxies and origin share the machine.\n\n| chain | new/s | CPU-s per 1,000 new | PSS MiB before -> \
         idle | KiB for an idle one |\n|---|---|---|---|---|\n",
        report::machine(),
        report::commit(),
        options.seconds,
        options.clients,
        options.idle
    );
    for row in rows {
        _ = writeln!(
            text,
            "| {} | {:.0} | {:.3} | {:.0} -> {:.0} | {:.1} |",
            row.chain,
            row.connections_per_second,
            row.cpu_seconds_per_1000,
            row.pss_mib_before,
            row.pss_mib_idle,
            row.kib_per_connection
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_somebody_else_is_no_measurement() {
        assert!(is_answer(b"HTTP/1.1 503 Busy\r\n\r\nweft-bench-").is_err());
        assert!(is_answer(b"HTTP/1.1 200 OK\r\n\r\nhello").is_err());
        assert!(is_answer(b"HTTP/1.1 200 OK\r\n\r\nweft-bench-0\n").is_ok());
    }

    #[test]
    fn a_forward_proxy_is_asked_in_absolute_form() {
        let entry = Entry {
            address: "127.0.0.1:1".to_owned(),
            forward_to: Some("origin.bench".to_owned()),
            headers: Vec::new(),
        };
        assert!(request(&entry, "close").starts_with("GET http://origin.bench/ HTTP/1.1\r\nhost: origin.bench\r\n"));
    }
}
