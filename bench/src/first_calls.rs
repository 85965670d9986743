//! The first call of a name that its proxy does not hold, through a real pair of sidecars, beside calls of a name that it holds:
//! with the control plane as it should be, slow, silent, talking nonsense, and away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::process::{Process, wait_for};
use crate::statistics::{ms, percentile};
use crate::weft::{Attached, Host, NAMESPACE, Operator, Pair, service, sidecar};

/// The relay in front of the control plane: the caller's proxy knows no other way.
const RELAY: &str = "127.91.0.43";
const PORT: u16 = 15_012;
/// Between two first calls: what is asked at the same time is asked together, and would be measured together.
const APART: Duration = Duration::from_millis(60);
/// The longest that a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the relay does with what the control plane says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Late(Duration),
    /// Nothing of it arrives.
    Silent,
    /// As much arrives, and it is something else.
    Nonsense,
}

/// How the first calls of new names went in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    case: &'static str,
    calls: usize,
    /// By status of the answer.
    answers: BTreeMap<u16, usize>,
    first_p50_ms: f64,
    first_p99_ms: f64,
    /// Of a name that the proxy holds, in turn with them.
    known_p50_ms: f64,
    known_p99_ms: f64,
}

pub(crate) fn measure(binaries: &Path, calls: usize) -> Result<Vec<Case>> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let host = |last: u8| Host { namespace: None, address: format!("127.91.0.{last}") };
    let pair = Pair {
        name: "first-calls",
        binaries: binaries.to_owned(),
        manifest: "",
        control: host(40),
        callee: host(42),
        caller: host(41),
        workers: 2,
        attached: Attached::default(),
    };
    let mut control = Command::new(binaries.join("weft-control"));
    let settings = serde_json::json!({
        "bind": pair.control.address, "state": scratch.path().join("control"), "advertise": [RELAY],
    });
    let file = scratch.path().join("control.yaml");
    std::fs::write(&file, settings.to_string()).context("the configuration of the control plane")?;
    control.arg("--config").arg(file);
    let control = Process::start("weft-control", scratch.path(), &mut control)?;
    let operator = Operator { binaries, folder: scratch.path(), host: &pair.control };
    operator.wait()?;
    let cases = cases();
    operator.apply_all(calls * cases.len() + 1, named)?;
    origin(&pair.callee.address)?;
    let relay = Relay::start(&pair.control.address)?;
    let _callee = sidecar(&operator, &pair, "origin", &pair.callee, &pair.control.address)?;
    let _caller = sidecar(&operator, &pair, "client", &pair.caller, RELAY)?;
    let bench = Bench { caller: &pair.caller.address, relay: &relay };
    wait_for("the known name is served", Duration::from_secs(30), || {
        bench.call("n0").is_ok_and(|(status, _)| status == 200)
    })?;
    let (mut measured, mut next, mut control) = (Vec::new(), 1, Some(control));
    for (case, mode, prefix) in cases {
        match mode {
            Some(mode) => {
                relay.set(Mode::Late(Duration::ZERO));
                bench.connected()?;
                relay.set(mode);
            }
            None => drop(control.take()),
        }
        measured.push(bench.case(case, (prefix, next), calls)?);
        next += calls;
        if matches!(mode, Some(Mode::Silent | Mode::Nonsense)) {
            relay.cut();
        }
    }
    Ok(measured)
}

/// What is measured, what the relay does meanwhile (`None`: the control plane has ended), and the names that are called.
fn cases() -> Vec<(&'static str, Option<Mode>, &'static str)> {
    let late = |ms| Some(Mode::Late(Duration::from_millis(ms)));
    vec![
        ("as it should be", late(0), "n"),
        ("it says that there is no such service", late(0), "none"),
        ("it answers 50 ms later", late(50), "n"),
        ("it answers 400 ms later", late(400), "n"),
        ("it says nothing", Some(Mode::Silent), "n"),
        ("it talks nonsense", Some(Mode::Nonsense), "n"),
        ("it is away", None, "n"),
    ]
}

/// A name of the one app.
fn named(index: usize) -> serde_json::Value {
    service(&format!("n{index}"), "origin", (80, 19_080))
}

