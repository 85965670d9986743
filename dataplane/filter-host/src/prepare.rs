//! From a spec and bytes to a filter that can be called: verified, compiled, linked with what was granted, configured.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wasmtime::component::{Component, Linker};
use weft_policy::component;

mod instance;
mod program;
mod spares;

pub(crate) use instance::Instance;
pub(crate) use program::{Program, Programs};

use crate::chain::ReplyCause;
use crate::compile::CompileError;
use crate::deadline::CONFIGURE_TIMEOUT;
use crate::edits::Label;
use crate::grants::GrantError;
use crate::guest::{Setup, StartError, v01, v02};
use crate::host::Inner;
use crate::imports;
use crate::interest::{BodyMode, Bounds};
use crate::spec::FilterSpec;
use crate::state::{ConfigShared, Shared};
use crate::stats::{FilterStats, HostStats};
use crate::verify::{VerifyError, verify};
use program::Key;
use weft_policy::bundle::{FilterMode, OnFailure, OverBody};

pub use crate::interest::Interest;

/// A single call may not take longer, whatever the spec says.
const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A filter ready to be called by every worker: a program, and a configuration of it. Dropping the last reference lets
/// workers forget the configuration, and free the instances of a program that has no other.
#[derive(Debug)]
pub struct Prepared {
    spec: FilterSpec,
    pub(crate) interest: Interest,
    pub(crate) setup: Setup,
    pub(crate) label: Label,
    pub(crate) program: Arc<Program>,
    /// Never given twice.
    pub(crate) id: u64,
}

