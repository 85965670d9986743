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
use crate::reply::Failure;

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
    /// `None`: it is such a question itself, and its filters may ask nobody.
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
    ///
    /// # Errors
    /// It would ask, and is a question itself. The filter does not decide about that: anybody could say that it is one.
    pub(super) async fn next(
        &mut self,
        calls: impl IntoIterator<Item = Callout>,
        within: Duration,
        goes_on: bool,
    ) -> Result<Event, Failure> {
        if !goes_on {
            self.end();
        }
        let asked = self.asked.get_or_insert_with(FuturesUnordered::new);
        for callout in calls {
            let workload = self.asks_as.ok_or(Failure::CalloutAsks)?;
            asked.push(self.filters.ask(workload, callout));
        }
        Ok(match select(asked.next(), pin!(tokio::time::sleep(within))).await {
            Either::Left((Some(event), _)) => event,
            // Nothing is asked: it waits for the time alone.
            Either::Left((None, over)) => {
                over.await;
                Event::Tick
            }
            Either::Right(((), _)) => Event::Tick,
        })
    }

    /// The wait is over: what is still asked is cancelled.
    pub(super) fn end(&mut self) {
        self.asked = None;
    }
}

impl Filters {
    fn ask(&self, workload: IpAddr, callout: Callout) -> LocalBoxFuture<'static, Event> {
        let id = callout.id;
        let sender = self.sender.borrow().as_ref().and_then(Weak::upgrade);
        Box::pin(async move {
            let answer = match sender {
                Some(sender) => sender.send(workload, callout).await,
                None => Err("nothing can be asked here".to_owned()),
            };
            Event::Answer { id, answer }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use weft_filter_host::{Host, HostConfig};
    use weft_policy::path::NormalPath;

    use super::*;
    use crate::filtering::Bodies;

    fn callout() -> Callout {
        Callout {
            id: 7,
            service: "auth:80".to_owned(),
            method: Method::GET,
            path: NormalPath::new(Bytes::from_static(b"/")).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(1),
            most: 1,
        }
    }

    /// A filter is not told that nobody can be asked: it might let pass what says of itself that it is a callout.
    #[tokio::test]
    async fn a_callout_whose_filter_asks_is_refused_whatever_the_filter_would_make_of_it() {
        let filters = Filters::new(&Host::new(HostConfig::default()).unwrap(), Bodies::of_tests());
        let within = Duration::from_secs(60);
        let refused = Waiting::new(&filters, None).next([callout()], within, false).await;
        assert!(matches!(refused, Err(Failure::CalloutAsks)), "{refused:?}");
        let waits = Waiting::new(&filters, None).next([], Duration::ZERO, false).await;
        assert!(matches!(waits, Ok(Event::Tick)), "a wait for a time asks nobody: {waits:?}");
        let asked = Waiting::new(&filters, Some([127, 0, 0, 1].into())).next([callout()], within, false).await;
        assert!(matches!(asked, Ok(Event::Answer { id: 7, .. })), "{asked:?}");
    }
}
