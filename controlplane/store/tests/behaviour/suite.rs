//! The promises, each as a function of how a handle is opened. Handles of one store see each other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use weft_store::{Change, Error, Event, MAX_VALUE, Range, Row, Store, Version, Write};

pub(crate) type Opened = Arc<dyn Store>;

pub(crate) const TABLE: &str = "objects";

/// How long something may take that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn write(key: &str, value: &str) -> Write {
    Write::Put { table: TABLE, key: key.to_owned(), value: Bytes::from(value.to_owned()) }
}

fn delete(key: &str) -> Write {
    Write::Delete { table: TABLE, key: key.to_owned() }
}

pub(crate) async fn version(store: &dyn Store) -> Version {
    store.read(Vec::new(), 0).await.unwrap().version
}

/// Puts a row behind whatever the newest commit is.
pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> Version {
    loop {
        match store.commit(version(store).await, vec![write(key, value)]).await {
            Err(Error::Conflict) => {}
            landed => return landed.unwrap(),
        }
    }
}

pub(crate) async fn get(store: &dyn Store, key: &str) -> Option<String> {
    let reading = store.read(vec![Range::one(TABLE, key)], usize::MAX).await.unwrap();
    let row = reading.rows.into_iter().flatten().next()?;
    Some(String::from_utf8(row.value.to_vec()).unwrap())
}

async fn keys(store: &dyn Store, range: Range) -> Vec<String> {
    let rows = store.read(vec![range], usize::MAX).await.unwrap().rows;
    rows.into_iter().flatten().map(|row| row.key).collect()
}

pub(crate) async fn next(events: &mut BoxStream<'static, Event>) -> Event {
    tokio::time::timeout(SOON, events.next()).await.expect("an event comes").expect("the watch goes on")
}

pub(crate) async fn commits_land_whole_or_not_at_all(open: &impl AsyncFn() -> Opened) {
    let (store, other) = (open().await, open().await);
    let before = version(&*store).await;
    let first = store.commit(before, vec![write("a", "1"), write("b", "2")]).await.unwrap();
    assert!(first > before);
    assert_eq!(version(&*other).await, first);
    // Who did not see it changes nothing.
    let refused = other.commit(before, vec![write("a", "x"), write("c", "3")]).await;
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    assert_eq!(get(&*other, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&*other, "c").await, None);
    let second = other.commit(first, vec![delete("a"), delete("none"), write("b", "4")]).await.unwrap();
    assert!(second > first);
    assert_eq!(get(&*store, "a").await, None);
    assert_eq!(get(&*store, "b").await.as_deref(), Some("4"));
    // Of one row the last write holds; an empty commit is one.
    let third = store.commit(second, vec![write("b", "5"), delete("b"), write("b", "6")]).await.unwrap();
    assert_eq!(get(&*store, "b").await.as_deref(), Some("6"));
    assert!(store.commit(third, Vec::new()).await.unwrap() > third);
    assert_eq!(store.fault(), None);
}

