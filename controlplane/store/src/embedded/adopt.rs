//! Takes over the tables of older releases, which had a type for each: their rows become bytes under the same names.
//! Numbers become texts of twenty digits, so that their order stays.

use redb::{Key, ReadableTable as _, TableDefinition, TableError, Value, WriteTransaction};

use super::ROWS;

/// Copies each table that has one of the types that there were, and deletes it. Others are left alone.
pub(super) fn tables(txn: &WriteTransaction, names: &[String]) -> Result<(), redb::Error> {
    for name in names {
        let text = |key: &str| key.to_owned();
        let number = |key: u64| format!("{key:020}");
        let pair = |(text, number): (&str, u64)| format!("{text}/{number:020}");
        let _ = take::<&str, &str>(txn, name, text, |value| value.as_bytes().to_vec())?
            || take::<&str, &[u8]>(txn, name, text, <[u8]>::to_vec)?
            || take::<u64, &str>(txn, name, number, |value| value.as_bytes().to_vec())?
            || take::<&str, (u64, u64)>(txn, name, text, |(a, b)| format!("{a} {b}").into_bytes())?
            || take::<(&str, u64), u64>(txn, name, pair, |value| value.to_string().into_bytes())?;
    }
    Ok(())
}

/// False where the table has other types.
fn take<K: Key + 'static, V: Value + 'static>(
    txn: &WriteTransaction,
    name: &str,
    key_of: impl for<'k> Fn(K::SelfType<'k>) -> String,
    value_of: impl for<'v> Fn(V::SelfType<'v>) -> Vec<u8>,
) -> Result<bool, redb::Error> {
    let definition = TableDefinition::<K, V>::new(name);
    let old = match txn.open_table(definition) {
        Ok(table) => table,
        Err(TableError::TableTypeMismatch { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut rows = txn.open_table(ROWS)?;
    for row in old.iter()? {
        let (key, value) = row?;
        let (key, value) = (key_of(key.value()), value_of(value.value()));
        rows.insert((name, key.as_str()), value.as_slice())?;
    }
    drop((old, rows));
    txn.delete_table(definition)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use redb::Database;

    use super::*;
    use crate::embedded::Embedded;
    use crate::{Range, Row};

    #[test]
    fn rows_of_older_tables_are_there_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.redb");
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(TableDefinition::<&str, &str>::new("meta")).unwrap().insert("revision", "7").unwrap();
        txn.open_table(TableDefinition::<&str, &[u8]>::new("artifacts"))
            .unwrap()
            .insert("d", &[0_u8, 255][..])
            .unwrap();
        let mut audit = txn.open_table(TableDefinition::<u64, &str>::new("audit")).unwrap();
        audit.insert(10, "ten").unwrap();
        audit.insert(9, "nine").unwrap();
        drop(audit);
        txn.open_table(TableDefinition::<&str, (u64, u64)>::new("shares")).unwrap().insert("me", (2, 7)).unwrap();
        txn.open_table(TableDefinition::<(&str, u64), u64>::new("own")).unwrap().insert(("me", 9), 4).unwrap();
        txn.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let store = Embedded::open(&path).unwrap();
            let of = |table| {
                let rows = store.read_now(&[Range::all(table)], usize::MAX).unwrap().rows.remove(0);
                rows.into_iter().map(|Row { key, value }| (key, value.to_vec())).collect::<Vec<_>>()
            };
            assert_eq!(of("meta"), [("revision".to_owned(), b"7".to_vec())]);
            assert_eq!(of("artifacts"), [("d".to_owned(), vec![0, 255])]);
            let audit = [("00000000000000000009", b"nine".to_vec()), ("00000000000000000010", b"ten".to_vec())];
            assert_eq!(of("audit"), audit.map(|(key, value)| (key.to_owned(), value)));
            assert_eq!(of("shares"), [("me".to_owned(), b"2 7".to_vec())]);
            assert_eq!(of("own"), [("me/00000000000000000009".to_owned(), b"4".to_vec())]);
        }
    }
}
