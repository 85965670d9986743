//! Fault injection: delays and aborts a share of the requests, to see how callers bear it. A delay is a verdict, so nothing
//! blocks meanwhile; where both strike, the abort comes after the delay.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{Ask, Counter, Filter, Interest, Outcome, Reply, Request, Value, hook, rules};

/// At least one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    delay: Option<Delay>,
    abort: Option<Abort>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delay {
    /// At most 300,000.
    ms: u32,
    /// Share of the requests, 0 to 100, to 0.0001. Default 100.
    #[serde(default = "all")]
    percentage: f64,
    /// Only requests that have all of these.
    #[serde(default)]
    headers: Vec<HeaderCondition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Abort {
    /// HTTP status, 200 to 599.
    status: u16,
    #[serde(default = "all")]
    percentage: f64,
    #[serde(default)]
    headers: Vec<HeaderCondition>,
}

/// The header is there, and has this value where one is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderCondition {
    name: String,
    exact: Option<String>,
}

fn all() -> f64 {
    100.0
}

const MAX_DELAY_MS: u32 = 300_000;

/// The faults under one configuration.
#[derive(Debug)]
pub struct Fault {
    dice: Value<hook::RequestHead>,
    delay: Option<(Strike, Duration)>,
    abort: Option<(Strike, u16)>,
    delayed: Counter,
    aborted: Counter,
}

/// Whom a fault strikes.
#[derive(Debug)]
struct Strike {
    /// Of 2^32 requests.
    share: u64,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    header: Value<hook::RequestHead>,
    exact: Option<String>,
}

impl Filter for Fault {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let mut head = ask.request_head();
        let delay = match config.delay {
            None => None,
            Some(delay) if delay.ms > MAX_DELAY_MS => return Err(format!("delay.ms: at most {MAX_DELAY_MS}")),
            Some(delay) => {
                let strike = Strike::new("delay", delay.percentage, delay.headers, &mut head)?;
                Some((strike, Duration::from_millis(u64::from(delay.ms))))
            }
        };
        let abort = match config.abort {
            None => None,
            Some(abort) => {
                rules::status(abort.status).map_err(|error| format!("abort.status: {error}"))?;
                Some((Strike::new("abort", abort.percentage, abort.headers, &mut head)?, abort.status))
            }
        };
        if delay.is_none() && abort.is_none() {
            return Err("neither delay nor abort is given".to_owned());
        }
        let delayed = Counter::define("faults_delayed_total", &[])?;
        let aborted = Counter::define("faults_aborted_total", &[])?;
        Ok(Self { dice: head.dice(), delay, abort, delayed, aborted })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        // Two dice of 32 bits each, so that the two faults strike independently.
        let dice = request.number(self.dice).unwrap_or(u64::MAX);
        let (low, high) = (dice & u64::from(u32::MAX), dice >> 32);
        let delay = self.delay.as_ref().filter(|(strike, _)| strike.hits(low, request)).map(|(_, delay)| *delay);
        let abort = self.abort.as_ref().filter(|(strike, _)| strike.hits(high, request)).map(|(_, status)| *status);
        if delay.is_some() {
            self.delayed.add(&[], 1);
        }
        match (abort, delay) {
            (Some(status), delay) => {
                self.aborted.add(&[], 1);
                let reply = Reply::text(status, "fault_abort", "fault filter abort\n").rule("abort");
                Outcome::respond(reply.after(delay.unwrap_or_default()))
            }
            (None, Some(delay)) => Outcome::pass_after(delay),
            (None, None) => Outcome::pass(),
        }
    }
}

impl Strike {
    fn new(
        fault: &str,
        percentage: f64,
        headers: Vec<HeaderCondition>,
        head: &mut Ask<'_, hook::RequestHead>,
    ) -> Result<Self, String> {
        if !(0.0..=100.0).contains(&percentage) {
            return Err(format!("{fault}.percentage: {percentage} is not between 0 and 100"));
        }
        let condition = |it: HeaderCondition| Condition { header: head.header(&it.name), exact: it.exact };
        let conditions = headers.into_iter().map(condition).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^32 by the check above")]
        let share = (percentage / 100.0 * 2_f64.powi(32)).round() as u64;
        Ok(Self { share, conditions })
    }

    fn hits(&self, dice: u64, request: &Request<'_>) -> bool {
        dice < self.share && self.conditions.iter().all(|condition| condition.holds(request))
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

weft_filters_sdk::export!(Fault);

#[cfg(test)]
mod tests;
