//! Shares of the audit log: where it is over its bounds, whoever has most of it loses the oldest entry of his. Invariant:
//! nobody pushes out an entry of one who has less.

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

use super::AUDIT;

/// Entries and bytes of each actor.
const SHARES: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("audit_shares");
/// The entries of each actor by number, with their bytes.
const OWN: TableDefinition<'_, (&str, u64), u64> = TableDefinition::new("audit_own");

/// The room of one entry on average, bytes: the log as a whole has as much room as that many entries.
const ROOM: u64 = 2 << 10;

/// Notes that an entry is of an actor.
pub(super) fn add(txn: &WriteTransaction, actor: &str, number: u64, bytes: usize) -> Result<(), redb::Error> {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let mut shares = txn.open_table(SHARES)?;
    let (entries, taken) = shares.get(actor)?.map(|share| share.value()).unwrap_or_default();
    shares.insert(actor, (entries + 1, taken.saturating_add(bytes)))?;
    txn.open_table(OWN)?.insert((actor, number), bytes)?;
    Ok(())
}

/// Takes entries out until so many are left, in the room of so many. The newest stays, whatever it takes.
pub(super) fn trim(txn: &WriteTransaction, keep: u64) -> Result<(), redb::Error> {
    let mut log = txn.open_table(AUDIT)?;
    loop {
        let newest = log.last()?.map(|(number, _)| number.value());
        let Some(newest) = newest else { return Ok(()) };
        let mut shares = Vec::new();
        for row in txn.open_table(SHARES)?.iter()? {
            let (actor, share) = row?;
            shares.push((actor.value().to_owned(), share.value()));
        }
        let known: u64 = shares.iter().map(|(_, (entries, _))| entries).sum();
        let bytes: u64 = shares.iter().map(|(_, (_, bytes))| bytes).sum();
        // An older release told nobody's share: these entries are the first, and count as one actor's.
        let (len, unknown) = (log.len()?, log.len()?.saturating_sub(known));
        if len <= keep && bytes / ROOM + unknown <= keep {
            return Ok(());
        }
        let weight = |(_, (entries, bytes)): &&(String, (u64, u64))| (*entries).max(bytes / ROOM);
        let largest = shares.iter().max_by_key(weight);
        match largest.filter(|share| weight(share) > unknown) {
            None => {
                log.pop_first()?;
            }
            Some((actor, _)) => {
                let Some(oldest) = oldest(txn, actor)?.filter(|number| *number != newest) else { return Ok(()) };
                log.remove(oldest)?;
                forget(txn, actor, oldest)?;
            }
        }
    }
}

fn oldest(txn: &WriteTransaction, actor: &str) -> Result<Option<u64>, redb::Error> {
    let own = txn.open_table(OWN)?;
    let mut range = own.range((actor, 0)..=(actor, u64::MAX))?;
    Ok(range.next().transpose()?.map(|(key, _)| key.value().1))
}

fn forget(txn: &WriteTransaction, actor: &str, number: u64) -> Result<(), redb::Error> {
    let bytes = txn.open_table(OWN)?.remove((actor, number))?.map(|bytes| bytes.value()).unwrap_or_default();
    let mut shares = txn.open_table(SHARES)?;
    let (entries, taken) = shares.get(actor)?.map(|share| share.value()).unwrap_or_default();
    if entries > 1 {
        shares.insert(actor, (entries - 1, taken.saturating_sub(bytes)))?;
    } else {
        shares.remove(actor)?;
    }
    Ok(())
}
