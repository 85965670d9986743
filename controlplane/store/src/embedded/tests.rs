//! A crash at any moment: the file is rebuilt as a disk may have left it, with what was not synced lost in part or torn.

use std::ops::Bound;
use std::sync::{Arc, Mutex};

use redb::backends::InMemoryBackend;
use redb::{BackendError, Database, StorageBackend};

use super::*;

/// What was done to a file.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    /// A commit of this number was acknowledged.
    Acknowledged(u64),
}

#[derive(Debug, Clone, Default)]
struct Steps(Arc<Mutex<Vec<Step>>>);

impl Steps {
    fn add(&self, step: Step) {
        self.0.lock().unwrap().push(step);
    }
}

/// A file in memory that keeps account of what is done to it.
#[derive(Debug)]
struct Recorded {
    file: InMemoryBackend,
    steps: Steps,
}

impl StorageBackend for Recorded {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.steps.add(Step::SetLen(len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.steps.add(Step::Sync);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.steps.add(Step::Write(offset, data.to_vec()));
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

const COMMITS: u64 = 3;

/// Rows that belong together: each commit writes its number to all of them, and one that is as long as a page.
fn writes(number: u64) -> Vec<Write> {
    let put = |key: String, value: String| Write::Put { table: "t", key, value: value.into() };
    let mut writes: Vec<_> = (0..20).map(|row| put(format!("row/{row}"), number.to_string())).collect();
    writes.push(put(format!("long/{number}"), "x".repeat(5_000)));
    writes.push(Write::Delete { table: "t", key: format!("long/{}", number - 1) });
    writes
}

fn recorded() -> Vec<Step> {
    let steps = Steps::default();
    let of = steps.clone();
    let opener = move || {
        let disk = Recorded { file: InMemoryBackend::new(), steps: of.clone() };
        Database::builder().create_with_backend(disk)
    };
    let store = Embedded::open_by(Path::new("memory"), Box::new(opener)).unwrap();
    steps.add(Step::Acknowledged(0));
    for number in 1..=COMMITS {
        store.commit_now(Version(number - 1), &writes(number)).unwrap();
        steps.add(Step::Acknowledged(number));
    }
    steps.0.lock().unwrap().clone()
}

/// The file after `steps`, as far as they were synced, and of the others what `survives` says: so many bytes of each.
fn image(steps: &[Step], survives: impl Fn(usize, usize) -> usize) -> Vec<u8> {
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
    let mut file = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::SetLen(len) => file.resize(usize::try_from(*len).unwrap(), 0),
            Step::Write(offset, data) => {
                let survives = if index <= synced { data.len() } else { survives(index, data.len()) };
                let from = usize::try_from(*offset).unwrap();
                file[from..from + survives].copy_from_slice(&data[..survives]);
            }
            Step::Sync | Step::Acknowledged(_) => {}
        }
    }
    file
}

#[test]
fn a_crash_at_any_write_leaves_the_state_before_or_after_a_commit() {
    let steps = recorded();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crashed.redb");
    let begun = steps.iter().position(|step| matches!(step, Step::Acknowledged(0))).unwrap();
    let (mut images, mut after) = (0, 0);
    for end in begun + 1..=steps.len() {
        let (last, acknowledged) = (end - 1, &steps[..end]);
        let acknowledged = acknowledged.iter().filter_map(|step| match step {
            Step::Acknowledged(number) => Some(*number),
            Step::Write(..) | Step::SetLen(_) | Step::Sync => None,
        });
        let acknowledged = acknowledged.max().unwrap();
        // All of it is there; the last is torn at its beginning, middle and end; what was not synced is lost, or every other.
        let lost: [&dyn Fn(usize, usize) -> usize; 6] = [
            &|_, len| len,
            &|index, len| if index == last { 1.min(len) } else { len },
            &|index, len| if index == last { len / 2 } else { len },
            &|index, len| if index == last { len - 1 } else { len },
            &|_, _| 0,
            &|index, len| if index % 2 == 0 { len } else { 0 },
        ];
        for (kind, survives) in lost.into_iter().enumerate() {
            std::fs::write(&path, image(&steps[..end], survives)).unwrap();
            let what = format!("step {end} of {}, {kind}: {:?}", steps.len(), steps[last]);
            let store = Embedded::open(&path).unwrap_or_else(|error| panic!("{what:.200}: {error}"));
            let reading = store.read_now(&[Range::all("t")], usize::MAX).unwrap();
            let found = reading.version.0;
            assert!(found == acknowledged || found == acknowledged + 1, "{what:.200}: {found}, not {acknowledged}");
            let rows = &reading.rows[0];
            assert_eq!(rows.len(), if found == 0 { 0 } else { 21 }, "{what:.200}");
            let is_whole = |row: &Row| match row.key.strip_prefix("long/") {
                Some(number) => number == found.to_string() && row.value.len() == 5_000,
                None => row.value == found.to_string().as_bytes(),
            };
            assert!(rows.iter().all(is_whole), "{what:.200}");
            // It is used as if nothing had been.
            store.commit_now(Version(found), &writes(found + 1)).unwrap();
            images += 1;
            after += u64::from(found > acknowledged);
        }
    }
    assert!(images > 100 && after > 0, "{images} images, {after} after a commit that was not acknowledged");
}

#[test]
fn pages_that_make_no_sense_are_told_and_end_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let store = Embedded::open(&path).unwrap();
    for number in 1..=40 {
        store.commit_now(Version(number - 1), &writes(number)).unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut told = 0;
    for (from, byte) in (1..40).flat_map(|page| [(page, 0xa5), (page, 0xff), (page, 0x01)]) {
        let mut damaged = whole.clone();
        let end = damaged.len().min((from + 40) * 4_096);
        damaged[(from * 4_096).min(end)..end].fill(byte);
        std::fs::write(&path, &damaged).unwrap();
        // It ends in a word, or with what is still there.
        let read = Embedded::open(&path).and_then(|store| store.read_now(&[Range::all("t")], usize::MAX));
        told += usize::from(read.is_err());
    }
    assert!(told > 0, "some of it is noticed");
}
