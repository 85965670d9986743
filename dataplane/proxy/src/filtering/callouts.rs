//! What filters ask of services while a stream waits. All questions of one wait are under way at once; each answer is an
//! event of its own. Those that are under way when the wait ends, or its stream does, are cancelled.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::FuturesUnordered;
use weft_filter_host::{Callout, CalloutAnswer, Event};

use super::Filters;

/// Sends what filters ask of services.
pub trait SendCallout {
    /// Asks as the workload at `workload`. Gives the answer, or why there is none; within the time that the callout has.
    fn send(
        self: Rc<Self>,
        workload: IpAddr,
        callout: Callout,
    ) -> LocalBoxFuture<'static, Result<CalloutAnswer, String>>;
}

/// What one stream waits for.
pub(super) struct Waiting<'f> {
    filters: &'f Filters,
    /// `None`: its filters may ask nobody.
    asks_as: Option<IpAddr>,
    /// `None`: nothing was asked yet. Most streams ask nothing.
    asked: Option<FuturesUnordered<LocalBoxFuture<'static, Event>>>,
}

impl<'f> Waiting<'f> {
    pub(super) fn new(filters: &'f Filters, asks_as: Option<IpAddr>) -> Self {
        Self { filters, asks_as, asked: None }
    }

    /// Asks what is new, and waits for the next answer, or until the time is up. `goes_on`: it is for the same filter
    /// as before. Else what was asked before is cancelled: an answer goes to whoever waits, who did not ask that.
    pub(super) async fn next(
        &mut self,
        calls: impl IntoIterator<Item = Callout>,
        within: Duration,
        goes_on: bool,
    ) -> Event {
        if !goes_on {
            self.end();
        }
        let asked = self.asked.get_or_insert_with(FuturesUnordered::new);
        for callout in calls {
            asked.push(self.filters.ask(self.asks_as, callout));
        }
        match select(asked.next(), pin!(tokio::time::sleep(within))).await {
            Either::Left((Some(event), _)) => event,
            // Nothing is asked: it waits for the time alone.
            Either::Left((None, over)) => {
                over.await;
                Event::Tick
            }
            Either::Right(((), _)) => Event::Tick,
        }
    }

    /// The wait is over: what is still asked is cancelled.
    pub(super) fn end(&mut self) {
        self.asked = None;
    }
}

impl Filters {
    fn ask(&self, asks_as: Option<IpAddr>, callout: Callout) -> LocalBoxFuture<'static, Event> {
        let id = callout.id;
        let sender = self.sender.borrow().as_ref().and_then(Weak::upgrade);
        Box::pin(async move {
            let answer = match (sender, asks_as) {
                (Some(sender), Some(workload)) => sender.send(workload, callout).await,
                (Some(_), None) => Err("this request is a callout itself, and causes no further one".to_owned()),
                (None, _) => Err("nothing can be asked here".to_owned()),
            };
            Event::Answer { id, answer }
        })
    }
}
