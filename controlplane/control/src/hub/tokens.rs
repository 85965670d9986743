//! Making, finding and ending tokens. Invariant: their number and size are bounded, for each namespace and each maker by
//! shares, so that nobody keeps others from making theirs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Actor, Hub, SYSTEM, joined};
use crate::now_unix;
use crate::store::{Store, StoreError, Write, write_record};
use crate::token::{Grant, Role, TokenHash, TokenRecord, TokenText};

/// A token that was just made: the only time its text is seen.
pub struct NewToken {
    pub text: TokenText,
    pub id: String,
    pub expires_unix: Option<i64>,
}

/// Bytes of a token's record.
const MAX_RECORD: usize = 8 << 10;
/// The share of all tokens that one namespace may have, and that one token's holder may make.
const SHARES: (usize, usize) = (10, 5);

/// Why no token is made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{whose} has {found} tokens that are good, which is the limit: revoke some, or wait for their end")]
    TooMany { whose: String, found: usize },
    #[error("its record would have {0} bytes; at most {MAX_RECORD} are taken: grant less with one token")]
    TooLarge(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many tokens are good, by what they are for and by who made them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// `None` until they were counted.
    by: Mutex<Option<BTreeMap<String, usize>>>,
}

impl Counts {
    /// What a token counts for, each with its share of all.
    fn keys(record: &TokenRecord) -> impl Iterator<Item = (String, usize)> + use<> {
        let all = std::iter::once(("the mesh".to_owned(), 1));
        let namespaces = record.grant.namespaces().into_iter().map(|name| (format!("namespace {name}"), SHARES.0));
        let maker = Some((format!("{}, as their maker,", record.created_by), SHARES.1));
        all.chain(namespaces).chain(maker)
    }

    /// Counts anew.
    fn count(&self, store: &Store, now: i64) -> Result<(), StoreError> {
        let mut counts = BTreeMap::new();
        store.each_token(|_, record| {
            if !record.is_expired(now) {
                Self::keys(record).for_each(|(key, _)| *counts.entry(key).or_default() += 1);
            }
        })?;
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
        Ok(())
    }

    fn admit(&self, record: &TokenRecord, most: usize) -> Result<(), TokenError> {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = by.as_ref().filter(|_| record.created_by != SYSTEM) else { return Ok(()) };
        for (whose, share) in Self::keys(record) {
            let found = counts.get(&whose).copied().unwrap_or_default();
            if found >= (most / share).max(1) {
                return Err(TokenError::TooMany { whose, found });
            }
        }
        Ok(())
    }

    fn change(&self, record: &TokenRecord, change: impl Fn(usize) -> usize) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = &mut *by else { return };
        for (key, _) in Self::keys(record) {
            let count = counts.entry(key).or_default();
            *count = change(*count);
        }
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> Option<BTreeMap<String, usize>> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, record: &TokenRecord) {
        self.change(record, |count| count + 1);
    }

    pub(super) fn remove(&self, record: &TokenRecord) {
        self.change(record, |count| count.saturating_sub(1));
    }
}

/// Tokens as they were read last, for a while.
#[derive(Default)]
pub(super) struct Read(Mutex<HashMap<TokenHash, (Instant, TokenRecord)>>);

/// So long, and so many at the most.
const READ: (Duration, usize) = (Duration::from_secs(600), 1_024);

impl Read {
    fn note(&self, hash: &TokenHash, record: Option<&TokenRecord>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = record else { return drop(known.remove(hash)) };
        if known.len() >= READ.1 {
            known.retain(|_, (at, _)| at.elapsed() < READ.0);
        }
        if known.len() < READ.1 || known.contains_key(hash) {
            known.insert(hash.clone(), (Instant::now(), record.clone()));
        }
    }

    fn get(&self, hash: &TokenHash) -> Option<TokenRecord> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|(at, _)| at.elapsed() < READ.0).map(|(_, record)| record.clone())
    }
}

