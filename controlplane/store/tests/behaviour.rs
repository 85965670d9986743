//! What every backend of the store promises, by one suite: on redb, on one member of a real etcd, and on three. The real
//! ones are in `real`, which `cargo xtask test --real` runs.

#![allow(clippy::unwrap_used, clippy::large_futures, reason = "a test ends where its setup fails, and runs once")]

#[path = "behaviour/suite.rs"]
mod suite;

#[path = "behaviour/real.rs"]
mod real;

use std::sync::Arc;

use weft_store::{Embedded, Store};

use self::suite::Opened;

/// Each call opens a handle of its own: of redb's file there is one, which all share.
fn embedded() -> (tempfile::TempDir, impl AsyncFn() -> Opened) {
    let dir = tempfile::tempdir().unwrap();
    let store: Opened = Arc::new(Embedded::open(&dir.path().join("store.redb")).unwrap());
    (dir, async move || store.clone())
}

#[tokio::test]
async fn redb_keeps_what_was_committed() {
    let (_dir, open) = embedded();
    suite::commits_land_whole_or_not_at_all(&open).await;
}

#[tokio::test]
async fn redb_reads_ranges() {
    let (_dir, open) = embedded();
    suite::ranges_are_of_one_moment_and_in_order(&open).await;
}

#[tokio::test]
async fn redb_takes_large_commits_and_blobs() {
    let (_dir, open) = embedded();
    suite::large_commits_and_blobs(&open).await;
}

#[tokio::test]
async fn redb_tells_commits_in_order() {
    let (_dir, open) = embedded();
    suite::a_watch_tells_every_commit_once_and_in_order(&open).await;
}

#[tokio::test]
async fn redb_has_sessions() {
    let (_dir, open) = embedded();
    suite::what_is_held_goes_with_its_session(&open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_loses_no_commit_of_many_at_once() {
    let (_dir, open) = embedded();
    suite::of_many_at_once_none_is_lost_or_applied_twice(&open).await;
}

#[tokio::test]
async fn redb_tidies_what_nothing_names() {
    let (_dir, open) = embedded();
    suite::what_is_tidied_is_named_by_nothing(&open).await;
}

#[tokio::test]
async fn redb_is_the_same_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Embedded::open(&path).unwrap();
    let version = suite::put(&store, "a", "1").await;
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(suite::get(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(store.read(Vec::new(), 0).await.unwrap().version, version);
}
