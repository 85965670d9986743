//! Runs the cases of a filter's author, and measures what a filter costs, with the binary as proxies would run it:
//! verified, compiled, sandboxed, with every limit. It serves nobody, and what one case leaves behind no other sees.

mod bench;
mod child;
mod compare;
mod drive;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use weft_policy::bundle::{
    CalloutGrant, CalloutService, Direction, FilterMode, Grant, GrantedSecret, KvGrant, KvScope, OnFailure, OverBody,
    SecretGrant,
};
use weft_policy::component::cases::{Capability, Case, CaseReport, CaseVerdict, Cases};
use weft_policy::secret::SecretBytes;

pub use child::{TRY, try_child};

use crate::host::Host;
use crate::kv::Write;
use crate::order::Chain;
use crate::prepare::{PrepareError, Prepared};
use crate::spec::{Digest, FilterSpec};
use crate::worker::{Pinned, Worker};
use drive::{Request, Seen};

/// Of each case: memory of the instance, and the deadline of one call.
const MEMORY_BYTES: u64 = 16 << 20;
const CALL_TIMEOUT: Duration = Duration::from_millis(50);
const BODY_BYTES: u64 = 1 << 20;
const KV_ENTRIES: u64 = 10_000;
const KV_BYTES: u64 = 1 << 20;

/// Runs every case, for so long at the most after the binary is compiled; what was not reached then has failed. Blocks.
///
/// # Errors
/// The binary can't be run at all, whatever the case.
pub fn run_cases(host: &Host, wasm: &[u8], cases: &Cases, most: Duration) -> Result<Vec<CaseReport>, String> {
    let filter = Filter::new(host, wasm)?;
    let until = Instant::now() + most;
    let run = |case: &Case| {
        let faults = match filter.run(case, cases, until) {
            Ok(faults) => faults,
            Err(fault) => vec![fault],
        };
        CaseReport { name: case.name.clone(), faults }
    };
    Ok(cases.cases.iter().map(run).collect())
}

/// A binary that is tried.
struct Filter<'h> {
    host: &'h Host,
    wasm: &'h [u8],
    digest: Digest,
    signature: Vec<u8>,
    public_key_pem: String,
    /// Keeps what was compiled, for every configuration.
    _compiled: Arc<wasmtime::component::Component>,
}

impl<'h> Filter<'h> {
    fn new(host: &'h Host, wasm: &'h [u8]) -> Result<Self, String> {
        weft_policy::component::inspect(wasm).map_err(|fault| fault.to_string())?;
        let digest = Digest::of(wasm);
        // Whoever runs cases trusts the binary with no more than its sandbox, so the key may be known to all.
        let key = SigningKey::from_bytes(&[1; 32]);
        let public_key_pem = key.verifying_key().to_public_key_pem(LineEnding::LF);
        let public_key_pem = public_key_pem.map_err(|error| format!("there is no key to sign with: {error}"))?;
        let signature = key.sign(digest.as_bytes()).to_bytes().to_vec();
        let compiled = host.0.component(&digest, wasm).map_err(|error| error.to_string())?;
        Ok(Self { host, wasm, digest, signature, public_key_pem, _compiled: compiled })
    }

    /// What of a case is not as expected; an error where it can't be said.
    fn run(&self, case: &Case, cases: &Cases, until: Instant) -> Result<Vec<String>, String> {
        if Instant::now() >= until {
            return Err("it was not run: the cases before it took all the time that there is".to_owned());
        }
        let prepared = match self.prepare(case, cases) {
            Ok(prepared) => prepared,
            Err(error) => {
                let refused = Seen::refused(reason(&error)?);
                return Ok(compare::faults(&case.expect, &refused));
            }
        };
        if case.expect.verdict == CaseVerdict::Refuse {
            return Ok(vec!["the configuration was taken, and refuse was expected".to_owned()]);
        }
        let request = Request::new(&case.request)?;
        self.keep(&prepared, case)?;
        let chain = Chain::new(vec![prepared.clone()]);
        let mut worker = self.worker(case);
        let mut seen = Seen::default();
        for number in 0..u64::from(case.repeat.unwrap_or(1)) {
            if Instant::now() >= until {
                return Err(format!("it was ended after {number} requests: the cases took too long"));
            }
            seen = drive::request(&mut worker, &chain, number, request.clone(), case)?;
        }
        let mut faults = compare::faults(&case.expect, &seen);
        faults.extend(compare::metrics(&case.expect, &prepared.stats().custom()));
        faults.extend(self.kept(&prepared, case)?);
        Ok(faults)
    }

    fn worker(&self, case: &Case) -> Worker {
        Worker::pinned(self.host, Pinned { dice: case.dice, time: case.time })
    }

    fn prepare(&self, case: &Case, cases: &Cases) -> Result<Arc<Prepared>, PrepareError> {
        self.host.prepare(&self.spec(case, cases), self.wasm)
    }

