//! A filter of contract 0.2 that does what no filter should, or one thing that a filter may, as `mode` says; for tests.
//! `at` names the hook where modes act that are the same everywhere; with `mode: told` the head's `x-do` names the mode.

mod bombs;
mod heads;
mod parts;
mod wasi;

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::{
    Answer, Chunk, Connection, Counter, Filter, Interest, Outcome, Reply, Request, RequestBody, Response, ResponseBody,
    Value, Values, hook,
};

/// `mode` is one of these; where a hook has nothing to do in a mode, it passes.
///
/// | mode | does |
/// |---|---|
/// | `pass` | asks for the request's head and passes |
/// | `all` | asks for every hook and passes |
/// | `told` | does at each head what its header `x-do` says; `MODE@HOOK` has that hook do it later, for this stream alone |
/// | any, with `at: every` | asks for every hook too |
/// | `refuse`, `configure-trap`, `configure-loop` | end in `configure` |
/// | `ask-unknown`, `ask-many` | ask for a value that is none, for 65 |
/// | `ask-optional` | asks for a value that is none as optional, and passes |
/// | `trap-panic`, `trap-index`, `trap-overflow`, `trap-unreachable` | trap at `at` |
/// | `loop`, `memory`, `stack` | never end, eat memory, recurse at `at` |
/// | `reset`, `close` | end the stream at `at`; `reset-in-body`: at each chunk of both bodies |
/// | `hold` | goes on after 5 minutes, at `at` |
/// | `wait-tick` | waits 30 ms, then goes on with `x-ticked: yes`; `wait-forever` waits on at each tick; `wait-long` too long |
/// | `ask` | asks `quota` for the path in `x-ask`, 300 ms, 1,000 bytes; 200 or no `x-ask` passes, else 403 |
/// | `ask-two` | asks it for the path in `x-ask` and for `/slow/50`; the first answer decides |
/// | `callout-bomb`, `callout-body`, `callout-answer` | 5 at once, a body and an answer over the limits; `x-said` tells |
/// | `callout-dropped` | asks, and passes without waiting |
/// | `sign` | `x-signed`: HMAC of a sentence with the secret `token`, if the key `sig` gives the same; else what kept it from that |
/// | `denied` | asks every capability, and answers 200 with what each said |
/// | `log-bomb`, `metric-bomb`, `kv-bomb` | 1,000 lines; 100 metrics and 2,000 sets of labels; 200 values of 32 KiB |
/// | `cookie-large` | a state of 5,000 bytes |
/// | `body-replace`, `body-cut`, `body-upper-case` | change each chunk of both bodies and of streams |
/// | `body-late` | edits a header with each chunk |
/// | `body-check` | whole request body of at most 1,024 bytes: 422 unless it has `ok` in it; `x-body: LENGTH` |
/// | `body-check-response` | the same of the response: replaced by `checked` unless it has `ok` in it |
/// | `gather-response` | whole response body of at most 1 MiB |
/// | `body-grpc` | messages of both bodies, in upper case |
/// | `remember` | leaves a state of one byte, 7, which `count` tells |
/// | `count` | counts request chunks in the state, and tells them in `x-chunks` of the response |
/// | `parts` | answers in `value` parts, 3 by itself, beside the first; `parts-wait` waits 30 ms for each, `parts-ask` asks `quota` |
/// | `parts-late`, `parts-304` | the same, held back first, with a status that has no body; `parts-hold` has one after 5 minutes, `parts-idle` waits so long |
/// | `parts-endless`, `parts-crumbs` | has no end, of 16 KiB, of a byte each |
/// | `parts-long`, `parts-respond`, `parts-header`, `parts-empty`, `parts-delay` | what no part is |
/// | `edit-trailers` | sets `x-filter: seen` in the trailers of both |
/// | `attribute`, `attribute-read` | set `filter.hostile.seen` to `value`; tell it in the header `x-attribute` |
/// | `marker` | adds `value` to the header `x-marker` of request and response |
/// | `wasi`, `wasi-lines` | calls what there is of WASI and answers 200 with what it found; writes 1,000 lines |
/// | `wasi-clock` and others of `wasi.rs` | call in `configure` what traps, some of them without a grant only |
/// | `done` | counts ended streams, their bytes both ways, and those with a state |
/// | modes of `heads.rs` | edits and answers at heads |
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: String,
    #[serde(default = "request_head")]
    at: String,
    #[serde(default)]
    value: String,
}

