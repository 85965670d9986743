//! Tries what a FilterPolicy asks for as proxies will, before any proxy hears of it: the filter is compiled, granted its
//! capabilities and given its configuration here, sandboxed, and then thrown away. It serves nothing. One is tried at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use weft_filter_host::{CompileError, Compiler, FilterSpec, Host, HostConfig, HostError, PrepareError, run_cases};
use weft_policy::bundle::{FilterAttachment, Grant};
use weft_policy::component::cases::Cases;

/// So many findings are remembered: most applies bring what was tried before.
const REMEMBERED: usize = 4_096;
/// All cases of a filter together may take this long.
const CASES_TIME: Duration = Duration::from_secs(10);
/// Faults of cases that are told.
const MAX_FAULTS: usize = 16;

/// A place where filters are tried.
#[derive(Debug)]
pub(crate) struct Trials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Compiled filters are kept here.
    cache_dir: PathBuf,
    host: OnceLock<Host>,
    turn: Arc<Semaphore>,
    found: Mutex<VecDeque<(Question, Outcome)>>,
}

/// Digest of everything on which a finding depends.
type Question = [u8; 32];

/// What became of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fine,
    /// No proxy could use it. `key` says where in the FilterPolicy the fault is.
    Refused {
        key: &'static str,
        reason: String,
    },
    /// It was not tried here, which says nothing of it.
    Untried(String),
}

impl Trials {
    pub(crate) fn new(cache_dir: PathBuf) -> Self {
        let (turn, found) = (Arc::new(Semaphore::new(1)), Mutex::default());
        Self(Arc::new(Inner { cache_dir, host: OnceLock::new(), turn, found }))
    }

    /// What is known of an attachment already.
    pub(crate) fn known(&self, attachment: &FilterAttachment) -> Option<Outcome> {
        self.0.known(&question(attachment))
    }

    /// Tries attachments of one binary; they are found in the same order. `None`: others are being tried for longer than
    /// `patience`.
    pub(crate) async fn attempt(
        &self,
        attachments: Vec<FilterAttachment>,
        wasm: Arc<Vec<u8>>,
        patience: Duration,
    ) -> Option<Vec<Outcome>> {
        let count = attachments.len();
        let tried = self.in_turn(patience, move |inner| inner.try_all(&attachments, &wasm)).await?;
        Some(tried.unwrap_or_else(|error| vec![Outcome::Untried(error.to_string()); count]))
    }

    /// Runs the cases that a binary carries; gives what does not hold, or why they could not be run. `None`: others are
    /// being tried for longer than `patience`.
    pub(crate) async fn cases(&self, wasm: Arc<Vec<u8>>, cases: Cases, patience: Duration) -> Option<Vec<String>> {
        let run = self.in_turn(patience, move |inner| inner.cases(&wasm, &cases)).await?;
        Some(run.unwrap_or_else(|error| vec![error.to_string()]))
    }

    /// Does work in a thread of its own while no other is done. `None`: other work takes longer than `patience`.
    async fn in_turn<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Option<Result<T, JoinError>> {
        let turn = tokio::time::timeout(patience, self.0.turn.clone().acquire_owned()).await.ok()?.ok()?;
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Held for as long as the work takes, whether or not somebody waits for it.
            let _turn = turn;
            work(&inner)
        });
        Some(done.await)
    }
}

