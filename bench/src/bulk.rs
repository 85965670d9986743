//! `bench bulk`: what one large body costs each way, by the CPU time of both proxies. The origin is our own, so that it is cheap
//! and reads what is uploaded; the client is curl.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::chain::{Bench, Chain};
use crate::load::Entry;
use crate::options::Bulk;
use crate::report::{self, write_pair};
use crate::statistics::{count, median};

/// The chains that carry bulk in this comparison.
const NAMES: &[&str] = &["weft", "haproxy", "envoy-h2", "envoy-h3"];

/// Addresses at which proxies find the origin: that of the peers, and that of the sidecar of `weft`.
const ORIGINS: &[&str] = &["127.0.0.1:19080", "127.91.0.12:19080"];

const PIECE: usize = 256 * 1024;

#[derive(Debug, Serialize)]
struct Row {
    chain: &'static str,
    way: &'static str,
    mebibytes_per_second: f64,
    cpu_seconds_per_gib: f64,
    pss_mib: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Up,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Down => "download",
            Self::Up => "upload",
        }
    }
}

pub(crate) fn run(options: &Bulk) -> Result<()> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let bytes = options.mebibytes << 20;
    for address in ORIGINS {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
        std::thread::spawn(move || origin(&listener, bytes));
    }
    let upload = file_to_upload(scratch.path(), bytes)?;
    let bench = Bench::new(&options.places, scratch.path())?;
    let mut chains = Vec::new();
    for name in options.places.chosen(NAMES)? {
        chains.push(bench.start(name).with_context(|| format!("chain {name}"))?);
    }
    let mut seen: Vec<(usize, Way, f64, f64, f64)> = Vec::new();
    for _ in 0..options.rounds {
        for (index, chain) in chains.iter_mut().enumerate() {
            for way in [Way::Down, Way::Up] {
                let (rate, cpu, pss) =
                    carry(chain, way, bytes, &upload).with_context(|| format!("{} of {}", way.name(), chain.name))?;
                eprintln!("weft-bench: {:<9} {:<8} {rate:>6.0} MiB/s, {cpu:.3} CPU-s per GiB", chain.name, way.name());
                seen.push((index, way, rate, cpu, pss));
            }
        }
    }
    let mut rows = Vec::new();
    for (index, chain) in chains.iter().enumerate() {
        for way in [Way::Down, Way::Up] {
            let own = || seen.iter().filter(move |(at, of, ..)| (*at, *of) == (index, way));
            rows.push(Row {
                chain: chain.name,
                way: way.name(),
                mebibytes_per_second: median(&own().map(|(_, _, rate, ..)| *rate).collect::<Vec<_>>()),
                cpu_seconds_per_gib: median(&own().map(|(_, _, _, cpu, _)| *cpu).collect::<Vec<_>>()),
                pss_mib: own().map(|(.., pss)| *pss).fold(0.0, f64::max),
            });
        }
    }
    write_pair(&options.places.reports, "bulk", &markdown(options, &rows), &rows)
}

/// One body through a chain: MiB a second, CPU seconds of both proxies for a GiB, memory of both in MiB at its end.
pub(crate) fn carry(chain: &mut Chain, way: Way, bytes: u64, upload: &Path) -> Result<(f64, f64, f64)> {
    let before = chain.usage();
    let took = transfer(Command::new("curl"), &chain.entry, way, bytes, upload)?;
    let after = chain.usage();
    chain.check()?;
    let mebibytes = count(bytes >> 20);
    let cpu = (after.cpu - before.cpu).as_secs_f64() * 1024.0 / mebibytes;
    Ok((mebibytes / took, cpu, count(after.pss_kib) / 1024.0))
}

/// Without blocks on disk: reading it costs next to nothing.
pub(crate) fn file_to_upload(folder: &Path, bytes: u64) -> Result<PathBuf> {
    let path = folder.join("upload");
    std::fs::File::create(&path)?.set_len(bytes).context("a file to upload")?;
    Ok(path)
}

/// One body by curl, whole: the seconds that curl says it took.
pub(crate) fn transfer(mut curl: Command, entry: &Entry, way: Way, bytes: u64, upload: &Path) -> Result<f64> {
    curl.args(["-sS", "--max-time", "600", "-H", "Expect:"]);
    let path = match way {
        Way::Down => {
            curl.args(["-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_total}"]);
            "down"
        }
        Way::Up => {
            curl.args(["-w", " %{http_code} %{size_upload} %{time_total}", "-T"]).arg(upload);
            "up"
        }
    };
    match &entry.forward_to {
        Some(host) => curl.args(["-x", &format!("http://{}", entry.address), &format!("http://{host}/{path}")]),
        None => curl.arg(format!("http://{}/{path}", entry.address)),
    };
    let output = curl.output().context("cannot start curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = match way {
        Way::Down => format!("200 {bytes} "),
        // The origin says how much it has read.
        Way::Up => format!("{bytes} 200 {bytes} "),
    };
    text.strip_prefix(&expected)
        .and_then(|seconds| seconds.parse().ok())
        .with_context(|| format!("curl says {text:?}, not {expected:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn markdown(options: &Bulk, rows: &[Row]) -> String {
    let mut text = format!(
        "# A large body\n\n{}; commit {}. One body of {} MiB at a time, {} each way, alternating over the chains; medians. Client, \
         both proxies and origin share the machine.\n\n| chain | way | MiB/s | CPU-s per GiB, both proxies | PSS MiB, both, at most \
         |\n|---|---|---|---|---|\n",
        report::machine(),
        report::commit(),
        options.mebibytes,
        options.rounds
    );
    for row in rows {
        let Row { chain, way, mebibytes_per_second: rate, cpu_seconds_per_gib: cpu, pss_mib: pss } = row;
        _ = writeln!(text, "| {chain} | {way} | {rate:.0} | {cpu:.3} | {pss:.0} |");
    }
    text
}

/// Serves `/down`, `/up` and the probe of a chain for ever; a thread for each connection, of which there are few.
pub(crate) fn origin(listener: &TcpListener, bytes: u64) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream, bytes));
    }
}

