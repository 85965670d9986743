//! So many requests of each caller a day (UTC), counted in values of the proxy: exact across its workers, not across
//! proxies. Needs the capability `kv`.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{Filter, Interest, Outcome, Reply, Request, Value, hook, kv, log};

const DAY_MS: u64 = 86_400_000;
/// A count is kept for as long as its day may last somewhere.
const KEPT: Duration = Duration::from_secs(2 * 86_400);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    requests: i64,
}

#[derive(Debug)]
pub struct Quota {
    requests: i64,
    caller: Value<hook::RequestHead>,
    time: Value<hook::RequestHead>,
}

impl Filter for Quota {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        if config.requests < 1 {
            return Err("requests: at least 1".to_owned());
        }
        let mut head = ask.request_head();
        Ok(Self { requests: config.requests, caller: head.principal(), time: head.time() })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        let caller = request.text(self.caller).unwrap_or("nobody");
        let now = request.number(self.time).unwrap_or_default();
        // Keys have 256 bytes; identities that are longer share a count with those that begin alike.
        let caller = &caller[..caller.floor_char_boundary(200)];
        let used = match kv::add(format!("{}:{caller}", now / DAY_MS).as_bytes(), 1, KEPT) {
            Ok(used) => used,
            Err(error) => {
                log::warn(&format!("nothing can be counted: {error}"));
                return Outcome::respond(Reply::text(503, "quota_uncounted", "nothing can be counted\n"));
            }
        };
        if used > self.requests {
            let seconds = (DAY_MS - now % DAY_MS).div_ceil(1_000);
            let reply = Reply::text(429, "quota_spent", "no more requests today\n");
            return Outcome::respond(reply.header("retry-after", seconds.to_string()));
        }
        Outcome::pass().set_header("x-quota-left", (self.requests - used).to_string())
    }
}

weft_filters_sdk::export!(Quota);
