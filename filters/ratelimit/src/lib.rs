//! Rate limits by caller, by header, by parts of the path or for all together: token buckets that live in the host,
//! exact across its workers. A request pays every limit or none: the first that is empty answers 429 and says when to
//! come again, and what the request paid before is given back. A path that another reading puts into another bucket is refused.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{Ask, Filter, Interest, Outcome, Reply, Request, Response, TokenBuckets, Value, hook};
use weft_policy::authz::PathTemplate;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    limits: Vec<LimitConfig>,
    /// Answers say in `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset` how the tightest limit stands.
    #[serde(default)]
    headers: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitConfig {
    /// Names the limit in replies, metrics and logs, and keeps its buckets when its numbers change. Default: its key, and
    /// for further limits by the same key their number.
    name: Option<String>,
    /// `identity`, `header:NAME`, `path:TEMPLATE`, or `none` (all requests share one bucket). Default `none`.
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
    /// What stands in the places of its `{name}` elements; requests for other paths are not limited.
    Path { text: String, template: PathTemplate },
}

impl TryFrom<String> for KeyConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "identity" => Ok(Self::Identity),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("path", template)) => match PathTemplate::parse(template) {
                Ok(parsed) => Ok(Self::Path { text: template.to_owned(), template: parsed }),
                Err(error) => Err(format!("path: {error}")),
            },
            None | Some(_) => Err(format!("{text:?} is not a key: identity, header:NAME, path:TEMPLATE or none")),
        }
    }
}

/// The limits under one configuration.
#[derive(Debug)]
pub struct RateLimit {
    limits: Vec<Limit>,
    headers: bool,
    /// Asked for where a limit is by path.
    readings: Option<Value<hook::RequestHead>>,
}

#[derive(Debug)]
struct Limit {
    name: String,
    key: KeyConfig,
    /// What is told of a request's bucket; `None`: all requests share one.
    keyed_by: Option<Value<hook::RequestHead>>,
    burst: u32,
    buckets: TokenBuckets,
}

/// How a limit stands: requests that may come at once, how many are left, seconds until all are. All 0: nothing to say.
type Standing = (u64, u64, u64);

impl Filter for RateLimit {
    type Config = Config;
    type State = Standing;

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        if config.limits.is_empty() {
            return Err("limits: at least one is needed".to_owned());
        }
        if config.headers {
            ask.response_head();
        }
        let mut head = ask.request_head();
        let mut limits = Vec::with_capacity(config.limits.len());
        for (index, limit) in config.limits.into_iter().enumerate() {
            let name = limit.name.clone().unwrap_or_else(|| default_name(&limits, &limit.key));
            if limits.iter().any(|known: &Limit| known.name == name) {
                return Err(format!("limits[{index}].name: {name:?} is the name of an earlier limit"));
            }
            let period = Duration::from_secs(u64::from(limit.per_seconds));
            let burst = limit.burst.unwrap_or(limit.requests);
            let buckets = TokenBuckets::define(&name, limit.requests, period, burst)
                .map_err(|error| format!("limits[{index}]: {error}"))?;
            let keyed_by = limit.key.ask(&mut head);
            limits.push(Limit { name, key: limit.key, keyed_by, burst, buckets });
        }
        let by_path = limits.iter().any(|limit| matches!(limit.key, KeyConfig::Path { .. }));
        // Proxies of releases before know no readings.
        let readings = by_path.then(|| head.optional("request.path.readings"));
        Ok(Self { limits, headers: config.headers, readings })
    }

    fn request_head(&mut self, request: &Request<'_>, standing: &mut Standing) -> Outcome {
        if self.is_evasive(request) {
            return Outcome::respond(Reply::text(400, "ambiguous_path", "the path can be read past a rate limit\n"));
        }
        let mut tightest: Option<Standing> = None;
        for (index, limit) in self.limits.iter().enumerate() {
            let Some(bucket) = limit.bucket(request) else { continue };
            match limit.buckets.take(&bucket, 1) {
                Ok(taken) => {
                    let stands = (u64::from(limit.burst), u64::from(taken.remaining), seconds(taken.reset));
                    if tightest.is_none_or(|(_, remaining, _)| stands.1 < remaining) {
                        tightest = Some(stands);
                    }
                }
                Err(wait) => {
                    for paid in &self.limits[..index] {
                        if let Some(bucket) = paid.bucket(request) {
                            paid.buckets.give_back(&bucket, 1);
                        }
                    }
                    return Outcome::respond(self.limited(limit, wait));
                }
            }
        }
        if self.headers {
            *standing = tightest.unwrap_or_default();
        }
        Outcome::pass()
    }

    fn response_head(&mut self, _: &Response<'_>, standing: &mut Standing) -> Outcome {
        let (limit, remaining, reset) = *standing;
        if limit == 0 {
            return Outcome::pass();
        }
        Outcome::pass()
            .set_header("ratelimit-limit", limit.to_string())
            .set_header("ratelimit-remaining", remaining.to_string())
            .set_header("ratelimit-reset", reset.to_string())
    }
}