    fn spec(&self, case: &Case, cases: &Cases) -> FilterSpec {
        /// Names make buckets, values and metrics a case's own.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let granted = |capability: Capability| case.capabilities.as_ref().is_none_or(|them| them.contains(&capability));
        let words =
            [(Capability::TokenBucket, "token-bucket"), (Capability::Crypto, "crypto"), (Capability::Wasi, "wasi")];
        let words = words.into_iter().filter(|(capability, _)| granted(*capability));
        let mut grants = Vec::new();
        if granted(Capability::Kv) {
            let (entries, bytes, scope) = (KV_ENTRIES, KV_BYTES, KvScope::Policy);
            grants.push(Grant::Kv(KvGrant { entries, bytes, scope }));
        }
        if granted(Capability::Callout) {
            let names: std::collections::BTreeSet<_> = case.callouts.iter().map(|callout| &callout.service).collect();
            let service = |name: &&String| CalloutService { name: (*name).clone(), authority: Some((*name).clone()) };
            grants.push(Grant::Callout(CalloutGrant { services: names.iter().map(service).collect() }));
        }
        if granted(Capability::Secret) {
            grants.push(Grant::Secret(secrets(&case.secrets)));
        }
        if granted(Capability::Crypto) {
            grants.push(Grant::CryptoKeys(secrets(&case.keys)));
        }
        let config = case.config.as_ref().unwrap_or(&cases.config);
        FilterSpec {
            name: format!("cases/{}", NEXT.fetch_add(1, Relaxed)),
            filter: "cases/filter".to_owned(),
            version: "0.0.0".to_owned(),
            digest: self.digest,
            signature: self.signature.clone(),
            public_key_pem: self.public_key_pem.clone(),
            statement: None,
            direction: Direction::Inbound,
            config_json: if config.is_null() { String::new() } else { config.to_string() },
            on_failure: OnFailure::Deny,
            mode: FilterMode::Enforce,
            authorization: false,
            capabilities: words.map(|(_, word)| word.to_owned()).collect(),
            grants,
            scope: "cases".to_owned(),
            shipped: false,
            memory_bytes: MEMORY_BYTES,
            call_timeout: CALL_TIMEOUT,
            body_bytes: BODY_BYTES,
            over_body: OverBody::Refuse,
        }
    }

    /// Keeps what the case says was kept before.
    fn keep(&self, prepared: &Prepared, case: &Case) -> Result<(), String> {
        let (Some(kv), Some(granted)) = (&prepared.setup.shared.kv, prepared.setup.shared.grants.kv) else {
            return if case.kv.is_empty() { Ok(()) } else { Err("kv: the case does not grant it".to_owned()) };
        };
        for (key, value) in &case.kv {
            let write = Write { now: self.host.0.started.elapsed(), ttl_ms: 0, limits: granted.into() };
            kv.set(key.as_bytes(), value.as_bytes(), write).map_err(|error| format!("kv: {key:?}: {error:?}"))?;
        }
        Ok(())
    }

    /// What is not kept as expected.
    fn kept(&self, prepared: &Prepared, case: &Case) -> Result<Vec<String>, String> {
        let Some(kv) = &prepared.setup.shared.kv else { return Ok(Vec::new()) };
        let mut faults = Vec::new();
        for (key, expected) in &case.expect.kv {
            let found = kv.get(key.as_bytes(), self.host.0.started.elapsed());
            let found = found.map_err(|error| format!("expect.kv: {key:?}: {error:?}"))?;
            let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
            faults.extend(compare::differs(&format!("kv {key:?}"), expected.as_ref(), found.as_ref()));
        }
        Ok(faults)
    }
}

fn secrets(of_case: &BTreeMap<String, String>) -> SecretGrant {
    let one = |(name, value): (&String, &String)| GrantedSecret {
        name: name.clone(),
        value: SecretBytes::new(value.as_bytes()),
    };
    SecretGrant { values: of_case.iter().map(one).collect() }
}

/// Why a configuration was refused; an error where that is not the configuration's fault.
fn reason(error: &PrepareError) -> Result<String, String> {
    match error {
        PrepareError::Refused { .. } | PrepareError::Configure { .. } | PrepareError::Interest { .. } => {
            Ok(error.to_string())
        }
        PrepareError::Verify { .. }
        | PrepareError::UnknownCapability { .. }
        | PrepareError::Grants { .. }
        | PrepareError::NotGranted { .. }
        | PrepareError::UnknownImport { .. }
        | PrepareError::WrongWorld { .. }
        | PrepareError::Compile { .. }
        | PrepareError::Memory { .. }
        | PrepareError::MemoryToStart { .. }
        | PrepareError::Instantiate { .. } => Err(error.to_string()),
    }
}
