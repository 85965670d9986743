//! From a spec and bytes to a filter that can be called: verified, compiled, linked with what was granted, configured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use wasmtime::component::{Component, Linker};

use crate::bindings::v01::FilterPre;
use crate::bindings::v01::weft::filter::types::{self, Wants};
use crate::breaker::Breaker;
use crate::chain::Hooks;
use crate::grants::GrantError;
use crate::host::Inner;
use crate::imports::v01::{self, IMPORTS};
use crate::instance::{Instance, StartError};
use crate::spec::FilterSpec;
use crate::state::{ConfigShared, Shared, State};
use crate::stats::HostStats;
use crate::verify::{VerifyError, verify};

/// Header names of one interest list at the most.
const MAX_HEADERS: usize = 64;
/// A single call may not take longer, whatever the spec says.
const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A filter ready to be called by every worker. Dropping the last reference lets workers free their instances.
#[derive(Debug)]
pub struct Prepared {
    spec: FilterSpec,
    interest: Interest,
    host: Arc<Inner>,
    shared: Arc<Shared>,
    pub(crate) config: Arc<ConfigShared>,
    pub(crate) breaker: Breaker,
    /// Place in each worker's table, and the id that tells it from earlier owners of the place.
    pub(crate) slot: usize,
    pub(crate) id: u64,
    pre: Pre,
    /// Made ahead for the workers that will ask first.
    spares: Mutex<Vec<Instance>>,
}

struct Pre(FilterPre<State>);

impl std::fmt::Debug for Pre {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pre")
    }
}

/// Hooks and headers that a filter asked for when it was configured; it gets these and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    pub hooks: Hooks,
    pub request_headers: Vec<HeaderName>,
    pub response_headers: Vec<HeaderName>,
    pub(crate) wants: Wants,
    /// It sees request headers under names that servers take for those that it asked for, too.
    pub(crate) sees_alike: bool,
}

impl Interest {
    /// True when the filter may keep something for a stream from one hook to a later one.
    pub(crate) fn is_stateful(&self) -> bool {
        let hooks = [self.hooks.connection || self.hooks.request_head, self.hooks.response_head, self.hooks.done];
        hooks.into_iter().filter(|hook| *hook).count() > 1
    }
}

/// Why a filter can't be used. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("filter {name}: {source}")]
    Verify { name: String, source: VerifyError },
    #[error("filter {name}: {capability:?} is no capability")]
    UnknownCapability { name: String, capability: String },
    #[error("filter {name}: {reason}")]
    Grants { name: String, reason: String },
    #[error("filter {name} needs the capability {capability:?}, which its FilterPolicy does not grant")]
    NotGranted { name: String, capability: String },
    #[error("filter {name} imports {import}, which is not part of weft:filter@0.1.0")]
    UnknownImport { name: String, import: String },
    #[error("filter {name} is not a component of the world weft:filter@0.1.0: {reason}")]
    WrongWorld { name: String, reason: String },
    #[error("filter {name} is granted {bytes} bytes of memory, the proxy allows at most {max}")]
    Memory { name: String, bytes: u64, max: usize },
    #[error("filter {name} can't be instantiated: {reason}")]
    Instantiate { name: String, reason: String },
    #[error("filter {name} failed while it was configured: {reason}")]
    Configure { name: String, reason: String },
    #[error("filter {name} refuses its configuration: {reason}")]
    Refused { name: String, reason: String },
    #[error("filter {name} asks for what it can't have: {reason}")]
    Interest { name: String, reason: String },
}

impl Prepared {
    pub(crate) fn new(host: &Arc<Inner>, spec: &FilterSpec, wasm: &[u8]) -> Result<Self, PrepareError> {
        let name = || spec.name.clone();
        verify(spec, wasm).map_err(|source| PrepareError::Verify { name: name(), source })?;
        let config = ConfigShared::new(host, spec).map_err(|error| match error {
            GrantError::Unknown(capability) => PrepareError::UnknownCapability { name: name(), capability },
            GrantError::Twice(_) | GrantError::Kv { .. } | GrantError::Callouts(_) => {
                PrepareError::Grants { name: name(), reason: error.to_string() }
            }
        })?;
        let config = Arc::new(config);
        let max = host.config.max_memory_bytes;
        let memory_bytes = usize::try_from(spec.memory_bytes).ok().filter(|bytes| *bytes <= max);
        let memory_bytes = memory_bytes.ok_or(PrepareError::Memory { name: name(), bytes: spec.memory_bytes, max })?;
        let wrong_world =
            |error: wasmtime::Error| PrepareError::WrongWorld { name: name(), reason: format!("{error:#}") };
        let component = host.component(&spec.digest, wasm).map_err(wrong_world)?;
        check_imports(&component, spec)?;
        let mut linker = Linker::new(&host.engine);
        v01::link(&mut linker, &spec.capabilities).map_err(wrong_world)?;
        let pre = linker.instantiate_pre(&component).and_then(FilterPre::new).map_err(wrong_world)?;
        let shared = Arc::new(Shared::new(host, memory_bytes, config.stats.clone()));
        let (spares, interest) = start_spares(&pre, (&shared, &config), spec, host.config.workers)?;
        let (slot, id) = host.take_slot();
        host.buckets.sweep();
        Ok(Self {
            spec: spec.clone(),
            interest,
            host: host.clone(),
            shared,
            config,
            breaker: Breaker::default(),
            slot,
            id,
            pre: Pre(pre),
            spares: Mutex::new(spares),
        })
    }

