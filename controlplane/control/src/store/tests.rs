//! The store against real files: whole transactions, what is left after a crash, and a disk that fails and comes back.

mod records;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};
use weft_policy::lineage::Lineage;

use super::*;
use crate::token::{Grant, Role, TokenText};

fn newest(before: Option<u64>, limit: usize) -> AuditQuery {
    AuditQuery { before, limit, ..AuditQuery::default() }
}

fn entry(action: &str) -> AuditEntry {
    AuditEntry {
        time_unix_ms: 1,
        actor: "system".to_owned(),
        action: action.to_owned(),
        object: "o".to_owned(),
        ..AuditEntry::default()
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let grant = Grant::operator(Role::Viewer);
    let token = TokenText::generate(&grant);
    let record = TokenRecord {
        id: "x".into(),
        name: None,
        grant,
        created_unix: 1,
        created_by: "me".into(),
        expires_unix: Some(5),
    };
    {
        let store = Store::open(&path, 10).unwrap();
        assert_eq!(store.revision().unwrap(), Revision(0));
        let writes = vec![
            Write::PutObject { key: "a".into(), json: "1".into() },
            Write::PutObject { key: "b".into(), json: "2".into() },
            Write::PutToken(token.hash(), record.clone()),
            Write::PutArtifact { digest: "sha256:00".into(), bytes: vec![7; 100_000] },
            Write::Audit(Box::new(entry("apply"))),
        ];
        store.commit(Some(Revision(7)), writes).unwrap();
        store.commit(None, vec![Write::DeleteObject { key: "b".into() }]).unwrap();
    }
    let store = Store::open(&path, 10).unwrap();
    assert_eq!(store.revision().unwrap(), Revision(7));
    assert_eq!(store.objects::<u32>().unwrap().read, vec![("a".to_owned(), 1)]);
    assert_eq!(store.token(&token.hash()).unwrap().unwrap(), record);
    assert!(store.token(&TokenHash::of("other")).unwrap().is_none());
    assert_eq!(store.artifact("sha256:00").unwrap().unwrap().len(), 100_000);
    assert_eq!(store.audit(&newest(None, 10)).unwrap()[0].1.action, "apply");
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
    assert_eq!(found.objects::<u64>().unwrap().read.len(), 5);
}

#[test]
fn the_audit_log_is_bounded_and_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 3).unwrap();
    for n in 0..6 {
        store.commit(None, vec![Write::Audit(Box::new(entry(&format!("a{n}"))))]).unwrap();
    }
    let actions: Vec<_> = store.audit(&newest(None, 10)).unwrap().into_iter().map(|(n, e)| (n, e.action)).collect();
    assert_eq!(actions, vec![(6, "a5".to_owned()), (5, "a4".to_owned()), (4, "a3".to_owned())]);
    assert_eq!(store.audit(&newest(Some(5), 10)).unwrap().len(), 1);
}

#[test]
fn nobody_empties_the_audit_log_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 10).unwrap();
    let of = |actor: &str, action: String, diff: usize| {
        Write::Audit(Box::new(AuditEntry { actor: actor.to_owned(), diff: "x".repeat(diff), ..entry(&action) }))
    };
    let log = || {
        let log = store.audit(&newest(None, 100)).unwrap().into_iter();
        log.map(|(_, entry)| (entry.actor, entry.action)).collect::<Vec<_>>()
    };
    for number in 0..3 {
        store.commit(None, vec![of("operator:admin", format!("a{number}"), 0)]).unwrap();
    }
    for number in 0..100 {
        store.commit(None, vec![of("operator:bound", format!("b{number}"), 0)]).unwrap();
    }
    let admins = |log: &[(String, String)]| log.iter().filter(|(actor, _)| actor == "operator:admin").count();
    let kept = log();
    assert_eq!((kept.len(), admins(&kept)), (10, 3), "{kept:?}");
    assert_eq!(kept[0].1, "b99", "the newest first");
    assert_eq!(kept[6].1, "b93", "of one who has most the oldest go");
    // Large entries count as many.
    for number in 0..5 {
        store.commit(None, vec![of("operator:bound", format!("large{number}"), 9_000)]).unwrap();
    }
    let kept = log();
    assert_eq!((kept[0].1.as_str(), admins(&kept)), ("large4", 3), "{kept:?}");
    assert_eq!(
        kept.iter().filter(|(_, action)| action.starts_with("large")).count(),
        2,
        "in the room of ten: {kept:?}"
    );
    // Who has less than his share gets room from who has more.
    for number in 0..6 {
        store.commit(None, vec![of("operator:third", format!("t{number}"), 0)]).unwrap();
    }
    assert_eq!(admins(&log()), 3, "{:?}", log());
}

