//! Questions for the control plane: what workers need and this proxy does not hold. There is one for each name or address,
//! however many requests wait; the control side says it, and its answer comes as a snapshot. A question that gets no answer
//! is given up once nobody asks it any more, and keeps no place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weft_policy::scope::Ask;

use crate::telemetry::counters::Limited;
use crate::telemetry::names::Metric;

/// A question that nobody has asked for so long is given up.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// The questions of one proxy.
pub struct Asking {
    /// So many may be open.
    most: usize,
    /// So long somebody may wait for an answer.
    wait: Duration,
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    /// Asked and not answered yet.
    open: BTreeMap<Ask, Question>,
    /// Told to the control plane before, and no longer of interest.
    forgotten: Vec<Ask>,
    /// The generation of the snapshot that came with the last answers.
    generation: u64,
}

struct Question {
    /// The control plane has heard it.
    is_said: bool,
    /// Its answer is being prepared: the control plane tells of it from now on, so that it is not given up.
    is_expected: bool,
    /// When somebody asked it last.
    asked: Instant,
}

impl Inner {
    /// Gives up the questions that nobody has asked since `before`, at most so many, those asked least lately first.
    fn give_up(&mut self, before: Instant, most: usize) -> usize {
        let old = self.open.iter().filter(|(_, question)| question.asked < before && !question.is_expected);
        let mut old: Vec<_> = old.map(|(ask, question)| (question.asked, ask.clone())).collect();
        old.sort();
        old.truncate(most);
        for (_, ask) in &old {
            if self.open.remove(ask).is_some_and(|question| question.is_said) {
                self.forgotten.push(ask.clone());
            }
        }
        metrics::counter!(Metric::AsksGivenUp.name()).increment(old.len() as u64);
        old.len()
    }
}

/// News for the control plane.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub wanted: Vec<Ask>,
    pub forgotten: Vec<Ask>,
}

impl Asking {
    /// `wait`: nobody waits for an answer for longer.
    pub(crate) fn new(most: usize, wait: Duration) -> Self {
        Self { most, wait, inner: Mutex::default(), news: Notify::new() }
    }

    /// Asks for what the snapshot of a generation lacks, unless the question is open already or there is a later snapshot, which
    /// may have it. Where too many are open, those give way for which nobody waits any more. False: somebody waits for each.
    pub(crate) fn ask(&self, ask: &Ask, generation: u64, now: Instant) -> bool {
        let mut inner = self.lock();
        if generation < inner.generation {
            return true;
        }
        if let Some(question) = inner.open.get_mut(ask) {
            question.asked = now;
            return true;
        }
        if inner.open.len() >= self.most {
            Limited::NamesAsked.hit();
            let before = now.checked_sub(self.wait).unwrap_or(now);
            // Some more than must go: the next questions find room.
            if inner.give_up(before, 1 + self.most / 8) == 0 {
                return false;
            }
        }
        inner.open.insert(ask.clone(), Question { is_said: false, is_expected: false, asked: now });
        drop(inner);
        metrics::counter!(Metric::Asks.name()).increment(1);
        self.news.notify_one();
        true
    }

    /// Gives up what nobody has asked for long.
    pub(crate) fn give_up(&self, now: Instant) {
        let Some(before) = now.checked_sub(self.wait + GIVEN_UP) else { return };
        if self.lock().give_up(before, usize::MAX) > 0 {
            self.news.notify_one();
        }
    }

