//! The functions of WASI that do something: clocks, randomness, output, and pollables that are ready.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use wasmtime::component::{ComponentType, Lower, ResourceDynamic, Val, WasmList};

use super::{Handle, INPUT_STREAM, NETWORK, OUTPUT_STREAM, POLLABLE, READY, Store, own, refuse};
use crate::wasi::Output;

/// A function by its parameters, and the handles among them.
pub(super) type Call = fn(&mut Store<'_>, &[Val], &[Handle]) -> wasmtime::Result<Option<Val>>;

const WASI: &str = "wasi";
/// Bytes that one call may write; what is more is dropped.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes that a filter is told it may write at a time, as is usual.
const PERMIT_BYTES: u64 = 4 << 10;
/// As many as the Web's `getRandomValues` gives.
const RANDOM_BYTES: u64 = 64 << 10;
/// Pollables of one `poll`.
const MAX_POLLED: usize = 1_024;

const CALLS: [(&str, &str, Call); 23] = [
    ("wasi:cli/exit", "exit", exit),
    ("wasi:cli/exit", "exit-with-code", exit),
    ("wasi:cli/stdin", "get-stdin", stdin),
    ("wasi:cli/stdout", "get-stdout", stdout),
    ("wasi:cli/stderr", "get-stderr", stderr),
    ("wasi:clocks/monotonic-clock", "now", monotonic_now),
    ("wasi:clocks/monotonic-clock", "resolution", monotonic_resolution),
    ("wasi:clocks/monotonic-clock", "subscribe-instant", subscribe_instant),
    ("wasi:clocks/monotonic-clock", "subscribe-duration", subscribe_duration),
    ("wasi:clocks/wall-clock", "now", wall_now),
    ("wasi:clocks/wall-clock", "resolution", wall_resolution),
    ("wasi:io/poll", "[method]pollable.ready", ready),
    ("wasi:io/poll", "[method]pollable.block", block),
    ("wasi:io/streams", "[method]input-stream.subscribe", subscribe_stream),
    ("wasi:io/streams", "[method]output-stream.subscribe", subscribe_stream),
    ("wasi:io/streams", "[method]output-stream.check-write", check_write),
    ("wasi:io/streams", "[method]output-stream.flush", flush),
    ("wasi:io/streams", "[method]output-stream.blocking-flush", flush),
    ("wasi:random/random", "get-random-u64", random_u64),
    ("wasi:random/insecure", "get-insecure-random-u64", random_u64),
    ("wasi:random/insecure-seed", "insecure-seed", seed),
    ("wasi:random/insecure-seed", "get-insecure-seed", seed),
    ("wasi:sockets/instance-network", "instance-network", network),
];

/// `None`: it does nothing for filters.
pub(super) fn of(interface: &str, function: &str) -> Option<Call> {
    CALLS.iter().find(|(of, name, _)| *of == interface && *name == function).map(|(_, _, call)| *call)
}

/// What brings something in needs a grant, and has no error to say that there is none.
fn granted(store: &Store<'_>, what: &str) -> wasmtime::Result<()> {
    let state = store.data();
    match state.config() {
        Some(config) if config.grants.wasi => Ok(()),
        Some(config) => {
            config.note_denial(WASI);
            refuse(format!("{what} of WASI needs the capability {WASI:?}, which the FilterPolicy does not grant"))
        }
        None => refuse(super::super::NOBODY),
    }
}

fn exit(_: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    refuse("it called exit, which ends the call and the instance")
}

fn stdin(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    own(store, INPUT_STREAM, 0)
}

fn stdout(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    own(store, OUTPUT_STREAM, representation(Output::Stdout))
}

fn stderr(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    own(store, OUTPUT_STREAM, representation(Output::Stderr))
}

const fn representation(output: Output) -> u32 {
    match output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    }
}

fn output(handle: Handle) -> Option<Output> {
    let is_it = |output: &Output| representation(*output) == handle.representation;
    Output::ALL.into_iter().find(is_it).filter(|_| handle.kind == OUTPUT_STREAM)
}

fn monotonic_now(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "the clock")?;
    Ok(Some(Val::U64(nanos(store.data().now()))))
}

fn monotonic_resolution(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "the clock")?;
    Ok(Some(Val::U64(1)))
}

fn subscribe_instant(store: &mut Store<'_>, given: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    subscribe_at(store, given, |when, _| when)
}

fn subscribe_duration(store: &mut Store<'_>, given: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    subscribe_at(store, given, |when, now| now.saturating_add(when))
}

/// A pollable that is ready at a time: `at` of the parameter and of now.
fn subscribe_at(
    store: &mut Store<'_>,
    given: &[Val],
    at: fn(Duration, Duration) -> Duration,
) -> wasmtime::Result<Option<Val>> {
    granted(store, "the clock")?;
    let [Val::U64(when)] = given else { return refuse("a time of the clock has another type") };
    let now = store.data().now();
    let at = at(Duration::from_nanos(*when), now);
    let timer = if at <= now { READY } else { store.data_mut().wasi.timer(at) };
    own(store, POLLABLE, timer)
}