/// An app that answers each connection once. It ends with this process.
fn origin(address: &str) -> Result<()> {
    let listener = TcpListener::bind((address, 19_080)).with_context(|| format!("cannot bind {address}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..read]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

struct Bench<'b> {
    caller: &'b str,
    relay: &'b Relay,
}

impl Bench<'_> {
    /// A call on a connection of its own: its status, and how long it took.
    fn call(&self, name: &str) -> Result<(u16, Duration)> {
        let host = format!("{name}.{NAMESPACE}");
        let request = format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let began = Instant::now();
        let mut stream = TcpStream::connect((self.caller, 15_080))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok((status(&String::from_utf8_lossy(&answer)), began.elapsed()))
    }

    /// Waits until the caller's proxy is answered what it asks.
    fn connected(&self) -> Result<()> {
        let mut tried = 0;
        let is_answered = || {
            tried += 1;
            self.call(&format!("tried{}-{tried}", self.relay.connections())).is_ok_and(|(status, _)| status == 502)
        };
        wait_for("the caller's proxy is answered", Duration::from_secs(60), is_answered)
    }

    /// Calls so many names for the first time, each in turn with the known one.
    fn case(&self, case: &'static str, (prefix, first): (&str, usize), calls: usize) -> Result<Case> {
        let (mut answers, mut new, mut known) = (BTreeMap::new(), Vec::new(), Vec::new());
        for index in first..first + calls {
            std::thread::sleep(APART);
            let (status, took) = self.call("n0")?;
            if status != 200 {
                bail!("{case}: the known name is answered {status}");
            }
            known.push(ms(took));
            let (status, took) = self.call(&format!("{prefix}{index}"))?;
            *answers.entry(status).or_default() += 1;
            new.push(ms(took));
        }
        eprintln!("weft-bench: {case}: {answers:?} by {:?}", self.relay.mode());
        Ok(Case {
            case,
            calls,
            answers,
            first_p50_ms: percentile(&new, 50.0),
            first_p99_ms: percentile(&new, 99.0),
            known_p50_ms: percentile(&known, 50.0),
            known_p99_ms: percentile(&known, 99.0),
        })
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Carries connections to the control plane; what comes back is late, lost or spoilt.
struct Relay(Arc<Mutex<State>>);

struct State {
    mode: Mode,
    carried: usize,
    open: Vec<TcpStream>,
}

impl Relay {
    fn start(control: &str) -> Result<Self> {
        let listener = TcpListener::bind((RELAY, PORT)).with_context(|| format!("cannot bind {RELAY}"))?;
        let relay =
            Self(Arc::new(Mutex::new(State { mode: Mode::Late(Duration::ZERO), carried: 0, open: Vec::new() })));
        let (state, control) = (relay.0.clone(), control.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // A control plane that is away takes no connection: neither does this one.
                drop(TcpStream::connect((control.as_str(), PORT)).and_then(|far| carry(&state, &near, &far)));
            }
        });
        Ok(relay)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    fn mode(&self) -> Mode {
        self.state().mode
    }

    /// So many connections it has carried.
    fn connections(&self) -> usize {
        self.state().carried
    }

    /// Ends every connection: what was lost of it can't be made good.
    fn cut(&self) {
        for stream in self.state().open.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn carry(state: &Arc<Mutex<State>>, near: &TcpStream, far: &TcpStream) -> std::io::Result<()> {
    state.lock().unwrap_or_else(PoisonError::into_inner).carried += 1;
    for stream in [near, far] {
        stream.set_nodelay(true)?;
        state.lock().unwrap_or_else(PoisonError::into_inner).open.push(stream.try_clone()?);
    }
    let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
    let (mut from, mut to) = (far.try_clone()?, near.try_clone()?);
    let (read, ready) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            if read.send((Instant::now(), buffer[..bytes].to_vec())).is_err() {
                return;
            }
        }
    });
    let state = state.clone();
    std::thread::spawn(move || {
        for (at, mut bytes) in ready {
            let mode = state.lock().unwrap_or_else(PoisonError::into_inner).mode;
            match mode {
                Mode::Late(by) => std::thread::sleep((at + by).saturating_duration_since(Instant::now())),
                Mode::Silent => continue,
                Mode::Nonsense => bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
            }
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    });
    Ok(())
}

/// A section of the report.
pub(crate) fn markdown(cases: &[Case]) -> String {
    let mut text = String::new();
    if cases.is_empty() {
        return text;
    }
    text.push_str(
        "\n## First calls\n\nThe first call of a name that its proxy does not hold, in turn with calls of a name that it holds, through \
         a real pair of sidecars: how long it took, and what it adds (p50 and p99, ms). A relay stands between the caller's \
         proxy and the control plane, and delays, swallows or spoils what comes back. `first_call_wait_ms` is 250.\n\n| the \
         control plane | answers | first call: p50, p99 | known name: p50, p99 | added: p50, p99 |\n|---|---|---|---|---|\n",
    );
    for case in cases {
        let answers: Vec<_> = case.answers.iter().map(|(status, count)| format!("{status} x {count}")).collect();
        _ = writeln!(
            text,
            "| {} | {} | {:.1}, {:.1} | {:.1}, {:.1} | {:.1}, {:.1} |",
            case.case,
            answers.join(", "),
            case.first_p50_ms,
            case.first_p99_ms,
            case.known_p50_ms,
            case.known_p99_ms,
            case.first_p50_ms - case.known_p50_ms,
            case.first_p99_ms - case.known_p99_ms
        );
    }
    text
}