fn serve(mut stream: TcpStream, bytes: u64) -> Option<()> {
    _ = stream.set_nodelay(true);
    let mut left = Vec::new();
    loop {
        let (head, behind) = head(&mut stream, left)?;
        left = behind;
        let lower = head.to_ascii_lowercase();
        if head.starts_with("GET /down ") {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes()).ok()?;
            let piece = vec![b'w'; PIECE];
            let mut rest = bytes;
            while rest > 0 {
                let size = usize::try_from(rest).unwrap_or(PIECE).min(PIECE);
                stream.write_all(&piece[..size]).ok()?;
                rest -= size as u64;
            }
        } else if head.starts_with("PUT /up ") {
            let length =
                lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<u64>().ok());
            let mut body = Upload::behind(&mut stream, &left);
            let length = match length {
                Some(length) => body.skip(length).map(|()| length)?,
                None if lower.contains("\r\ntransfer-encoding: chunked\r\n") => body.chunks()?,
                None => return None,
            };
            left = body.rest();
            answer(&mut stream, &length.to_string())?;
        } else {
            answer(&mut stream, &format!("{:0<128}", "weft-bench-"))?;
        }
    }
}

/// The body of an upload, as it comes.
struct Upload<'s> {
    stream: &'s mut TcpStream,
    buffer: Vec<u8>,
    /// Where what is here and not taken yet lies.
    here: Range<usize>,
}

impl<'s> Upload<'s> {
    /// `came`: with its head.
    fn behind(stream: &'s mut TcpStream, came: &[u8]) -> Self {
        let mut buffer = came.to_vec();
        buffer.resize(came.len().max(PIECE), 0);
        Self { stream, buffer, here: 0..came.len() }
    }

    /// Bytes that are here and not taken yet; waits where there are none.
    fn here(&mut self) -> Option<&[u8]> {
        if self.here.is_empty() {
            self.here = 0..self.stream.read(&mut self.buffer).ok().filter(|read| *read > 0)?;
        }
        Some(&self.buffer[self.here.clone()])
    }

    fn skip(&mut self, mut count: u64) -> Option<()> {
        while count > 0 {
            let here = self.here()?.len();
            let skipped = usize::try_from(count).unwrap_or(here).min(here);
            self.here.start += skipped;
            count -= skipped as u64;
        }
        Some(())
    }

    /// Up to the end of a line, which is taken too.
    fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(*self.here()?.first()?);
            self.here.start += 1;
        }
        Some(line)
    }

    /// A body in chunks, up to its end: how long it was. A filter that sees a body makes its length unknown.
    fn chunks(&mut self) -> Option<u64> {
        let mut length = 0;
        loop {
            let line = String::from_utf8(self.line()?).ok()?;
            let size = u64::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                while self.line()? != b"\r\n" {}
                return Some(length);
            }
            self.skip(size)?;
            length += size;
            (self.line()? == b"\r\n").then_some(())?;
        }
    }

    /// What was read beyond it.
    fn rest(self) -> Vec<u8> {
        self.buffer[self.here].to_vec()
    }
}

fn answer(stream: &mut TcpStream, body: &str) -> Option<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}

/// A head, and what came with it of the body.
fn head(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let behind = bytes.split_off(end + 4);
            return Some((String::from_utf8_lossy(&bytes).into_owned(), behind));
        }
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0 && bytes.len() < 64 * 1024)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_sends_and_counts_what_it_should() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || origin(&listener, 1_000_000));
        let ask = |request: &[u8]| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        };
        assert_eq!(
            ask(b"GET /down HTTP/1.1\r\n\r\n").len(),
            1_000_000 + "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".len()
        );
        let up = ask(b"PUT /up HTTP/1.1\r\nContent-Length: 300000\r\n\r\n"
            .iter()
            .copied()
            .chain([b'x'; 300_000])
            .collect::<Vec<_>>()
            .as_slice());
        assert!(up.ends_with(b"\r\n\r\n300000"));
        let chunks = b"PUT /up HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n";
        let twice = ask(&[&chunks[..], b"GET / HTTP/1.1\r\n\r\n"].concat());
        assert!(
            twice.starts_with(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n34HTTP/1.1 200 OK"),
            "what follows is read too"
        );
        assert!(ask(b"GET / HTTP/1.1\r\n\r\n").len() > 128);
    }
}
