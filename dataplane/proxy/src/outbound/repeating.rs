//! Whether a request is sent again although somebody may have acted on it, since its rule or its service asks for that:
//! after which answers, after how long a wait, and within which budget.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use smallvec::SmallVec;
use weft_flow::{Asked, Deadline, Repeats};
use weft_policy::bundle::Retry;
use weft_transport::http::ResponseHead;

use super::holds::Holds;
use crate::destination::ServiceState;
use crate::relay;
use crate::reply::{Failure, WEFT_REPLY};
use crate::trial::Again;
use crate::worker::Worker;

/// In milliseconds; what is no such number means never (gRPC, A6: client retries).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What a request's rule or service asks for, and what this request has had of it.
pub(super) struct Repeating {
    worker: Rc<Worker>,
    state: Rc<ServiceState>,
    rule: Rule,
    deadline: Deadline,
    repeats: RefCell<Repeats>,
    /// The wait that the last grant came with.
    wait: Cell<Duration>,
    /// What the request holds, its place among those that are sent again, too.
    holds: Rc<Holds>,
}

/// Statuses. Rules name few.
type Codes = SmallVec<[u16; 8]>;

/// The part that decides by the answer alone. Pure.
pub(super) struct Rule {
    codes: Codes,
    /// Of a request that is no gRPC call: none.
    grpc_codes: Codes,
    /// The request's method is one of those.
    takes_method: bool,
}

impl Rule {
    pub(super) fn new(retry: &Retry, method: &Method, grpc: bool) -> Self {
        let grpc_codes = if grpc { Codes::from_slice(&retry.grpc_codes) } else { Codes::new() };
        Self { codes: Codes::from_slice(&retry.codes), grpc_codes, takes_method: retry.takes(method.as_str()) }
    }

    /// Whether an answer is one after which it is sent again. A peer's proxy that answers for an app which broke off says no
    /// more than that there is no answer.
    fn wants_after(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_lost = || is_no_answer(headers);
        let by_status = self.takes_method && (self.codes.contains(&status.as_u16()) || is_lost());
        by_status || relay::grpc_status(headers).is_some_and(|code| self.grpc_codes.contains(&code))
    }

    /// Whether it is sent again after it was not answered, or not in time; whatever it is where provably nobody acted on it.
    fn wants_without(&self, failure: &Failure) -> bool {
        let is_untouched =
            failure.is_unreachable() || failure.is_unserved() || matches!(failure, Failure::Unprocessed { .. });
        let is_open = matches!(failure, Failure::NoAnswer { .. } | Failure::Timeout(_));
        is_untouched || is_open && (self.takes_method || self.grpc_codes.contains(&failure.verdict().grpc))
    }
}

/// True for what a peer's proxy says in its own name: that its app did not answer.
fn is_no_answer(headers: &HeaderMap) -> bool {
    let reply = headers.get(WEFT_REPLY).and_then(|reply| reply.to_str().ok());
    reply.is_some_and(|reply| reply.split(';').nth(1) == Some("response"))
}

/// What an answer asks of who would try again.
fn asked(headers: &HeaderMap) -> Asked {
    if let Some(pushback) = headers.get(PUSHBACK) {
        let number = pushback.to_str().ok().and_then(|text| text.parse().ok());
        return number.map_or(Asked::Stop, |ms| Asked::After(Duration::from_millis(ms)));
    }
    let Some(after) = headers.get(RETRY_AFTER) else { return Asked::Nothing };
    let text = after.to_str().unwrap_or_default().trim();
    //= rfc9110#section-10.2.3
    match text.parse() {
        Ok(seconds) => Asked::After(Duration::from_secs(seconds)),
        // A date is a matter of more than seconds, and of a clock that is not ours.
        Err(_) => Asked::Stop,
    }
}

/// True where the limits of a service and its budget let one of its requests be sent again. What does not is counted.
pub(super) fn may_send_again(worker: &Worker, state: &ServiceState, holds: &Holds, now: Duration) -> bool {
    let counters = &worker.ledger.counters;
    if !state.may_retry(holds.retrying()) {
        counters.retries_over_limit.increment(1);
        holds.refused();
        return false;
    }
    if !state.budget.withdraw(now) {
        counters.retries_refused.increment(1);
        holds.refused();
        return false;
    }
    true
}

impl Repeating {
    /// `attempts`: as many where the rule says nothing.
    pub(super) fn new(
        worker: &Rc<Worker>,
        state: &Rc<ServiceState>,
        retry: &Retry,
        rule: Rule,
        attempts: u32,
        deadline: Deadline,
        holds: &Rc<Holds>,
    ) -> Self {
        let repeats = Repeats::new(retry.attempts.unwrap_or(attempts), retry.backoff_ms.map(Duration::from_millis));
        Self {
            worker: Rc::clone(worker),
            state: Rc::clone(state),
            rule,
            deadline,
            repeats: RefCell::new(repeats),
            wait: Cell::default(),
            holds: Rc::clone(holds),
        }
    }

