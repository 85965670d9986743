//! Rate limits by caller, by header or for all together: token buckets that live in the host, exact across its workers.
//! A request pays every limit or none: the first that is empty answers 429 and says when to come again, and what the
//! request paid before is given back.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{Filter, Hooks, Interest, Outcome, Reply, Request, TokenBuckets, Wants};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    limits: Vec<LimitConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitConfig {
    /// Names the limit in replies, metrics and logs, and keeps its buckets when its numbers change. Default: its key, and
    /// for further limits by the same key their number.
    name: Option<String>,
    /// `identity`, `header:NAME`, or `none` (all requests share one bucket). Default `none`.
    #[serde(default)]
    key: KeyConfig,
    /// So many requests each `per_seconds`.
    requests: u32,
    #[serde(default = "one")]
    per_seconds: u32,
    /// Requests that may come at once. Default: `requests`.
    burst: Option<u32>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
enum KeyConfig {
    #[default]
    None,
    /// The caller's SPIFFE ID; callers without one share a bucket.
    Identity,
    /// The first value of a header; requests without it share a bucket.
    Header(String),
}

impl TryFrom<String> for KeyConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "identity" => Ok(Self::Identity),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            None | Some(_) => Err(format!("{text:?} is not a key: identity, header:NAME or none")),
        }
    }
}

/// The limits under one configuration.
#[derive(Debug)]
pub struct RateLimit {
    limits: Vec<Limit>,
}

#[derive(Debug)]
struct Limit {
    name: String,
    key: KeyConfig,
    buckets: TokenBuckets,
}

impl Filter for RateLimit {
    fn configure(config: &str) -> Result<(Self, Interest), String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        if config.limits.is_empty() {
            return Err("limits: at least one is needed".to_owned());
        }
        let mut interest = Interest { hooks: Hooks::REQUEST_HEAD, ..Interest::default() };
        let mut limits = Vec::with_capacity(config.limits.len());
        for (index, limit) in config.limits.into_iter().enumerate() {
            match &limit.key {
                KeyConfig::None => {}
                KeyConfig::Identity => interest.wants |= Wants::PRINCIPAL,
                KeyConfig::Header(name) if interest.request_headers.contains(name) => {}
                KeyConfig::Header(name) => interest.request_headers.push(name.clone()),
            }
            let name = limit.name.clone().unwrap_or_else(|| default_name(&limits, &limit.key));
            if limits.iter().any(|known: &Limit| known.name == name) {
                return Err(format!("limits[{index}].name: {name:?} is the name of an earlier limit"));
            }
            let period = Duration::from_secs(u64::from(limit.per_seconds));
            let burst = limit.burst.unwrap_or(limit.requests);
            let buckets = TokenBuckets::define(&name, limit.requests, period, burst)
                .map_err(|error| format!("limits[{index}]: {error}"))?;
            limits.push(Limit { name, key: limit.key, buckets });
        }
        Ok((Self { limits }, interest))
    }

    fn request_head(&mut self, _stream: u64, request: &Request<'_>) -> Outcome {
        for (index, limit) in self.limits.iter().enumerate() {
            if let Err(wait) = limit.buckets.take(limit.key.of(request), 1) {
                for paid in &self.limits[..index] {
                    paid.buckets.give_back(paid.key.of(request), 1);
                }
                return limited(&limit.name, wait);
            }
        }
        Outcome::pass()
    }
}

/// `identity`, `header:x-key` or `none`; with `#2` the second of a kind. Not a position, which changes when another limit
/// goes.
fn default_name(earlier: &[Limit], key: &KeyConfig) -> String {
    let name = match key {
        KeyConfig::None => "none".to_owned(),
        KeyConfig::Identity => "identity".to_owned(),
        KeyConfig::Header(name) => format!("header:{name}"),
    };
    match earlier.iter().filter(|limit| limit.key == *key).count() {
        0 => name,
        more => format!("{name}#{}", more + 1),
    }
}

impl KeyConfig {
    /// The bucket's key. A header that is absent counts as an empty one: leaving it out is no way around the limit.
    fn of<'a>(&self, request: &Request<'a>) -> &'a [u8] {
        match self {
            KeyConfig::None => b"",
            KeyConfig::Identity => request.attributes.principal.as_deref().unwrap_or_default().as_bytes(),
            KeyConfig::Header(name) => request.header(name).unwrap_or_default(),
        }
    }
}

fn limited(limit: &str, wait: Duration) -> Outcome {
    // Whole seconds, rounded up: that is all the header can say.
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let reply = Reply::text(429, "rate_limited", &format!("rate limit {limit} exceeded\n")).rule(limit);
    Outcome::respond(reply.header("retry-after", seconds.to_string()))
}

weft_filters_sdk::export!(RateLimit);

#[cfg(test)]
mod tests;
