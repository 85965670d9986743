//! The store against real files: whole transactions, and what is left after a crash.

use super::*;
use crate::token::{Grant, Role, TokenText};

fn entry(action: &str) -> AuditEntry {
    AuditEntry {
        time_unix_ms: 1,
        actor: "system".to_owned(),
        action: action.to_owned(),
        object: "o".to_owned(),
        revision: 0,
        detail: String::new(),
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let grant = Grant::Operator { role: Role::Viewer };
    let token = TokenText::generate(&grant);
    let record = TokenRecord { id: "x".into(), grant, created_unix: 1, created_by: "me".into(), expires_unix: Some(5) };
    {
        let store = Store::open(&path, 10).unwrap();
        assert_eq!(store.revision().unwrap(), Revision(0));
        let writes = vec![
            Write::PutObject { key: "a".into(), json: "1".into() },
            Write::PutObject { key: "b".into(), json: "2".into() },
            Write::PutToken(token.hash(), record.clone()),
            Write::PutArtifact { digest: "sha256:00".into(), bytes: vec![7; 100_000] },
            Write::Audit(entry("apply")),
        ];
        store.commit(Some(Revision(7)), writes).unwrap();
        store.commit(None, vec![Write::DeleteObject { key: "b".into() }]).unwrap();
    }
    let store = Store::open(&path, 10).unwrap();
    assert_eq!(store.revision().unwrap(), Revision(7));
    assert_eq!(store.objects::<u32>().unwrap(), vec![("a".to_owned(), 1)]);
    assert_eq!(store.token(&token.hash()).unwrap().unwrap(), record);
    assert!(store.token(&TokenHash::of("other")).unwrap().is_none());
    assert_eq!(store.artifact("sha256:00").unwrap().unwrap().len(), 100_000);
    assert_eq!(store.audit(None, 10).unwrap()[0].1.action, "apply");
}

#[test]
fn a_copy_taken_while_open_is_what_a_crash_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let store = Store::open(&path, 10).unwrap();
    for n in 1..=5 {
        let write = Write::PutObject { key: n.to_string(), json: n.to_string() };
        store.commit(Some(Revision(n)), vec![write]).unwrap();
    }
    let copy = dir.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    let found = Store::open(&copy, 10).unwrap();
    assert_eq!(found.revision().unwrap(), Revision(5));
    assert_eq!(found.objects::<u64>().unwrap().len(), 5);
}

#[test]
fn the_audit_log_is_bounded_and_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 3).unwrap();
    for n in 0..6 {
        store.commit(None, vec![Write::Audit(entry(&format!("a{n}")))]).unwrap();
    }
    let actions: Vec<_> = store.audit(None, 10).unwrap().into_iter().map(|(n, e)| (n, e.action)).collect();
    assert_eq!(actions, vec![(6, "a5".to_owned()), (5, "a4".to_owned()), (4, "a3".to_owned())]);
    assert_eq!(store.audit(Some(5), 10).unwrap().len(), 1);
}

#[test]
fn a_second_opener_is_told_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let _first = Store::open(&path, 3).unwrap();
    let error = Store::open(&path, 3).err().unwrap().to_string();
    assert!(error.contains("another weft-control"), "{error}");
}