fn wall_now(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "the clock")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Some(datetime(now)))
}

fn wall_resolution(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "the clock")?;
    Ok(Some(datetime(Duration::from_nanos(1))))
}

fn datetime(time: Duration) -> Val {
    let seconds = ("seconds".to_owned(), Val::U64(time.as_secs()));
    Val::Record(vec![seconds, ("nanoseconds".to_owned(), Val::U32(time.subsec_nanos()))])
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn is_ready(store: &Store<'_>, handle: Handle) -> bool {
    let state = store.data();
    handle.kind == POLLABLE
        && (handle.representation == READY || state.wasi.is_ready(handle.representation, state.now()))
}

fn ready(store: &mut Store<'_>, _: &[Val], handles: &[Handle]) -> wasmtime::Result<Option<Val>> {
    Ok(Some(Val::Bool(handles.iter().all(|handle| is_ready(store, *handle)))))
}

fn block(store: &mut Store<'_>, _: &[Val], handles: &[Handle]) -> wasmtime::Result<Option<Val>> {
    if handles.iter().all(|handle| is_ready(store, *handle)) { Ok(None) } else { refuse(BLOCKS) }
}

const BLOCKS: &str = "it blocks on what is not ready: a filter waits by its verdict, never within a call";

/// The numbers of those that are ready; there has to be one.
pub(super) fn poll(store: Store<'_>, (given,): (Vec<ResourceDynamic>,)) -> wasmtime::Result<(Vec<u32>,)> {
    if given.len() > MAX_POLLED {
        return refuse(format!("it polls {} pollables; at most {MAX_POLLED} are possible", given.len()));
    }
    let handles = given.iter().map(|given| Handle { kind: given.ty(), representation: given.rep() });
    let numbered = (0_u32..).zip(handles).filter(|(_, handle)| is_ready(&store, *handle));
    let ready: Vec<u32> = numbered.map(|(number, _)| number).collect();
    if ready.is_empty() { refuse(BLOCKS) } else { Ok((ready,)) }
}

/// Input is at its end, and output is taken at once.
fn subscribe_stream(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    own(store, POLLABLE, READY)
}

fn check_write(_: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    Ok(Some(Val::Result(Ok(Some(Box::new(Val::U64(PERMIT_BYTES)))))))
}

fn flush(_: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    Ok(Some(Val::Result(Ok(None))))
}

/// The error of streams, as WASI has it.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub(super) enum StreamError {
    #[expect(dead_code, reason = "it is a part of the type; no operation fails here")]
    #[component(name = "last-operation-failed")]
    LastOperationFailed(ResourceDynamic),
    #[component(name = "closed")]
    Closed,
}

type Written = (Result<(), StreamError>,);

pub(super) fn write(
    mut store: Store<'_>,
    (stream, bytes): (ResourceDynamic, WasmList<u8>),
) -> wasmtime::Result<Written> {
    let Some(output) = output(Handle { kind: stream.ty(), representation: stream.rep() }) else {
        return Ok((Err(StreamError::Closed),));
    };
    let bytes = bytes.as_le_slice(&store);
    let taken = bytes[..bytes.len().min(WRITE_BYTES)].to_vec();
    if taken.len() < bytes.len()
        && let Some(config) = store.data().config()
    {
        config.stats.log_lines_dropped.add(1);
    }
    store.data_mut().write_output(output, &taken);
    Ok((Ok(()),))
}

pub(super) fn random_bytes(store: Store<'_>, (count,): (u64,)) -> wasmtime::Result<(Vec<u8>,)> {
    granted(&store, "randomness")?;
    let Some(count) = usize::try_from(count).ok().filter(|_| count <= RANDOM_BYTES) else {
        return refuse(format!("it asks for {count} random bytes; at most {RANDOM_BYTES} are possible"));
    };
    let mut bytes = vec![0; count];
    fill(&mut bytes)?;
    Ok((bytes,))
}

fn random_u64(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "randomness")?;
    Ok(Some(Val::U64(number()?)))
}

fn seed(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    granted(store, "randomness")?;
    Ok(Some(Val::Tuple(vec![Val::U64(number()?), Val::U64(number()?)])))
}

fn number() -> wasmtime::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn fill(bytes: &mut [u8]) -> wasmtime::Result<()> {
    rand::fill(bytes).or_else(|_| refuse("there is no randomness"))
}

/// A network by which nothing can be reached: sockets are refused.
fn network(store: &mut Store<'_>, _: &[Val], _: &[Handle]) -> wasmtime::Result<Option<Val>> {
    own(store, NETWORK, 0)
}