    pub fn spec(&self) -> &FilterSpec {
        &self.spec
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// False while the breaker keeps it from being called.
    pub fn is_serving(&self) -> bool {
        !self.breaker.is_open(self.host.started.elapsed())
    }

    pub(crate) fn host_stats(&self) -> HostStats {
        HostStats {
            name: self.spec.name.clone(),
            filter: self.spec.filter.clone(),
            version: self.spec.version.clone(),
            digest: self.spec.digest,
            serving: self.is_serving(),
            stats: self.config.stats.clone(),
        }
    }

    /// An instance for one worker: a spare one, or a new one, which costs microseconds and its `configure`.
    pub(crate) fn instance(&self) -> Result<Instance, StartError> {
        if let Some(spare) = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(spare);
        }
        let of = (&self.shared, &self.config);
        let started = Instance::start(&self.pre.0, of, &self.spec.config_json, call_timeout(&self.spec));
        started.map(|(instance, _)| instance)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.host.return_slot(self.slot);
    }
}

fn call_timeout(spec: &FilterSpec) -> Duration {
    spec.call_timeout.min(MAX_CALL_TIMEOUT)
}

/// Refuses what is not granted by name, ahead of the linker's own words.
fn check_imports(component: &Component, spec: &FilterSpec) -> Result<(), PrepareError> {
    for (import, _) in component.component_type().imports(component.engine()) {
        let name = spec.name.clone();
        match IMPORTS.iter().find(|(known, _)| *known == import) {
            None => return Err(PrepareError::UnknownImport { name, import: import.to_owned() }),
            Some((_, Some(capability))) if !spec.capabilities.iter().any(|granted| granted == capability) => {
                return Err(PrepareError::NotGranted { name, capability: (*capability).to_owned() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Makes an instance for each worker and learns what the filter asks for.
fn start_spares(
    pre: &FilterPre<State>,
    of: (&Arc<Shared>, &Arc<ConfigShared>),
    spec: &FilterSpec,
    workers: usize,
) -> Result<(Vec<Instance>, Interest), PrepareError> {
    let name = || spec.name.clone();
    let start = || {
        Instance::start(pre, of, &spec.config_json, call_timeout(spec)).map_err(|error| match error {
            StartError::Instantiate(error) => PrepareError::Instantiate { name: name(), reason: format!("{error:#}") },
            StartError::Configure(error) => PrepareError::Configure { name: name(), reason: format!("{error:#}") },
            StartError::Refused(reason) => {
                let reason = reason.chars().take(1_024).collect();
                PrepareError::Refused { name: name(), reason }
            }
        })
    };
    let (first, asked) = start()?;
    let interest =
        parse_interest(asked, spec.authorization).map_err(|reason| PrepareError::Interest { name: name(), reason })?;
    let mut spares = vec![first];
    for _ in 1..workers {
        spares.push(start()?.0);
    }
    Ok((spares, interest))
}

fn parse_interest(asked: types::Interest, authorization: bool) -> Result<Interest, String> {
    let names = |list: Vec<String>| {
        // Each name that a rule has may be there in another spelling.
        let most = if authorization { 2 * MAX_HEADERS } else { MAX_HEADERS };
        if list.len() > most {
            return Err(format!("{} header names, at most {most} are possible", list.len()));
        }
        let parse = |name: &String| {
            let parsed = HeaderName::from_lowercase(name.as_bytes());
            parsed.map_err(|_| {
                format!("{:?} is not a header name in lower case", name.chars().take(64).collect::<String>())
            })
        };
        list.iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let hooks = Hooks {
        connection: asked.hooks.contains(types::Hooks::CONNECTION),
        request_head: asked.hooks.contains(types::Hooks::REQUEST_HEAD),
        response_head: asked.hooks.contains(types::Hooks::RESPONSE_HEAD),
        done: asked.hooks.contains(types::Hooks::DONE),
    };
    if authorization && !(hooks.connection && hooks.request_head) {
        return Err("an authorization filter must ask for the hooks connection and request-head".to_owned());
    }
    Ok(Interest {
        hooks,
        wants: asked.wants,
        sees_alike: authorization,
        request_headers: names(asked.request_headers)?,
        response_headers: names(asked.response_headers)?,
    })
}
