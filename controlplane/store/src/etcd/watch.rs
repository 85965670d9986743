//! The watch: one stream of all keys of the store, from which the commits are put together. It goes on with another member
//! when one falls silent, from the event behind the last that was told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::layout::{self, Part};
use super::messages::event::EventType;
use super::messages::watch_request::RequestUnion;
use super::messages::{self, RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, behind, range};
use super::read::{parsed, strange, version_of};
use super::{Inner, client};
use crate::{Change, Error, Event, Version};

/// How often a member is asked for a sign of life, and how long it may be silent.
const ASKED: Duration = Duration::from_millis(700);
const SILENT: Duration = Duration::from_millis(2_000);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Events that are read ahead of who follows.
const AHEAD: usize = 64;

/// The commits behind `from`.
pub(super) fn follow(inner: Arc<Inner>, from: Version) -> BoxStream<'static, Event> {
    let (told, events) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let follower = Follower { inner, told: told.clone(), next: i64::try_from(from.0).unwrap_or(i64::MAX) + 1 };
        tokio::select! {
            () = follower.run() => {}
            () = told.closed() => {}
        }
    });
    ReceiverStream::new(events).boxed()
}

struct Follower {
    inner: Arc<Inner>,
    told: mpsc::Sender<Event>,
    /// The revision of etcd that is told next.
    next: i64,
}

/// Why a stream of a member ended.
enum End {
    /// What comes next is forgotten, or never was: the store was set back.
    Compacted,
    /// Nobody follows any more.
    Left,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        if client::is_compacted(&error) { Self::Compacted } else { Self::Failed(error) }
    }
}

impl Follower {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let (member, before) = (self.inner.client.asked(), self.next);
            match self.with_member().await {
                End::Compacted => return drop(self.told.send(Event::Compacted).await),
                End::Left => return,
                End::Failed(error) => {
                    failures = if self.next > before { 1 } else { failures + 1 };
                    tracing::debug!(%error, failures, "a watch of etcd ended; it goes on with the next member");
                    self.inner.client.turn_from(member);
                    // Somebody who writes nothing hears of it as well.
                    if failures > 2 {
                        self.inner.client.note(&error.reason());
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Follows one member as long as it answers.
    async fn with_member(&mut self) -> End {
        match self.try_member().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_member(&mut self) -> Result<End, End> {
        // A store that was set back would be silent for long: its newest revision is before the one that was told last.
        let newest = self.inner.client.range(range(self.inner.layout.head())).await?;
        if newest.header.is_none_or(|header| header.revision + 1 < self.next) {
            return Ok(End::Compacted);
        }
        let (ask, asked) = mpsc::channel(4);
        let all = self.inner.layout.all();
        let (range_end, start_revision) = (behind(&all), self.next);
        let create = WatchCreateRequest { key: all, range_end, start_revision, progress_notify: false };
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        ask.try_send(first).map_err(|_| End::Left)?;
        let mut answers = self.inner.client.watch(ReceiverStream::new(asked)).await?;
        let mut ticks = tokio::time::interval(ASKED);
        let mut heard = tokio::time::Instant::now();
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                () = tokio::time::sleep_until(heard + SILENT) => {
                    return Err(End::Failed(Error::Unreachable("the watch is silent".to_owned())));
                }
                _ = ticks.tick() => {
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    drop(ask.try_send(WatchRequest { request_union: Some(progress) }));
                    continue;
                }
            };
            let answer = answer.map_err(|status| Error::Unreachable(status.message().to_owned()))?;
            let answer = answer.ok_or_else(|| Error::Unreachable("the watch was ended".to_owned()))?;
            if answer.compact_revision > 0 {
                return Ok(End::Compacted);
            }
            if answer.canceled {
                return Err(End::Failed(Error::Unreachable(answer.cancel_reason)));
            }
            self.take(answer.events).await?;
            heard = tokio::time::Instant::now();
        }
    }

    /// Tells events. Those of one revision of etcd come together.
    async fn take(&mut self, events: Vec<messages::Event>) -> Result<(), End> {
        let revision = |event: &messages::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for events in events.chunk_by(|a, b| revision(a) == revision(b)) {
            let number = events.first().map_or(0, revision);
            if number >= self.next {
                self.one(number, events).await?;
                self.next = number + 1;
            }
        }
        Ok(())
    }

    /// What one revision changed: a commit where `head` is of it. Rows without it are parts of a large commit that was told
    /// before they were put in place.
    async fn one(&self, revision: i64, events: &[messages::Event]) -> Result<(), End> {
        let (mut changes, mut is_commit, mut pending) = (Vec::new(), false, None);
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let is_deleted = event.r#type() == EventType::Delete;
            let Some(rest) = self.inner.layout.rest(&kv.key) else { continue };
            match rest.split_once('/') {
                None if rest == "head" => is_commit = true,
                None if rest == "pending" && !is_deleted => pending = Some(kv),
                Some(("r", row)) => changes.extend(layout::change(row, (!is_deleted).then_some(&kv.value))),
                Some(("h", key)) => {
                    let value = (!is_deleted).then(|| kv.value.clone());
                    self.tell(Event::Held { key: key.to_owned(), value }).await?;
                }
                None | Some(_) => {}
            }
        }
        if !is_commit {
            return Ok(());
        }
        if let Some(pending) = pending {
            changes = self.staged(revision, &parsed(pending)?.id).await?;
        }
        self.tell(Event::Commit { version: version_of(revision), changes }).await
    }

    /// The changes of a large commit, as its parts were when it was named.
    async fn staged(&self, revision: i64, id: &str) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for number in 0.. {
            let key = self.inner.layout.part(id, number);
            let found = self.inner.client.range(RangeRequest { revision, ..range(key.clone()) }).await?;
            let Some(part) = found.kvs.into_iter().next() else { break };
            let part = Part::decode(part.value).map_err(|_| strange(&key))?;
            let change = |write: &layout::StagedWrite| layout::change(&write.row, write.value.as_ref());
            changes.extend(part.writes.iter().filter_map(change));
        }
        Ok(changes)
    }

    async fn tell(&self, event: Event) -> Result<(), End> {
        self.told.send(event).await.map_err(|_| End::Left)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn rows_of_a_watch_are_changes_and_blobs_are_not_told() {
        let row = layout::plain(&Bytes::from_static(b"v"));
        let change = layout::change("objects/a/b", Some(&row)).unwrap();
        assert_eq!((change.table.as_str(), change.key.as_str()), ("objects", "a/b"));
        assert_eq!(change.value.as_deref(), Some(&b"v"[..]));
        assert_eq!(layout::change("objects/a/b", None).unwrap().value, None);
        let blob = layout::BlobRef { sha256: String::new(), bytes: 0, chunks: 0 };
        assert_eq!(layout::change("artifacts/d", Some(&blob.encode())), None);
    }
}
