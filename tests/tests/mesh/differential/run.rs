//! Runs each case by each way beside the direct one, some lanes at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weft_tests::exchange::seen::Seen;
use weft_tests::exchange::{h1, h2};

use super::cases::{Case, Talk};
use super::ground::{Ground, LANES, Lane, Way};
use super::report::{self, Failure};

/// Notes of what both ends of one exchange saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Saw {
    pub(super) client: Seen,
    pub(super) origin: Seen,
}

pub(super) async fn all(ground: Ground, cases: &[Case], ways: &[Way]) -> Vec<Failure> {
    let only = std::env::var("WEFT_DIFFERENTIAL_ONLY").unwrap_or_default();
    let chosen = cases.iter().filter(|case| format!("{}: {}", case.family, case.name).contains(&only));
    let cases: Arc<[Case]> = chosen.cloned().collect();
    let (ground, next) = (Arc::new(ground), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for index in 0..LANES {
        let (ground, cases, next, ways) = (Arc::clone(&ground), Arc::clone(&cases), Arc::clone(&next), ways.to_vec());
        tasks.push(tokio::spawn(async move {
            let mut failures = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let lane = ground.lane(case.declared, index);
                let direct = exchange(&ground, lane, case, Way::Direct).await;
                for way in &ways {
                    let meshed = exchange(&ground, lane, case, *way).await;
                    let mut failure = report::compare(case, *way, &direct, &meshed);
                    // Where the client's port is in use, a redirection takes another in its place, and only keep-alive probes
                    // find out that it left, later than anybody waits here. The next client has another port.
                    if failure.is_some() && *way == Way::Captured && case.family == "client leaves" {
                        let meshed = exchange(&ground, lane, case, *way).await;
                        failure = report::compare(case, *way, &direct, &meshed);
                    }
                    failures.extend(failure);
                }
            }
            failures
        }));
    }
    let mut failures = Vec::new();
    for task in tasks {
        failures.extend(task.await.expect("a lane doesn't panic"));
    }
    failures
}

async fn exchange(ground: &Ground, lane: &Lane, case: &Case, way: Way) -> Saw {
    let origin = lane.origin(way);
    let authority = lane.authority();
    match &case.talk {
        Talk::H1 { scripts, .. } => origin.prepare(scripts, &[]),
        Talk::H2 { scripts, .. } => origin.prepare(&[], scripts),
    }
    let stream = match ground.dial(way, lane).await {
        Ok(stream) => stream,
        Err(why) => {
            let mut client = Seen::default();
            client.note("dial", why);
            return Saw { client, origin: Seen::default() };
        }
    };
    let client = match &case.talk {
        Talk::H1 { methods, steps, .. } => {
            let steps: Vec<_> = steps.iter().map(|step| addressed(step, way, &authority)).collect();
            h1::client(stream, methods, &steps, origin).await
        }
        Talk::H2 { calls, .. } => h2::client(stream, &authority, calls, origin).await,
    };
    Saw { client, origin: origin.seen().await }
}

/// The step with `{T}` and `{H}` filled in: what stands before a target in the form that this way wants, and the host.
fn addressed(step: &h1::Act, way: Way, authority: &str) -> h1::Act {
    let fill = |bytes: &[u8]| {
        let before = if way == Way::Explicit { format!("http://{authority}") } else { String::new() };
        // RFC 9112 3.2.4: a forward proxy is asked for `*` by an empty path.
        let star = if way == Way::Explicit { before.as_str() } else { "*" };
        let bytes = replaced(bytes, b"{T}*", star.as_bytes());
        replaced(&replaced(&bytes, b"{T}", before.as_bytes()), b"{H}", authority.as_bytes())
    };
    let mut step = step.clone();
    if let h1::Act::Send(bytes) | h1::Act::Slowly(bytes, ..) = &mut step {
        *bytes = fill(bytes);
    }
    step
}

pub(super) fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    // The text to replace stands in the head; a large body needn't be searched.
    while let Some(at) = rest[..rest.len().min(128 * 1024)].windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}
