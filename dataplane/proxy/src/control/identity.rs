//! This workload's certificate: joined for by token, kept on disk, renewed before half of its life is over by the wall clock. The key
//! never leaves the machine. One that has ended is renewed within the control plane's grace, or joined for again by
//! whatever token is in the file then: without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use weft_flow::Backoff;
use weft_policy::identity::SpiffeId;
use weft_policy::wire::{CAPABILITIES, v1};
use weft_transport::tls::{IdentityError, IdentityHandle, Trust, TrustError, WorkloadIdentity};

use super::channel::{Channel, ChannelError};
use crate::config::Config;
use crate::life::{self, Life, Part, Shortened};
use crate::private;
use crate::shared::Shared;
use crate::state::{Kept, State, StateError};
use crate::telemetry::names::Metric;

/// First and longest wait between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Why a proxy has no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("state directory")]
    State(#[from] StateError),
    #[error("cannot use the join token {path}")]
    Token { path: String, source: std::io::Error },
    #[error("there is no identity in the state directory and no control.token_file to join with")]
    NoToken,
    #[error("the control plane refused the join: {why}; {cure}")]
    Refused { why: String, cure: String },
    #[error("the identity that was kept is damaged: {0}")]
    Damaged(String),
    #[error("the token in {0} was refused before; {1}")]
    OldToken(String, String),
    #[error("control plane")]
    Channel(#[from] ChannelError),
    #[error("cannot make a key or certificate request")]
    Request(#[from] rcgen::Error),
    #[error("the certificate that came back cannot be used")]
    Identity(#[from] IdentityError),
    #[error("the trust bundle that came back cannot be used")]
    Trust(#[from] TrustError),
    #[error("the certificate is {held}'s, the configuration says {wanted}")]
    WrongIdentity { held: SpiffeId, wanted: String },
}

/// How often a proxy that waits for a new token looks for one.
pub(super) const LOOK_FOR_TOKEN: Duration = Duration::from_secs(2);

/// The identity of an earlier start, be it ended (it is renewed then), or a new one by token. Tries until the control plane
/// answers. A proxy that had an identity waits for a token that is taken; a new one ends with the reason. Gives the token
/// that it joined by, if it did.
pub async fn join_or_load(
    config: &Config,
    state: &State,
    channel: &Channel,
) -> Result<(IdentityHandle, Option<String>), JoinError> {
    let damage = match load(config, state) {
        Ok(Some(handle)) => return Ok((handle, None)),
        Ok(None) => None,
        Err(error @ JoinError::WrongIdentity { .. }) => {
            warn!(error = %crate::chain(&error), "the kept identity cannot be used; joining again");
            None
        }
        Err(error) => {
            let cure = new_token(config, OnRefusal::Wait);
            warn!(error = %crate::chain(&error), cure, "the kept identity cannot be used; joining again");
            Some(error)
        }
    };
    let mut refused = None;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let on_refusal = if damage.is_some() { OnRefusal::Wait } else { OnRefusal::End };
    loop {
        match join_anew(config, state, channel, &mut refused, on_refusal).await {
            Ok((handle, token)) => return Ok((handle, Some(token))),
            Err(JoinError::Channel(ChannelError::Status(status))) if is_away(&status) => {
                // It may be there and have no store: another may have one.
                channel.turn();
                warn!(status = %status.message(), "the control plane cannot be reached to join; trying again");
            }
            Err(JoinError::OldToken(..)) if damage.is_some() => {
                tokio::time::sleep(LOOK_FOR_TOKEN).await;
                continue;
            }
            Err(error) if damage.is_some() => {
                warn!(error = %crate::chain(&error), "no identity; waiting for a new token")
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(backoff.wait(rand::random())).await;
    }
}

/// How it goes on where a token is refused.
#[derive(Debug, Clone, Copy)]
enum OnRefusal {
    /// The file is looked at again and again.
    Wait,
    /// The process ends.
    End,
}

/// Joins by the token that is in the file now, unless that one was refused before.
async fn join_anew(
    config: &Config,
    state: &State,
    channel: &Channel,
    refused: &mut Option<String>,
    on_refusal: OnRefusal,
) -> Result<(IdentityHandle, String), JoinError> {
    let path = config.control.token_file.as_deref().ok_or(JoinError::NoToken)?;
    let token = read_token(path)?;
    if refused.as_ref() == Some(&token) {
        return Err(JoinError::OldToken(path.display().to_string(), new_token(config, on_refusal)));
    }
    match join(config, state, channel, &token).await {
        Err(JoinError::Channel(ChannelError::Status(status))) if !is_away(&status) => {
            *refused = Some(token);
            Err(JoinError::Refused { why: status.message().to_owned(), cure: new_token(config, on_refusal) })
        }
        joined => joined.map(|handle| (handle, token)),
    }
}

/// The advice to an operator when only a new join token brings the proxy back.
fn new_token(config: &Config, on_refusal: OnRefusal) -> String {
    let (namespace, account) = (&config.workload.namespace, &config.workload.service_account);
    let file = config
        .control
        .token_file
        .as_ref()
        .map_or_else(|| "control.token_file".into(), |path| path.display().to_string());
    let then = match on_refusal {
        OnRefusal::Wait => "it is read by itself",
        OnRefusal::End => "the next start reads it",
    };
    format!("put a new join token (weft token create --service-account {namespace}/{account}) into {file}: {then}")
}

pub(super) fn is_away(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled | tonic::Code::Unknown
    )
}

fn read_token(path: &Path) -> Result<String, JoinError> {
    let path_of = || path.display().to_string();
    let (token, found) = private::token(path).map_err(|source| JoinError::Token { path: path_of(), source })?;
    if let Err(exposed) = found {
        warn!(path = path_of(), %exposed, "the join token is no secret of this proxy's alone");
    }
    Ok(token)
}

/// The best of what was kept; nothing where nothing was.
fn load(config: &Config, state: &State) -> Result<Option<IdentityHandle>, JoinError> {
    let mut damage = None;
    let mut best: Option<(IdentityHandle, Kept)> = None;
    let found = state.identities()?;
    let is_whole = found.len() > 1;
    for mut kept in found {
        if Trust::from_pem("any", &kept.trust_pem).is_err() {
            // The control plane's CA is the mesh's; the bundle brings others.
            warn!("trust.pem is missing or damaged; control.ca_file takes its place");
            kept.trust_pem = std::fs::read_to_string(&config.control.ca_file).unwrap_or_default();
        }
        match handle_of(config, &kept) {
            Ok(handle) => {
                let ends = |handle: &IdentityHandle| handle.current().identity.not_after();
                if best.as_ref().is_none_or(|(best, _)| ends(best) < ends(&handle)) {
                    best = Some((handle, kept));
                }
            }
            Err(error @ JoinError::WrongIdentity { .. }) => return Err(error),
            Err(error) => damage = Some(crate::chain(&error)),
        }
    }
    match (best, damage) {
        (Some((handle, kept)), Some(damage)) => {
            warn!(damage, "one of the files with the identity is damaged; it is written again from the other");
            keep(state, &kept);
            Ok(Some(handle))
        }
        (Some((handle, kept)), None) => {
            if !is_whole {
                keep(state, &kept);
            }
            Ok(Some(handle))
        }
        (None, Some(damage)) => Err(JoinError::Damaged(damage)),
        (None, None) => Ok(None),
    }
}

fn handle_of(config: &Config, kept: &Kept) -> Result<IdentityHandle, JoinError> {
    let (identity, trust) = credentials(kept)?;
    let workload = &config.workload;
    let id = identity.id();
    if id.namespace() != workload.namespace || id.service_account() != workload.service_account {
        let wanted = format!("ns/{}/sa/{}", workload.namespace, workload.service_account);
        return Err(JoinError::WrongIdentity { held: id.clone(), wanted });
    }
    Ok(IdentityHandle::new(identity, trust))
}

fn credentials(kept: &Kept) -> Result<(WorkloadIdentity, Trust), JoinError> {
    let identity = WorkloadIdentity::from_pem(&kept.chain_pem, &kept.key_pem)?;
    let trust = Trust::from_pem(identity.id().trust_domain(), &kept.trust_pem)?;
    Ok((identity, trust))
}

async fn join(config: &Config, state: &State, channel: &Channel, token: &str) -> Result<IdentityHandle, JoinError> {
    // Before the token is spent.
    state.has_room()?;
    let key = joining_key(state, token)?;
    let csr_der = request_for(&key)?;
    let answer = channel
        .anonymous()?
        .join(v1::JoinRequest {
            token: token.to_owned(),
            csr_der,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            service_account: format!("{}/{}", config.workload.namespace, config.workload.service_account),
        })
        .await
        .map_err(ChannelError::from)?
        .into_inner();
    let kept = kept(&answer.certificate_chain_der, &key, answer.trust_bundle_pem);
    let handle = handle_of(config, &kept)?;
    if keep(state, &kept) {
        state.has_joined();
    }
    info!(identity = %handle.id(), "joined the mesh");
    Ok(handle)
}

/// The key that all attempts to join by one token are made with, also by the next start: who asks again with it gets the
/// answer that was lost.
fn joining_key(state: &State, token: &str) -> Result<KeyPair, JoinError> {
    if let Some(key) = state.joining(token)?.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    state.keep_joining(token, &key.serialize_pem())?;
    Ok(key)
}

/// A new key and a request to certify it. Who it is for is the control plane's to say.
fn request() -> Result<(KeyPair, Vec<u8>), JoinError> {
    let key = KeyPair::generate()?;
    let csr_der = request_for(&key)?;
    Ok((key, csr_der))
}

fn request_for(key: &KeyPair) -> Result<Vec<u8>, JoinError> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

fn kept(chain_der: &[Vec<u8>], key: &KeyPair, trust_pem: String) -> Kept {
    let chain_pem = chain_der.iter().map(|der| pem(&CertificateDer::from(der.as_slice()))).collect();
    Kept { chain_pem, key_pem: key.serialize_pem(), trust_pem }
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Keeps an identity on disk; what the disk does not take now is kept in memory and tried again. False then.
fn keep(state: &State, kept: &Kept) -> bool {
    let written = state.keep_identity(kept);
    if let Err(error) = &written {
        metrics::counter!(Metric::StateWriteFailures.name()).increment(1);
        warn!(error = %crate::chain(error),
            "the certificate is good, but the state directory can't take it: it is held in memory and written when there is room");
    }
    written.is_ok()
}

/// How often the certificate is looked at: by the wall clock, since timers stand still while a machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// Between two renewals at the least.
const LEAST: Duration = Duration::from_secs(20);

/// How often what the disk did not take is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// Renews the certificate before half of its life is over, for as long as the process lives.
pub struct IdentityKeeper {
    pub shared: Arc<Shared>,
    pub state: State,
    pub channel: Channel,
    pub identity: IdentityHandle,
}

impl IdentityKeeper {
    pub async fn run(self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut try_at, mut keep_at) = (Instant::now(), Instant::now());
        let (mut refused, mut part) = (None, Part::by(rand::random()));
        let (mut shortened, lot) = (Shortened::default(), rand::random());
        loop {
            ticks.tick().await;
            if Instant::now() >= keep_at {
                keep_at = Instant::now() + KEEP_AGAIN;
                self.keep_again();
            }
            let obtained = self.state.identity_obtained();
            let now = life::now();
            let (life, ttl) = (Life::of(&self.identity.current().identity, obtained), self.shared.contact.svid_ttl());
            let is_due = life.is_due(now, part) || shortened.is_due(life, ttl, now, lot);
            if !is_due || Instant::now() < try_at {
                continue;
            }
            match self.renew_or_join(&mut refused).await {
                Ok(()) => {
                    shortened.renewed(ttl);
                    part = Part::by(rand::random());
                    backoff.reset();
                    self.shared.contact.set_not_renewed(None);
                    // By a clock that is ahead of a certificate's whole life each renewal is due at once.
                    let ends = self.identity.current().identity.not_after().as_secs();
                    let left = Duration::from_secs(ends.saturating_sub(now));
                    if left.is_zero() {
                        let at = life::shown(ends);
                        warn!(
                            at,
                            "the certificate that came back has ended already by this machine's clock: is the clock right?"
                        );
                    }
                    try_at = Instant::now() + if left.is_zero() { LEAST } else { LEAST.min(left / 4) };
                    metrics::counter!(Metric::CertificateRenewals.name(), "result" => "renewed").increment(1);
                    info!(identity = %self.identity.id(), "certificate renewed");
                }
                Err(error) => {
                    metrics::counter!(Metric::CertificateRenewals.name(), "result" => "failed").increment(1);
                    self.failed(crate::chain(&error));
                    try_at = Instant::now() + backoff.wait(rand::random());
                }
            }
        }
    }

    fn keep_again(&self) {
        match self.state.keep_again() {
            None => {}
            Some(Ok(())) => info!("the certificate is written to the state directory"),
            Some(Err(_)) => metrics::counter!(Metric::StateWriteFailures.name()).increment(1),
        }
    }

    /// Says once what is wrong, and again when that changes.
    fn failed(&self, error: String) {
        let current = self.identity.current();
        let ends = current.identity.not_after().as_secs();
        if self.shared.contact.set_not_renewed(Some(error.clone())) {
            let at = life::shown(ends);
            match Life::of(&current.identity, None).has_ended(life::now()) {
                true => warn!(error, at, "the certificate has expired and is not renewed: no peer takes it"),
                false => warn!(error, at, "certificate not renewed; the old one is used until it ends"),
            }
        }
    }

    /// By the certificate in use; once that has ended and is not renewed, by the token in the file.
    async fn renew_or_join(&self, refused: &mut Option<String>) -> Result<(), JoinError> {
        let error = match self.renew().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let has_ended = Life::of(&self.identity.current().identity, None).has_ended(life::now());
        let is_refused = matches!(&error, JoinError::Channel(ChannelError::Status(status)) if !is_away(status));
        if !has_ended || !is_refused {
            return Err(error);
        }
        match join_anew(&self.shared.config, &self.state, &self.channel, refused, OnRefusal::Wait).await {
            Ok((joined, _)) => {
                let credentials = joined.current();
                self.replace(credentials.identity.clone(), credentials.trust.clone())
            }
            // The refusal of the renewal says more than that of a token that was used long ago.
            Err(JoinError::OldToken(..) | JoinError::NoToken | JoinError::Token { .. } | JoinError::Refused { .. }) => {
                Err(error)
            }
            Err(of_join) => Err(of_join),
        }
    }

    async fn renew(&self) -> Result<(), JoinError> {
        let (key, csr_der) = request()?;
        let mut client = self.channel.mutual(&self.identity)?;
        let answer = client.renew(v1::RenewRequest { csr_der }).await.inspect_err(|status| {
            if is_away(status) {
                self.channel.turn();
            }
        });
        let answer = answer.map_err(ChannelError::from)?.into_inner();
        let kept = kept(&answer.certificate_chain_der, &key, answer.trust_bundle_pem);
        let (identity, trust) = credentials(&kept)?;
        self.replace(identity, trust)?;
        keep(&self.state, &kept);
        Ok(())
    }

    fn replace(&self, identity: WorkloadIdentity, trust: Trust) -> Result<(), JoinError> {
        let held = identity.id().clone();
        let replaced = self.identity.replace(identity, trust);
        replaced.map_err(|error| JoinError::WrongIdentity { held, wanted: error.held.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_true_whether_or_not_the_process_ends() {
        let text = "
name: web-1
state_dir: /nowhere
control: {address: 'https://127.0.0.1:15012', ca_file: /nowhere, token_file: /etc/weft/token}
workload: {namespace: shop, service_account: web, address: 127.0.0.11}
listen: {mesh: '127.0.0.11:15008'}
";
        let config = Config::parse(Path::new("proxy.yaml"), text).unwrap();
        let advice = "put a new join token (weft token create --service-account shop/web) into /etc/weft/token: ";
        assert_eq!(new_token(&config, OnRefusal::Wait), format!("{advice}it is read by itself"));
        assert_eq!(new_token(&config, OnRefusal::End), format!("{advice}the next start reads it"));
    }
}
