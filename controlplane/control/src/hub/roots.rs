//! The root of several control planes on one store: who has its key, who follows it, and how one that has not gets an
//! intermediate. The store has the certificates and no key; each key stays in the folder where it was made. Invariant: a root is
//! replaced by one commit that no two make, and followed before the revision with that commit is published.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::rotation::{Begun, Told, record_of_begin, record_of_told};
use super::{Actor, Draft, Hub, Rotation, RotationError, apart};
use crate::ca::{Authority, Dropped, Line, Offer, RotateError, SignError, Taken};
use crate::metrics::Throttled;
use crate::peers::Signing;
use crate::rate::Rates;
use crate::store::{ROOTS, Store, StoreError, Write, read_record, write_record};

/// Begins the key under which a control plane tells others how far it is with the roots; its session follows.
pub(super) const STANDING: &str = "authority/";
/// So long one that got no intermediate waits before it asks again.
const AGAIN: Duration = Duration::from_secs(2);

/// How far a control plane is with the roots, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// `HOST:PORT` for others of its store, where it tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The newest root that it trusts.
    newest: String,
    /// The root that vouches for what it issues and shows; empty where that is none that is trusted.
    below: String,
    /// It has the newest one's key.
    has_key: bool,
    /// Why it does not follow, or has no intermediate of the newest root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A control plane and the root that it issues below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRoot {
    /// Where it is reached, or how it is called in the store.
    pub replica: String,
    /// Empty where that is none that is trusted, or it does not tell.
    pub below: String,
    pub has_key: bool,
    /// Why that is not the newest.
    pub reason: Option<String>,
}

pub(super) struct Roots {
    /// By session.
    others: Mutex<BTreeMap<String, Standing>>,
    fault: Mutex<Option<String>>,
    /// What the store says was not followed yet.
    is_behind: AtomicBool,
    /// The root before was dropped by force: streams of its certificates are to end.
    was_forced: AtomicBool,
    asked: Mutex<Option<Instant>>,
    /// The root that vouches for the certificate of the ports here, once that is known.
    shown: Mutex<Option<String>>,
    /// What others may have signed here.
    signings: Rates<()>,
}

impl Roots {
    pub(super) fn new(signings_per_minute: u32) -> Self {
        Self {
            others: Mutex::default(),
            fault: Mutex::default(),
            is_behind: AtomicBool::default(),
            was_forced: AtomicBool::default(),
            asked: Mutex::default(),
            shown: Mutex::default(),
            signings: Rates::per_minute(signings_per_minute),
        }
    }

