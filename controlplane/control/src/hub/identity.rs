//! Certificates for proxies: joining with a token, renewing with the certificate in use. One that has ended renews itself
//! within a grace, if it is the last that was issued in its line and its identity was not banned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_policy::identity::SpiffeId;
use weft_policy::plan::Owned;
use weft_policy::text::printable;

use super::apply::PutError;
use super::tokens::surplus;
use super::{Actor, Draft, Hub, joined};
use crate::ca::{Authority, IssueError, Issued};
use crate::claims::MAX_GRANTED;
use crate::config::Limits;
use crate::metrics::Throttled;
use crate::rate::{Rates, source_of};
use crate::store::{Store, StoreError, Table, Write, write_record};
use crate::token::{Grant, TokenHash, TokenRecord};

/// The address of who joins; of IPv6 the network, of which one host has all addresses.
type Source = Option<IpAddr>;

/// How often joins are tried, and told of.
pub(super) struct Joins {
    tried: Rates<Source>,
    told: Rates<Source>,
    told_of_all: Rates<()>,
}

/// Refused joins that are logged in a minute: of one source, and of all.
const TOLD: (u32, u32) = (10, 60);

impl Joins {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tried: Rates::per_minute(limits.max_joins_per_minute),
            told: Rates::per_minute(TOLD.0),
            told_of_all: Rates::per_minute(TOLD.1),
        }
    }
}

/// A certificate and what to trust.
pub struct SignedIdentity {
    pub identity: SpiffeId,
    pub issued: Issued,
    pub trust_bundle_pem: String,
}

/// The caller, as named by the certificate whose key it has proved to hold. The certificate may have ended.
#[derive(Debug, Clone)]
pub struct Holder {
    pub identity: SpiffeId,
    pub serial: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// A certificate that was issued, under its serial number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedRecord {
    pub(super) identity: SpiffeId,
    pub(super) not_after_unix: i64,
    /// The serial number of the one that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaced_by: Option<String>,
    /// The fingerprint of the root that vouches for it; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<String>,
}

impl IssuedRecord {
    /// The one that took its place, as the store names it.
    pub(super) fn next(&self) -> Option<String> {
        self.replaced_by.as_deref().map(row_of)
    }
}

/// Why a proxy gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("this join token is not known here, or was used already")]
    Unknown,
    #[error("this join token is for {of}: it grants nothing to {identity}")]
    OtherAccount { of: Box<SpiffeId>, identity: Box<SpiffeId> },
    #[error("this join token is for {of}, and the proxy is configured for {wanted}: it stays as good as it was")]
    Misconfigured { of: Box<SpiffeId>, wanted: String },
    #[error("this join token expired at {0}")]
    Expired(String),
    #[error("this is an operator's token: a proxy needs a join token (weft token create)")]
    WrongKind,
    #[error("{0}")]
    Banned(String),
    #[error(
        "{identity} would have {granted} services, labels and addresses granted; at most {MAX_GRANTED} are: use another \
         service account, or grant a range"
    )]
    TooManyGrants { identity: SpiffeId, granted: usize },
    #[error("too many joins are tried from {from}: again in {seconds} s")]
    TooOften { from: String, seconds: u64 },
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PutError> for JoinError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Owned(owned) => owned.into(),
            PutError::Store(error) => error.into(),
        }
    }
}

/// Why a certificate is not renewed. Each names the cure.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("the certificate ended at {at}, longer ago than the grace of {grace}: {}", new_token(.identity))]
    GraceOver { at: String, grace: String, identity: SpiffeId },
    #[error("the certificate ended at {at} and was renewed before by whoever holds its key: {}", new_token(.identity))]
    Replaced { at: String, identity: SpiffeId },
    #[error("the certificate ended at {at} and is not known here: {}", new_token(.identity))]
    NotKnown { at: String, identity: SpiffeId },
    #[error("{identity} renews too often: again in {seconds} s")]
    TooOften { identity: SpiffeId, seconds: u64 },
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Why a certificate is good for no more than its own renewal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotValid {
    #[error("the certificate of {identity} ended at {}", shown(*.at))]
    Ended { identity: SpiffeId, at: OffsetDateTime },
    #[error("the certificate of {identity} is valid only from {}", shown(*.at))]
    NotYet { identity: SpiffeId, at: OffsetDateTime },
}

