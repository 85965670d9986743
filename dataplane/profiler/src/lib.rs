//! A processor profile of the process that calls it. Sampled by signal, unwound and named off the data path, given in pprof's
//! format. Invariant: one at a time, and nothing is set up before the first. All unsafe code of a proxy is here, in `sampler`.

mod image;
mod pprof;
mod sampler;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use framehop::{CacheNative, MayAllocateDuringUnwind, Unwinder as _, UnwinderNative};
use tokio::sync::oneshot;
use tracing::info;

use image::Images;
use sampler::{Sample, Sampling};

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 300;
/// Processor time between two samples, over all threads.
const PERIOD: Duration = Duration::from_millis(10);
/// How often full slots are emptied.
const DRAIN: Duration = Duration::from_millis(10);
const MAX_DEPTH: usize = 128;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("another profile is being taken; one at a time")]
    Busy,
    #[error("seconds={0}: a number from 1 to {MAX_SECONDS}")]
    Seconds(String),
    #[error("this process cannot be sampled: {0}")]
    Io(#[from] std::io::Error),
}

static BUSY: AtomicBool = AtomicBool::new(false);

/// Held while a profile is taken.
struct Busy;

impl Busy {
    fn take() -> Result<Self, ProfileError> {
        if BUSY.swap(true, Ordering::AcqRel) { Err(ProfileError::Busy) } else { Ok(Busy) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Takes a profile of as long as `query` says (`seconds=N`), gzip'd. Dropped, it ends early.
pub async fn take(query: &str) -> Result<Bytes, ProfileError> {
    let seconds = seconds(query)?;
    let busy = Busy::take()?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("profiler".to_owned()).spawn(move || {
        let profile = record(Duration::from_secs(seconds), || done.is_closed());
        drop(busy);
        // The caller may have gone; then the profile is dropped.
        let _ = done.send(profile);
    })?;
    result.await.map_err(|_| ProfileError::Io(std::io::Error::other("the profiler ended early")))?
}

fn seconds(query: &str) -> Result<u64, ProfileError> {
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("seconds=")) else {
        return Ok(DEFAULT_SECONDS);
    };
    let number = text.parse().ok().filter(|number| (1..=MAX_SECONDS).contains(number));
    number.ok_or_else(|| ProfileError::Seconds(text.chars().take(32).collect()))
}

/// Stacks seen on the processor, by thread and innermost address first, with the number of times that each was seen.
type Stacks = HashMap<(Arc<str>, Vec<u64>), u64>;

fn record(duration: Duration, gone: impl Fn() -> bool) -> Result<Bytes, ProfileError> {
    let images = Images::load()?;
    let mut stacks = Stackwalker::new(&images);
    let began = SystemTime::now();
    let start = Instant::now();
    let sampling = Sampling::start(PERIOD)?;
    while start.elapsed() < duration && !gone() {
        std::thread::sleep(DRAIN);
        sampling.drain(|sample| stacks.add(sample));
    }
    let lost = sampling.lost();
    drop(sampling);
    let (took, samples) = (start.elapsed(), stacks.seen.values().sum::<u64>());
    info!(seconds = took.as_secs(), samples, lost, "processor profile taken");
    Ok(pprof::encode(&stacks.seen, &images, began, took, PERIOD)?)
}

/// Turns copies of stacks into lists of addresses.
struct Stackwalker {
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    threads: HashMap<u32, Arc<str>>,
    own: u32,
    seen: Stacks,
}

impl Stackwalker {
    fn new(images: &Images) -> Self {
        let mut unwinder = UnwinderNative::new();
        images.modules().for_each(|module| unwinder.add_module(module));
        let own = sampler::thread_id();
        Self { unwinder, cache: CacheNative::new(), threads: HashMap::new(), own, seen: HashMap::new() }
    }

    fn add(&mut self, sample: &Sample<'_>) {
        if sample.thread == self.own {
            return;
        }
        let mut stack = Vec::with_capacity(32);
        let mut read = |address| sample.read(address).ok_or(());
        let mut frames = self.unwinder.iter_frames(sample.pc, sample.registers(), &mut self.cache, &mut read);
        // A stack that can't be unwound further ends there: its innermost frames are known.
        while let Ok(Some(frame)) = frames.next() {
            stack.push(frame.address_for_lookup());
            if stack.len() >= MAX_DEPTH {
                break;
            }
        }
        let thread = self.threads.entry(sample.thread).or_insert_with(|| name_of(sample.thread));
        *self.seen.entry((Arc::clone(thread), stack)).or_default() += 1;
    }
}

fn name_of(thread: u32) -> Arc<str> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
    name.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_number_in_bounds() {
        assert_eq!(seconds("").ok(), Some(30));
        assert_eq!(seconds("debug=0&seconds=300").ok(), Some(300));
        for wrong in ["seconds=0", "seconds=301", "seconds=", "seconds=-1", "seconds=1.5", "seconds=1m"] {
            let error = seconds(wrong).expect_err(wrong);
            assert!(matches!(error, ProfileError::Seconds(_)), "{error}");
            assert!(error.to_string().contains("1 to 300"), "{error}");
        }
    }

    #[inline(never)]
    fn burn_until(end: &AtomicBool) -> u64 {
        let mut number = 1_u64;
        while !end.load(Ordering::Relaxed) {
            number = std::hint::black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 7);
        }
        number
    }

    #[test]
    fn a_profile_names_what_ran_and_only_one_is_taken() {
        let end = AtomicBool::new(false);
        let profile = std::thread::scope(|scope| {
            std::thread::Builder::new().name("burner".to_owned()).spawn_scoped(scope, || burn_until(&end)).unwrap();
            let busy = Busy::take().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let second = runtime.block_on(take("seconds=1")).expect_err("one at a time");
            assert!(matches!(second, ProfileError::Busy), "{second}");
            let profile = record(Duration::from_secs(2), || false);
            drop(busy);
            end.store(true, Ordering::Relaxed);
            profile.unwrap()
        });
        let stacks = pprof::tests::decode(&profile);
        let burnt = stacks.iter().filter(|stack| stack.thread == "burner");
        let total: i64 = burnt.clone().map(|stack| stack.count).sum();
        let leaf: i64 = burnt.clone().filter(|s| s.functions[0].contains("burn_until")).map(|s| s.count).sum();
        assert!(total > 10, "{stacks:?}");
        assert!(leaf * 10 > total * 9, "the innermost function is known: {leaf} of {total}");
        let whole: i64 = burnt
            .filter(|stack| stack.functions.iter().any(|name| name.contains("__rust_begin_short_backtrace")))
            .map(|stack| stack.count)
            .sum();
        assert!(whole * 10 > total * 9, "and who called it, to the thread's start: {whole} of {total}: {stacks:?}");
    }
}
