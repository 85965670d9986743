//! From a filter's binary to machine code, within limits. What a stranger wrote is compiled in a child process, which the
//! kernel ends at its limits: neither time nor memory of this process depends on a filter that nobody has tried yet.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit};
use wasmtime::{Config, Engine, InstanceAllocationStrategy};

use crate::failure::FRAMES;
use crate::spec::Digest;

/// The argument by which a program that links this crate is told to be [`compile_child`] and nothing else.
pub const COMPILE: &str = "compile-filter";

/// Stack of one call into a filter; compiled code depends on it.
const STACK_BYTES: usize = 512 << 10;
/// Threads of a child: each has a stack and a heap of its own, which count against its address space.
const THREADS: &str = "4";
/// How much the child gives way to whoever wants the processor.
const NICENESS: i32 = 10;
/// First byte of what a child says: machine code follows, or why there is none, which is the filter's fault or the child's;
/// then the length of that, 8 bytes.
const CODE: u8 = 0;
const REASON: u8 = 1;
const TROUBLE: u8 = 2;
const HEADER: usize = 9;
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 2_048;

/// Where filters are compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Compiler {
    /// In this process, without limits: for tests and for filters that are trusted.
    #[default]
    InProcess,
    /// In a child that runs this program with the argument [`COMPILE`].
    Child(PathBuf),
}

impl Compiler {
    /// In a child that runs the program of this process, also after its file was replaced.
    pub fn own_child() -> Self {
        Self::Child(PathBuf::from("/proc/self/exe"))
    }
}

/// Bounds of one compilation in a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space, bytes. Default 1 GiB.
    pub memory_bytes: u64,
    /// Time on processors, all threads. Default 120 s.
    pub processor: Duration,
    /// Default 180 s.
    pub wall: Duration,
    /// Machine code, bytes. Default 256 MiB.
    pub code_bytes: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            processor: Duration::from_secs(120),
            wall: Duration::from_secs(180),
            code_bytes: 256 << 20,
        }
    }
}

/// Why there is no machine code of a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is the filter's fault, and would be the next time.
    #[error("it can't be compiled: {0}")]
    Refused(String),
    /// It costs more than may be spent on it.
    #[error("compiling it takes too much: {0}")]
    Limit(String),
    /// It is this machine's fault, and says nothing of the filter.
    #[error("the compiler does not run: {0}")]
    Compiler(String),
}

impl CompileError {
    /// True where the next try would end as this one.
    fn is_of_the_filter(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Limit(_) => true,
            Self::Compiler(_) => false,
        }
    }
}

/// Everything of an engine on which machine code depends: the same in every process.
pub(crate) fn settings() -> Config {
    let mut settings = Config::new();
    settings
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES));
    settings
}

/// Machine code of a component, for engines with the same settings as `engine`.
pub(crate) fn compile(
    engine: &Engine,
    (compiler, limits): (&Compiler, &CompileLimits),
    wasm: &[u8],
) -> Result<Vec<u8>, CompileError> {
    match compiler {
        Compiler::InProcess => machine_code(engine, wasm).map_err(CompileError::Refused),
        Compiler::Child(program) => in_child(program, limits, wasm),
    }
}

fn machine_code(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, String> {
    engine.precompile_component(wasm).map_err(|error| format!("{error:#}"))
}

fn in_child(program: &Path, limits: &CompileLimits, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let broken = |error: io::Error| CompileError::Compiler(format!("{}: {error}", program.display()));
    let mut child = Command::new(program)
        .arg(COMPILE)
        .arg(limits.memory_bytes.to_string())
        .arg(limits.processor.as_secs().max(1).to_string())
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        .env("MALLOC_ARENA_MAX", THREADS)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(broken)?;
    let answer = converse(&mut child, limits, wasm);
    // One that has said everything has nothing left to do, and one that did not end by itself is not waited for.
    if !matches!(answer, Ok(None)) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(broken)?;
    answer?.unwrap_or_else(|| Err(untimely(status, limits)))
}

/// What a child said: machine code, or why there is none.
type Answer = Result<Vec<u8>, CompileError>;

/// Gives the child the binary and hears it out. `None`: it ended before it had said everything.
fn converse(child: &mut Child, limits: &CompileLimits, wasm: &[u8]) -> Result<Option<Answer>, CompileError> {
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(CompileError::Compiler("no pipes".to_owned()));
    };
    let most = limits.code_bytes;
    std::thread::scope(|scope| {
        let (say, said) = mpsc::sync_channel(1);
        scope.spawn(move || {
            let _ = say.send(talk(stdin, stdout, wasm, most));
        });
        let answer = said.recv_timeout(limits.wall);
        if answer.is_err() {
            // The pipes close with it, and the thread ends.
            let _ = child.kill();
        }
        match answer {
            Ok(Ok(told)) if told.len() > most.saturating_add(HEADER) => {
                Err(CompileError::Limit(format!("its machine code has more than {most} bytes")))
            }
            Ok(Ok(told)) => Ok(parse(told)),
            Ok(Err(error)) => Err(CompileError::Compiler(error.to_string())),
            Err(_) => Err(CompileError::Limit(format!("it is not done within {} s", limits.wall.as_secs()))),
        }
    })
}

