//! Joins of late. A joiner whose answer was lost asks again with the same token and the same key, and gets a certificate again
//! for a while, at whichever control plane of the store; its token was used once. Invariant: another key gets nothing of it, and a token
//! that is revoked opens nothing more.

use serde::{Deserialize, Serialize};
use weft_policy::identity::SpiffeId;

use super::Draft;
use super::identity::{IssuedRecord, row_of};
use crate::ca::{IssueError, key_of};
use crate::store::{Store, StoreError, Table, Write, write_record};
use crate::token::TokenHash;

/// So many seconds after a join its answer may be asked for again.
const AGAIN: i64 = 600;

/// So many renewals of one certificate are followed: more are not made while its join may be asked for again.
const MAX_LINE: usize = 1_000;

/// A join that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) identity: SpiffeId,
    /// The id of the token.
    pub(super) token: String,
    until_unix: i64,
    /// The serial number of the last certificate that was made for it.
    serial: String,
}

/// The row of a join.
#[derive(Debug, Clone)]
pub(super) struct Row(String);

impl Row {
    pub(super) fn of(hash: &TokenHash, csr_der: &[u8]) -> Result<Self, IssueError> {
        Ok(Self(format!("{}/{}", hash.as_str(), key_of(csr_der)?)))
    }

    /// The join that was made with this token and key, as long as it may be asked for again.
    pub(super) fn read(&self, store: &Store, now: i64) -> Result<Option<Joined>, StoreError> {
        let found: Option<Joined> = store.row(Table::Joined, &self.0)?;
        Ok(found.filter(|joined| joined.may_ask(now)))
    }

    /// The same as the changes before this one leave it.
    pub(super) fn read_in(&self, draft: &Draft, store: &Store, now: i64) -> Result<Option<Joined>, StoreError> {
        let found: Option<Joined> = draft.row(store, Table::Joined, &self.0)?;
        Ok(found.filter(|joined| joined.may_ask(now)))
    }

    /// Notes a join by which a token was used.
    pub(super) fn first(
        &self,
        identity: &SpiffeId,
        token: String,
        serial: &str,
        now: i64,
    ) -> Result<Vec<Write>, StoreError> {
        let joined = Joined { identity: identity.clone(), token, until_unix: now + AGAIN, serial: serial.to_owned() };
        Ok(vec![self.put(&joined)?])
    }

    /// Notes that one was answered again: this certificate takes the place of the one before.
    pub(super) fn again(
        &self,
        draft: &mut Draft,
        store: &Store,
        joined: Joined,
        serial: &str,
    ) -> Result<(), StoreError> {
        // It may have been renewed meanwhile: what takes the place of the last of a line leaves no second line.
        let mut before = row_of(&joined.serial);
        let mut record: Option<IssuedRecord> = draft.row(store, Table::Issued, &before)?;
        for _ in 0..MAX_LINE {
            let Some(next) = record.as_ref().and_then(IssuedRecord::next) else { break };
            let Some(later) = draft.row(store, Table::Issued, &next)? else { break };
            (before, record) = (next, Some(later));
        }
        draft.writes.push(self.put(&Joined { serial: serial.to_owned(), ..joined })?);
        if let Some(record) = record {
            let replaced = IssuedRecord { replaced_by: Some(serial.to_owned()), ..record };
            draft.writes.push(Write::PutRow(Table::Issued, before, write_record(&replaced)?));
        }
        Ok(())
    }

    fn put(&self, joined: &Joined) -> Result<Write, StoreError> {
        Ok(Write::PutRow(Table::Joined, self.0.clone(), write_record(joined)?))
    }
}

impl Joined {
    /// A clock that was set back makes none last longer.
    fn may_ask(&self, now: i64) -> bool {
        now < self.until_unix && now >= self.until_unix - 2 * AGAIN
    }
}

/// Forgets joins that can't be asked for again.
pub(super) fn sweep(store: &Store, now: i64) -> Result<Vec<Write>, StoreError> {
    let all = store.table::<Joined>(Table::Joined)?.read.into_iter();
    let over = all.filter(|(_, joined)| !joined.may_ask(now));
    Ok(over.map(|(key, _)| Write::DeleteRow(Table::Joined, key)).collect())
}

