//! This workload's certificate: joined for once by token, kept on disk, renewed at half its life. The key never leaves
//! the machine; a certificate that cannot be renewed is used until it ends.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use tracing::{info, warn};
use weft_flow::Backoff;
use weft_policy::identity::SpiffeId;
use weft_policy::wire::v1;
use weft_transport::tls::{IdentityError, IdentityHandle, Trust, TrustError, WorkloadIdentity};

use super::channel::{Channel, ChannelError};
use crate::config::Config;
use crate::state::{Kept, State, StateError};
use crate::telemetry::names::Metric;

/// First and longest wait between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Why a proxy has no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("state directory")]
    State(#[from] StateError),
    #[error("cannot read the join token {path}")]
    Token { path: String, source: std::io::Error },
    #[error("there is no identity in the state directory and no control.token_file to join with")]
    NoToken,
    #[error("the control plane refused the join: {0}")]
    Refused(String),
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

/// The identity of an earlier start, or a new one by token. Tries until the control plane answers.
pub async fn join_or_load(config: &Config, state: &State, channel: &Channel) -> Result<IdentityHandle, JoinError> {
    match load(config, state) {
        Ok(Some(handle)) => return Ok(handle),
        Ok(None) => {}
        Err(error) => warn!(error = %crate::chain(&error), "the kept identity cannot be used; joining again"),
    }
    let path = config.control.token_file.as_deref().ok_or(JoinError::NoToken)?;
    let token = read_token(path)?;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match join(config, state, channel, &token).await {
            Ok(handle) => return Ok(handle),
            Err(JoinError::Channel(ChannelError::Status(status))) if is_away(&status) => {
                warn!(status = %status.message(), "the control plane cannot be reached to join; trying again");
            }
            Err(JoinError::Channel(ChannelError::Status(status))) => {
                return Err(JoinError::Refused(status.message().to_owned()));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(backoff.wait(rand::random())).await;
    }
}

fn is_away(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled | tonic::Code::Unknown
    )
}

fn read_token(path: &Path) -> Result<String, JoinError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| JoinError::Token { path: path.display().to_string(), source })?;
    Ok(text.trim().to_owned())
}

fn load(config: &Config, state: &State) -> Result<Option<IdentityHandle>, JoinError> {
    let Some(kept) = state.identity()? else { return Ok(None) };
    let handle = handle_of(config, &kept)?;
    if handle.current().identity.not_after().as_secs() <= unix_now() {
        info!("the kept certificate has ended; joining again");
        return Ok(None);
    }
    Ok(Some(handle))
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
    let (key, csr_der) = request()?;
    let answer = channel
        .anonymous()?
        .join(v1::JoinRequest {
            token: token.to_owned(),
            csr_der,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Vec::new(),
        })
        .await
        .map_err(ChannelError::from)?
        .into_inner();
    let kept = kept(&answer.certificate_chain_der, &key, answer.trust_bundle_pem);
    let handle = handle_of(config, &kept)?;
    state.keep_identity(&kept)?;
    info!(identity = %handle.id(), "joined the mesh");
    Ok(handle)
}

/// A new key and a request to certify it. Who it is for is the control plane's to say.
fn request() -> Result<(KeyPair, Vec<u8>), JoinError> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    Ok((key, csr.der().to_vec()))
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

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Renews the certificate at half its life, for as long as the process lives.
pub struct IdentityKeeper {
    pub state: State,
    pub channel: Channel,
    pub identity: IdentityHandle,
}

impl IdentityKeeper {
    pub async fn run(self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            tokio::time::sleep(self.until_half_life()).await;
            match self.renew().await {
                Ok(()) => {
                    backoff.reset();
                    metrics::counter!(Metric::CertificateRenewals.name(), "result" => "renewed").increment(1);
                    info!(identity = %self.identity.id(), "certificate renewed");
                }
                Err(error) => {
                    metrics::counter!(Metric::CertificateRenewals.name(), "result" => "failed").increment(1);
                    warn!(error = %crate::chain(&error), "certificate not renewed; the old one is used until it ends");
                    tokio::time::sleep(backoff.wait(rand::random())).await;
                }
            }
        }
    }

    fn until_half_life(&self) -> Duration {
        let current = self.identity.current();
        let to = current.identity.not_after().as_secs();
        // From when it was obtained: `not_before` lies earlier, for clocks that are behind.
        let from = self.state.identity_obtained().unwrap_or(0).max(current.identity.not_before().as_secs());
        let half = from + to.saturating_sub(from) / 2;
        Duration::from_secs(half.saturating_sub(unix_now()))
    }

    async fn renew(&self) -> Result<(), JoinError> {
        let (key, csr_der) = request()?;
        let mut client = self.channel.mutual(&self.identity)?;
        let answer = client.renew(v1::RenewRequest { csr_der }).await.map_err(ChannelError::from)?.into_inner();
        let kept = kept(&answer.certificate_chain_der, &key, answer.trust_bundle_pem);
        let (identity, trust) = credentials(&kept)?;
        let held = identity.id().clone();
        self.identity
            .replace(identity, trust)
            .map_err(|error| JoinError::WrongIdentity { held, wanted: error.held.to_string() })?;
        Ok(self.state.keep_identity(&kept)?)
    }
}
