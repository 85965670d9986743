//! What the filter does at heads. Good: `calls`, `shown`, `remember` (7 chunks for `count`), `teapot`, `late`, `delay`, `path`.
//! Refused by the host: `pseudo`, `framing`, `identity`, `bad-path`, `split`, `status`, `flood`, `edits-65`, `edit-other`,
//! `verdict-other`, `attribute-bad`, `request-status`.

use std::time::Duration;

use weft_filters_sdk::callouts;
use weft_filters_sdk::{CallError, Edit, Field, Interest, Outcome, Reply, Request, Value, Verdict, hook};
use weft_filters_sdk::{TokenBuckets, crypto, kv, secrets};

use crate::{bombs, wasi};

/// What it asks for at the request's head.
#[derive(Debug)]
pub(crate) struct Asked {
    does: Option<Value<hook::RequestHead>>,
    path_to_ask: Value<hook::RequestHead>,
    attribute: Value<hook::RequestHead>,
    shown: Vec<Value<hook::RequestHead>>,
}

impl Asked {
    pub(crate) fn new(mode: &str, ask: &mut Interest) -> Self {
        let mut head = ask.request_head();
        let shown = [
            "request.method",
            "request.path",
            "request.query",
            "request.authority",
            "source.principal",
            "source.address",
            "destination.port",
            "direction",
        ];
        let asked = Self {
            does: (mode == "told").then(|| head.header("x-do")),
            path_to_ask: head.header("x-ask"),
            attribute: head.attribute("filter.hostile.seen"),
            shown: shown.map(|name| head.value(name)).to_vec(),
        };
        match mode {
            "ask-unknown" => {
                head.value("request.colour");
            }
            "ask-optional" => {
                head.optional("request.colour");
            }
            "ask-many" => {
                for number in 0..65 {
                    head.header(&format!("x-{number}"));
                }
            }
            _ => {}
        }
        asked
    }

    /// The mode that the request itself names.
    pub(crate) fn told<'a>(&self, request: &Request<'a>) -> Option<&'a str> {
        self.does.map(|does| request.text(does).unwrap_or_default())
    }
}

/// Remembers what a later hook of the stream is to do, `MODE@HOOK`, and goes there.
pub(crate) fn later(told: &str, state: &mut Vec<u8>) -> Outcome {
    *state = told.as_bytes().to_vec();
    match told.rsplit_once('@') {
        Some((_, "tick")) => wait(5),
        Some((_, "callout")) => callout("ask", "/who"),
        Some((_, "reply-body")) => Outcome::respond(Reply::text(200, "begun", "begun\n")),
        _ => Outcome::pass(),
    }
}

pub(crate) fn wait(ms: u64) -> Outcome {
    Outcome::wait(Duration::from_millis(ms))
}

pub(crate) fn request(
    mode: &str,
    value: &str,
    calls: u32,
    asked: &Asked,
    request: &Request<'_>,
    state: &mut Vec<u8>,
) -> Outcome {
    let pass = Outcome::pass();
    match mode {
        "calls" => pass.set_header("x-calls", calls.to_string()),
        "shown" => {
            let shown: Vec<_> = asked.shown.iter().map(|value| format!("{:?}", request.text(*value))).collect();
            pass.set_header("x-shown", shown.join(" "))
        }
        "teapot" => Outcome::respond(Reply::text(418, "teapot", "short and stout").rule("pot")),
        "late" => Outcome::respond(Reply::text(418, "late", "").after(Duration::from_millis(20))),
        "delay" => Outcome::pass_after(Duration::from_millis(30)).set_header("x-delayed", "yes"),
        "path" => pass.set_path("/a/../other?q=1"),
        "marker" => pass.add_header("x-marker", value),
        "attribute" => pass.set_attribute("filter.hostile.seen", value),
        "attribute-read" => pass.set_header("x-attribute", request.get(asked.attribute).unwrap_or(b"none")),
        "log-bomb" => {
            bombs::lines();
            pass
        }
        "kv-bomb" => pass.set_header("x-said", bombs::values()),
        "remember" => {
            *state = vec![7];
            pass
        }
        "cookie-large" => {
            *state = vec![1; 5_000];
            pass
        }
        "wait-tick" | "wait-forever" => {
            *state = b"waits".to_vec();
            wait(30)
        }
        "wait-long" => wait(300_001),
        "sign" => pass.set_header("x-signed", signed().unwrap_or_else(|error| error.to_string())),
        "denied" => Outcome::respond(Reply::text(200, "denied", &capabilities())),
        "wasi" => Outcome::respond(Reply::text(200, "wasi", &wasi::report())),
        "wasi-lines" => {
            wasi::lines();
            pass
        }
        "ask" | "ask-two" => match request.text(asked.path_to_ask) {
            Some(path) => callout(mode, path),
            None => pass,
        },
        mode if mode.starts_with("callout") => callout(mode, request.text(asked.path_to_ask).unwrap_or("/")),
        mode => bad(mode),
    }
}