impl Inner {
    fn known(&self, question: &Question) -> Option<Outcome> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().find(|(known, _)| known == question).map(|(_, finding)| finding.clone())
    }

    fn try_all(&self, attachments: &[FilterAttachment], wasm: &[u8]) -> Vec<Outcome> {
        let host = match self.host() {
            Ok(host) => host,
            Err(error) => return vec![Outcome::Untried(error.to_string()); attachments.len()],
        };
        // The first that is fine keeps what was compiled for the others.
        let mut compiled = None;
        let mut one = |attachment: &FilterAttachment| {
            let question = question(attachment);
            if let Some(finding) = self.known(&question) {
                return finding;
            }
            let finding = match FilterSpec::try_from(attachment) {
                Err(error) => Outcome::Refused { key: "spec.filter", reason: error.to_string() },
                Ok(spec) => match host.prepare(&spec, wasm) {
                    Ok(prepared) => {
                        compiled.get_or_insert(prepared);
                        Outcome::Fine
                    }
                    Err(error) => outcome_of(&error),
                },
            };
            if !matches!(finding, Outcome::Untried(_)) {
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.truncate(REMEMBERED - 1);
                found.push_front((question, finding.clone()));
            }
            finding
        };
        attachments.iter().map(&mut one).collect()
    }

    fn cases(&self, wasm: &[u8], cases: &Cases) -> Vec<String> {
        let host = self.host().map_err(|error| error.to_string());
        let reports = match host.and_then(|host| run_cases(host, wasm, cases, CASES_TIME)) {
            Ok(reports) => reports,
            Err(reason) => return vec![reason],
        };
        let mut faults = Vec::new();
        for report in reports {
            faults.extend(report.faults.iter().map(|fault| format!("{:?}: {fault}", report.name)));
        }
        faults.truncate(MAX_FAULTS);
        faults
    }

    fn host(&self) -> Result<&Host, HostError> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let config = |cache_dir| {
            // In tests the running program is another one.
            let compiler = if cfg!(test) { Compiler::InProcess } else { Compiler::own_child() };
            HostConfig { cache_dir, compiler, max_instances: 8, spares: 0, ..HostConfig::default() }
        };
        let host = Host::new(config(Some(self.cache_dir.clone()))).or_else(|error| {
            tracing::warn!(%error, "compiled filters can't be kept");
            Host::new(config(None))
        })?;
        Ok(self.host.get_or_init(|| host))
    }
}

fn question(attachment: &FilterAttachment) -> Question {
    let FilterAttachment { digest, config, capabilities, grants, limits, authorization, .. } = attachment;
    let FilterAttachment { signature, public_key_pem, filter, version, statement, .. } = attachment;
    let mut hash = Sha256::new();
    let (limits, printed) = (format!("{limits:?}"), format!("{grants:?}"));
    let authorization = authorization.to_string();
    let (text, signed) = statement.as_ref().map_or(("", ""), |it| (it.text.as_str(), it.signature.as_str()));
    let parts = [digest, &config.0, &limits, &printed, &authorization, signature, public_key_pem, filter, version];
    let parts = parts.into_iter().map(String::as_str).chain([text, signed]);
    for part in parts.chain(capabilities.iter().map(String::as_str)) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    // What is printed of them is redacted.
    for secret in grants.iter().flat_map(Grant::secrets) {
        hash.update(secret.value.len().to_be_bytes());
        hash.update(secret.value.reveal());
    }
    hash.finalize().into()
}

/// What an error says of an attachment: the field of its FilterPolicy that is to be mended, or that this machine could not
/// try it.
fn outcome_of(error: &PrepareError) -> Outcome {
    let key = match error {
        PrepareError::Instantiate { .. } | PrepareError::Compile { source: CompileError::Compiler(_), .. } => {
            return Outcome::Untried(error.to_string());
        }
        PrepareError::Configure { .. } | PrepareError::Refused { .. } | PrepareError::Interest { .. } => "spec.config",
        PrepareError::UnknownCapability { .. } | PrepareError::Grants { .. } | PrepareError::NotGranted { .. } => {
            "spec.capabilities"
        }
        PrepareError::Memory { .. } | PrepareError::MemoryToStart { .. } => "spec.limits",
        PrepareError::Compile { source: CompileError::Refused(_) | CompileError::Limit(_), .. }
        | PrepareError::Verify { .. }
        | PrepareError::UnknownImport { .. }
        | PrepareError::WrongWorld { .. } => "spec.filter",
    };
    Outcome::Refused { key, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_gives_too_little_memory_is_refused_and_a_full_machine_says_nothing_of_it() {
        let name = || "shop/p".to_owned();
        let lacking = PrepareError::MemoryToStart { name: name(), bytes: 65_536, reason: "22 pages".to_owned() };
        assert!(matches!(outcome_of(&lacking), Outcome::Refused { key: "spec.limits", .. }));
        let full = PrepareError::Instantiate { name: name(), reason: "no place for another".to_owned() };
        assert!(matches!(outcome_of(&full), Outcome::Untried(_)));
    }
}