    /// True where it is to be sent again after `failure`, once its wait is over.
    pub(super) fn grants_after(&self, failure: &Failure) -> bool {
        // The answer that was discarded was so because the next attempt had been granted.
        matches!(failure, Failure::AnswerDiscarded(_))
            || self.rule.wants_without(failure) && self.grants(Asked::Nothing)
    }

    /// Before the attempt that was granted.
    pub(super) fn wait(&self) -> Duration {
        self.wait.get()
    }

    fn grants(&self, asked: Asked) -> bool {
        let (worker, now) = (&self.worker, self.worker.now());
        let mut repeats = self.repeats.borrow_mut();
        let Some(wait) = repeats.wait(asked, worker.dice(), self.deadline.remaining(now)) else { return false };
        if !may_send_again(worker, &self.state, &self.holds, now) {
            return false;
        }
        worker.ledger.counters.repeats.increment(1);
        repeats.count();
        self.wait.set(wait);
        true
    }
}

impl Again for Repeating {
    fn discards(&self, head: &ResponseHead) -> bool {
        self.rule.wants_after(head.status, &head.headers) && self.grants(asked(&head.headers))
    }

    fn reads_trailers(&self) -> bool {
        !self.rule.grpc_codes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use weft_transport::http::StreamError;

    use super::*;
    use crate::reply::Party;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn retry(any_method: bool) -> Retry {
        Retry { codes: vec![503], grpc_codes: vec![4, 14], any_method, ..Retry::default() }
    }

    #[test]
    fn answers_after_which_a_request_is_sent_again() {
        fn check(rule: &Rule, status: u16, fields: &[(&'static str, &'static str)], expect: bool) {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(rule.wants_after(status, &headers(fields)), expect, "{status} {fields:?}");
        }
        let get = Rule::new(&retry(false), &Method::GET, false);
        check(&get, 503, &[], true);
        check(&get, 502, &[], false);
        check(&get, 502, &[("weft-reply", "inbound;response;;no_answer")], true);
        check(&get, 403, &[("weft-reply", "inbound;filter;;denied")], false);
        check(&get, 200, &[("grpc-status", "14")], false);
        let post = Rule::new(&retry(false), &Method::POST, false);
        // Somebody may have acted on it.
        check(&post, 503, &[], false);
        check(&post, 502, &[("weft-reply", "inbound;response;;no_answer")], false);
        let post = Rule::new(&retry(true), &Method::POST, false);
        check(&post, 503, &[], true);
        let call = Rule::new(&retry(false), &Method::POST, true);
        check(&call, 200, &[("grpc-status", "14")], true);
        check(&call, 200, &[("grpc-status", "0")], false);
        check(&call, 200, &[], false);
        check(&call, 503, &[], false);
    }

    #[test]
    fn what_was_not_answered_is_sent_again() {
        let lost = || Failure::NoAnswer { to: Party::Peer, error: StreamError::Reset(2) };
        let late = || Failure::Timeout(5);
        let check = |rule: &Rule, failure: &Failure, expect: bool| {
            assert_eq!(rule.wants_without(failure), expect, "{failure}");
        };
        let get = Rule::new(&Retry::default(), &Method::GET, false);
        let post = Rule::new(&Retry::default(), &Method::POST, false);
        for failure in [lost(), late()] {
            check(&get, &failure, true);
            check(&post, &failure, false);
        }
        check(&post, &Failure::PeerUnserved { told: String::new() }, true);
        check(&post, &Failure::PeerConnect { address: String::new(), reason: String::new() }, true);
        check(&get, &Failure::ClientGone, false);
        check(&get, &Failure::CallerDeadline(5), false);
        check(&get, &Failure::BadRequest("odd".into()), false);
        let call = |code| Rule::new(&Retry { grpc_codes: vec![code], ..Retry::default() }, &Method::POST, true);
        check(&call(14), &lost(), true);
        check(&call(14), &late(), false);
        check(&call(4), &late(), true);
    }

    #[test]
    fn servers_are_heard() {
        fn check(fields: &[(&'static str, &'static str)], expect: Asked) {
            assert_eq!(asked(&headers(fields)), expect, "{fields:?}");
        }
        check(&[], Asked::Nothing);
        check(&[("retry-after", "3")], Asked::After(Duration::from_secs(3)));
        check(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")], Asked::Stop);
        check(&[("retry-after", "-1")], Asked::Stop);
        check(&[("grpc-retry-pushback-ms", "40")], Asked::After(Duration::from_millis(40)));
        check(&[("grpc-retry-pushback-ms", "-1")], Asked::Stop);
        check(&[("grpc-retry-pushback-ms", "soon"), ("retry-after", "1")], Asked::Stop);
    }
}
