//! Certificates for proxies: joining with a token, renewing with the certificate in use.

use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;
use tonic::Status;
use weft_policy::identity::SpiffeId;

use super::Hub;
use crate::ca::{IssueError, Issued};
use crate::metrics::Throttled;
use crate::store::{StoreError, Write};
use crate::token::{Grant, TokenHash, TokenRecord};

/// A certificate and what to trust.
pub struct SignedIdentity {
    pub identity: SpiffeId,
    pub issued: Issued,
    pub trust_bundle_pem: String,
}

/// Why a proxy gets no certificate.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("this join token is not known here, or was used already")]
    Unknown,
    #[error("this join token expired at {0}")]
    Expired(String),
    #[error("this is an operator's token: a proxy needs a join token (weft token create)")]
    WrongKind,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Hub {
    /// Exchanges a join token and a signing request for a certificate. A refused request leaves the token unused.
    pub async fn join(self: &Arc<Self>, token: &str, csr_der: &[u8], peer: &str) -> Result<SignedIdentity, Status> {
        let result = self.try_join(token, csr_der, peer).await;
        match &result {
            Ok(signed) => {
                self.metrics().joins.increment(1);
                tracing::info!(identity = %signed.identity, peer, serial = %signed.issued.serial, "proxy joined");
            }
            Err(error) => {
                self.metrics().joins_refused.increment(1);
                tracing::warn!(peer, error = %crate::chain(error), "join refused");
            }
        }
        result.map_err(Status::from)
    }

    async fn try_join(self: &Arc<Self>, token: &str, csr_der: &[u8], peer: &str) -> Result<SignedIdentity, JoinError> {
        let hash = TokenHash::of(token);
        let (authority, ttl, now) = (self.authority().clone(), self.svid_ttl(), OffsetDateTime::now_utc());
        let found = self.token(hash.clone()).await?;
        let (record, identity) = usable(found, now)?;
        let issued = authority.issue_workload(csr_der, &identity, ttl, now)?;
        let actor = format!("token:{}", record.id);
        let object = identity.to_string();
        let detail = format!("serial={} peer={peer}", issued.serial);
        let store = self.store.clone();
        self.change(move |draft| {
            // Read again under the writer's lock: a token of one use is used once.
            let (record, _) = usable(store.token(&hash)?, now)?;
            if let Grant::Join { identity, grants, .. } = &record.grant {
                draft.claim(|draft| draft.claims.grant(identity, grants));
            }
            draft.writes.push(used(hash, record));
            draft.audit(&actor, "join", object, detail);
            Ok::<_, JoinError>(())
        })
        .await?;
        self.metrics().certificates.increment(1);
        let trust_bundle_pem = self.authority().trust_bundle_pem().to_owned();
        Ok(SignedIdentity { identity, issued, trust_bundle_pem })
    }

    /// The next certificate of an identity that has proved itself by the current one.
    pub async fn renew(self: &Arc<Self>, identity: &SpiffeId, csr_der: &[u8]) -> Result<SignedIdentity, Status> {
        let now = OffsetDateTime::now_utc();
        if let Err(wait) = self.renewals.take(identity, Instant::now()) {
            self.metrics().throttled(Throttled::Renewals);
            let wait = wait.as_secs() + 1;
            return Err(Status::resource_exhausted(format!("{identity} renews too often: again in {wait} s")));
        }
        let issued = self.authority().issue_workload(csr_der, identity, self.svid_ttl(), now).map_err(|error| {
            self.metrics().joins_refused.increment(1);
            tracing::warn!(%identity, error = %crate::chain(&error), "renewal refused");
            JoinError::from(error)
        })?;
        let (actor, object) = (format!("proxy:{identity}"), identity.to_string());
        let detail = format!("serial={}", issued.serial);
        self.change(move |draft| {
            draft.audit(&actor, "renew", object, detail);
            Ok::<_, JoinError>(())
        })
        .await?;
        self.metrics().certificates.increment(1);
        tracing::info!(%identity, serial = %issued.serial, "certificate renewed");
        let trust_bundle_pem = self.authority().trust_bundle_pem().to_owned();
        Ok(SignedIdentity { identity: identity.clone(), issued, trust_bundle_pem })
    }

    fn svid_ttl(&self) -> time::Duration {
        time::Duration::seconds(i64::try_from(self.config().svid_ttl_seconds).unwrap_or(i64::MAX))
    }
}

fn usable(found: Option<TokenRecord>, now: OffsetDateTime) -> Result<(TokenRecord, SpiffeId), JoinError> {
    let record = found.ok_or(JoinError::Unknown)?;
    if let Some(at) = record.expires_unix.filter(|at| now.unix_timestamp() >= *at) {
        let at = OffsetDateTime::from_unix_timestamp(at).map(|at| at.to_string());
        return Err(JoinError::Expired(at.unwrap_or_default()));
    }
    match &record.grant {
        Grant::Join { identity, uses_left, .. } if *uses_left > 0 => {
            let identity = identity.clone();
            Ok((record, identity))
        }
        Grant::Join { .. } => Err(JoinError::Unknown),
        Grant::Operator { .. } => Err(JoinError::WrongKind),
    }
}

/// A token with one use less; without any left it goes.
fn used(hash: TokenHash, mut record: TokenRecord) -> Write {
    match &mut record.grant {
        Grant::Join { uses_left, .. } if *uses_left > 1 => {
            *uses_left -= 1;
            Write::PutToken(hash, record)
        }
        Grant::Join { .. } | Grant::Operator { .. } => Write::DeleteToken(hash),
    }
}

impl From<JoinError> for Status {
    fn from(error: JoinError) -> Self {
        match &error {
            JoinError::Unknown | JoinError::Expired(_) | JoinError::WrongKind => {
                Self::unauthenticated(error.to_string())
            }
            JoinError::Issue(IssueError::Sign(_)) | JoinError::Store(_) => {
                tracing::error!(error = %crate::chain(&error), "certificate could not be issued");
                Self::unavailable("the control plane can't issue certificates now; its log says why")
            }
            JoinError::Issue(_) => Self::invalid_argument(error.to_string()),
        }
    }
}
