//! Makes filters ready off the data path: from disk or from the control plane, verified, compiled, configured. A filter
//! that is ready already with the same specification is not prepared again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};
use weft_filter_host::{Digest, FilterSpec, Host, Prepared};
use weft_policy::bundle::{Bundle, Direction, FilterAttachment};
use weft_policy::wire::v1;
use weft_transport::tls::IdentityHandle;

use super::channel::{Channel, ChannelError};
use crate::snapshot::{Awaited, Loaded, Readiness, closes_rules, is_required, may_be_absent};
use crate::state::{State, StateError};

/// Result of preparing the filters of a bundle.
#[derive(Debug, Default, Clone)]
pub(super) struct Ready {
    /// By attachment name; of one that is awaited, the configuration that ran before.
    pub filters: Loaded,
    /// Filters with onFailure Allow that are not ready, and why; requests pass them by.
    pub failed: HashMap<String, String>,
    /// Filters that do not run as they are told, by attachment name.
    pub awaited: BTreeMap<String, Wait>,
}

/// A filter that is told and does not run yet.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Wait {
    /// The attachment in whose configuration it runs meanwhile.
    pub earlier: Option<FilterAttachment>,
    /// Why it can't be made ready as it is told.
    pub refused: Option<String>,
}

impl Ready {
    /// As a snapshot asks for it.
    pub(super) fn awaited(&self) -> Awaited {
        let readiness = |wait: &Wait| match wait.refused {
            Some(_) => Readiness::Failed,
            None => Readiness::Pending,
        };
        self.awaited.iter().map(|(name, wait)| (name.clone(), readiness(wait))).collect()
    }

    /// Names of those that can't be made ready as they are told.
    pub(super) fn refused(&self) -> impl Iterator<Item = &String> {
        self.awaited.iter().filter(|(_, wait)| wait.refused.is_some()).map(|(name, _)| name)
    }
}

/// Which filters of a bundle may be made ready after it is in force.
#[derive(Debug, Default, Clone)]
pub(super) struct Staging {
    /// Any may: something is in force that can stand in for them, and the control plane can be told so.
    pub is_on: bool,
    /// Also those that would refuse calls of an app, whatever rule they take: nothing comes with them that it could call.
    /// Those of certain rules come later in any case: a rule that lacks one is closed.
    pub of_calls: bool,
    /// One of certain rules that can't be made ready keeps nothing else from being served: its rules are closed.
    pub closes_rules: bool,
    /// Those that are awaited already, and are not told anew.
    pub waiting: HashSet<String>,
}

impl Staging {
    fn allows(&self, attachment: &FilterAttachment) -> bool {
        let stands_in = self.of_calls || attachment.direction == Direction::Inbound || closes_rules(attachment);
        self.is_on && (stands_in || !is_required(attachment))
    }
}

/// A filter that must be ready and is not.
#[derive(Debug)]
pub(super) struct NotReady {
    pub filter: String,
    pub reason: String,
}