pub(crate) async fn ranges_are_of_one_moment_and_in_order(open: &impl AsyncFn() -> Opened) {
    let store = open().await;
    let names: Vec<_> = (0..600).map(|number| format!("k/{number:04}")).collect();
    let mut writes: Vec<_> = names.iter().map(|name| write(name, name)).collect();
    writes.push(Write::Put { table: "objects_2", key: "k/0000".into(), value: Bytes::new() });
    writes.push(Write::Put { table: "object", key: "z".into(), value: Bytes::new() });
    let landed = store.commit(version(&*store).await, writes).await.unwrap();
    let reading = store.read(vec![Range::all(TABLE), Range::all("object")], usize::MAX).await.unwrap();
    assert_eq!(reading.version, landed);
    assert_eq!(reading.rows[0].iter().map(|row| &row.key).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert!(reading.rows[0].iter().all(|row| row.value == row.key.as_bytes()));
    assert_eq!(reading.rows[1].iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["z"]);
    let part = Range { from: "k/0300".into(), to: Some("k/0303".into()), ..Range::all(TABLE) };
    assert_eq!(keys(&*store, part.clone()).await, ["k/0300", "k/0301", "k/0302"]);
    assert_eq!(keys(&*store, Range { limit: 2, ..part.clone() }).await, ["k/0300", "k/0301"]);
    for limit in [0, 1, 300, 599, 700] {
        let found = keys(&*store, Range { limit, ..Range::all(TABLE) }).await;
        assert_eq!(found, names[..limit.min(600)], "{limit} at the most");
    }
    let names_only = store.read(vec![Range { keys_only: true, ..part }], usize::MAX).await.unwrap();
    assert!(names_only.rows[0].iter().all(|row| row.value.is_empty()) && names_only.rows[0].len() == 3);
    let bounded = store.read(vec![Range::all(TABLE)], 100).await.unwrap();
    assert!((1..600).contains(&bounded.rows[0].len()), "{}", bounded.rows[0].len());
    assert_eq!(keys(&*store, Range::all("nothing")).await, [""; 0]);
}

pub(crate) async fn large_commits_and_blobs(open: &impl AsyncFn() -> Opened) {
    let (store, other) = (open().await, open().await);
    let large = "x".repeat(MAX_VALUE);
    let mut writes: Vec<_> = (0..5).map(|number| write(&format!("large/{number}"), &large)).collect();
    writes.extend((0..300).map(|number| write(&format!("many/{number:03}"), "1")));
    let blob: Bytes = (0..MAX_VALUE * 3 + 17).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into();
    writes.push(Write::PutBlob { table: "artifacts", key: "d".into(), value: blob.clone() });
    let before = version(&*store).await;
    let mut events = other.watch(before);
    let landed = store.commit(before, writes).await.unwrap();
    let reading = other.read(vec![Range::all(TABLE)], usize::MAX).await.unwrap();
    assert_eq!((reading.version, reading.rows[0].len()), (landed, 305));
    assert_eq!(other.blob("artifacts", "d").await.unwrap(), Some(blob));
    assert_eq!(other.blob("artifacts", "e").await.unwrap(), None);
    // One commit, told as one.
    let Event::Commit { version: told, changes } = next(&mut events).await else { panic!("no commit") };
    assert_eq!((told, changes.len()), (landed, 305));
    let after = store.commit(landed, vec![delete("many/000")]).await.unwrap();
    let change = Change { table: TABLE.into(), key: "many/000".into(), value: None };
    assert_eq!(next(&mut events).await, Event::Commit { version: after, changes: vec![change] });
    // A large one that comes too late leaves nothing.
    let writes = (0..300).map(|number| write(&format!("late/{number:03}"), "1")).collect();
    assert!(matches!(store.commit(before, writes).await, Err(Error::Conflict)));
    assert_eq!(get(&*store, "late/000").await, None);
    // A blob takes the place of a smaller one.
    let small = Write::PutBlob { table: "artifacts", key: "d".into(), value: Bytes::from_static(b"s") };
    store.commit(after, vec![small]).await.unwrap();
    assert_eq!(other.blob("artifacts", "d").await.unwrap().as_deref(), Some(&b"s"[..]));
}

pub(crate) async fn a_watch_tells_every_commit_once_and_in_order(open: &impl AsyncFn() -> Opened) {
    let (store, other) = (open().await, open().await);
    let begin = put(&*store, "a", "0").await;
    let mut early = other.watch(begin);
    let mut landed = Vec::new();
    for number in 1..=20 {
        landed.push(put(&*store, "a", &number.to_string()).await);
    }
    let mut late = other.watch(landed[9]);
    for events in [(&mut early, 0), (&mut late, 10)] {
        let (events, from) = events;
        for (number, expected) in landed.iter().enumerate().skip(from) {
            let value = Some(Bytes::from((number + 1).to_string()));
            let change = Change { table: TABLE.into(), key: "a".into(), value };
            assert_eq!(next(events).await, Event::Commit { version: *expected, changes: vec![change] });
        }
    }
    // Who asks for what was not yet is told to read again: the store he knew was another one.
    let mut ahead = other.watch(Version(u64::MAX / 4));
    assert_eq!(next(&mut ahead).await, Event::Compacted);
}

pub(crate) async fn what_is_held_goes_with_its_session(open: &impl AsyncFn() -> Opened) {
    let (store, other) = (open().await, open().await);
    let row = |key: &str, value: &str| Row { key: key.into(), value: Bytes::from(value.to_owned()) };
    let mut events = other.watch(version(&*other).await);
    let first = store.session(Duration::from_secs(5)).await.unwrap();
    let second = other.session(Duration::from_secs(5)).await.unwrap();
    assert_ne!(first.id(), second.id());
    first.hold(vec![row("p/1", "first"), row("p/2", "first")]).await.unwrap();
    second.hold(vec![row("p/2", "second")]).await.unwrap();
    assert_eq!(other.held().await.unwrap(), [row("p/1", "first"), row("p/2", "second")]);
    let held = |key: &str, value: Option<&str>| Event::Held {
        key: key.into(),
        value: value.map(|value| Bytes::from(value.to_owned())),
    };
    assert_eq!(next(&mut events).await, held("p/1", Some("first")));
    assert_eq!(next(&mut events).await, held("p/2", Some("first")));
    assert_eq!(next(&mut events).await, held("p/2", Some("second")));
    // What another holds by now is not released.
    first.release(vec!["p/2".into()]).await.unwrap();
    assert_eq!(store.held().await.unwrap().len(), 2);
    // A last value is seen before it goes, and only by whoever holds it.
    first.hold(vec![row("p/3", "first")]).await.unwrap();
    first.release_with(vec![row("p/2", "last"), row("p/3", "last")]).await.unwrap();
    for value in [Some("first"), Some("last"), None] {
        assert_eq!(next(&mut events).await, held("p/3", value));
    }
    assert_eq!(store.held().await.unwrap(), [row("p/1", "first"), row("p/2", "second")]);
    assert!(first.lead("clean-up").await.unwrap());
    assert!(!second.lead("clean-up").await.unwrap() && first.lead("clean-up").await.unwrap());
    assert!(second.lead("else").await.unwrap());
    assert!(!first.has_ended());
    drop(first);
    assert_eq!(next(&mut events).await, held("p/1", None));
    assert_eq!(store.held().await.unwrap(), [row("p/2", "second")]);
    let led = async {
        while !second.lead("clean-up").await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, led).await.expect("the office is free");
}

pub(crate) async fn of_many_at_once_none_is_lost_or_applied_twice(open: &impl AsyncFn() -> Opened) {
    const WRITERS: usize = 4;
    const EACH: usize = 50;
    let writers: Vec<_> = futures_util::future::join_all((0..WRITERS).map(|_| open())).await;
    let tasks = writers.into_iter().map(|store| {
        tokio::spawn(async move {
            for _ in 0..EACH {
                // A counter shows what is lost, and what is applied twice.
                loop {
                    let reading = store.read(vec![Range::one(TABLE, "count")], usize::MAX).await.unwrap();
                    let row = reading.rows[0].first();
                    let count: usize = row.map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap());
                    match store.commit(reading.version, vec![write("count", &(count + 1).to_string())]).await {
                        Err(Error::Conflict) => {}
                        landed => {
                            landed.unwrap();
                            break;
                        }
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(get(&*open().await, "count").await, Some((WRITERS * EACH).to_string()));
}

/// Blobs of whatever fate: while they are tidied away, those that a row names are whole, also where one is put again that was
/// given up before.
pub(crate) async fn what_is_tidied_is_named_by_nothing(open: &impl AsyncFn() -> Opened) {
    let (store, other) = (open().await, open().await);
    let blob = |key: &str, fill: u8| {
        let value = Bytes::from(vec![fill; MAX_VALUE + 3]);
        Write::PutBlob { table: "artifacts", key: key.into(), value }
    };
    let gone = |key: &str| Write::Delete { table: "artifacts", key: key.into() };
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let tidier = tokio::spawn(async move {
        while !*stopped.borrow_and_update() {
            other.tidy(SOON, &["artifacts"]).await.unwrap();
        }
    });
    // What is tidied away while it is published is a conflict: the commit is made again.
    let land = async |writes: &dyn Fn() -> Vec<Write>| {
        loop {
            match store.commit(version(&*store).await, writes()).await {
                Err(Error::Conflict) => {}
                landed => return landed.unwrap(),
            }
        }
    };
    for round in 0..20_u8 {
        land(&|| vec![blob("stays", 200), blob("again", round % 2)]).await;
        // One that comes too late.
        assert!(matches!(store.commit(Version(0), vec![blob("late", round % 2)]).await, Err(Error::Conflict)));
        land(&|| vec![gone("again"), blob("other", 100 + round)]).await;
        for key in ["stays", "other"] {
            let found = store.blob("artifacts", key).await.unwrap();
            assert_eq!(found.map(|found| found.len()), Some(MAX_VALUE + 3), "{round}: {key}");
        }
    }
    stop.send(true).unwrap();
    tidier.await.unwrap();
    assert_eq!(store.blob("artifacts", "late").await.unwrap(), None);
}