fn talk(mut stdin: ChildStdin, stdout: ChildStdout, wasm: &[u8], most: usize) -> io::Result<Vec<u8>> {
    // A child that ends early is judged by what it says, not by what it did not read.
    let _ = stdin.write_all(wasm);
    drop(stdin);
    let most = u64::try_from(most.saturating_add(HEADER).saturating_add(1)).unwrap_or(u64::MAX);
    let mut told = Vec::new();
    stdout.take(most).read_to_end(&mut told)?;
    Ok(told)
}

/// What a child said, if it said it to the end.
fn parse(mut told: Vec<u8>) -> Option<Answer> {
    let (header, rest) = told.split_first_chunk::<HEADER>()?;
    let [kind, length @ ..] = *header;
    if u64::from_be_bytes(length) != rest.len() as u64 {
        return None;
    }
    told.drain(..HEADER);
    let reason = || String::from_utf8_lossy(&told).chars().take(MAX_REASON).collect();
    match kind {
        CODE => Some(Ok(told)),
        REASON => Some(Err(CompileError::Refused(reason()))),
        TROUBLE => Some(Err(CompileError::Compiler(reason()))),
        _ => None,
    }
}

/// Why a child ended that had not said everything.
fn untimely(status: ExitStatus, limits: &CompileLimits) -> CompileError {
    let signal = |signal: Signal| status.signal() == Some(signal.as_raw());
    if signal(Signal::XCPU) {
        return CompileError::Limit(format!("more than {} s on a processor", limits.processor.as_secs()));
    }
    if signal(Signal::ABORT) {
        let mib = limits.memory_bytes >> 20;
        return CompileError::Limit(format!(
            "the compiler gave up, which it does when it has used {mib} MiB of memory"
        ));
    }
    if signal(Signal::SEGV) || signal(Signal::BUS) || signal(Signal::ILL) {
        return CompileError::Refused(format!("the compiler breaks down over it ({status})"));
    }
    // Such as by somebody's kill, or by a kernel that is out of memory.
    CompileError::Compiler(format!("it ended before it was done ({status})"))
}

/// The other end: reads a binary from its input, writes machine code or a reason to its output, and ends. `arguments`: those
/// behind [`COMPILE`], the bytes of address space and the seconds on processors that it may use.
pub fn compile_child(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (kind, bytes) = match prepared(arguments) {
        Ok((engine, wasm)) => match machine_code(&engine, &wasm) {
            Ok(code) => (CODE, code),
            Err(reason) => (REASON, reason.into_bytes()),
        },
        Err(trouble) => (TROUBLE, trouble.into_bytes()),
    };
    let mut out = io::stdout().lock();
    let said = out
        .write_all(&[kind])
        .and_then(|()| out.write_all(&(bytes.len() as u64).to_be_bytes()))
        .and_then(|()| out.write_all(&bytes))
        .and_then(|()| out.flush());
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that a child needs, once it is restricted.
fn prepared(arguments: impl Iterator<Item = OsString>) -> Result<(Engine, Vec<u8>), String> {
    restrict(arguments)?;
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm).map_err(|error| format!("nothing to compile: {error}"))?;
    let mut settings = settings();
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = Engine::new(&settings).map_err(|error| format!("{error:#}"))?;
    Ok((engine, wasm))
}

/// Takes from this process what compiling does not need. One that can't be restricted compiles nothing.
fn restrict(mut arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    let mut number = |what: &str| {
        let text = arguments.next().and_then(|text| text.into_string().ok());
        text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| format!("{what} is missing"))
    };
    let (memory, processor) = (number("the limit of memory")?, number("the limit of time")?);
    // At the soft limit of time comes a signal that says so, at the hard one its end without a word.
    let limits = [
        (Resource::As, memory, memory),
        (Resource::Cpu, processor, processor.saturating_add(1)),
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
    ];
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| format!("no tie to its parent: {error}"))?;
    for (resource, soft, hard) in limits {
        // Nobody may raise what is lower already.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) };
        setrlimit(resource, limit).map_err(|error| format!("{resource:?} can't be limited: {error}"))?;
    }
    nice(NICENESS).map_err(|error| format!("it can't give way: {error}"))?;
    Ok(())
}

/// Findings of late on filters that can't be compiled, so that none is compiled again at each retry.
#[derive(Debug, Default)]
pub(crate) struct Refusals(VecDeque<(Digest, CompileError, Instant)>);

impl Refusals {
    /// So many are remembered, for so long.
    const MOST: usize = 256;
    const FOR: Duration = Duration::from_secs(600);

    pub(crate) fn of(&self, digest: &Digest, now: Instant) -> Option<CompileError> {
        let mut fresh = self.0.iter().filter(|(_, _, at)| now.saturating_duration_since(*at) < Self::FOR);
        fresh.find(|(known, ..)| known == digest).map(|(_, error, _)| error.clone())
    }

    pub(crate) fn note(&mut self, digest: Digest, error: &CompileError, now: Instant) {
        if !error.is_of_the_filter() {
            return;
        }
        self.0.retain(|(known, _, at)| *known != digest && now.saturating_duration_since(*at) < Self::FOR);
        self.0.truncate(Self::MOST - 1);
        self.0.push_front((digest, error.clone(), now));
    }
}

#[cfg(test)]
mod tests;
