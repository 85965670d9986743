//! Filters that take long are made ready behind what is in force: which may be, what becomes of them, and how that is told.
//! Invariant: an attachment is called loaded only once every snapshot made from then on runs it as it was told.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle};
use tracing::{info, warn};
use weft_filter_host::Prepared;
use weft_policy::bundle::{Bundle, FilterAttachment};
use weft_policy::delta::{Key, Object};
use weft_policy::wire::v1::proxy_message::Message;
use weft_policy::wire::{Received, v1};

use super::{Applier, Step};
use crate::control::prepare::{Preparer, Ready, Staging, Wait};
use crate::snapshot::{closes_rules, may_be_absent};
use crate::state::KeptBundle;
use crate::telemetry::names::Metric;

/// The version of an object that is held otherwise than anybody has numbered it.
const NO_VERSION: u64 = 0;

/// What became of a filter.
type Loaded = Result<Arc<Prepared>, String>;

/// Filters on their way: one of authorization and one of the others, so that a policy waits for no other filter.
#[derive(Default)]
pub(super) struct Lanes {
    authorization: Option<Loading>,
    others: Option<Loading>,
}

impl Lanes {
    /// The next filter that is ready, or can't be made so; never, where none is on its way. Cancel safe.
    pub(super) async fn ended(&mut self) -> (FilterAttachment, Result<Loaded, JoinError>) {
        let (is_authorization, result) = tokio::select! {
            result = ended(self.authorization.as_mut().map(|loading| &mut loading.task)) => (true, result),
            result = ended(self.others.as_mut().map(|loading| &mut loading.task)) => (false, result),
        };
        let loading = self.lane(is_authorization).take().expect("what has ended was on its way");
        (loading.attachment.clone(), result)
    }

    fn lane(&mut self, is_authorization: bool) -> &mut Option<Loading> {
        if is_authorization { &mut self.authorization } else { &mut self.others }
    }
}

/// A filter on its way.
struct Loading {
    attachment: FilterAttachment,
    task: JoinHandle<Loaded>,
}