impl RateLimit {
    /// True where an app may read the path as one that is limited otherwise.
    fn is_evasive(&self, request: &Request<'_>) -> bool {
        let Some(readings) = self.readings.and_then(|readings| request.text(readings)) else { return false };
        let mut templates = self.limits.iter().filter_map(|limit| match &limit.key {
            KeyConfig::Path { template, .. } => Some((template, limit.bucket(request))),
            KeyConfig::None | KeyConfig::Identity | KeyConfig::Header(_) => None,
        });
        // Of more readings than can be told any may be another.
        readings.is_empty()
            || templates.any(|(template, bucket)| {
                readings.lines().any(|path| template.key(path) != bucket.as_deref().map(<[u8]>::to_vec))
            })
    }

    fn limited(&self, limit: &Limit, wait: Duration) -> Reply {
        let wait = seconds(wait).to_string();
        let body = format!("rate limit {} exceeded\n", limit.name);
        let reply = Reply::text(429, "rate_limited", &body).rule(&limit.name).header("retry-after", wait.clone());
        if !self.headers {
            return reply;
        }
        reply
            .header("ratelimit-limit", limit.burst.to_string())
            .header("ratelimit-remaining", "0")
            .header("ratelimit-reset", wait)
    }
}

impl Limit {
    /// The bucket's key; `None` where the limit is not for the request. A value that is absent counts as an empty one:
    /// leaving it out is no way around the limit.
    fn bucket<'a>(&self, request: &Request<'a>) -> Option<Cow<'a, [u8]>> {
        let value = self.keyed_by.and_then(|value| request.get(value)).unwrap_or_default();
        match &self.key {
            KeyConfig::None | KeyConfig::Identity | KeyConfig::Header(_) => Some(Cow::Borrowed(value)),
            KeyConfig::Path { template, .. } => template.key(std::str::from_utf8(value).ok()?).map(Cow::Owned),
        }
    }
}

/// Whole seconds, rounded up, and one at least: that is all that headers can say.
fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

/// `identity`, `header:x-key`, `path:/a/{id}` or `none`; with `#2` the second of a kind. Not a position, which changes
/// when another limit goes.
fn default_name(earlier: &[Limit], key: &KeyConfig) -> String {
    let name = match key {
        KeyConfig::None => "none".to_owned(),
        KeyConfig::Identity => "identity".to_owned(),
        KeyConfig::Header(name) => format!("header:{name}"),
        KeyConfig::Path { text, .. } => format!("path:{text}"),
    };
    match earlier.iter().filter(|limit| limit.key == *key).count() {
        0 => name,
        more => format!("{name}#{}", more + 1),
    }
}

impl KeyConfig {
    fn ask(&self, head: &mut Ask<'_, hook::RequestHead>) -> Option<Value<hook::RequestHead>> {
        match self {
            KeyConfig::None => None,
            KeyConfig::Identity => Some(head.principal()),
            KeyConfig::Header(name) => Some(head.header(name)),
            KeyConfig::Path { .. } => Some(head.path()),
        }
    }
}

weft_filters_sdk::export!(RateLimit);

#[cfg(test)]
mod tests;