fn request_head() -> String {
    "request-head".to_owned()
}

/// The mode under one configuration.
#[derive(Debug)]
pub struct Hostile {
    mode: String,
    at: String,
    value: String,
    calls: u32,
    head: heads::Asked,
    response_does: Option<Value<hook::ResponseHead>>,
    late_ask: Option<Value<hook::Callout>>,
    ended: Option<Ended>,
    seen: Counter,
}

#[derive(Debug)]
struct Ended {
    up: Value<hook::Done>,
    down: Value<hook::Done>,
    counters: [Counter; 4],
}

impl Filter for Hostile {
    type Config = Config;
    type State = Vec<u8>;

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let Config { mode, at, value } = config;
        let seen = Counter::define("seen_total", &[])?;
        match mode.as_str() {
            "refuse" => return Err("this configuration is refused".to_owned()),
            "configure-trap" => panic!("trapped while configured"),
            "configure-loop" => bombs::forever(),
            "metric-bomb" => bombs::metrics(),
            mode if mode.starts_with("wasi-") => wasi::end(mode),
            _ => {}
        }
        let head = heads::Asked::new(&mode, ask);
        hooks(&mode, &at, ask);
        let response_does = (mode == "told").then(|| ask.response_head().header("x-do"));
        let late_ask = (mode == "ask").then(|| ask.callout().request_header("x-ask"));
        let ended = if mode == "done" { Some(Ended::new(ask)?) } else { None };
        Ok(Self { mode, at, value, calls: 0, head, response_does, late_ask, ended, seen })
    }

    fn connection(&mut self, _: &Connection<'_>, state: &mut Vec<u8>) -> Outcome {
        self.same("connection", state).unwrap_or_else(Outcome::pass)
    }

    fn request_head(&mut self, request: &Request<'_>, state: &mut Vec<u8>) -> Outcome {
        self.calls += 1;
        self.seen.add(&[], 1);
        if let Some(outcome) = self.same("request-head", state) {
            return outcome;
        }
        let told = self.head.told(request);
        if let Some(told) = told.filter(|told| told.contains('@')) {
            return heads::later(told, state);
        }
        if parts::is_mode(&self.mode) || self.at == "reply-body" {
            return parts::begin(&self.mode);
        }
        told.into_iter().for_each(bombs::trap);
        heads::request(told.unwrap_or(&self.mode), &self.value, self.calls, &self.head, request, state)
    }

    fn request_body(&mut self, _: &RequestBody<'_>, chunk: Chunk<'_>, state: &mut Vec<u8>) -> Outcome {
        if let Some(outcome) = self.same("request-body", state) {
            return outcome;
        }
        match self.mode.as_str() {
            "body-check" if !has_ok(chunk.bytes) => {
                Outcome::respond(Reply::text(422, "not_ok", "the body has no ok\n"))
            }
            "body-check" => Outcome::pass().set_header("x-body", chunk.bytes.len().to_string()),
            "count" => {
                let count = state.first().copied().unwrap_or_default();
                *state = vec![count.saturating_add(1)];
                Outcome::pass()
            }
            _ => self.chunk(chunk),
        }
    }

    fn request_trailers(&mut self, _: &Values<'_, hook::RequestTrailers>, state: &mut Vec<u8>) -> Outcome {
        self.same("request-trailers", state).unwrap_or_else(|| self.trailers())
    }

    fn response_head(&mut self, response: &Response<'_>, state: &mut Vec<u8>) -> Outcome {
        if let Some(outcome) = self.same("response-head", state) {
            return outcome;
        }
        let told = self.response_does.map(|does| response.text(does).unwrap_or_default());
        told.into_iter().for_each(bombs::trap);
        heads::response(told.unwrap_or(&self.mode), &self.value, state)
    }

    fn response_body(&mut self, _: &ResponseBody<'_>, chunk: Chunk<'_>, state: &mut Vec<u8>) -> Outcome {
        if let Some(outcome) = self.same("response-body", state) {
            return outcome;
        }
        match self.mode.as_str() {
            "body-check-response" if !has_ok(chunk.bytes) => Outcome::pass().set_body("checked"),
            _ => self.chunk(chunk),
        }
    }

    fn response_trailers(&mut self, _: &Values<'_, hook::ResponseTrailers>, state: &mut Vec<u8>) -> Outcome {
        self.same("response-trailers", state).unwrap_or_else(|| self.trailers())
    }

    fn reply_body(&mut self, _: &Values<'_, hook::ReplyBody>, state: &mut Vec<u8>) -> Outcome {
        match self.same("reply-body", state) {
            Some(outcome) => outcome,
            None if parts::is_mode(&self.mode) => parts::next(&self.mode, &self.value, state),
            None => Outcome::pass(),
        }
    }

    fn stream_data(&mut self, _: &Values<'_, hook::StreamData>, chunk: Chunk<'_>, state: &mut Vec<u8>) -> Outcome {
        self.same("stream-data", state).unwrap_or_else(|| self.chunk(chunk))
    }

    fn callout(
        &mut self,
        values: &Values<'_, hook::Callout>,
        id: u32,
        answer: Result<&Answer, &str>,
        state: &mut Vec<u8>,
    ) -> Outcome {
        if let Some(outcome) = self.same("callout", state) {
            return outcome;
        }
        if parts::is_mode(&self.mode) {
            let said = answer.map_or_else(str::to_owned, |answer| answer.status.to_string());
            return parts::made(&self.value, state, &format!(" after {said}"));
        }
        let asked = self.late_ask.and_then(|value| values.text(value)).unwrap_or_default();
        match answer {
            Ok(answer) if answer.status == 200 => {
                Outcome::pass().set_header("x-answer", answer.body.as_slice()).set_header("x-asked", asked)
            }
            Ok(answer) => {
                let body = format!("callout {id} to {asked} said {}\n", answer.status);
                Outcome::respond(Reply::text(403, "callout_refused", &body))
            }
            Err(why) => Outcome::respond(Reply::text(403, "callout_failed", why)),
        }
    }

    fn tick(&mut self, _: &Values<'_, hook::Tick>, state: &mut Vec<u8>) -> Outcome {
        if let Some(outcome) = self.same("tick", state) {
            return outcome;
        }
        match self.mode.as_str() {
            "wait-forever" => heads::wait(30),
            mode if parts::is_mode(mode) => parts::made(&self.value, state, ""),
            _ if state.as_slice() == b"waits" => Outcome::pass().set_header("x-ticked", "yes"),
            _ => Outcome::respond(Reply::text(403, "ticked", "no answer in time\n")),
        }
    }

    fn done(&mut self, values: &Values<'_, hook::Done>, state: &mut Vec<u8>) {
        if self.same("done", state).is_some() {
            return;
        }
        if let Some(Ended { up, down, counters }) = &self.ended {
            let number = |value| values.number(value).unwrap_or_default();
            let told = [1, number(*up), number(*down), u64::from(!state.is_empty())];
            counters.iter().zip(told).for_each(|(counter, value)| counter.add(&[], value));
        }
    }
}

