//! What one filter costs: compiling it, one request through all its hooks, and its memory.

use std::path::Path;
use std::time::{Duration, Instant};

use weft_policy::component::cases::{BenchReport, Cases};

use super::drive::{self, Request};
use super::{Filter, reason};
use crate::host::Host;
use crate::order::Chain;

/// Requests before those that count, so that caches and branches know the filter.
const AHEAD: u64 = 200;
/// A measurement ends after this, with what it has.
const MOST: Duration = Duration::from_secs(20);

/// Sends the first case's request so often. What the case expects is not looked at: `weft filter test` does that.
pub(super) fn measure(
    host: &Host,
    file: &Path,
    wasm: &[u8],
    cases: &Cases,
    requests: u32,
) -> Result<BenchReport, String> {
    let case = cases.cases.first().ok_or("there is no case to measure")?;
    let began = Instant::now();
    let filter = Filter::new(host, wasm)?;
    let compile = began.elapsed();
    let prepared = filter.prepare(case, cases).map_err(|error| reason(&error).unwrap_or_else(|why| why))?;
    let request = Request::new(&case.request)?;
    filter.keep(&prepared, case)?;
    let chain = Chain::new(vec![prepared.clone()]);
    let mut worker = filter.worker(case);
    let mut times = Vec::with_capacity(usize::try_from(requests).unwrap_or_default());
    let until = Instant::now() + MOST;
    for number in 0..AHEAD + u64::from(requests) {
        let request = request.clone();
        let began = Instant::now();
        let seen = drive::request(&mut worker, &chain, number, request, case)?;
        let took = began.elapsed();
        drop(seen);
        if number >= AHEAD {
            times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        if Instant::now() >= until {
            break;
        }
    }
    times.sort_unstable();
    let memory_bytes = prepared.host_stats().program.memory_bytes.value();
    Ok(BenchReport {
        file: file.to_owned(),
        bytes: wasm.len() as u64,
        compile_ms: u64::try_from(compile.as_millis()).unwrap_or(u64::MAX),
        requests: times.len() as u64,
        p50_ns: share(&times, 50),
        p99_ns: share(&times, 99),
        memory_bytes,
    })
}

/// The time that so many percent took at the most; `times` are sorted.
fn share(times: &[u64], percent: usize) -> u64 {
    let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_one_of_the_times() {
        let times: Vec<u64> = (1..=200).collect();
        assert_eq!((share(&times, 50), share(&times, 99), share(&[7], 99), share(&[], 50)), (100, 198, 7, 0));
    }
}