/// Why a filter can't be used. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("filter {name}: {source}")]
    Verify { name: String, source: VerifyError },
    #[error("filter {name}: {capability:?} is no capability")]
    UnknownCapability { name: String, capability: String },
    #[error("filter {name} can't be granted what its FilterPolicy grants: {reason}")]
    Grants { name: String, reason: String },
    #[error("filter {name} needs the capability {capability:?}, which its FilterPolicy does not grant")]
    NotGranted { name: String, capability: String },
    #[error("filter {name} imports {import}, which is not part of weft:filter")]
    UnknownImport { name: String, import: String },
    #[error("filter {name} is not a component of a world weft:filter@0.1 or weft:filter@0.2: {reason}")]
    WrongWorld { name: String, reason: String },
    #[error("filter {name}: {source}")]
    Compile { name: String, source: CompileError },
    #[error("filter {name} is granted {bytes} bytes of memory, the proxy allows at most {max}")]
    Memory { name: String, bytes: u64, max: usize },
    #[error("filter {name} begins with more than the {bytes} bytes of memory that its policy gives it: {reason}")]
    MemoryToStart { name: String, bytes: u64, reason: String },
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
    /// With the instances that were made for it, which its program is to [`Program::welcome`] it with.
    pub(crate) fn new(
        host: &Arc<Inner>,
        spec: &FilterSpec,
        wasm: &[u8],
    ) -> Result<(Self, Vec<Instance>), PrepareError> {
        let name = || spec.name.clone();
        verify(spec, wasm).map_err(|source| PrepareError::Verify { name: name(), source })?;
        // The judgement that the publisher and the control plane have heard, before anything is compiled.
        component::inspect(wasm).map_err(|fault| wrong_world(spec, fault.to_string()))?;
        let setup = setup(host, spec)?;
        let max = host.config.max_memory_bytes;
        let memory_bytes = usize::try_from(spec.memory_bytes).ok().filter(|bytes| *bytes <= max);
        let memory_bytes = memory_bytes.ok_or(PrepareError::Memory { name: name(), bytes: spec.memory_bytes, max })?;
        let wrong_world = |error: wasmtime::Error| wrong_world(spec, format!("{error:#}"));
        let compiled = host.component(&spec.digest, wasm);
        let component = compiled.map_err(|source| PrepareError::Compile { name: name(), source })?;
        if !v02::is_contract_of(&component) {
            check_imports(&component, spec)?;
            let shared = Arc::new(Shared::new(host, memory_bytes, setup.shared.stats.clone()));
            let mut linker = Linker::new(&host.engine);
            imports::v01::link(&mut linker, &spec.capabilities).map_err(wrong_world)?;
            let source = v01::Linked::new(&component, &linker, shared.clone()).map_err(wrong_world)?;
            let program = Arc::new(Program::new(host, None, shared, Box::new(source)));
            return Self::of_program(host, spec, setup, program, host.config.workers);
        }
        let key = Key::of(spec);
        if let Some(program) = host.programs.join(&key) {
            return Self::of_program(host, spec, setup, program, 1);
        }
        let shared = Arc::new(Shared::new(host, memory_bytes, Arc::<FilterStats>::default()));
        let mut linker = Linker::new(&host.engine);
        imports::v02::link(&mut linker).map_err(wrong_world)?;
        imports::wasi::link(&mut linker, &component).map_err(wrong_world)?;
        let source = v02::Linked::new(&component, &linker, shared.clone()).map_err(wrong_world)?;
        let program = Arc::new(Program::new(host, Some(key), shared, Box::new(source)));
        let (prepared, made) = Self::of_program(host, spec, setup, program, host.config.workers)?;
        host.programs.add(&prepared.program);
        Ok((prepared, made))
    }

    /// Tries the configuration in an instance, and learns what it asks for. As many more are made as will be called, while
    /// there is room.
    fn of_program(
        host: &Arc<Inner>,
        spec: &FilterSpec,
        setup: Setup,
        program: Arc<Program>,
        count: usize,
    ) -> Result<(Self, Vec<Instance>), PrepareError> {
        let id = host.take_id();
        let (made, interest) = match start(&program, &setup, id, count) {
            Ok(started) => started,
            Err(error) => {
                program.leave();
                return Err(start_error(spec, error));
            }
        };
        host.buckets.sweep();
        Ok((Self::assemble(spec.clone(), setup, interest, program, id), made))
    }

    pub(crate) fn assemble(spec: FilterSpec, setup: Setup, interest: Interest, program: Arc<Program>, id: u64) -> Self {
        let label = Label { name: spec.name.as_str().into(), version: spec.version.as_str().into() };
        Self { spec, interest, setup, label, program, id }
    }

    pub fn spec(&self) -> &FilterSpec {
        &self.spec
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub(crate) fn stats(&self) -> &FilterStats {
        &self.setup.shared.stats
    }

    /// True where requests go on without it when it fails: it is not to be relied on.
    pub(crate) fn may_be_passed_by(&self) -> bool {
        self.is_audit() || self.spec.effective_on_failure() == OnFailure::Allow
    }

    pub(crate) fn is_audit(&self) -> bool {
        self.spec.mode == FilterMode::Audit
    }

    /// Bytes of the longest body that it is given whole, or `None` where it does not ask for that.
    pub(crate) fn whole_body(&self, of_request: bool) -> Option<usize> {
        match self.interest.body(of_request) {
            BodyMode::Whole(most) => Some(most),
            BodyMode::Chunks | BodyMode::Messages => None,
        }
    }

    /// True where its policy lets a body go on that it can't be given. Nothing passes an authorization unseen.
    pub(crate) fn lets_long_bodies_pass(&self) -> bool {
        self.spec.over_body == OverBody::Pass && !self.spec.authorization
    }

    /// Whose decision its answers are.
    pub(crate) fn cause(&self) -> ReplyCause {
        if self.spec.authorization { ReplyCause::Denied } else { ReplyCause::Filter }
    }

    pub(crate) fn host_stats(&self) -> HostStats {
        HostStats {
            name: self.spec.name.clone(),
            filter: self.spec.filter.clone(),
            version: self.spec.version.clone(),
            digest: self.spec.digest,
            stats: self.setup.shared.stats.clone(),
            program: self.program.shared.stats.clone(),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.program.leave();
    }
}

pub(crate) fn setup(host: &Arc<Inner>, spec: &FilterSpec) -> Result<Setup, PrepareError> {
    let shared = ConfigShared::new(host, spec).map_err(|error| grant_error(spec, error))?;
    let call_timeout = spec.call_timeout.min(MAX_CALL_TIMEOUT);
    let body_bytes = usize::try_from(spec.body_bytes).unwrap_or(usize::MAX);
    Ok(Setup {
        shared: Arc::new(shared),
        json: spec.config_json.clone(),
        call_timeout,
        bounds: Bounds { authorization: spec.authorization, body_bytes },
    })
}

fn grant_error(spec: &FilterSpec, error: GrantError) -> PrepareError {
    let name = spec.name.clone();
    match error {
        GrantError::Unknown(capability) => PrepareError::UnknownCapability { name, capability },
        GrantError::Twice(_) | GrantError::Kv { .. } | GrantError::Callouts(_) | GrantError::Secrets(_) => {
            PrepareError::Grants { name, reason: error.to_string() }
        }
    }
}

fn wrong_world(spec: &FilterSpec, reason: String) -> PrepareError {
    PrepareError::WrongWorld { name: spec.name.clone(), reason }
}

fn start_error(spec: &FilterSpec, error: StartError) -> PrepareError {
    let name = spec.name.clone();
    match error {
        StartError::Instantiate(reason) => PrepareError::Instantiate { name, reason },
        StartError::Memory(reason) => PrepareError::MemoryToStart { name, bytes: spec.memory_bytes, reason },
        StartError::WrongWorld(reason) => PrepareError::WrongWorld { name, reason },
        StartError::Configure(failure) => PrepareError::Configure { name, reason: failure.to_string() },
        StartError::Refused(reason) => PrepareError::Refused { name, reason: reason.chars().take(1_024).collect() },
        StartError::Interest(reason) => PrepareError::Interest { name, reason },
    }
}

/// Refuses what is not granted by name, ahead of the linker's own words. Of contract 0.1.
fn check_imports(component: &Component, spec: &FilterSpec) -> Result<(), PrepareError> {
    for (import, _) in component.component_type().imports(component.engine()) {
        let name = spec.name.clone();
        match imports::v01::IMPORTS.iter().find(|(known, _)| without_patch(known) == without_patch(import)) {
            None => return Err(PrepareError::UnknownImport { name, import: import.to_owned() }),
            Some((_, Some(capability))) if !spec.capabilities.iter().any(|granted| granted == capability) => {
                return Err(PrepareError::NotGranted { name, capability: (*capability).to_owned() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// `weft:filter/log@0.1` of `weft:filter/log@0.1.3`: patches change nothing.
fn without_patch(import: &str) -> &str {
    match import.rsplit_once('@') {
        Some((_, version)) if version.matches('.').count() == 2 => {
            import.rsplit_once('.').map_or(import, |(name, _)| name)
        }
        Some(_) | None => import,
    }
}

/// Makes instances that have the configuration, and learns from the first what the filter asks for.
fn start(program: &Program, setup: &Setup, id: u64, count: usize) -> Result<(Vec<Instance>, Interest), StartError> {
    let one = || -> Result<(Instance, Interest), StartError> {
        let mut instance = Instance::new(program.source.start(setup, CONFIGURE_TIMEOUT)?);
        let interest = instance.guest.configure(instance.next_id(), setup, CONFIGURE_TIMEOUT)?;
        instance.note(id, Weak::new(), &setup.shared);
        Ok((instance, interest))
    };
    let (first, interest) = one()?;
    let mut made = vec![first];
    while made.len() < count && program.has_room_for_spares(made.len()) {
        // Workers whose first is not among them make it when they are called.
        let Ok((instance, _)) = one() else { break };
        made.push(instance);
    }
    Ok((made, interest))
}

#[cfg(test)]
mod tests {
    use super::without_patch;

    #[test]
    fn patches_change_nothing() {
        for (import, expect) in [
            ("weft:filter/log@0.1.0", "weft:filter/log@0.1"),
            ("weft:filter/log@0.1.17", "weft:filter/log@0.1"),
            ("weft:filter/log@0.2.0", "weft:filter/log@0.2"),
            ("weft:filter/log", "weft:filter/log"),
            ("wasi:io/poll@0.2", "wasi:io/poll@0.2"),
        ] {
            assert_eq!(without_patch(import), expect);
        }
    }
}
