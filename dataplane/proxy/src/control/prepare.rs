//! Makes filters ready off the data path: from disk or from the control plane, verified, compiled, configured. A filter
//! that is ready already with the same specification is not prepared again.

use std::collections::HashMap;
use std::sync::Arc;

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
}

impl Preparer {
    /// Makes all filters of `bundle` ready, reusing those of `known`.
    pub(super) async fn prepare(&self, bundle: &Bundle, known: &Filters) -> Result<Ready, NotReady> {
        let mut ready = Ready::default();
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
