//! Makes filters ready off the data path: from disk or from the control plane, verified, compiled, configured. A filter
//! that is ready already with the same specification is not prepared again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};
use weft_filter_host::{Digest, FilterSpec, Host, Prepared};
use weft_policy::bundle::{Bundle, FilterAttachment, OnFailure};
use weft_policy::wire::v1;
use weft_transport::tls::IdentityHandle;

use super::channel::{Channel, ChannelError};
use crate::state::{State, StateError};

/// Filters by attachment name.
pub(super) type Filters = HashMap<String, Arc<Prepared>>;

/// Result of preparing the filters of a bundle.
#[derive(Debug, Default, Clone)]
pub(super) struct Ready {
    pub filters: Filters,
    /// Filters with onFailure Allow that are not ready, and why; requests pass them by.
    pub failed: HashMap<String, String>,
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
}

/// The largest filter binary taken.
const MAX_FILTER_BYTES: usize = 64 << 20;

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
    /// Makes all filters of `bundle` ready, reusing those of `known`.
    pub(super) async fn prepare(&self, bundle: &Bundle, known: &Filters) -> Result<Ready, NotReady> {
        let mut ready = Ready::default();
        self.failures().0.retain(|name, _| bundle.filters.values().any(|attachment| attachment.name == *name));
        for attachment in bundle.filters.values() {
            match self.one(attachment, known).await {
                Ok(filter) => {
                    ready.filters.insert(attachment.name.clone(), filter);
                }
                Err(reason) if attachment.on_failure == OnFailure::Allow && !attachment.authorization => {
                    warn!(filter = attachment.name, reason, "filter is not ready and is skipped");
                    ready.failed.insert(attachment.name.clone(), reason);
                }
                Err(reason) => return Err(NotReady { filter: attachment.name.clone(), reason }),
            }
        }
        Ok(ready)
    }

    async fn one(&self, attachment: &FilterAttachment, known: &Filters) -> Result<Arc<Prepared>, String> {
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
            Err(_) if attachment.on_failure != OnFailure::Allow || attachment.authorization => {}
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
        let mut wasm = Vec::new();
        let mut resumed = 0;
        loop {
            match self.fetch(digest, &mut wasm).await {
                Ok(()) => break,
                Err(error @ FetchError::TooLarge(_)) => return Err(error),
                Err(error) if resumed >= 3 => return Err(error),
                Err(_) => resumed += 1,
            }
        }
        info!(digest, bytes = wasm.len(), "filter fetched");
        self.state.keep_filter(digest, &wasm)?;
        Ok(wasm)
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
