//! Steady changes by the operator API: so many a second for a while, and how long until each proxy that uses what changed
//! knows. Each change is a call of its own; nothing waits for the proxies.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::process::Process;
use crate::statistics::{count, ms, percentile};
use crate::swarm::Swarm;

/// Nobody hears anything for so long after the last change: all is told.
const QUIET: Duration = Duration::from_secs(2);
/// How often it is looked whether the last change was answered.
const LOOK: Duration = Duration::from_millis(200);
/// Calls that are on their way at a time; with as many the next waits, and the rate that is reached says so.
const ON_THEIR_WAY: usize = 32;
const ANSWER: Duration = Duration::from_secs(30);

/// Where the changes go.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// `https://ADDRESS:PORT`.
    pub(crate) server: String,
    pub(crate) token: String,
    pub(crate) ca_pem: String,
}

/// How many, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) a_second: u32,
    pub(crate) seconds: u32,
}

/// What they came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Steady {
    /// Changes answered a second.
    pub(crate) a_second: f64,
    /// From the call until its answer.
    pub(crate) answered_p99_ms: f64,
    /// From the call until a proxy that uses the service knows: over all pairs of both.
    pub(crate) told_p50_ms: f64,
    pub(crate) told_p99_ms: f64,
    pub(crate) told_max_ms: f64,
    /// The control plane's processor time for each change, until all is quiet.
    pub(crate) cpu_ms_per_change: f64,
}

/// One change that was answered.
#[derive(Debug, Clone, Copy)]
struct Made {
    service: usize,
    called: Instant,
    answered: Instant,
    revision: u64,
}

#[derive(Deserialize)]
struct Applied {
    revision: u64,
}

/// Changes services in turn, `manifest(service, nth)` each.
pub(crate) fn changes(
    api: &Api,
    pace: Pace,
    services: usize,
    manifest: fn(usize, u32) -> serde_json::Value,
    (control, swarm): (&mut Process, &mut Swarm),
) -> Result<Steady> {
    let (say, said) = channel();
    let (api, before, began) = (api.clone(), control.usage(), Instant::now());
    let calling = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let made = runtime.block_on(call(api, pace, services, manifest));
        drop(say);
        made
    });
    let heard = listen(swarm, &said);
    let made = calling.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
    swarm.check()?;
    control.check()?;
    let cpu = control.usage().cpu.saturating_sub(before.cpu);
    let Some(last) = made.iter().map(|made| made.answered).max() else { bail!("no change was made") };
    let told_ms = told(swarm, &made, &heard)?;
    let answered: Vec<f64> = made.iter().map(|made| ms(made.answered.duration_since(made.called))).collect();
    Ok(Steady {
        a_second: count(made.len() as u64) / last.duration_since(began).as_secs_f64(),
        answered_p99_ms: percentile(&answered, 99.0),
        told_p50_ms: percentile(&told_ms, 50.0),
        told_p99_ms: percentile(&told_ms, 99.0),
        told_max_ms: told_ms.iter().copied().fold(0.0, f64::max),
        cpu_ms_per_change: ms(cpu) / count(made.len() as u64),
    })
}

/// The operator's token and the root, where a control plane keeps its state.
pub(crate) fn api(server: String, state: &Path) -> Result<Api> {
    let read = |name: &str| std::fs::read_to_string(state.join(name)).with_context(|| format!("reading {name}"));
    Ok(Api { server, token: read("operator.token")?.trim().to_owned(), ca_pem: read("ca.pem")? })
}

/// What each proxy was told, and when, until the caller is done and all is quiet.
fn listen(swarm: &mut Swarm, calling: &Receiver<()>) -> BTreeMap<usize, Vec<(Instant, u64)>> {
    let mut heard: BTreeMap<usize, Vec<(Instant, u64)>> = BTreeMap::new();
    loop {
        let is_over = matches!(calling.try_recv(), Err(TryRecvError::Disconnected));
        match swarm.next(if is_over { QUIET } else { LOOK }) {
            Some(told) => {
                if let Some(revision) = told.revision {
                    heard.entry(told.proxy).or_default().push((told.at, revision));
                }
            }
            None if is_over => return heard,
            None => {}
        }
    }
}

/// For each change and each proxy that uses its service: from the call until it knew.
fn told(swarm: &Swarm, made: &[Made], heard: &BTreeMap<usize, Vec<(Instant, u64)>>) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for change in made {
        for proxy in swarm.who_uses(change.service) {
            let messages = heard.get(&proxy).map(Vec::as_slice).unwrap_or_default();
            // What a proxy is told has ever higher revisions.
            let first = messages.partition_point(|(_, revision)| *revision < change.revision);
            let Some((at, _)) = messages.get(first) else {
                bail!("proxy {proxy} was never told of revision {}", change.revision);
            };
            all.push(ms(at.saturating_duration_since(change.called)));
        }
    }
    Ok(all)
}

async fn call(
    api: Api,
    pace: Pace,
    services: usize,
    manifest: fn(usize, u32) -> serde_json::Value,
) -> Result<Vec<Made>> {
    let (client, api) = (client(&api)?, Arc::new(api));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / pace.a_second.max(1));
    let (mut calls, mut made) = (JoinSet::new(), Vec::new());
    for nth in 0..pace.a_second * pace.seconds {
        tick.tick().await;
        while let Some(answered) = calls.try_join_next() {
            made.push(answered??);
        }
        if calls.len() >= ON_THEIR_WAY
            && let Some(answered) = calls.join_next().await
        {
            made.push(answered??);
        }
        let service = nth as usize % services;
        calls.spawn(change(client.clone(), api.clone(), service, manifest(service, nth)));
    }
    while let Some(answered) = calls.join_next().await {
        made.push(answered??);
    }
    Ok(made)
}

async fn change(client: reqwest::Client, api: Arc<Api>, service: usize, document: serde_json::Value) -> Result<Made> {
    let called = Instant::now();
    let request = client.post(format!("{}/api/v1/apply", api.server)).bearer_auth(&api.token);
    let answer = request.json(&serde_json::json!({ "documents": [document] })).send().await.context("a change")?;
    if !answer.status().is_success() {
        bail!("a change was answered {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    let applied: Applied = answer.json().await.context("its answer")?;
    Ok(Made { service, called, answered: Instant::now(), revision: applied.revision })
}

fn client(api: &Api) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pki_types::pem::PemObject::pem_slice_iter(api.ca_pem.as_bytes()) {
        roots.add(certificate.context("the root")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().timeout(ANSWER);
    Ok(client.build()?)
}
