//! Asks a service for the flags of a caller and tells them to the app; requests pass without them where no answer
//! comes. Needs the capability `callout`.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{
    Answer, Counter, Filter, Interest, Outcome, Request, Value, Values, callouts, hook, log, rules,
};

const HEADER: &str = "x-flags";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// As the FilterPolicy's capability `callout` names it.
    service: String,
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
}

fn default_timeout() -> u32 {
    100
}

#[derive(Debug)]
pub struct Flags {
    service: String,
    timeout: Duration,
    account: Value<hook::RequestHead>,
    missed: Counter,
}

impl Filter for Flags {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        ask.callout();
        ask.tick();
        Ok(Self {
            service: config.service,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
            account: ask.request_head().source_service_account(),
            missed: Counter::define("flags_missed_total", &[])?,
        })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let Some(account) = request.text(self.account) else { return Outcome::pass().remove_header(HEADER) };
        let question = callouts::Request::new(&self.service, "GET", &format!("/flags/{account}"));
        match question.timeout(self.timeout).answer_bytes(1_024).send() {
            Ok(_) => Outcome::wait(self.timeout * 2),
            Err(error) => self.without(&error.to_string()),
        }
    }

    fn callout(&mut self, _: &Values<'_, hook::Callout>, _: u32, answer: Result<&Answer, &str>, _: &mut ()) -> Outcome {
        match answer {
            Ok(answer) if answer.status == 200 && rules::header_value(&answer.body).is_ok() => {
                Outcome::pass().set_header(HEADER, answer.body.as_slice())
            }
            Ok(answer) => self.without(&format!("an answer {} that can't be used", answer.status)),
            Err(why) => self.without(why),
        }
    }

    fn tick(&mut self, _: &Values<'_, hook::Tick>, _: &mut ()) -> Outcome {
        self.without("no answer in time")
    }
}

impl Flags {
    /// What the caller sent under the name passes in no case.
    fn without(&self, why: &str) -> Outcome {
        self.missed.add(&[], 1);
        log::warn(&format!("no flags: {why}"));
        Outcome::pass().remove_header(HEADER)
    }
}

weft_filters_sdk::export!(Flags);
