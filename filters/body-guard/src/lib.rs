//! Judges whole request bodies before the app sees a byte of them: their size, JSON syntax and its depth and keys,
//! fields that must be there, what a JSON Schema asks, and text that must not be there. What it can't judge it refuses.

mod json;
mod schema;

use serde::Deserialize;
use weft_filters_sdk::hook;
use weft_filters_sdk::{Chunk, Counter, Filter, Interest, Outcome, Reply, RequestBody, Value};

use json::Bounds;
use schema::Schema;

/// At least one of `json` and `forbidden`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Longer bodies are answered 413. Default 65,536.
    #[serde(default = "default_bytes")]
    max_bytes: u64,
    json: Option<JsonConfig>,
    /// Text that no body may have, wherever it stands; compared octet by octet.
    #[serde(default)]
    forbidden: Vec<String>,
    /// Methods whose bodies are judged. Default: all.
    #[serde(default)]
    methods: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonConfig {
    /// Objects and arrays in one another. Default 32, at most 100.
    #[serde(default = "default_depth")]
    max_depth: usize,
    /// Keys of all objects together.
    max_keys: Option<usize>,
    /// Fields that must be there, by path: `user.name`. Not within arrays.
    #[serde(default)]
    required: Vec<String>,
    /// Objects may name a field twice; parsers differ on which one counts. Default: refused.
    #[serde(default)]
    allow_duplicate_keys: bool,
    /// Bodies without `content-type: application/json` (or `+json`) are refused with 415. Default: not looked at.
    #[serde(default)]
    require_content_type: bool,
    /// A JSON Schema that bodies must fit, of the keywords that [`schema`] knows.
    schema: Option<serde_json::Value>,
}

fn default_bytes() -> u64 {
    64 << 10
}

fn default_depth() -> usize {
    32
}

/// The parser's own stack ends at 128.
const MAX_DEPTH: usize = 100;

/// The rules under one configuration.
#[derive(Debug)]
pub struct BodyGuard {
    bounds: Option<Bounds>,
    require_content_type: bool,
    forbidden: Vec<String>,
    methods: Vec<String>,
    method: Value<hook::RequestBody>,
    content_type: Value<hook::RequestBody>,
    content_encoding: Value<hook::RequestBody>,
    refused: Counter,
}

impl Filter for BodyGuard {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        if config.json.is_none() && config.forbidden.is_empty() {
            return Err("neither json nor forbidden is given".to_owned());
        }
        if config.max_bytes == 0 {
            return Err("max_bytes: 0 would let no body pass".to_owned());
        }
        if let Some(index) = config.forbidden.iter().position(String::is_empty) {
            return Err(format!("forbidden[{index}]: every body has empty text"));
        }
        let require_content_type = config.json.as_ref().is_some_and(|json| json.require_content_type);
        let bounds = config.json.map(JsonConfig::bounds).transpose()?;
        let mut body = ask.request_body();
        body.buffer(config.max_bytes);
        let (method, content_type) = (body.method(), body.request_header("content-type"));
        let content_encoding = body.request_header("content-encoding");
        let refused = Counter::define("bodies_refused_total", &["reason"])?;
        let (forbidden, methods) = (config.forbidden, config.methods);
        Ok(Self { bounds, require_content_type, forbidden, methods, method, content_type, content_encoding, refused })
    }

    fn request_body(&mut self, request: &RequestBody<'_>, chunk: Chunk<'_>, _: &mut ()) -> Outcome {
        let method = request.text(self.method).unwrap_or_default();
        if !self.methods.is_empty() && !self.methods.iter().any(|judged| judged == method) {
            return Outcome::pass();
        }
        // A request without a body, as most GETs are, has nothing to judge; one that must have fields does not pass so.
        let needs_body = self.bounds.as_ref().is_some_and(Bounds::needs_body);
        if chunk.bytes.is_empty() && !needs_body {
            return Outcome::pass();
        }
        // The app would read something else than what is judged here.
        if request.all(self.content_encoding).any(|coding| !is_plain(coding)) {
            return self.refuse(415, "body_encoded", "the body must come without a content-encoding");
        }
        if self.require_content_type && !self.is_json(request) {
            return self.refuse(415, "body_not_json", "the body must be JSON, and its content-type say so");
        }
        if let Some(bounds) = &self.bounds
            && let Err(what) = json::judge(chunk.bytes, bounds)
        {
            return self.refuse(400, "body_refused", &what);
        }
        if self.forbidden.iter().any(|text| has(chunk.bytes, text.as_bytes())) {
            return self.refuse(400, "body_forbidden", "the body has text that is not allowed");
        }
        Outcome::pass()
    }
}

impl BodyGuard {
    /// Every `content-type` that came says JSON, and one came.
    fn is_json(&self, request: &RequestBody<'_>) -> bool {
        let is_json = |value: &[u8]| {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
            kind == b"application/json" || (kind.starts_with(b"application/") && kind.ends_with(b"+json"))
        };
        request.get(self.content_type).is_some() && request.all(self.content_type).all(is_json)
    }

    fn refuse(&self, status: u16, reason: &str, what: &str) -> Outcome {
        self.refused.add(&[reason], 1);
        Outcome::respond(Reply::text(status, reason, &format!("body refused: {what}\n")).rule(reason))
    }
}

impl JsonConfig {
    fn bounds(self) -> Result<Bounds, String> {
        if !(1..=MAX_DEPTH).contains(&self.max_depth) {
            return Err(format!("json.max_depth: {} is not between 1 and {MAX_DEPTH}", self.max_depth));
        }
        let mut required = Vec::with_capacity(self.required.len());
        for (index, path) in self.required.iter().enumerate() {
            let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
            if parts.iter().any(String::is_empty) {
                return Err(format!("json.required[{index}]: {path:?} is no path of a field"));
            }
            required.push(parts);
        }
        let schema = self.schema.as_ref().map(Schema::read).transpose();
        Ok(Bounds {
            depth: self.max_depth,
            keys: self.max_keys,
            required,
            duplicates: self.allow_duplicate_keys,
            schema: schema.map_err(|error| format!("json.schema{error}"))?,
        })
    }
}

/// True for a `content-encoding` that says there is none.
fn is_plain(coding: &[u8]) -> bool {
    let coding = coding.trim_ascii();
    coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
}

/// True where `text`, which is not empty, stands in `body`.
fn has(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}

weft_filters_sdk::export!(BodyGuard);

#[cfg(test)]
mod tests;