#[test]
fn an_accepted_store_has_an_epoch_above_all_that_may_have_been_seen() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| Store::open(&dir.path().join(name), 100).unwrap();
    let accept =
        |store: &Store, others: &[Lineage], now: i64| store.accept(others, now, entry("accept")).unwrap().epoch;
    let store = open("one");
    let saved = store.export(usize::MAX).unwrap();
    // Each restores the same without knowing of the other: what proxies had between is behind the later one.
    let restored = |name: &str, now: i64| {
        let store = open(name);
        assert!(store.import(saved.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).unwrap());
        (accept(&store, &[], now), store)
    };
    let ((first, _), (second, store)) = (restored("two", 1_800_000_000), restored("three", 1_800_000_060));
    assert_eq!((first, second), (1_800_000_000, 1_800_000_060));
    // A clock that was set back takes nothing back, whoever knows of the epoch.
    assert_eq!(accept(&store, &[], -5), second + 1);
    let (_, old) = restored("four", 0);
    let told = |epoch| [Lineage { epoch, ..old.lineage().unwrap() }];
    assert_eq!(accept(&old, &told(second), 60), second + 1);
    // A proxy's word for what no clock gives is not taken.
    assert_eq!(accept(&old, &told(1 << 60), 60), second + 2);
}

#[test]
fn a_second_opener_is_told_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let _first = Store::open(&path, 3).unwrap();
    let error = Store::open(&path, 3).err().unwrap().to_string();
    assert!(error.contains("another weft-control"), "{error}");
}

/// A disk with less room than this does not get to disk what it took: a commit fails there and has landed.
const SYNCED: u64 = 1 << 20;

/// A file on a disk that takes so many more bytes, and none of a write that is too long for it.
#[derive(Debug)]
struct SmallDisk {
    file: FileBackend,
    room: Arc<AtomicU64>,
}

impl SmallDisk {
    fn take(&self, bytes: u64) -> std::io::Result<()> {
        let taken = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(bytes));
        taken.map(drop).map_err(|_| std::io::Error::from_raw_os_error(28))
    }
}

impl StorageBackend for SmallDisk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        if self.room.load(Ordering::SeqCst) < SYNCED {
            return Err(std::io::Error::from_raw_os_error(28));
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.take(data.len() as u64)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

/// A store on a disk with that much room, and the room.
pub(crate) fn on_small_disk(path: &Path) -> (Store, Arc<AtomicU64>) {
    let room = Arc::new(AtomicU64::new(u64::MAX / 2));
    let (file, left) = (path.to_owned(), room.clone());
    let opener = move || {
        let mut options = std::fs::OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&file);
        let opened = opened.map_err(|error| redb::DatabaseError::Storage(redb::StorageError::Io(error)))?;
        let disk = SmallDisk { file: FileBackend::new(opened)?, room: left.clone() };
        Database::builder().create_with_backend(disk)
    };
    let embedded = Embedded::open_by(path, Box::new(opener)).unwrap();
    (Store::on(Waiting::embedded(embedded), 1000).unwrap(), room)
}

fn put(key: &str, json: &str) -> Vec<Write> {
    vec![Write::PutObject { key: key.to_owned(), json: json.to_owned() }]
}

/// Wherever in a commit the disk is full: nothing that was acknowledged is lost, what is read is whole, and with room
/// again the same store takes writes.
#[test]
fn a_full_disk_harms_nothing_and_is_used_again_when_it_has_room() {
    for room in [0, 1, 600, 5_000, 9_000, 40_000, 500_000, SYNCED + 1, SYNCED + 20_000, SYNCED + 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let (store, left) = on_small_disk(&dir.path().join("weft.redb"));
        store.commit(Some(Revision(1)), put("a", "1")).unwrap();
        let before = store.generation();
        left.store(room, Ordering::SeqCst);
        let mut last = 1;
        let failed = (2..200).find_map(|revision| {
            let tried = store.commit(Some(Revision(revision)), put("a", &revision.to_string()));
            if tried.is_ok() {
                last = revision;
            }
            tried.err()
        });
        let failed = failed.unwrap_or_else(|| panic!("{room}: the disk was never full"));
        assert!(crate::chain(&failed).contains("No space left"), "{room}: {}", crate::chain(&failed));
        let fault = store.fault().unwrap();
        assert!(fault.reason.contains("No space left"), "{room}: {fault}");
        left.store(u64::MAX / 2, Ordering::SeqCst);
        // The failed commit landed whole or not at all.
        let found = store.revision().unwrap().0;
        assert!(found == last || found == last + 1, "{room}: {found} after {last}");
        assert_eq!(store.objects::<u64>().unwrap().read, vec![("a".to_owned(), found)], "{room}");
        assert!(store.generation() > before, "{room}");
        store.commit(Some(Revision(1000)), put("b", "2")).unwrap();
        assert_eq!(store.fault(), None, "{room}");
        assert_eq!(store.objects::<u64>().unwrap().read.len(), 2, "{room}");
    }
}