impl Hub {
    /// The record of a token as it is now. While a store on the network can't be reached, one that was read lately is
    /// taken for what it was: who reads goes on reading.
    pub async fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let asked = hash.clone();
        let found = self.blocking(move |store| store.token(&asked)).await;
        if !self.store.is_shared() {
            return found;
        }
        match &found {
            Ok(record) => self.tokens_read.note(&hash, record.as_ref()),
            Err(error) if error.is_unreachable() => {
                if let Some(record) = self.tokens_read.get(&hash) {
                    return Ok(Some(record));
                }
            }
            Err(_) => {}
        }
        found
    }

    pub async fn create_token(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        grant: Grant,
        ttl: Option<Duration>,
    ) -> Result<NewToken, TokenError> {
        self.create_named_token(actor, None, grant, ttl).await
    }

    pub async fn create_named_token(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: Option<&str>,
        grant: Grant,
        ttl: Option<Duration>,
    ) -> Result<NewToken, TokenError> {
        let text = TokenText::generate(&grant);
        Box::pin(self.keep_token(actor, name, grant, ttl, text)).await
    }

    /// Makes a token whose text was chosen before.
    pub(crate) async fn keep_token(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: Option<&str>,
        grant: Grant,
        ttl: Option<Duration>,
        text: TokenText,
    ) -> Result<NewToken, TokenError> {
        let actor = actor.into();
        let namespaces = grant.namespaces();
        let now = now_unix();
        let expires_unix = ttl.map(|ttl| now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)));
        let (action, object) = match &grant {
            Grant::Join { identity, uses_left, grants } => {
                ("token.create", format!("join {identity} uses={uses_left}{grants}"))
            }
            Grant::Operator { role, .. } => ("token.create", format!("operator {role}{}", grant.reach())),
        };
        let hash = text.hash();
        let id = hash.id();
        let record = TokenRecord {
            id: id.clone(),
            name: name.map(str::to_owned),
            grant,
            created_unix: now,
            created_by: actor.id.clone(),
            expires_unix,
        };
        let detail = name.map_or_else(|| format!("id={id}"), |name| format!("id={id} name={name}"));
        let bytes = write_record(&record)?.len();
        if bytes > MAX_RECORD {
            return Err(TokenError::TooLarge(bytes));
        }
        let (hub, made) = (self.clone(), record.clone());
        self.change(move |draft| {
            hub.tokens_made.admit(&record, hub.config().limits.max_tokens)?;
            draft.writes.push(Write::PutToken(hash.clone(), record.clone()));
            draft.audit(&actor, action, object.clone(), detail.clone()).within(namespaces.clone());
            Ok::<_, TokenError>(())
        })
        .await?;
        self.tokens_made.add(&made);
        Ok(NewToken { text, id, expires_unix })
    }

    /// Every token that is good for something, by when it was made.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        let now = now_unix();
        let rows = self.blocking(Store::tokens).await?.read;
        let mut tokens: Vec<_> = rows.into_iter().map(|(_, record)| record).filter(|it| !it.is_expired(now)).collect();
        tokens.sort_by_key(|record| (record.created_unix, record.id.clone()));
        Ok(tokens)
    }

    /// Ends the tokens that are meant, at once; gives what they were.
    pub async fn revoke_tokens(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        is_it: impl Fn(&TokenRecord) -> bool + Send + 'static,
    ) -> Result<Vec<TokenRecord>, StoreError> {
        let (store, actor) = (self.store.clone(), actor.into());
        self.change(move |draft| {
            let mut ended = Vec::new();
            let meant: BTreeMap<_, _> = store.tokens()?.read.into_iter().filter(|(_, record)| is_it(record)).collect();
            if !meant.is_empty() {
                draft.writes.extend(joined::forget(&store, |of| meant.contains_key(of))?);
            }
            for (hash, record) in meant {
                draft.writes.push(Write::DeleteToken(TokenHash::stored(hash)));
                draft
                    .audit(&actor, "token.revoke", record.called().to_owned(), format!("id={}", record.id))
                    .within(record.grant.namespaces());
                ended.push(record);
            }
            Ok(ended)
        })
        .await
        .inspect(|ended| {
            // Expired tokens are not in the counts.
            let counted = ended.iter().filter(|record| !record.is_expired(now_unix()));
            counted.for_each(|record| self.tokens_made.remove(record));
        })
    }

    /// Lets a token end at `at_unix`.
    pub(crate) async fn end_token(self: &Arc<Self>, hash: TokenHash, at_unix: i64) -> Result<(), StoreError> {
        let store = self.store.clone();
        self.change(move |draft| {
            if let Some(record) = store.token(&hash)? {
                let ends = TokenRecord { expires_unix: Some(at_unix), ..record };
                draft.writes.push(Write::PutToken(hash.clone(), ends));
            }
            Ok(())
        })
        .await
    }

    /// True when an admin's token exists.
    pub(crate) async fn has_admin(&self) -> Result<bool, StoreError> {
        let is_admin = |record: &TokenRecord| record.grant == Grant::operator(Role::Admin);
        Ok(self.tokens().await?.iter().any(is_admin))
    }

    /// Counts tokens anew: other control planes make and end them as well.
    pub(crate) async fn count_tokens(self: &Arc<Self>) -> Result<(), StoreError> {
        let (hub, now) = (self.clone(), now_unix());
        self.blocking(move |store| hub.tokens_made.count(store, now)).await
    }

    /// Forgets tokens that have expired, but for the last of them: a clock that is ahead for a while takes none away.
    pub async fn sweep_tokens(self: &Arc<Self>) -> Result<(), StoreError> {
        let now = now_unix();
        let hub = self.clone();
        self.blocking(move |store| {
            let mut expired = Vec::new();
            store.each_token(|hash, record| {
                if record.is_expired(now) {
                    expired.push((record.expires_unix.unwrap_or(i64::MAX), hash.to_owned()));
                }
            })?;
            hub.tokens_made.count(store, now)?;
            let writes: Vec<_> =
                surplus(expired, KEPT_TOKENS).map(|hash| Write::DeleteToken(TokenHash::stored(hash))).collect();
            if writes.is_empty() { Ok(()) } else { store.commit(None, writes) }
        })
        .await
    }
}

/// So many expired tokens are kept.
const KEPT_TOKENS: usize = 1_000;

/// All of `ended` (each with the time of its end) but the `kept` that ended last. Their number decides what is forgotten, not the
/// clock: one that was wrong for a moment would delete for good.
pub(super) fn surplus<T>(mut ended: Vec<(i64, T)>, kept: usize) -> impl Iterator<Item = T> {
    ended.sort_by_key(|(at, _)| *at);
    let surplus = ended.len().saturating_sub(kept);
    ended.into_iter().take(surplus).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_last_is_kept() {
        let forgotten = |ended: &[(i64, u8)], kept| surplus(ended.to_vec(), kept).collect::<Vec<_>>();
        assert_eq!(forgotten(&[(3, 1), (1, 2), (2, 3)], 2), [2]);
        assert_eq!(forgotten(&[(3, 1), (1, 2)], 2), [0; 0]);
        assert_eq!(forgotten(&[(3, 1), (1, 2)], 0), [2, 1]);
    }
}