    pub(super) fn put(&self, session: &str, told: Option<String>) {
        match told.map(|told| serde_json::from_str(&told)) {
            Some(Ok(standing)) => drop(lock(&self.others).insert(session.to_owned(), standing)),
            Some(Err(error)) => {
                tracing::warn!(session, %error, "how far a control plane is with the roots can't be read")
            }
            None => drop(lock(&self.others).remove(session)),
        }
    }

    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.others).retain(|session, _| is_there(session));
    }

    /// Notes why the roots are not followed, or that they are; tells of it once.
    fn note(&self, reason: Option<String>) {
        let mut fault = lock(&self.fault);
        if *fault != reason {
            match &reason {
                Some(reason) => tracing::error!(reason, "this control plane does not issue below the newest root yet"),
                None => tracing::info!("this control plane issues below the newest root"),
            }
            *fault = reason;
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has an authority follow what the store says. The result says whether the root before was dropped by force.
pub(crate) fn follow(authority: &Authority, record: &str) -> Result<(Taken, bool), String> {
    let line: Line =
        read_record(record).map_err(|error| format!("the store's record of the roots can't be read: {error}"))?;
    let taken = authority.follow(&line).map_err(|error| crate::chain(&error))?;
    Ok((taken, line.was_forced()))
}

/// The roots as the store has them.
fn line(store: &Store, authority: &Authority) -> Result<Line, RotationError> {
    match store.meta(ROOTS)? {
        Some(record) => read_record(&record).map_err(RotationError::Record),
        None => Ok(authority.first_line()),
    }
}

impl Hub {
    /// What changes say of the roots.
    pub(super) fn roots_in(writes: &[Write]) -> Option<String> {
        writes.iter().rev().find_map(|write| {
            let Write::Meta(ROOTS, record) = write else { return None };
            Some(record.clone())
        })
    }

    /// Follows what the store says of the roots, before anything of that commit is published.
    pub(super) async fn follow_roots(&self, record: String) {
        let authority = self.authority.clone();
        let followed = apart(move || follow(&authority, &record)).await;
        self.has_followed_roots(followed);
    }

    pub(super) fn has_followed_roots(&self, followed: Result<(Taken, bool), String>) -> bool {
        self.roots.is_behind.store(followed.is_err(), Ordering::Release);
        match followed {
            Ok((Taken::Nothing, _)) => false,
            Ok((Taken::Roots, was_forced)) => {
                let authorities = self.authority.authorities();
                let previous = authorities.previous.map(|(fingerprint, _)| fingerprint).unwrap_or_default();
                tracing::warn!(
                    root = authorities.root.0,
                    previous,
                    "the roots that this control plane trusts have changed"
                );
                self.roots.was_forced.store(was_forced && previous.is_empty(), Ordering::Release);
                true
            }
            Err(reason) => {
                self.roots.note(Some(reason));
                false
            }
        }
    }

    /// The ports here show a certificate below this root.
    pub(crate) fn shows(&self, below: String) {
        *lock(&self.roots.shown) = Some(below);
    }

    /// How far this control plane is, for others.
    pub(super) fn standing(&self) -> Standing {
        let authority = self.authority();
        Standing {
            address: self.config().replica_address(),
            newest: authority.fingerprint(),
            below: lock(&self.roots.shown).clone().unwrap_or_else(|| authority.issues_below()),
            has_key: authority.has_root_key(),
            reason: lock(&self.roots.fault).clone(),
        }
    }

    /// All control planes that live, this one first, and what each issues below.
    pub(super) fn replica_roots(&self) -> Vec<ReplicaRoot> {
        if !self.store.is_shared() {
            return Vec::new();
        }
        let shown = |session: &str, standing: Standing| ReplicaRoot {
            replica: standing.address.unwrap_or_else(|| session.to_owned()),
            below: standing.below,
            has_key: standing.has_key,
            reason: standing.reason,
        };
        let mut all = vec![shown("this one", self.standing())];
        let others = lock(&self.roots.others).clone();
        let silent = self.replica.peers().addresses().into_iter().filter(|(session, _)| !others.contains_key(session));
        let silent: Vec<_> = silent.collect();
        all.extend(others.into_iter().map(|(session, standing)| shown(&session, standing)));
        all.extend(silent.into_iter().map(|(_, replica)| ReplicaRoot {
            replica,
            below: String::new(),
            has_key: false,
            reason: Some("it does not tell: it is of an earlier version, which follows no root".to_owned()),
        }));
        all
    }

    /// The other control plane that has the newest root's key: where it is reached, or how it is called in the store.
    pub(super) fn key_holder(&self) -> Option<String> {
        let newest = self.authority().fingerprint();
        let others = lock(&self.roots.others);
        let (session, holder) = others.iter().find(|(_, standing)| standing.has_key && standing.newest == newest)?;
        Some(holder.address.clone().unwrap_or_else(|| session.clone()))
    }

    /// Begins to replace the root of several control planes. The new one's key stays here.
    pub(super) async fn rotate_several(self: &Arc<Self>, actor: Actor) -> Result<(), RotationError> {
        let authority = self.authority().clone();
        let offer = apart(move || authority.offer(OffsetDateTime::now_utc())).await?;
        let vouched = match offer {
            Offer::Ready(vouched) => vouched,
            Offer::Wanted(wanted) => {
                let cross = self.have_signed(wanted.csr_der.clone(), true).await.map_err(RotationError::Unsigned)?;
                let authority = self.authority().clone();
                apart(move || authority.keep_offer(wanted, &cross, OffsetDateTime::now_utc())).await?
            }
        };
        let (store, authority, age) = (self.store.clone(), self.authority().clone(), self.age());
        self.change(move |draft: &mut Draft| {
            let known = line(&store, &authority)?;
            let next = vouched.behind(&known).ok_or(RotateError::Underway)?;
            let (root, previous) = (vouched.fingerprint().to_owned(), known.newest().to_owned());
            let told = Told::of(&format!("{root} {previous}"), draft.revision.0);
            draft.changed = true;
            draft.writes.extend([
                Write::Meta(ROOTS, write_record(&next)?),
                Store::naming_root(&root),
                record_of_told(&told),
                record_of_begin(&root, Begun::now_of(age)),
            ]);
            draft.audit(&actor, "ca.rotate", root, String::new());
            Ok::<_, RotationError>(())
        })
        .await
    }

    /// Trusts the root before no more. Without `force` only if nothing that was issued below it lives when this lands.
    pub(super) async fn finish_several(self: &Arc<Self>, actor: Actor, force: bool) -> Result<(), RotationError> {
        let Rotation { authorities, .. } = self.rotation().await?;
        let lives = self.lives_below_others(&authorities).await?;
        let (store, authority, root) = (self.store.clone(), self.authority().clone(), authorities.root.0);
        self.change(move |draft: &mut Draft| {
            let known = line(&store, &authority)?;
            if known.newest() != root || !known.is_underway() {
                return Err(RotateError::NotUnderway.into());
            }
            let certificates = if force { 0 } else { lives.ends(&store)?.len() };
            if certificates > 0 {
                return Err(RotationError::Needed { certificates, waiting: 0 });
            }
            let dropped = Dropped { unix: crate::now_unix(), by_force: force };
            draft.changed = true;
            draft.writes.push(Write::Meta(ROOTS, write_record(&known.without_previous(dropped))?));
            draft.writes.push(record_of_told(&Told::of(&root, draft.revision.0)));
            draft.audit(&actor, "ca.finish", root.clone(), if force { "by force".to_owned() } else { String::new() });
            Ok::<_, RotationError>(())
        })
        .await
    }

    /// Goes on with what is left to do here: roots that could not be followed, an intermediate that another has to sign.
    pub(super) async fn tend_roots(self: &Arc<Self>) {
        if !self.store.is_shared() {
            return;
        }
        if self.roots.is_behind.load(Ordering::Acquire) {
            self.follow_late().await;
        }
        if self.roots.was_forced.swap(false, Ordering::AcqRel)
            && let Err(error) = self.end_streams_of_other_roots().await
        {
            tracing::error!(error = %crate::chain(&error), "streams of the old root could not be ended");
        }
        let wants = self.authority().wants_intermediate(OffsetDateTime::now_utc());
        self.metrics()
            .root_not_followed
            .set(f64::from(u8::from(wants || self.roots.is_behind.load(Ordering::Acquire))));
        if !wants {
            if !self.roots.is_behind.load(Ordering::Acquire) {
                self.roots.note(None);
            }
            return;
        }
        if lock(&self.roots.asked).is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        let got = self.get_intermediate().await;
        *lock(&self.roots.asked) = got.is_err().then(Instant::now);
        self.roots.note(got.err());
    }

    async fn follow_late(self: &Arc<Self>) {
        let Ok(Some(record)) = self.blocking(|store| store.meta(ROOTS)).await else { return };
        let authority = self.authority.clone();
        let followed = apart(move || follow(&authority, &record)).await;
        // Proxies were told without it.
        if self.has_followed_roots(followed)
            && let Err(error) = self.tell_trust("system".into(), "ca.tell").await
        {
            tracing::error!(error = %crate::chain(&error), "which roots are trusted could not be told");
        }
    }

    /// Has an intermediate of the newest root signed by who has its key.
    pub(super) async fn get_intermediate(&self) -> Result<(), String> {
        let authority = self.authority().clone();
        let asked = apart(move || authority.ask()).await.map_err(|error| crate::chain(&error))?;
        let certificate = self.have_signed(asked.csr_der.clone(), false).await?;
        let (authority, names) = (self.authority().clone(), crate::tls::server_names(self.config()));
        let taken = apart(move || authority.take(asked, &certificate, &names, OffsetDateTime::now_utc())).await;
        taken.map_err(|error| crate::chain(&error))
    }

    /// Before anybody is served: gets an intermediate where the root of the one that is here was dropped meanwhile.
    pub(crate) async fn be_vouched(&self) -> Result<(), String> {
        if self.authority().is_vouched() {
            return Ok(());
        }
        self.read_held().await.map_err(|error| crate::chain(&error))?;
        self.get_intermediate().await
    }

    async fn have_signed(&self, csr_der: Vec<u8>, is_root: bool) -> Result<Vec<u8>, String> {
        let newest = self.authority().fingerprint();
        let others = lock(&self.roots.others).clone();
        let signers = others.into_iter().filter(|(_, standing)| standing.has_key && standing.newest == newest);
        let proof_der = match self.authority().is_vouched() {
            true => Vec::new(),
            false => {
                let proof = self.authority().prove(&csr_der, OffsetDateTime::now_utc());
                proof.map_err(|error| crate::chain(&error))?
            }
        };
        let signing = Signing { csr_der, is_root, proof_der };
        let mut reasons = Vec::new();
        for (session, _) in signers {
            let answer = self.replica.peers().sign(&session, &signing).await;
            match answer.said {
                Ok(certificate) => return Ok(certificate),
                Err(reason) => reasons.push(format!("{}: {reason}", answer.address)),
            }
        }
        match reasons.is_empty() {
            true => Err(format!(
                "no control plane that is there has the key of the root {newest}: start the one again whose state folder has \
                 it, elsewhere if need be"
            )),
            false => Err(format!("the one with the root's key did not sign it: {}", reasons.join("; "))),
        }
    }

    /// Signs what another control plane asks for, which the caller has made sure that it is; noted in the audit log first.
    pub(crate) async fn sign_for_replica(
        self: &Arc<Self>,
        from: String,
        csr_der: Vec<u8>,
        is_root: bool,
    ) -> Result<CertificateDer<'static>, SigningError> {
        self.within(&self.roots.signings, &(), Throttled::Signings).map_err(SigningError::TooOften)?;
        let (authority, request) = (self.authority().clone(), csr_der.clone());
        let key = crate::ca::key_of(&csr_der).map_err(SignError::from)?;
        let signed = apart(move || authority.sign_for_another(&request, is_root, OffsetDateTime::now_utc())).await?;
        let action = if is_root { "ca.vouch" } else { "ca.sign" };
        let (actor, below) = (Actor::from(format!("replica:{from}")), self.authority().fingerprint());
        self.change(move |draft: &mut Draft| {
            draft.audit(&actor, action, below.clone(), format!("key={key}"));
            Ok::<_, StoreError>(())
        })
        .await?;
        tracing::warn!(from, action, "signed for another control plane");
        Ok(signed)
    }

    /// Checks that a request comes from a control plane that was away while its root was dropped.
    pub(crate) async fn check_proof(
        &self,
        csr_der: Vec<u8>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<(), String> {
        let authority = self.authority().clone();
        let check = move |store: &Store| {
            let line = line(store, &authority).map_err(|error| crate::chain(&error));
            Ok(line.and_then(|line| authority.check_proof(&line, &csr_der, &chain, OffsetDateTime::now_utc())))
        };
        self.blocking(check).await.map_err(|error| crate::chain(&error))?
    }
}

/// Why another control plane gets nothing signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    #[error("too much is signed for other control planes: again in {0} s")]
    TooOften(u64),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