/// Why a binary could not be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("state directory")]
    State(#[from] StateError),
    #[error("control plane")]
    Channel(#[from] ChannelError),
    #[error("the binary has more than {0} bytes")]
    TooLarge(usize),
    #[error("the control plane sends another binary than {wanted}: {found}")]
    Other { wanted: String, found: Digest },
}

/// The largest filter binary taken.
const MAX_FILTER_BYTES: usize = 64 << 20;

/// How often a binary is fetched that turns out to be another than it was asked for.
const FETCHES: usize = 2;

/// Parts that prepare filters: the host of filters, and the places where binaries come from.
#[derive(Clone)]
pub(super) struct Preparer {
    pub host: Host,
    pub state: State,
    pub channel: Channel,
    pub identity: IdentityHandle,
    pub failures: Arc<Mutex<Failures>>,
}

/// How long a filter that requests may pass by is not tried again: at first, and at the most. Each configuration would wait
/// for it otherwise, also one that only answers a first call.
const TRIED_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// Filters that could not be made ready, by attachment.
#[derive(Debug)]
pub(super) struct Failures<S = FilterSpec>(HashMap<String, Failed<S>>);

#[derive(Debug)]
struct Failed<S> {
    spec: S,
    reason: String,
    until: Instant,
    wait: Duration,
}

impl<S> Default for Failures<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S: PartialEq> Failures<S> {
    /// Why a filter of this specification is not tried now.
    fn of(&self, name: &str, spec: &S, now: Instant) -> Option<String> {
        let failed = self.0.get(name).filter(|failed| failed.spec == *spec && now < failed.until)?;
        Some(failed.reason.clone())
    }

    fn note(&mut self, name: &str, spec: S, reason: &str, now: Instant) {
        let before = self.0.get(name).filter(|failed| failed.spec == spec).map(|failed| failed.wait);
        let wait = before.map_or(TRIED_AGAIN.0, |wait| (wait * 2).min(TRIED_AGAIN.1));
        self.0.insert(name.to_owned(), Failed { spec, reason: reason.to_owned(), until: now + wait, wait });
    }

    fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

impl Preparer {
    /// Makes the filters of `bundle` ready, reusing those of `known`; those that must be fetched or compiled first are awaited,
    /// as far as `staging` lets them.
    pub(super) async fn prepare(&self, bundle: &Bundle, known: &Loaded, staging: &Staging) -> Result<Ready, NotReady> {
        let mut ready = Ready::default();
        self.failures().0.retain(|name, _| bundle.filters.values().any(|attachment| attachment.name == *name));
        for attachment in bundle.filters.values() {
            let name = &attachment.name;
            let is_waiting = staging.waiting.contains(name);
            if is_waiting || staging.allows(attachment) && self.takes_long(attachment, known) {
                ready.filters.extend(known.get(name).map(|earlier| (name.clone(), Arc::clone(earlier))));
                ready.awaited.insert(name.clone(), Wait::default());
                continue;
            }
            match self.one(attachment, known).await {
                Ok(filter) => {
                    ready.filters.insert(name.clone(), filter);
                }
                Err(reason) if may_be_absent(attachment) => {
                    warn!(filter = name, reason, "filter is not ready and is skipped");
                    ready.failed.insert(name.clone(), reason);
                }
                Err(reason) if staging.closes_rules && closes_rules(attachment) => {
                    warn!(filter = name, reason, "filter is not ready; the rules that it is attached to are closed");
                    ready.awaited.insert(name.clone(), Wait { earlier: None, refused: Some(reason) });
                }
                Err(reason) => return Err(NotReady { filter: name.clone(), reason }),
            }
        }
        Ok(ready)
    }

    /// True where the filter is to be fetched or compiled.
    fn takes_long(&self, attachment: &FilterAttachment, known: &Loaded) -> bool {
        let Ok(spec) = FilterSpec::try_from(attachment) else { return false };
        let is_known = known.get(&attachment.name).is_some_and(|filter| *filter.spec() == spec);
        let is_decided = || self.failures().of(&attachment.name, &spec, Instant::now()).is_some();
        let is_here = || self.host.is_decided(&spec.digest) && self.state.has_filter(&attachment.digest);
        !is_known && !is_decided() && !is_here()
    }

    /// Makes one filter ready.
    pub(super) async fn load(&self, attachment: &FilterAttachment) -> Result<Arc<Prepared>, String> {
        self.one(attachment, &Loaded::new()).await
    }

    async fn one(&self, attachment: &FilterAttachment, known: &Loaded) -> Result<Arc<Prepared>, String> {
        let spec = FilterSpec::try_from(attachment).map_err(|error| error.to_string())?;
        if let Some(filter) = known.get(&attachment.name).filter(|filter| *filter.spec() == spec) {
            return Ok(Arc::clone(filter));
        }
        if let Some(reason) = self.failures().of(&attachment.name, &spec, Instant::now()) {
            return Err(reason);
        }
        let made = self.make(attachment, spec.clone()).await;
        let mut failures = self.failures();
        match &made {
            Ok(_) => failures.forget(&attachment.name),
            // Whatever needs this one waits for it, and asks for it again.
            Err(_) if !may_be_absent(attachment) => {}
            Err(reason) => failures.note(&attachment.name, spec, reason, Instant::now()),
        }
        made
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(&self, attachment: &FilterAttachment, spec: FilterSpec) -> Result<Arc<Prepared>, String> {
        let wasm = self.binary(&attachment.digest).await.map_err(|error| crate::chain(&error))?;
        let host = self.host.clone();
        let name = attachment.name.clone();
        let prepared = tokio::task::spawn_blocking(move || host.prepare(&spec, &wasm))
            .await
            .map_err(|error| format!("preparing stopped: {error}"))?
            .map_err(|error| crate::chain(&error))?;
        debug!(filter = name, "filter ready");
        Ok(prepared)
    }

    async fn binary(&self, digest: &str) -> Result<Vec<u8>, FetchError> {
        if let Some(wasm) = self.state.filter(digest)? {
            if Digest::of(&wasm).to_string() == digest {
                return Ok(wasm);
            }
            warn!(digest, "the kept filter is damaged: it is fetched again");
        }
        let mut fetched = 0;
        loop {
            let wasm = self.fetch_whole(digest).await?;
            fetched += 1;
            let found = Digest::of(&wasm);
            // What is not what was asked for is never kept.
            if found.to_string() == digest {
                info!(digest, bytes = wasm.len(), "filter fetched");
                self.state.keep_filter(digest, &wasm)?;
                return Ok(wasm);
            }
            warn!(digest, %found, bytes = wasm.len(), "the fetched filter is damaged");
            if fetched == FETCHES {
                return Err(FetchError::Other { wanted: digest.to_owned(), found });
            }
        }
    }

    /// Fetches a binary, going on where a stream broke off.
    async fn fetch_whole(&self, digest: &str) -> Result<Vec<u8>, FetchError> {
        let mut wasm = Vec::new();
        let mut resumed = 0;
        loop {
            match self.fetch(digest, &mut wasm).await {
                Ok(()) => return Ok(wasm),
                Err(error @ (FetchError::TooLarge(_) | FetchError::Other { .. })) => return Err(error),
                Err(error) if resumed >= 3 => return Err(error),
                Err(FetchError::State(_) | FetchError::Channel(_)) => resumed += 1,
            }
        }
    }

    /// Fetches what is missing after the bytes that are here.
    async fn fetch(&self, digest: &str, wasm: &mut Vec<u8>) -> Result<(), FetchError> {
        let mut client = self.channel.mutual(&self.identity)?;
        let offset = wasm.len() as u64;
        let request = v1::FetchFilterRequest { digest: digest.to_owned(), offset };
        let mut chunks = client.fetch_filter(request).await.map_err(ChannelError::from)?.into_inner();
        while let Some(chunk) = chunks.message().await.map_err(ChannelError::from)? {
            if wasm.len() + chunk.data.len() > MAX_FILTER_BYTES {
                return Err(FetchError::TooLarge(MAX_FILTER_BYTES));
            }
            wasm.extend_from_slice(&chunk.data);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_not_tried_by_each_configuration() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(failures.of("f", &"a", now), None);
        failures.note("f", "a", "no such import", now);
        assert_eq!(failures.of("f", &"a", after(29)).as_deref(), Some("no such import"));
        assert_eq!(failures.of("f", &"b", after(29)), None, "another configuration of it is another try");
        assert_eq!(failures.of("f", &"a", after(30)), None);
        failures.note("f", "a", "again", after(30));
        assert!(failures.of("f", &"a", after(89)).is_some() && failures.of("f", &"a", after(90)).is_none());
        failures.forget("f");
        assert_eq!(failures.of("f", &"a", after(31)), None);
    }
}