    /// Answers are here and come into force once they are prepared. Gives those to open questions, which stay open until
    /// they are closed or nothing is expected any more.
    pub(crate) fn expect<'a>(&self, answers: impl Iterator<Item = &'a Ask>) -> BTreeSet<Ask> {
        let mut inner = self.lock();
        let mut expect = |ask: &&Ask| inner.open.get_mut(*ask).map(|question| question.is_expected = true).is_some();
        answers.filter(|ask| expect(ask)).cloned().collect()
    }

    /// What was being prepared is in force, or never will be.
    pub(crate) fn expect_nothing(&self) {
        self.lock().open.values_mut().for_each(|question| question.is_expected = false);
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
        inner.open.values_mut().for_each(|question| (question.is_said, question.is_expected) = (true, false));
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
        let unsaid = inner.open.iter_mut().filter(|(_, question)| !question.is_said);
        let wanted = unsaid.map(|(ask, question)| {
            question.is_said = true;
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

    const WAIT: Duration = Duration::from_millis(250);

    #[test]
    fn a_question_is_said_once_until_it_is_answered() {
        let (asking, now) = (Asking::new(2, WAIT), Instant::now());
        let is_asked = |name, generation| asking.ask(&ask(name), generation, now);
        assert!(asking.news().now_or_never().is_none());
        assert!(is_asked("a", 1) && is_asked("a", 1) && is_asked("b", 1));
        assert!(!is_asked("c", 1), "so many may be open");
        assert!(is_asked("b", 1), "one more who waits is no further question");
        let news = asking.news().now_or_never().unwrap();
        assert_eq!(news, News { wanted: vec![ask("a"), ask("b")], forgotten: vec![] });
        assert!(is_asked("a", 1));
        assert!(asking.news().now_or_never().is_none());
        asking.close(&[ask("a"), ask("z")].into(), 2);
        asking.forget(vec![ask("z")]);
        assert!(is_asked("a", 1), "who is late looks into the later snapshot");
        assert!(is_asked("c", 2));
        let news = asking.news().now_or_never().unwrap();
        assert_eq!(news, News { wanted: vec![ask("c")], forgotten: vec![ask("z")] });
    }

    #[test]
    fn another_stream_is_told_what_is_open() {
        let (asking, now) = (Asking::new(9, WAIT), Instant::now());
        assert!(asking.ask(&ask("a"), 1, now));
        assert!(asking.news().now_or_never().is_some());
        assert!(asking.ask(&ask("b"), 1, now));
        asking.forget(vec![ask("z")]);
        assert_eq!(asking.say_all(), [ask("a"), ask("b")]);
        assert!(asking.news().now_or_never().is_none());
    }

    #[test]
    fn questions_without_an_answer_keep_no_place() {
        let (asking, start) = (Asking::new(2, WAIT), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert!(asking.ask(&ask("a"), 1, after(0)) && asking.ask(&ask("b"), 1, after(1)));
        assert!(asking.news().now_or_never().is_some());
        assert!(!asking.ask(&ask("c"), 1, after(250)), "somebody waits for each");
        // Of the two `b` is asked again.
        assert!(asking.ask(&ask("b"), 1, after(251)));
        assert!(asking.ask(&ask("c"), 1, after(251)));
        assert_eq!(asking.expect([ask("a"), ask("b")].iter()), [ask("b")].into());
        asking.expect_nothing();
        let news = asking.news().now_or_never().unwrap();
        assert_eq!(news, News { wanted: vec![ask("c")], forgotten: vec![ask("a")] });
        assert!(asking.ask(&ask("d"), 1, after(502)));
        asking.give_up(after(30_700));
        assert_eq!(asking.say_all(), [ask("d")]);
        asking.give_up(after(30_753));
        assert_eq!(asking.say_all(), []);
    }
    #[test]
    fn a_question_whose_answer_is_here_is_not_given_up() {
        let (asking, start) = (Asking::new(1, WAIT), Instant::now());
        let late = start + WAIT + 2 * GIVEN_UP;
        assert!(asking.ask(&ask("a"), 1, start));
        assert_eq!(asking.expect([ask("a"), ask("z")].iter()), [ask("a")].into());
        asking.give_up(late);
        assert!(!asking.ask(&ask("b"), 1, late), "it keeps its place");
        asking.expect_nothing();
        asking.give_up(late);
        assert!(asking.ask(&ask("b"), 1, late));
    }
}