/// What the host refuses.
fn bad(mode: &str) -> Outcome {
    let pass = Outcome::pass();
    match mode {
        "pseudo" => pass.set_header(":path", "/other"),
        "framing" => pass.set_header("content-length", "1"),
        "identity" => pass.add_header("x-forwarded-client-cert", "spiffe://forged"),
        "bad-path" => pass.set_path("/%"),
        "split" => pass.set_header("x-a", "1\r\nx-b: 2"),
        "attribute-bad" => pass.set_attribute("source.principal", "spiffe://forged"),
        "request-status" => pass.set_status(200),
        "status" => Outcome::respond(Reply::text(101, "switch", "")),
        "flood" => Outcome::respond(Reply::text(500, "flood", &"x".repeat(1 << 20))),
        "edits-65" => (0..65).fold(pass, |outcome, number| outcome.add_header("x-a", number.to_string())),
        "edit-other" => pass.edit(Edit::Other(field())),
        "verdict-other" => Outcome { verdict: Verdict::Other(field()), ..pass },
        _ => pass,
    }
}

fn field() -> Field {
    Field { name: "colour".to_owned(), value: b"red".to_vec() }
}

pub(crate) fn callout(mode: &str, path: &str) -> Outcome {
    let question = callouts::Request::new("quota", "GET", path).timeout(Duration::from_millis(300));
    let told = |said: Result<u32, CallError>| said.map_or_else(|error| error.to_string(), |_| "sent".to_owned());
    match mode {
        "ask" => match question.answer_bytes(1_000).send() {
            Ok(_) => wait(2_000),
            Err(error) => Outcome::respond(Reply::text(403, "callout_not_sent", &error.to_string())),
        },
        "ask-two" => {
            let late = callouts::Request::new("quota", "GET", "/slow/50").timeout(Duration::from_millis(300));
            match question.send().and_then(|_| late.send()) {
                Ok(_) => wait(2_000),
                Err(error) => Outcome::respond(Reply::text(403, "callout_not_sent", &error.to_string())),
            }
        }
        "callout-bomb" => {
            let said: Vec<_> = (0..5).map(|_| told(question.send())).collect();
            Outcome::pass().set_header("x-said", said.join(", "))
        }
        "callout-body" => Outcome::pass().set_header("x-said", told(question.body(vec![1; (64 << 10) + 1]).send())),
        "callout-answer" => Outcome::pass().set_header("x-said", told(question.answer_bytes((1 << 20) + 1).send())),
        "callout-dropped" => Outcome::pass().set_header("x-said", told(question.send())),
        _ => Outcome::pass(),
    }
}

/// HMAC of a sentence with the secret `token`, in hex, if the key `sig` gives the same.
fn signed() -> Result<String, CallError> {
    let message = b"what do ya want for nothing?";
    let (by_value, by_name) = (crypto::sign(&secrets::get("token")?, message)?, crypto::sign_with("sig", message)?);
    Ok(match by_value == by_name {
        true => by_name.iter().map(|byte| format!("{byte:02x}")).collect(),
        false => "they differ".to_owned(),
    })
}

/// A line for each capability: what it said when it was asked.
fn capabilities() -> String {
    fn line<T>(name: &str, said: Result<T, CallError>) -> String {
        format!("{name}: {}\n", said.map_or_else(|error| error.to_string(), |_| "granted".to_owned()))
    }
    [
        line("kv", kv::get(b"key")),
        line("callout", callouts::Request::new("quota", "GET", "/").send()),
        line("secret", secrets::get("secret")),
        line("crypto", crypto::sha256(b"data")),
        line("token-bucket", TokenBuckets::define("limit", 1, Duration::from_secs(1), 1)),
    ]
    .concat()
}

/// What it does at the head of an answer.
pub(crate) fn response(mode: &str, value: &str, state: &[u8]) -> Outcome {
    let pass = Outcome::pass();
    match mode {
        "count" => pass.set_header("x-chunks", state.first().copied().unwrap_or_default().to_string()),
        "marker" => pass.add_header("x-marker", value),
        "response-status" => pass.set_status(203),
        "response-replace" => Outcome::respond(Reply::text(599, "replaced", "replaced\n")),
        "response-path" => pass.set_path("/"),
        "response-wait" => wait(30),
        _ => pass,
    }
}