/// Forgets the joins by a token that ends.
pub(super) fn forget(store: &Store, is_of: impl Fn(&str) -> bool) -> Result<Vec<Write>, StoreError> {
    let all = store.table::<Joined>(Table::Joined)?;
    let unread = all.unreadable.into_iter().map(|row| row.key);
    let keys = all.read.into_iter().map(|(key, _)| key).chain(unread);
    let of = keys.filter(|key| key.split_once('/').is_some_and(|(hash, _)| is_of(hash)));
    Ok(of.map(|key| Write::DeleteRow(Table::Joined, key)).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;
    use crate::hub::Holder;
    use crate::hub::tests::hub_in;
    use crate::token::Grant;

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    fn grant(uses_left: u32) -> Grant {
        let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        Grant::Join { identity, uses_left, grants: Default::default() }
    }

    #[tokio::test]
    async fn a_join_whose_answer_was_lost_is_answered_again_to_the_same_key_and_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let token = hub.create_token("me", grant(1), None).await.unwrap();
        let text = token.text.reveal().to_owned();
        let lost = hub.join(&text, &request(&key), None).await.unwrap();
        let signed = hub.join(&text, &request(&key), None).await.unwrap();
        assert_eq!(signed.identity, lost.identity);
        let before: IssuedRecord = hub.store.row(Table::Issued, &row_of(&lost.issued.serial)).unwrap().unwrap();
        assert_eq!(before.replaced_by, Some(signed.issued.serial.clone()), "one line: an eviction finds both");
        // One that was renewed meanwhile goes on the same line.
        let holder = Holder {
            identity: signed.identity.clone(),
            serial: signed.issued.serial.clone(),
            not_before: OffsetDateTime::now_utc(),
            not_after: signed.issued.not_after,
        };
        let renewed = hub.renew(&holder, &request(&other)).await.unwrap();
        let last = hub.join(&text, &request(&key), None).await.unwrap();
        let of = |serial: &str| hub.store.row::<IssuedRecord>(Table::Issued, &row_of(serial)).unwrap().unwrap();
        assert_eq!(of(&signed.issued.serial).replaced_by, Some(renewed.issued.serial.clone()));
        assert_eq!(of(&renewed.issued.serial).replaced_by, Some(last.issued.serial.clone()));
        let refused = hub.join(&text, &request(&other), None).await.err().unwrap().to_string();
        assert!(refused.contains("was used already"), "{refused}");
        // A request that somebody copied is signed by the key, and its certificate is no use without that.
        let forged = {
            let mut forged = request(&key);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            forged
        };
        hub.join(&text, &forged, None).await.err().expect("not signed by the key");
        let log = hub.audit(None, 10).await.unwrap();
        let told: Vec<_> = log.iter().rev().map(|(_, entry)| entry.action.as_str()).collect();
        assert_eq!(told, ["token.create", "join", "join.again", "renew", "join.again"]);
        // It outlives a restart, and ends with its time.
        drop(hub);
        let hub = hub_in(dir.path(), |_| {});
        hub.join(&text, &request(&key), None).await.unwrap();
        let row = Row::of(&TokenHash::of(&text), &request(&key)).unwrap();
        let now = crate::now_unix();
        for (at, is_there) in [(now, true), (now + AGAIN + 1, false), (now - 2 * AGAIN, false)] {
            assert_eq!(row.read(&hub.store, at).unwrap().is_some(), is_there, "{at}");
        }
        assert_eq!(sweep(&hub.store, now).unwrap().len(), 0);
        assert_eq!(sweep(&hub.store, now + AGAIN + 1).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn of_a_token_of_several_uses_one_key_takes_one_and_a_revoked_token_opens_nothing_again() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        let keys: Vec<_> = (0..3).map(|_| KeyPair::generate().unwrap()).collect();
        let token = hub.create_token("me", grant(3), None).await.unwrap();
        let text = token.text.reveal().to_owned();
        for _ in 0..4 {
            hub.join(&text, &request(&keys[0]), None).await.unwrap();
        }
        hub.join(&text, &request(&keys[1]), None).await.unwrap();
        let id = token.id.clone();
        assert_eq!(hub.revoke_tokens("me", move |record| record.id == id).await.unwrap().len(), 1);
        for key in &keys {
            let refused = hub.join(&text, &request(key), None).await.err().unwrap().to_string();
            assert!(refused.contains("is not known here"), "{refused}");
        }
        // One that is banned gets nothing again either.
        let token = hub.create_token("me", grant(1), None).await.unwrap();
        let text = token.text.reveal().to_owned();
        let signed = hub.join(&text, &request(&keys[0]), None).await.unwrap();
        hub.ban("me", signed.identity, String::new()).await.unwrap();
        let refused = hub.join(&text, &request(&keys[0]), None).await.err().unwrap().to_string();
        assert!(refused.contains("is banned since"), "{refused}");
    }
}