fn new_token(identity: &SpiffeId) -> String {
    let (namespace, account) = (identity.namespace(), identity.service_account());
    format!(
        "give the proxy a new join token (weft token create --service-account {namespace}/{account}) in its \
         control.token_file, which it reads by itself"
    )
}

impl From<StoreError> for RenewError {
    fn from(error: StoreError) -> Self {
        Self::Join(error.into())
    }
}

impl Holder {
    /// Checks that the certificate is good for more than its own renewal.
    ///
    /// # Errors
    /// It has ended, or its life has not begun.
    pub fn valid_at(&self, now: OffsetDateTime) -> Result<(), NotValid> {
        let identity = self.identity.clone();
        if now >= self.not_after {
            return Err(NotValid::Ended { identity, at: self.not_after });
        }
        // The clocks of proxies and of this server differ a little.
        if now + BEHIND < self.not_before {
            return Err(NotValid::NotYet { identity, at: self.not_before });
        }
        Ok(())
    }
}

/// How far this server's clock may be behind the one that set a certificate's beginning.
const BEHIND: time::Duration = time::Duration::minutes(5);

impl Hub {
    /// Exchanges a join token and a signing request for a certificate. A refused request leaves the token unused.
    pub async fn join(
        self: &Arc<Self>,
        token: &str,
        csr_der: &[u8],
        peer: Option<IpAddr>,
    ) -> Result<SignedIdentity, JoinError> {
        self.join_as("", token, csr_der, peer).await
    }

    /// The same for a proxy that is configured for an account, as `namespace/service-account`; empty if it does not tell.
    pub async fn join_as(
        self: &Arc<Self>,
        account: &str,
        token: &str,
        csr_der: &[u8],
        peer: Option<IpAddr>,
    ) -> Result<SignedIdentity, JoinError> {
        let from = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let source = peer.map(source_of);
        if let Err(seconds) = self.within(&self.joins.tried, &source, Throttled::Joins) {
            return Err(JoinError::TooOften { from, seconds });
        }
        let result = Box::pin(self.try_join(account, token, csr_der, &from)).await;
        match &result {
            Ok(signed) => {
                tracing::info!(identity = %signed.identity, peer = from, serial = %signed.issued.serial, "proxy joined");
            }
            Err(error) => {
                self.metrics().joins_refused.increment(1);
                // Whoever has no token must not fill the disk with what is said of him; the metric counts all.
                if self.joins.told.take(&source, Instant::now()).is_ok()
                    && self.joins.told_of_all.take(&(), Instant::now()).is_ok()
                {
                    tracing::warn!(peer = from, error = %crate::chain(error), "join refused");
                }
            }
        }
        result
    }

    async fn try_join(
        self: &Arc<Self>,
        account: &str,
        token: &str,
        csr_der: &[u8],
        peer: &str,
    ) -> Result<SignedIdentity, JoinError> {
        let hash = TokenHash::of(token);
        let (authority, ttl, now) = (self.authority().clone(), self.svid_ttl(), OffsetDateTime::now_utc());
        let row = joined::Row::of(&hash, csr_der);
        let (identity, token) = match (usable(self.token(hash.clone()).await?, now), &row) {
            (Ok((record, identity)), _) => (identity, record.id),
            (Err(error), Err(_)) => return Err(error),
            (Err(error), Ok(row)) => {
                // It may have been used up by whoever asks, and the answer was lost.
                let (asked, at) = (row.clone(), now.unix_timestamp());
                let joined = self.blocking(move |store| asked.read(store, at)).await?.ok_or(error)?;
                (joined.identity, joined.token)
            }
        };
        let row = row?;
        self.not_banned(&identity)?;
        if !account.is_empty() && account != format!("{}/{}", identity.namespace(), identity.service_account()) {
            let wanted = printable(account).into_owned();
            return Err(JoinError::Misconfigured { of: Box::new(identity), wanted });
        }
        let issued = authority.issue_workload(csr_der, &identity, ttl, now)?;
        let root = issued.root.clone();
        let actor = Actor::from(format!("token:{token}"));
        let object = identity.to_string();
        let (serial, detail) = (issued.serial.clone(), format!("serial={} peer={peer}", issued.serial));
        let store = self.store.clone();
        let namespace = identity.namespace().to_owned();
        let put = put_issued(&issued, &identity)?;
        let made = self.change_together(move |draft| {
            let mut used_up = None;
            let action = match row.read_in(draft, &store, now.unix_timestamp())? {
                Some(joined) => {
                    row.again(draft, &store, joined, &serial)?;
                    "join.again"
                }
                None => {
                    // Read again under the writer's lock: a token of one use is used once.
                    let (record, identity) = usable(draft.token(&store, &hash)?, now)?;
                    if let Grant::Join { identity, grants, .. } = &record.grant {
                        draft.grant_bounded(identity, grants)?;
                    }
                    draft.writes.extend(row.first(&identity, record.id.clone(), &serial, now.unix_timestamp())?);
                    used_up = spend(draft, hash.clone(), record);
                    "join"
                }
            };
            still_vouched(&authority, &root)?;
            draft.writes.push(put.clone());
            draft.audit(&actor, action, object.clone(), detail.clone()).within([namespace.clone()]);
            Ok::<_, JoinError>((action, used_up))
        });
        let (action, used_up) = made.await?;
        if let Some(record) = used_up {
            self.tokens_made.remove(&record);
        }
        self.metrics().joins.increment(u64::from(action == "join"));
        Ok(self.signed(identity, issued))
    }