impl Loading {
    fn begin(attachment: FilterAttachment, preparer: &Preparer) -> Self {
        let (name, digest) = (&attachment.name, &attachment.digest);
        info!(filter = name, digest, "a filter is made ready behind what is in force");
        let (preparer, own) = (preparer.clone(), attachment.clone());
        Self { attachment, task: tokio::spawn(async move { preparer.load(&own).await }) }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The end of a task; never, where there is none. Cancel safe.
pub(super) async fn ended<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The bundle that a start without a control plane is to serve, where that is not the one in force: what can't be made ready
/// is in it as it runs, or not at all, unless rules are closed for want of it.
pub(super) fn lasting(target: &KeptBundle, ready: &Ready) -> Option<KeptBundle> {
    let refused: Vec<_> = ready.awaited.iter().filter(|(_, wait)| wait.refused.is_some()).collect();
    if refused.is_empty() {
        return None;
    }
    let mut lasting = target.clone();
    for (name, wait) in refused {
        let key = Key::Filter(name.clone());
        match &wait.earlier {
            Some(earlier) => {
                lasting.bundle.filters.insert(name.clone(), earlier.clone());
                lasting.versions.insert(key, NO_VERSION);
            }
            // Without it the rules would be open that are closed for want of it.
            None if target.bundle.filters.get(name).is_some_and(closes_rules) => {}
            None => {
                lasting.bundle.filters.remove(name);
                lasting.versions.remove(&key);
            }
        }
    }
    Some(lasting)
}

impl Applier {
    /// Which filters of a delta may come after it. Without a snapshot in force, or where a workload is served for the first
    /// time, nothing could stand in for them; and what an app may call is not widened ahead of a filter that judges its calls.
    pub(super) fn staging(&self, received: &Received, target: &Bundle, stages: bool) -> Staging {
        let snapshot = self.control.shared.snapshot.load();
        let serves_all = snapshot
            .as_ref()
            .is_some_and(|snapshot| target.workloads.values().all(|workload| snapshot.serves(&workload.name)));
        let brings_callees = received.delta.upserts.iter().any(|object| match object {
            Object::Service(_) | Object::Route(_) | Object::External(_) => true,
            Object::Mesh(_) | Object::Workload(_) | Object::Filter(_) => false,
        });
        let is_told_anew = |name: &String| received.versions.contains_key(&Key::Filter(name.clone()));
        let waiting = self.ready.awaited.keys().filter(|name| !is_told_anew(name)).cloned();
        let is_on = stages && !self.kept && serves_all;
        Staging { is_on, of_calls: !brings_callees, closes_rules: false, waiting: waiting.collect() }
    }

    /// Brings what was prepared in step with what has become of awaited filters meanwhile. `waiting`: those that were awaited
    /// before it and were not told anew.
    pub(super) fn catch_up(&self, ready: &mut Ready, waiting: &HashSet<String>) {
        let names: Vec<_> = ready.awaited.keys().cloned().collect();
        for name in names {
            let before = self.ready.awaited.get(&name);
            if let Some(before) = before.filter(|_| waiting.contains(&name)) {
                ready.awaited.insert(name, before.clone());
            } else if waiting.contains(&name) {
                ready.awaited.remove(&name);
                match self.ready.filters.get(&name) {
                    Some(filter) => ready.filters.insert(name.clone(), Arc::clone(filter)),
                    None => ready.filters.remove(&name),
                };
                ready.failed.extend(self.ready.failed.get(&name).map(|reason| (name.clone(), reason.clone())));
            } else {
                let runs = || self.current.bundle.filters.get(&name).filter(|_| self.ready.filters.contains_key(&name));
                let earlier = before.map_or_else(|| runs().cloned(), |wait| wait.earlier.clone());
                ready.awaited.insert(name, Wait { earlier, refused: None });
            }
        }
    }

    /// Attachments that are being made ready.
    fn awaited(&self) -> impl Iterator<Item = &FilterAttachment> {
        let open = self.ready.awaited.iter().filter(|(_, wait)| wait.refused.is_none());
        open.filter_map(|(name, _)| self.current.bundle.filters.get(name))
    }

    /// The same as an ACK names them.
    pub(super) fn awaited_keys(&self) -> Vec<v1::Key> {
        self.awaited().map(|attachment| (&Key::Filter(attachment.name.clone())).into()).collect()
    }

    /// Makes the next awaited filters ready, where none is on its way.
    pub(super) fn load_next(&mut self) {
        for is_authorization in [true, false] {
            let on_its_way = self.loading.lane(is_authorization).as_ref().map(|loading| loading.attachment.clone());
            // One that nobody awaits any more makes room.
            if on_its_way.is_some_and(|on_its_way| self.awaited().any(|awaited| *awaited == on_its_way)) {
                continue;
            }
            let next = self.awaited().find(|attachment| attachment.authorization == is_authorization).cloned();
            let next = next.map(|attachment| Loading::begin(attachment, &self.preparer));
            *self.loading.lane(is_authorization) = next;
        }
    }

    /// A filter was made ready, or could not be.
    pub(super) fn loaded(&mut self, attachment: &FilterAttachment, result: Result<Loaded, JoinError>) -> Step {
        let result = result.unwrap_or_else(|error| Err(format!("preparing stopped: {error}")));
        // It may have been told otherwise meanwhile.
        let is_awaited = self.awaited().any(|awaited| awaited == attachment);
        let step = if is_awaited { self.settle(attachment, result) } else { Step::Nothing };
        self.load_next();
        step
    }

    fn settle(&mut self, attachment: &FilterAttachment, result: Loaded) -> Step {
        let name = &attachment.name;
        let mut ready = self.ready.clone();
        ready.awaited.remove(name);
        let settled = match result {
            Ok(filter) => {
                ready.filters.insert(name.clone(), filter);
                Ok(())
            }
            Err(reason) if may_be_absent(attachment) => {
                warn!(filter = name, reason, "filter is not ready and is skipped");
                ready.filters.remove(name);
                ready.failed.insert(name.clone(), reason);
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        let settled = settled.and_then(|()| self.swap(self.current.clone(), ready).map_err(|error| error.to_string()));
        let key = Key::Filter(name.clone());
        let (told, version) = (Some((&key).into()), self.current.versions.get(&key).copied().unwrap_or(NO_VERSION));
        let mut message = v1::Settled::default();
        match settled {
            Ok(()) => message.loaded.push(v1::ObjectVersion { key: told, version }),
            Err(reason) => {
                self.refuse(name, &reason);
                message.refused.push(v1::Unusable { key: told, version, reason });
            }
        }
        Step::Acked(Message::Settled(message))
    }

    /// A filter can't be made ready as it is told: what ran in its place goes on.
    fn refuse(&mut self, name: &str, reason: &str) {
        warn!(filter = name, reason, "filter refused; what ran in its place goes on");
        metrics::counter!(Metric::ConfigRefused.name()).increment(1);
        let mut ready = self.ready.clone();
        if let Some(wait) = ready.awaited.get_mut(name) {
            wait.refused = Some(reason.to_owned());
        }
        if let Err(error) = self.swap(self.current.clone(), ready) {
            warn!(%error, "what goes on without a filter could not be built anew");
        }
    }

    /// The versions that this proxy holds, as its Hello lists them: what runs in the place of an awaited filter has none.
    pub(in crate::control) fn known(&self) -> Vec<v1::ObjectVersion> {
        let mut versions = self.current.versions.clone();
        for name in self.ready.awaited.keys() {
            versions.entry(Key::Filter(name.clone())).and_modify(|version| *version = NO_VERSION);
        }
        weft_policy::wire::known(&versions)
    }

    /// State of our filters, as reported to the control plane.
    pub(in crate::control) fn filter_states(&self) -> Vec<v1::FilterState> {
        let state = |filter: &FilterAttachment| v1::FilterState {
            name: filter.name.clone(),
            digest: filter.digest.clone(),
            version: filter.version.clone(),
            state: self.state_of(&filter.name).text(),
        };
        self.current.bundle.filters.values().map(state).collect()
    }

    fn state_of(&self, name: &str) -> FilterState<'_> {
        match (self.ready.awaited.get(name), self.ready.failed.get(name)) {
            (Some(Wait { refused: Some(reason), .. }), _) => FilterState::Failed(reason),
            (Some(Wait { refused: None, earlier }), _) => FilterState::Compiling { has_earlier: earlier.is_some() },
            (None, Some(reason)) => FilterState::Skipped(reason),
            (None, None) => FilterState::Loaded,
        }
    }

    /// Counts the filters in force by state.
    pub(super) fn count_filters(&self) {
        let mut counts = [("loaded", 0_u32), ("compiling", 0), ("skipped", 0), ("failed", 0)];
        for name in self.current.bundle.filters.keys() {
            let word = self.state_of(name).word();
            counts.iter_mut().filter(|(known, _)| *known == word).for_each(|(_, count)| *count += 1);
        }
        for (state, count) in counts {
            metrics::gauge!(Metric::FilterStates.name(), "state" => state).set(count);
        }
    }
}

/// How a filter is that was told.
enum FilterState<'a> {
    Loaded,
    Compiling {
        has_earlier: bool,
    },
    /// Requests pass it by.
    Skipped(&'a str),
    /// It is needed, and what ran in its place goes on.
    Failed(&'a str),
}

impl FilterState<'_> {
    fn word(&self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Compiling { .. } => "compiling",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Loaded | Self::Compiling { has_earlier: false } => self.word().to_owned(),
            Self::Compiling { has_earlier: true } => "compiling (an earlier configuration of it runs)".to_owned(),
            Self::Skipped(reason) | Self::Failed(reason) => format!("{}: {reason}", self.word()),
        }
    }
}
