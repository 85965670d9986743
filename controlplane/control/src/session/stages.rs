//! Answers in stages: a proxy has a delta in force while some filters of it are still being made ready, so that nothing else
//! waits for those.

use std::collections::BTreeSet;
use std::time::Instant;

use weft_policy::bundle::Revision;
use weft_policy::delta::Key;
use weft_policy::text::printable;
use weft_policy::wire::v1;

use super::{End, MAX_SKIPPED, RETRY, Session};
use crate::view::Answer;

impl Session {
    /// The proxy has the delta in force, but for what it passed over and what it is still making ready.
    pub(super) async fn handle_ack(&mut self, ack: v1::Ack) -> Option<End> {
        let skipped: Vec<_> = keys(ack.skipped).collect();
        let pending: BTreeSet<_> = keys(ack.pending).collect();
        let revision = Revision(ack.revision);
        let answer = self.view.handle_stage(revision, &skipped, &pending);
        if self.left_alone.is_none() {
            self.follows = Some((self.hub.lead().lineage.clone(), revision));
        }
        // The first that it has in force, or a later one: from here on it can serve.
        if answer == Answer::Taken {
            self.hub.enter_discovery(&self.seat);
        }
        self.answered(answer, true).await
    }

    /// Filters that were pending came into force, or can't be used.
    pub(super) async fn handle_settled(&mut self, settled: v1::Settled) -> Option<End> {
        let mut is_news = false;
        for told in settled.loaded.into_iter().take(MAX_SKIPPED) {
            let Some(key) = told.key.and_then(|key| Key::try_from(key).ok()) else { continue };
            is_news |= self.view.handle_settled(&key, told.version, None) == Answer::Taken;
        }
        for told in settled.refused.into_iter().take(MAX_SKIPPED) {
            let Some(key) = told.key.and_then(|key| Key::try_from(key).ok()) else { continue };
            let reason = printable(&told.reason);
            if self.view.handle_settled(&key, told.version, Some(&reason)) == Answer::Taken {
                tracing::warn!(proxy = %self.seat.key, object = %key, %reason, "proxy refused a filter");
                self.hub.metrics().nacks.increment(1);
                is_news = true;
            }
        }
        if !is_news {
            tracing::debug!(proxy = %self.seat.key, "word of filters that are not pending");
            return None;
        }
        if self.view.holds_back() && self.retry.is_none() {
            self.retry = Some((Instant::now() + RETRY.0, RETRY.0));
        }
        // What is gathered waits for quiet, and what is in flight for its answer.
        if self.view.is_in_flight() || self.gathering.is_some() {
            self.record();
            return None;
        }
        if self.send_delta().await { None } else { Some(End::Lost) }
    }

    /// Filters that the proxy is still making ready, in words.
    pub(super) fn pending(&self) -> Vec<String> {
        self.view.pending().map(ToString::to_string).collect()
    }
}

/// Keys as far as they can be read, and no more of them than one answer may name.
fn keys(told: Vec<v1::Key>) -> impl Iterator<Item = Key> {
    told.into_iter().take(MAX_SKIPPED).filter_map(|key| Key::try_from(key).ok())
}
