//! Questions for the control plane: what workers need and this proxy does not hold. There is one for each name or address,
//! however many requests wait; the control side says it, and its answer comes as a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weft_policy::scope::Ask;

use crate::telemetry::counters::Limited;
use crate::telemetry::names::Metric;

/// The questions of one proxy.
pub struct Asking {
    /// So many may be open.
    most: usize,
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    /// Asked and not answered yet, with whether the control plane has heard it.
    open: BTreeMap<Ask, bool>,
    /// Answered before, and no longer of interest.
    forgotten: Vec<Ask>,
    /// The generation of the snapshot that came with the last answers.
    generation: u64,
}

/// News for the control plane.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub wanted: Vec<Ask>,
    pub forgotten: Vec<Ask>,
}

impl Asking {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, inner: Mutex::default(), news: Notify::new() }
    }

    /// Asks for what the snapshot of a generation lacks, unless the question is open already or there is a later snapshot, which
    /// may have it. False: too many are open.
    pub(crate) fn ask(&self, ask: &Ask, generation: u64) -> bool {
        let mut inner = self.lock();
        if generation < inner.generation || inner.open.contains_key(ask) {
            return true;
        }
        if inner.open.len() >= self.most {
            Limited::NamesAsked.hit();
            return false;
        }
        inner.open.insert(ask.clone(), false);
        drop(inner);
        metrics::counter!(Metric::Asks.name()).increment(1);
        self.news.notify_one();
        true
    }

    /// These were answered, and are not to be told of any more.
    pub(crate) fn forget(&self, asks: Vec<Ask>) {
        if !asks.is_empty() {
            self.lock().forgotten.extend(asks);
            self.news.notify_one();
        }
    }

    /// These have an answer, by the snapshot of this generation.
    pub fn close(&self, answered: &BTreeSet<Ask>, generation: u64) {
        let mut inner = self.lock();
        inner.generation = generation;
        inner.open.retain(|ask, _| !answered.contains(ask));
    }

    /// Everything that is open, to be said as one: it begins anew with another stream.
    pub(crate) fn say_all(&self) -> Vec<Ask> {
        let mut inner = self.lock();
        inner.forgotten.clear();
        inner.open.values_mut().for_each(|is_said| *is_said = true);
        inner.open.keys().cloned().collect()
    }

    /// What the control plane has not heard yet, once there is something. Cancel safe.
    pub async fn news(&self) -> News {
        loop {
            let news = self.take();
            if news != News::default() {
                return news;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> News {
        let mut inner = self.lock();
        let forgotten = std::mem::take(&mut inner.forgotten);
        let unsaid = inner.open.iter_mut().filter(|(_, is_said)| !**is_said);
        let wanted = unsaid.map(|(ask, is_said)| {
            *is_said = true;
            ask.clone()
        });
        News { wanted: wanted.collect(), forgotten }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use weft_policy::bundle::ObjectName;

    use super::*;

    fn ask(name: &str) -> Ask {
        Ask::Service(ObjectName::new("shop", name))
    }

    #[test]
    fn a_question_is_said_once_until_it_is_answered() {
        let asking = Asking::new(2);
        assert!(asking.news().now_or_never().is_none());
        assert!(asking.ask(&ask("a"), 1) && asking.ask(&ask("a"), 1) && asking.ask(&ask("b"), 1));
        assert!(!asking.ask(&ask("c"), 1), "so many may be open");
        assert!(asking.ask(&ask("b"), 1), "one more who waits is no further question");
        let news = asking.news().now_or_never().unwrap();
        assert_eq!(news, News { wanted: vec![ask("a"), ask("b")], forgotten: vec![] });
        assert!(asking.ask(&ask("a"), 1));
        assert!(asking.news().now_or_never().is_none());
        asking.close(&[ask("a"), ask("z")].into(), 2);
        asking.forget(vec![ask("z")]);
        assert!(asking.ask(&ask("a"), 1), "who is late looks into the later snapshot");
        assert!(asking.ask(&ask("c"), 2));
        let news = asking.news().now_or_never().unwrap();
        assert_eq!(news, News { wanted: vec![ask("c")], forgotten: vec![ask("z")] });
    }

    #[test]
    fn another_stream_is_told_what_is_open() {
        let asking = Asking::new(9);
        assert!(asking.ask(&ask("a"), 1));
        assert!(asking.news().now_or_never().is_some());
        assert!(asking.ask(&ask("b"), 1));
        asking.forget(vec![ask("z")]);
        assert_eq!(asking.say_all(), [ask("a"), ask("b")]);
        assert!(asking.news().now_or_never().is_none());
    }
}