    /// The next certificate of an identity that has proved itself by the current one, or by its last.
    pub async fn renew(self: &Arc<Self>, holder: &Holder, csr_der: &[u8]) -> Result<SignedIdentity, RenewError> {
        let now = OffsetDateTime::now_utc();
        self.within(&self.renewals, &holder.identity, Throttled::Renewals)
            .map_err(|seconds| RenewError::TooOften { identity: holder.identity.clone(), seconds })?;
        let result = self.try_renew(holder, csr_der, now).await;
        match &result {
            Ok(signed) => {
                let late = now >= holder.not_after;
                tracing::info!(identity = %signed.identity, serial = %signed.issued.serial, late, "certificate renewed");
            }
            Err(error) => {
                self.metrics().joins_refused.increment(1);
                tracing::warn!(identity = %holder.identity, error = %crate::chain(error), "renewal refused");
            }
        }
        result
    }

    async fn try_renew(
        self: &Arc<Self>,
        holder: &Holder,
        csr_der: &[u8],
        now: OffsetDateTime,
    ) -> Result<SignedIdentity, RenewError> {
        let identity = holder.identity.clone();
        self.not_banned(&identity)?;
        let issued =
            self.authority().issue_workload(csr_der, &identity, self.svid_ttl(), now).map_err(JoinError::from)?;
        let (actor, object) = (Actor::from(format!("proxy:{identity}")), identity.to_string());
        let detail = format!("serial={}", issued.serial);
        let put = put_issued(&issued, &identity)?;
        let (store, holder, next) = (self.store.clone(), holder.clone(), issued.serial.clone());
        let (authority, root) = (self.authority().clone(), issued.root.clone());
        let grace = self.config().identity_grace();
        self.change_together(move |draft| {
            still_vouched(&authority, &root).map_err(JoinError::from)?;
            let before: Option<IssuedRecord> = draft.row(&store, Table::Issued, &row_of(&holder.serial))?;
            if now >= holder.not_after {
                within_grace(&holder, before.as_ref(), grace, now)?;
            } else if before.as_ref().is_some_and(|before| before.replaced_by.is_some()) {
                tracing::warn!(identity = %holder.identity, serial = holder.serial,
                    "a certificate was renewed twice: its answer was lost, or two hold its key");
            }
            if let Some(before) = before {
                let replaced = IssuedRecord { replaced_by: Some(next.clone()), ..before };
                draft.writes.push(Write::PutRow(Table::Issued, row_of(&holder.serial), write_record(&replaced)?));
            }
            draft.writes.push(put.clone());
            draft
                .audit(&actor, "renew", object.clone(), detail.clone())
                .within([holder.identity.namespace().to_owned()]);
            Ok::<_, RenewError>(())
        })
        .await?;
        Ok(self.signed(identity, issued))
    }