/// Asks for what a mode needs beyond the request's head.
fn hooks(mode: &str, at: &str, ask: &mut Interest) {
    let all = mode == "all" || at == "every";
    let bodies = mode == "reset-in-body" || (mode.starts_with("body-") && !mode.starts_with("body-check"));
    let is = |hook: &str| all || at == hook;
    if is("connection") || is("stream-data") || bodies || mode == "done" {
        ask.connection();
    }
    if is("request-body") || bodies || mode == "count" {
        ask.request_body();
    }
    if is("request-trailers") || mode == "edit-trailers" {
        ask.request_trailers();
    }
    if is("response-head") || matches!(mode, "count" | "marker") || mode.starts_with("response-") {
        ask.response_head();
    }
    if is("response-body") || bodies {
        ask.response_body();
    }
    if is("response-trailers") || mode == "edit-trailers" {
        ask.response_trailers();
    }
    if is("stream-data") || bodies {
        ask.stream_data();
    }
    if is("reply-body") || parts::is_mode(mode) {
        ask.reply_body();
    }
    if is("callout") || matches!(mode, "ask-two" | "parts-ask") {
        ask.callout();
    }
    if is("tick")
        || matches!(mode, "told" | "ask" | "parts-wait" | "parts-ask" | "parts-idle")
        || mode.starts_with("wait-")
    {
        ask.tick();
    }
    if is("done") || parts::is_mode(mode) {
        ask.done();
    }
    match mode {
        "body-check" => {
            ask.request_body().buffer(1_024);
        }
        "body-check-response" => {
            ask.response_body().buffer(1_024);
        }
        "gather-response" => {
            ask.response_body().buffer(1 << 20);
        }
        "body-grpc" => {
            ask.request_body().grpc_messages();
            ask.response_body().grpc_messages();
        }
        _ => {}
    }
}

