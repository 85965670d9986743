//! Making and finding tokens, and reading the audit log.

use std::sync::Arc;
use std::time::Duration;

use super::Hub;
use crate::now_unix;
use crate::store::{AuditEntry, StoreError, Write};
use crate::token::{Grant, TokenHash, TokenRecord, TokenText};

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
        actor: &str,
        grant: Grant,
        ttl: Option<Duration>,
    ) -> Result<NewToken, StoreError> {
        let text = TokenText::generate(&grant);
        let now = now_unix();
        let expires_unix = ttl.map(|ttl| now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)));
        let (action, object) = match &grant {
            Grant::Join { identity, uses_left, grants } => {
                ("token.create", format!("join {identity} uses={uses_left}{grants}"))
            }
            Grant::Operator { role } => ("token.create", format!("operator {role}")),
        };
        let hash = text.hash();
        let id = hash.id();
        let record =
            TokenRecord { id: id.clone(), grant, created_unix: now, created_by: actor.to_owned(), expires_unix };
        let detail = format!("id={id}");
        self.change(move |draft| {
            draft.writes.push(Write::PutToken(hash, record));
            draft.audit(actor, action, object, detail);
            Ok::<_, StoreError>(())
        })
        .await?;
        Ok(NewToken { text, id, expires_unix })
    }

    /// Forgets tokens that have expired.
    pub async fn sweep_tokens(&self) -> Result<(), StoreError> {
        let now = now_unix();
        self.blocking(move |store| {
            let expired = store.tokens()?.read.into_iter().filter(|(_, record)| record.is_expired(now));
            let writes: Vec<_> = expired.map(|(hash, _)| Write::DeleteToken(TokenHash::stored(hash))).collect();
            if writes.is_empty() { Ok(()) } else { store.commit(None, writes) }
        })
        .await
    }

    /// The newest entries first.
    pub async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.blocking(move |store| store.audit(before, limit)).await
    }
}
