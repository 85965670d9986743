//! The newest events of this process's own store, for those who follow it. Bounded: who is further behind reads again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;

use crate::{Event, Version};

/// So many events are kept, and so many bytes of what they changed.
const EVENTS: usize = 1_024;
const BYTES: usize = 8 << 20;

pub(super) struct Log {
    events: Mutex<Events>,
    added: watch::Sender<u64>,
}

struct Events {
    kept: VecDeque<(Event, usize)>,
    bytes: usize,
    /// The number of the first that is kept.
    first: u64,
    /// The version before the first that is kept, and after the last.
    before: Version,
    newest: Version,
}

impl Log {
    pub(super) fn new(version: Version) -> Self {
        let events = Events { kept: VecDeque::new(), bytes: 0, first: 0, before: version, newest: version };
        Self { events: Mutex::new(events), added: watch::Sender::new(0) }
    }

    pub(super) fn add(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Commit { version, .. } = &event {
            // A commit that failed and landed is not known here: who follows has to read.
            if version.0 != events.newest.0 + 1 {
                events.first += u64::try_from(events.kept.len()).unwrap_or(u64::MAX) + 1;
                (events.bytes, events.before) = (0, Version(version.0 - 1));
                events.kept.clear();
            }
            events.newest = *version;
        }
        let size = size(&event);
        events.bytes += size;
        events.kept.push_back((event, size));
        while events.kept.len() > EVENTS || events.bytes > BYTES && events.kept.len() > 1 {
            let Some((event, size)) = events.kept.pop_front() else { break };
            events.bytes -= size;
            events.first += 1;
            if let Event::Commit { version, .. } = event {
                events.before = version;
            }
        }
        drop(events);
        self.added.send_modify(|number| *number += 1);
    }

    /// The number of the event behind the commit `from`; `None` where it is not kept.
    fn behind(&self, from: Version) -> Option<u64> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if from < events.before || from > events.newest {
            return None;
        }
        let is_known = |(event, _): &&(Event, usize)| match event {
            Event::Commit { version, .. } => *version <= from,
            Event::Held { .. } | Event::Compacted => true,
        };
        // What is held concerns the present: everything up to the next commit was to be read before.
        let known = events.kept.iter().take_while(is_known).count();
        Some(events.first + u64::try_from(known).unwrap_or(u64::MAX))
    }

    fn at(&self, number: u64) -> Next {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = number.checked_sub(events.first) else { return Next::Gone };
        let event = usize::try_from(index).ok().and_then(|index| events.kept.get(index));
        event.map_or(Next::None, |(event, _)| Next::Event(event.clone()))
    }

    pub(super) fn follow(log: Arc<Self>, from: Version) -> BoxStream<'static, Event> {
        let added = log.added.subscribe();
        let Some(next) = log.behind(from) else { return stream::iter([Event::Compacted]).boxed() };
        let state = (log, added, Some(next));
        stream::unfold(state, async |(log, mut added, next)| {
            let next = next?;
            loop {
                added.borrow_and_update();
                match log.at(next) {
                    Next::Event(event) => return Some((event, (log, added, Some(next + 1)))),
                    Next::Gone => return Some((Event::Compacted, (log, added, None))),
                    Next::None => added.changed().await.ok()?,
                }
            }
        })
        .boxed()
    }
}

enum Next {
    Event(Event),
    None,
    Gone,
}

fn size(event: &Event) -> usize {
    match event {
        Event::Commit { changes, .. } => {
            changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len)).sum()
        }
        Event::Held { key, value } => key.len() + value.as_ref().map_or(0, bytes::Bytes::len),
        Event::Compacted => 0,
    }
}
