//! Steady open-loop load that counts honestly: every request sent ends as exactly one answer or one failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Listen;

/// Requests that may be open at once; beyond it a tick is skipped and counted.
const MAX_OPEN: u64 = 512;
const FAILURES_KEPT: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    listen: Listen,
    /// URL to ask for, over and over; may be repeated (taken in turn).
    #[arg(long = "target", required = true, value_name = "URL")]
    targets: Vec<String>,
    /// Requests a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
}

#[derive(Default)]
struct Counts {
    paused: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    /// Slowest answer, microseconds.
    slowest_us: AtomicU64,
    details: Mutex<Details>,
}

#[derive(Default, Clone, Serialize)]
struct Details {
    /// Answers by target and status.
    statuses: BTreeMap<String, BTreeMap<String, u64>>,
    /// Answers of status 200 by `x-shop-release`.
    releases: BTreeMap<String, u64>,
    /// The first failures, in words.
    failures: Vec<String>,
}

impl Counts {
    fn details(&self) -> std::sync::MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> u64 {
        let done = self.answered.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire);
        self.sent.load(Ordering::Acquire).saturating_sub(done)
    }

    fn report(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let details = self.details().clone();
        json!({
            "paused": self.paused.load(Ordering::Acquire),
            "sent": count(&self.sent),
            "answered": count(&self.answered),
            "failed": count(&self.failed),
            "skipped": count(&self.skipped),
            "slowest_ms": count(&self.slowest_us) / 1000,
            "statuses": details.statuses,
            "releases": details.releases,
            "failures": details.failures,
        })
    }
}

pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let counts = Arc::new(Counts::default());
    let router = Router::new()
        .route("/stats", get(async |State(counts): State<Arc<Counts>>| Json(counts.report())))
        .route("/pause", post(async |State(counts): State<Arc<Counts>>| set_paused(&counts, true)))
        .route("/resume", post(async |State(counts): State<Arc<Counts>>| set_paused(&counts, false)))
        .with_state(Arc::clone(&counts));
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(15)).build().context("cannot set up the client")?;
    let sending = tokio::spawn(send_all(client, args.targets, args.rate, counts));
    let served = crate::serve_http(args.listen, router).await;
    sending.abort();
    served
}

fn set_paused(counts: &Counts, paused: bool) -> Json<Value> {
    counts.paused.store(paused, Ordering::Release);
    Json(counts.report())
}

async fn send_all(client: reqwest::Client, targets: Vec<String>, rate: u32, counts: Arc<Counts>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for target in targets.iter().cycle() {
        ticks.tick().await;
        while counts.paused.load(Ordering::Acquire) {
            ticks.tick().await;
        }
        if counts.open() >= MAX_OPEN {
            counts.skipped.fetch_add(1, Ordering::AcqRel);
            continue;
        }
        counts.sent.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(send_one(client.clone(), target.clone(), Arc::clone(&counts)));
    }
}

async fn send_one(client: reqwest::Client, target: String, counts: Arc<Counts>) {
    let started = Instant::now();
    let answer = exchange(&client, &target).await;
    let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    counts.slowest_us.fetch_max(took, Ordering::AcqRel);
    match answer {
        Ok(answer) => {
            let mut details = counts.details();
            if answer.status == 200 {
                *details.releases.entry(answer.release).or_default() += 1;
            } else if details.failures.len() < FAILURES_KEPT {
                details.failures.push(format!("{target}: {}: {}", answer.status, answer.text));
            }
            *details.statuses.entry(target).or_default().entry(answer.status.to_string()).or_default() += 1;
            drop(details);
            counts.answered.fetch_add(1, Ordering::AcqRel);
        }
        Err(error) => {
            let mut details = counts.details();
            if details.failures.len() < FAILURES_KEPT {
                details.failures.push(format!("{target}: {error:#}"));
            }
            drop(details);
            counts.failed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

struct Answer {
    status: u16,
    release: String,
    /// The start of the body of an answer that isn't 200.
    text: String,
}

async fn exchange(client: &reqwest::Client, target: &str) -> anyhow::Result<Answer> {
    let response = client.get(target).send().await.context("no answer")?;
    let status = response.status().as_u16();
    let release = response.headers().get("x-shop-release").and_then(|value| value.to_str().ok());
    let release = release.unwrap_or("none").to_owned();
    let body = response.bytes().await.context("the answer broke off")?;
    let text = if status == 200 { String::new() } else { String::from_utf8_lossy(&body).chars().take(200).collect() };
    Ok(Answer { status, release, text })
}
