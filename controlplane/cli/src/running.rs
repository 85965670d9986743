//! `weft filter run`: one filter before an app of this machine. A control plane and two sidecars of its own run it, so that
//! it is published, tried, signed, fetched, compiled and swapped as in production. A change of the source is built and
//! taken over beside the traffic; what does not build or is refused is told, and the last good version goes on.

mod lines;
mod mesh;
mod plan;
mod relay;
mod sources;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use tokio::net::TcpListener;
use weft_api::{FilterVersion, PublishQuery, VersionQuery};

use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Told, segment};
use crate::commands::filter::{RunArgs, new_key, upload};
use crate::commands::{apply, wait};
use crate::manifests::Manifests;
use crate::output;
use crate::run::Signals;
use mesh::Mesh;
use plan::{Plan, Spec};
use sources::Sources;

/// How often the sources are looked at; a change is taken up once two looks in a row saw the same.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks in a row that may fail: a folder may go while it is read.
const FORGIVEN: u32 = 25;
/// How long the app's sidecar may take to compile a version and to take it over.
const TAKING: Duration = Duration::from_secs(90);

pub(crate) async fn run(args: RunArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let plan = Plan::new(&args)?;
    let sources = Sources::new(plan.roots())?;
    let component = plan.component().await?;
    let mut mesh = Mesh::build()?;
    let outcome = tokio::select! {
        outcome = Box::pin(serve(&args, &plan, &mut mesh, sources, component)) => outcome,
        _ = signals.next() => Ok(Answer::Yes),
    };
    mesh.end(outcome.is_ok()).await;
    outcome
}

async fn serve(args: &RunArgs, plan: &Plan, mesh: &mut Mesh, sources: Sources, component: Vec<u8>) -> Outcome {
    Box::pin(mesh.open(args.to, &args.identity)).await?;
    let key = new_key(&mesh.folder().join("publisher.key"))?;
    let mut filter = Filter { client: mesh.api()?, key, attempts: 0, taken: None };
    Box::pin(filter.take(plan, component)).await?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen at {}", args.listen))?;
    let at = listener.local_addr().context("the listener has no address")?;
    let (name, to, caller) = (plan.name(), args.to, &args.identity);
    output::say(&format!("http://{at} leads through {name} to {to}, as {caller}; Ctrl-C ends it"));
    let (explicit, log) = (mesh.explicit(), mesh.app_log());
    tokio::select! {
        error = relay::serve(listener, explicit, mesh::TARGET) => Err(error.into()),
        error = lines::follow(&log, name) => Err(error.into()),
        error = mesh.gone() => Err(error.into()),
        error = follow(plan, &mut filter, sources) => Err(error.into()),
    }
}

/// Takes over each change, until the sources can't be looked at any more; gives why.
async fn follow(plan: &Plan, filter: &mut Filter, mut sources: Sources) -> anyhow::Error {
    let mut failed = 0;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match sources.changed() {
            Ok(is_changed) => {
                failed = 0;
                if !is_changed {
                    continue;
                }
            }
            Err(_) if failed < FORGIVEN => {
                failed += 1;
                continue;
            }
            Err(error) => return error.context("the sources can't be looked at"),
        }
        let began = Instant::now();
        let outcome = match plan.component().await {
            Ok(component) => Box::pin(filter.take(plan, component)).await,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(true) => {
                let took = output::duration(began.elapsed());
                output::say(&format!("version {} is in force, {took} after the change", filter.version()));
            }
            Ok(false) => output::say("nothing that runs has changed"),
            Err(failure) => {
                output::complain(&format!("not taken over: {failure}\nversion {} goes on", filter.version()));
            }
        }
    }
}

/// The filter as the control plane has it.
struct Filter {
    client: Client,
    key: SigningKey,
    attempts: u32,
    /// What is in force.
    taken: Option<Taken>,
}

struct Taken {
    version: String,
    component: Vec<u8>,
    spec: Spec,
}

impl Filter {
    fn version(&self) -> &str {
        self.taken.as_ref().map_or("none", |taken| taken.version.as_str())
    }

    /// Publishes a component and has it run under the policy as it is now; false where both are what runs already.
    async fn take(&mut self, plan: &Plan, component: Vec<u8>) -> Result<bool, Failure> {
        let spec = plan.spec()?;
        let known = self.taken.as_ref().filter(|taken| taken.component == component);
        if known.is_some_and(|taken| taken.spec == spec) {
            return Ok(false);
        }
        let version = match known.map(|taken| taken.version.clone()) {
            Some(version) => version,
            None => self.publish(plan, component.clone()).await?,
        };
        let manifest = output::yaml(&plan.manifest(&spec, &version))?;
        let manifests = Manifests::of_text("the filter's policy", &manifest)?;
        // Nobody but the author of the filter is protected by its policy here.
        let how = apply::Submit { force: true, ..apply::Submit::default() };
        let revision = apply::submit(&self.client, &manifests, how).await?.revision;
        match wait::watch(&self.client, revision, TAKING, &|_| {}).await? {
            wait::Verdict::Everywhere { held, .. } if held.is_empty() => {}
            wait::Verdict::Everywhere { held, .. } => return Err(Failure::Refused(held.join("\n"))),
            wait::Verdict::NotEverywhere(lines) => return Err(Failure::Refused(lines)),
        }
        let before = self.taken.replace(Taken { version, component, spec });
        if let Some(before) = before.filter(|before| before.version != self.version()) {
            self.forget(plan, before.version).await;
        }
        Ok(true)
    }

    /// Publishes a component as the next version; gives that.
    async fn publish(&mut self, plan: &Plan, component: Vec<u8>) -> Result<String, Failure> {
        self.attempts += 1;
        let version = format!("0.0.{}", self.attempts);
        let query = PublishQuery { name: plan.name().to_owned(), version: version.clone(), ..PublishQuery::default() };
        Box::pin(upload(&self.client, plan.what(), component, &self.key, &query)).await?;
        Ok(version)
    }

    /// An old version takes room; that it stays where it can't be deleted hurts nobody.
    async fn forget(&self, plan: &Plan, version: String) {
        let path = format!("/filters/{}", segment(plan.name()));
        let gone: Result<Told<FilterVersion>, _> = self.client.delete(&path, &VersionQuery { version }).await;
        drop(gone);
    }
}