    fn signed(&self, identity: SpiffeId, issued: Issued) -> SignedIdentity {
        self.metrics().certificates.increment(1);
        let trust_bundle_pem = self.authority().trust_bundle_pem();
        SignedIdentity { identity, issued, trust_bundle_pem }
    }

    fn not_banned(&self, identity: &SpiffeId) -> Result<(), JoinError> {
        match self.banned(identity) {
            Some(ban) => Err(JoinError::Banned(ban)),
            None => Ok(()),
        }
    }

    /// Forgets certificates that can't be renewed any more, and joins that can't be asked for again.
    pub async fn sweep_issued(&self) -> Result<(), StoreError> {
        let (now, grace) = (crate::now_unix(), self.config().identity_grace().as_secs());
        let grace = i64::try_from(grace).unwrap_or(i64::MAX);
        self.blocking(move |store| {
            let is_over = |record: &IssuedRecord| record.not_after_unix.saturating_add(grace) < now;
            let over = issued(store)?.into_iter().filter(|(_, record)| is_over(record));
            let over = over.map(|(serial, record)| (record.not_after_unix, serial)).collect();
            let forgotten = surplus(over, KEPT_OVER);
            let mut writes: Vec<_> = forgotten.map(|serial| Write::DeleteRow(Table::Issued, serial)).collect();
            writes.extend(joined::sweep(store, now)?);
            if writes.is_empty() { Ok(()) } else { store.commit(None, writes) }
        })
        .await
    }

    fn svid_ttl(&self) -> time::Duration {
        time::Duration::seconds(i64::try_from(self.config().svid_ttl_seconds).unwrap_or(i64::MAX))
    }
}

/// So many certificates that are over are remembered.
const KEPT_OVER: usize = if cfg!(test) { 0 } else { 10_000 };

/// Checks that an ended certificate may still be renewed: it is the last of its line and ended not long ago.
fn within_grace(
    holder: &Holder,
    before: Option<&IssuedRecord>,
    grace: std::time::Duration,
    now: OffsetDateTime,
) -> Result<(), RenewError> {
    let (at, identity) = (shown(holder.not_after), holder.identity.clone());
    if now >= holder.not_after + grace {
        let grace = format!("{} s", grace.as_secs());
        return Err(RenewError::GraceOver { at, grace, identity });
    }
    match before {
        None => Err(RenewError::NotKnown { at, identity }),
        Some(before) if before.identity != identity => Err(RenewError::NotKnown { at, identity }),
        Some(IssuedRecord { replaced_by: Some(_), .. }) => Err(RenewError::Replaced { at, identity }),
        Some(_) => Ok(()),
    }
}

/// Another control plane may have dropped the root meanwhile: nothing that is issued below it is handed out.
fn still_vouched(authority: &Authority, root: &str) -> Result<(), IssueError> {
    if authority.trusts(root) { Ok(()) } else { Err(IssueError::NotVouched) }
}

fn put_issued(issued: &Issued, identity: &SpiffeId) -> Result<Write, StoreError> {
    let not_after_unix = issued.not_after.unix_timestamp();
    let root = Some(issued.root.clone());
    let record = IssuedRecord { identity: identity.clone(), not_after_unix, replaced_by: None, root };
    Ok(Write::PutRow(Table::Issued, row_of(&issued.serial), write_record(&record)?))
}

/// The certificates that the store knows of, by their serial numbers as it names them. One that can't be read is not among them.
pub(super) fn issued(store: &Store) -> Result<BTreeMap<String, IssuedRecord>, StoreError> {
    Ok(store.table(Table::Issued)?.read.into_iter().collect())
}

/// A serial number as the store names it, however it is written.
pub(super) fn row_of(serial: &str) -> String {
    serial.chars().filter(char::is_ascii_hexdigit).map(|digit| digit.to_ascii_lowercase()).collect()
}

fn shown(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

pub(super) fn usable(found: Option<TokenRecord>, now: OffsetDateTime) -> Result<(TokenRecord, SpiffeId), JoinError> {
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

/// Takes one use of a token. Gives what it was where that was the last: it goes.
pub(super) fn spend(draft: &mut Draft, hash: TokenHash, record: TokenRecord) -> Option<TokenRecord> {
    let last = matches!(record.grant, Grant::Join { uses_left: ..=1, .. }).then(|| record.clone());
    draft.writes.push(used(hash, record));
    last
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
