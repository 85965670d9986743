//! A filter to start from: refuses some callers, counts the others, and greets the app with each.

use serde::Deserialize;
use weft_filters_sdk::{Counter, Filter, Interest, Outcome, Reply, Request, Value, hook};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Service accounts that are refused.
    #[serde(default)]
    refused: Vec<String>,
}

/// The filter under one configuration.
#[derive(Debug)]
pub struct Starter {
    refused: Vec<String>,
    account: Value<hook::RequestHead>,
    seen: Counter,
}

impl Filter for Starter {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let account = ask.request_head().source_service_account();
        let seen = Counter::define("seen_total", &["account"])?;
        Ok(Self { refused: config.refused, account, seen })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let account = request.text(self.account).unwrap_or("nobody");
        if self.refused.iter().any(|refused| refused == account) {
            return Outcome::respond(Reply::text(403, "caller_refused", "go away\n").rule(account));
        }
        self.seen.add(&[account], 1);
        Outcome::pass().set_header("x-greeting", format!("hello {account}"))
    }
}

weft_filters_sdk::export!(Starter);