impl Hostile {
    /// The modes that are the same at every hook: at the one that the configuration names, or the stream's state.
    fn same(&self, hook: &str, state: &[u8]) -> Option<Outcome> {
        let told = std::str::from_utf8(state).ok().and_then(|state| state.rsplit_once('@'));
        let (mode, at) = told.unwrap_or((self.mode.as_str(), self.at.as_str()));
        if at != hook {
            return None;
        }
        bombs::trap(mode);
        match mode {
            "reset" => Some(Outcome::reset("as_told")),
            "close" => Some(Outcome::close("as_told")),
            "hold" => Some(Outcome::pass_after(Duration::from_secs(300))),
            "wait-forever" if hook == "tick" => Some(heads::wait(5)),
            _ => None,
        }
    }

    fn chunk(&self, chunk: Chunk<'_>) -> Outcome {
        match self.mode.as_str() {
            "body-replace" if !chunk.bytes.is_empty() => Outcome::pass().set_body(self.value.as_str()),
            "body-cut" => Outcome::pass().cut_body(),
            "reset-in-body" => Outcome::reset("as_told"),
            "body-upper-case" | "body-grpc" => Outcome::pass().set_body(chunk.bytes.to_ascii_uppercase()),
            "body-late" => Outcome::pass().set_header("x-late", "1"),
            _ => Outcome::pass(),
        }
    }

    fn trailers(&self) -> Outcome {
        match self.mode.as_str() {
            "edit-trailers" => Outcome::pass().set_header("x-filter", "seen"),
            _ => Outcome::pass(),
        }
    }
}

impl Ended {
    fn new(ask: &mut Interest) -> Result<Self, String> {
        let mut done = ask.done();
        let (up, down) = (done.request_bytes(), done.response_bytes());
        let names = ["done_total", "done_request_bytes_total", "done_response_bytes_total", "done_with_state_total"];
        let [streams, to, back, state] = names.map(|name| Counter::define(name, &[]));
        Ok(Self { up, down, counters: [streams?, to?, back?, state?] })
    }
}

fn has_ok(body: &[u8]) -> bool {
    body.windows(2).any(|window| window == b"ok")
}

weft_filters_sdk::export!(Hostile, replies);
