//! Fault injection: delays and aborts a share of the requests, to see how callers bear it. A delay is a verdict, so
//! nothing blocks meanwhile; where both strike, the abort comes after the delay. Which requests are struck is decided
//! by their id where they have one: another attempt at a request fares as the first one did.

mod config;
mod draw;

use std::time::Duration;

use weft_filters_sdk::{Ask, Counter, Filter, Interest, Outcome, Reply, Request, Value, Values, hook};

pub use config::Config;
use config::{AbortKind, DelayKind, HeaderCondition, Whom};
use draw::{Draw, Lot};

/// The word of metrics, logs and answers.
const REASON: &str = "fault_abort";

/// The faults under one configuration.
#[derive(Debug)]
pub struct Fault {
    id: Value<hook::RequestHead>,
    dice: Value<hook::RequestHead>,
    /// Tells the choice of requests from that of other configurations.
    seed: String,
    delay: Option<(Strike, DelayKind)>,
    abort: Option<(Strike, AbortKind)>,
    delayed: Counter,
    aborted: Counter,
}

/// Whom a fault strikes.
#[derive(Debug)]
struct Strike {
    /// Of 2^32 requests.
    share: u64,
    conditions: Vec<Condition>,
    /// Empty: everybody.
    identities: Vec<Identity>,
    principal: Option<Value<hook::RequestHead>>,
    /// Set where only requests of gRPC are struck.
    content_type: Option<Value<hook::RequestHead>>,
}

#[derive(Debug)]
struct Condition {
    header: Value<hook::RequestHead>,
    exact: Option<String>,
}

/// A SPIFFE ID, or what one begins with.
#[derive(Debug)]
struct Identity {
    text: String,
    is_prefix: bool,
}

impl Filter for Fault {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let Config { seed, delay, abort } = config;
        let mut head = ask.request_head();
        let delay = match delay {
            None => None,
            Some(delay) => {
                let kind = delay.kind().map_err(|error| format!("delay{error}"))?;
                Some((Strike::new("delay", delay.whom(), &mut head)?, kind))
            }
        };
        let abort = match abort {
            None => None,
            Some(abort) => {
                let kind = abort.kind().map_err(|error| format!("abort{error}"))?;
                let mut strike = Strike::new("abort", abort.whom(), &mut head)?;
                if matches!(kind, AbortKind::Grpc(_)) {
                    strike.content_type = Some(head.header("content-type"));
                }
                Some((strike, kind))
            }
        };
        if delay.is_none() && abort.is_none() {
            return Err("neither delay nor abort is given".to_owned());
        }
        let (id, dice) = (head.value("request.id"), head.dice());
        if delay.is_some() && matches!(abort, Some((_, AbortKind::Reset))) {
            // A reset has no delay of its own.
            ask.tick();
        }
        let delayed = Counter::define("faults_delayed_total", &[])?;
        let aborted = Counter::define("faults_aborted_total", &[])?;
        Ok(Self { id, dice, seed, delay, abort, delayed, aborted })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let draw = match request.get(self.id).filter(|id| !id.is_empty()) {
            Some(id) => Draw::of_id(&self.seed, id),
            None => Draw::of_dice(request.number(self.dice).unwrap_or(u64::MAX)),
        };
        let delay = self.delay.as_ref().filter(|(strike, _)| strike.hits(draw.lot(Lot::Delay), request));
        let delay = delay.map(|(_, kind)| kind.time(&draw));
        let abort = self.abort.as_ref().filter(|(strike, _)| strike.hits(draw.lot(Lot::Abort), request));
        if delay.is_some() {
            self.delayed.add(&[], 1);
        }
        match (abort, delay) {
            (Some((_, kind)), delay) => {
                self.aborted.add(&[], 1);
                aborted(*kind, delay)
            }
            (None, Some(delay)) => Outcome::pass_after(delay),
            (None, None) => Outcome::pass(),
        }
    }

    /// The delay before a reset is over.
    fn tick(&mut self, _: &Values<'_, hook::Tick>, _: &mut ()) -> Outcome {
        Outcome::reset(REASON)
    }
}

fn aborted(kind: AbortKind, delay: Option<Duration>) -> Outcome {
    let reply = match (kind, delay) {
        (AbortKind::Reset, None) => return Outcome::reset(REASON),
        (AbortKind::Reset, Some(delay)) => return Outcome::wait(delay),
        (AbortKind::Http(status), _) => Reply::text(status, REASON, "fault filter abort\n"),
        // The proxy makes the head of it: where it is older than the field, of the status that comes nearest.
        (AbortKind::Grpc(code), _) => {
            Reply::new(config::http_of_grpc(code), REASON, "").header("grpc-status", code.to_string())
        }
    };
    Outcome::respond(reply.rule("abort").after(delay.unwrap_or_default()))
}

impl Strike {
    fn new(fault: &str, whom: Whom, head: &mut Ask<'_, hook::RequestHead>) -> Result<Self, String> {
        let Whom { percentage, headers, identities } = whom;
        if !(0.0..=100.0).contains(&percentage) {
            return Err(format!("{fault}.percentage: {percentage} is not between 0 and 100"));
        }
        let condition = |it: HeaderCondition| Condition { header: head.header(&it.name), exact: it.exact };
        let conditions = headers.into_iter().map(condition).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^32 by the check above")]
        let share = (percentage / 100.0 * 2_f64.powi(32)).round() as u64;
        let principal = (!identities.is_empty()).then(|| head.principal());
        let identities = identities.into_iter().map(Identity::new).collect();
        Ok(Self { share, conditions, identities, principal, content_type: None })
    }

    fn hits(&self, lot: u32, request: &Request<'_>) -> bool {
        u64::from(lot) < self.share
            && self.conditions.iter().all(|condition| condition.holds(request))
            && self.is_of(request)
            && self
                .content_type
                .is_none_or(|kind| request.get(kind).is_some_and(|kind| kind.starts_with(b"application/grpc")))
    }

    fn is_of(&self, request: &Request<'_>) -> bool {
        let Some(principal) = self.principal else { return true };
        request.text(principal).is_some_and(|caller| self.identities.iter().any(|identity| identity.matches(caller)))
    }
}

impl Condition {
    fn holds(&self, request: &Request<'_>) -> bool {
        let mut values = request.all(self.header);
        match &self.exact {
            None => values.next().is_some(),
            Some(exact) => values.any(|value| value == exact.as_bytes()),
        }
    }
}

impl Identity {
    fn new(text: String) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self { text: prefix.to_owned(), is_prefix: true },
            None => Self { text, is_prefix: false },
        }
    }

    fn matches(&self, caller: &str) -> bool {
        if self.is_prefix { caller.starts_with(&self.text) } else { caller == self.text }
    }
}

weft_filters_sdk::export!(Fault);

#[cfg(test)]
mod tests;