#[test]
fn a_store_reads_while_its_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (store, left) = on_small_disk(&dir.path().join("weft.redb"));
    store.commit(Some(Revision(1)), put("a", "1")).unwrap();
    left.store(SYNCED + 30_000, Ordering::SeqCst);
    for _ in 0..3 {
        store.commit(None, vec![Write::PutArtifact { digest: "d".into(), bytes: vec![1; 100_000] }]).unwrap_err();
        left.store(SYNCED + 30_000, Ordering::SeqCst);
        assert_eq!(store.revision().unwrap(), Revision(1));
    }
    left.store(0, Ordering::SeqCst);
    store.probe().unwrap_err();
    left.store(u64::MAX / 2, Ordering::SeqCst);
    store.probe().unwrap();
    assert_eq!(store.fault(), None);
}

#[test]
fn what_is_no_store_is_told_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.redb");
    Store::open(&good, 3).unwrap().commit(Some(Revision(1)), put("a", "1")).unwrap();
    let whole = std::fs::read(&good).unwrap();
    let cases: [(&str, Vec<u8>); 3] = [
        ("text", b"this is no store".repeat(100)),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("header", whole[..100].to_vec()),
    ];
    for (what, bytes) in cases {
        let path = dir.path().join(what);
        std::fs::write(&path, &bytes).unwrap();
        let error = Store::open(&path, 3).err().unwrap_or_else(|| panic!("{what} was opened")).to_string();
        assert!(error.contains("is damaged") && error.contains("restore a backup"), "{what}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: it is left as it was");
    }
}

#[test]
fn records_of_other_forms_are_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 10).unwrap();
    let records = [
        ("new", r#"{"schema":2,"id":"x"}"#),
        ("odd", r#"{"schema":"one"}"#),
        ("torn", r#"{"id":"#),
        ("wrong", r#"{"id":7}"#),
        ("good", r#"{"schema":1,"id":"x"}"#),
        ("old", r#"{"id":"y"}"#),
    ];
    for (key, json) in records {
        store.commit(None, put(key, json)).unwrap();
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Id {
        id: String,
    }
    let rows = store.objects::<Id>().unwrap();
    let read: Vec<_> = rows.read.iter().map(|(key, id)| (key.as_str(), id.id.as_str())).collect();
    assert_eq!(read, [("good", "x"), ("old", "y")]);
    for unreadable in &rows.unreadable {
        let was = records.iter().find(|(key, _)| *key == unreadable.key).unwrap().1;
        assert_eq!(unreadable.record, was);
    }
    let reason = |key: &str| rows.unreadable.iter().find(|record| record.key == key).unwrap().reason.clone();
    assert!(reason("new").contains("a newer weft-control wrote"), "{}", reason("new"));
    assert!(reason("torn").contains("no JSON"), "{}", reason("torn"));
    assert_eq!(write_record(&serde_json::json!({"id": "z"})).unwrap(), r#"{"id":"z","schema":1}"#);
}

#[test]
fn no_proxy_pushes_an_operators_entry_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("weft.redb"), 3).unwrap();
    let by = |actor: &str, action: &str| AuditEntry { actor: actor.to_owned(), ..entry(action) };
    store.commit(None, vec![Write::Audit(Box::new(by("operator:1", "delete")))]).unwrap();
    for n in 0..20 {
        store
            .commit(None, vec![Write::Audit(Box::new(by("proxy:spiffe://a/ns/b/sa/c", &format!("renew-{n}"))))])
            .unwrap();
    }
    store.commit(None, vec![Write::Audit(Box::new(by("operator:1", "apply")))]).unwrap();
    let all = store.audit(&newest(None, 10)).unwrap();
    let told: Vec<_> = all.iter().map(|(number, entry)| (*number, entry.action.as_str())).collect();
    assert_eq!(told, [(22, "apply"), (21, "renew-19"), (20, "renew-18"), (19, "renew-17"), (1, "delete")]);
    assert_eq!(store.audit(&newest(Some(21), 2)).unwrap().len(), 2);
}
