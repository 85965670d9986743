//! Making, finding and ending tokens.

use std::sync::Arc;
use std::time::Duration;

use super::{Actor, Hub};
use crate::now_unix;
use crate::store::{Store, StoreError, Write};
use crate::token::{Grant, Role, TokenHash, TokenRecord, TokenText};

/// A token that was just made: the only time its text is seen.
pub struct NewToken {
    pub text: TokenText,
    pub id: String,
    pub expires_unix: Option<i64>,
}

impl Hub {
    pub async fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        self.blocking(move |store| store.token(&hash)).await
    }

    pub async fn create_token(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        grant: Grant,
        ttl: Option<Duration>,
    ) -> Result<NewToken, StoreError> {
        self.create_named_token(actor, None, grant, ttl).await
    }

    pub async fn create_named_token(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        name: Option<&str>,
        grant: Grant,
        ttl: Option<Duration>,
    ) -> Result<NewToken, StoreError> {
        let (actor, text) = (actor.into(), TokenText::generate(&grant));
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
        self.change(move |draft| {
            draft.writes.push(Write::PutToken(hash, record));
            draft.audit(actor, action, object, detail).within(namespaces);
            Ok::<_, StoreError>(())
        })
        .await?;
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
        is_it: impl Fn(&TokenRecord) -> bool,
    ) -> Result<Vec<TokenRecord>, StoreError> {
        let (store, actor) = (self.store.clone(), actor.into());
        self.change(move |draft| {
            let mut ended = Vec::new();
            for (hash, record) in store.tokens()?.read.into_iter().filter(|(_, record)| is_it(record)) {
                draft.writes.push(Write::DeleteToken(TokenHash::stored(hash)));
                draft
                    .audit(&actor, "token.revoke", record.called().to_owned(), format!("id={}", record.id))
                    .within(record.grant.namespaces());
                ended.push(record);
            }
            Ok(ended)
        })
        .await
    }

    /// Lets a token end at `at_unix`.
    pub(crate) async fn end_token(self: &Arc<Self>, hash: TokenHash, at_unix: i64) -> Result<(), StoreError> {
        let store = self.store.clone();
        self.change(move |draft| {
            if let Some(record) = store.token(&hash)? {
                draft.writes.push(Write::PutToken(hash, TokenRecord { expires_unix: Some(at_unix), ..record }));
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

    /// Forgets tokens that have expired, but for the last of them: a clock that is ahead for a while takes none away.
    pub async fn sweep_tokens(&self) -> Result<(), StoreError> {
        let now = now_unix();
        self.blocking(move |store| {
            let expired = store.tokens()?.read.into_iter().filter(|(_, record)| record.is_expired(now));
            let expired = expired.map(|(hash, record)| (record.expires_unix.unwrap_or(i64::MAX), hash));
            let writes: Vec<_> = surplus(expired.collect(), KEPT_TOKENS)
                .map(|hash| Write::DeleteToken(TokenHash::stored(hash)))
                .collect();
            if writes.is_empty() { Ok(()) } else { store.commit(None, writes) }
        })
        .await
    }
}

/// So many expired tokens are kept.
const KEPT_TOKENS: usize = 1_000;

/// Of what has ended, each with when, all but the `kept` that ended last. No clock decides what is forgotten, since one
/// that was wrong would decide for good.
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
