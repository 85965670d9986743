//! The harness itself: a filter that does as its configuration says meets in a test what it would meet in a proxy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Deserialize;

use super::{Grants, Harness, TestRequest, TestResponse, advance, answer, labelled_metric, logged, metric};
use crate::{
    Answer, CallError, Chunk, Counter, Edit, Filter, Interest, Outcome, Reply, Request, RequestBody, Response,
    TokenBuckets, Value, Values, Verdict, callouts, crypto, hook, kv, log, secrets,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    metrics: usize,
    #[serde(default)]
    buffer: u64,
}

#[derive(Debug)]
struct Probe {
    does: Value<hook::RequestHead>,
    status: Value<hook::ResponseHead>,
    late: Value<hook::Callout>,
}

impl Filter for Probe {
    type Config = Config;
    type State = (u64, String);

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        let mut head = ask.request_head();
        let does = head.header("x-do");
        for name in &config.values {
            head.value(name);
        }
        ask.request_body().buffer(config.buffer);
        let status = ask.response_head().status();
        let late = ask.callout().request_header("x-do");
        ask.tick();
        for metric in 0..config.metrics {
            Counter::define(&format!("m{metric}_total"), &["caller"])?;
        }
        Ok(Self { does, status, late })
    }

    fn request_head(&mut self, request: &Request<'_>, state: &mut (u64, String)) -> Outcome {
        state.0 += 1;
        let pass = Outcome::pass();
        match request.text(self.does).unwrap_or_default() {
            "host" => pass.set_header("host", "other"),
            "split" => pass.set_header("x-a", "1\r\nx-b: 2"),
            "path" => pass.set_path("other"),
            "status" => pass.set_status(200),
            "body" => pass.set_body("new"),
            "attribute" => pass.set_attribute("jwt.sub", "ada"),
            "many" => (0..65).fold(pass, |outcome, number| outcome.add_header("x-a", number.to_string())),
            "reply" => Outcome::respond(Reply::text(101, "switch", "")),
            "flood" => Outcome::respond(Reply::text(500, "flood", &"x".repeat((64 << 10) + 1))),
            "wait" => {
                state.1 = "waiting".to_owned();
                callouts::Request::new("quota", "GET", "/ask").send().expect("granted");
                Outcome::wait(Duration::from_secs(1))
            }
            "long" => Outcome::wait(Duration::from_secs(301)),
            "state" => {
                state.1 = "x".repeat(4 << 10);
                pass
            }
            "fine" => pass.set_header("x-a", "1").set_path("/b").set_attribute("filter.a", "1"),
            _ => pass,
        }
    }

    fn request_body(&mut self, _: &RequestBody<'_>, chunk: Chunk<'_>, state: &mut (u64, String)) -> Outcome {
        state.0 += 1;
        if chunk.bytes.is_empty() { Outcome::pass() } else { Outcome::pass().set_header("x-body", "1").cut_body() }
    }

    fn response_head(&mut self, response: &Response<'_>, state: &mut (u64, String)) -> Outcome {
        let status = response.number(self.status).unwrap_or_default();
        Outcome::pass().set_header("x-seen", format!("{} {} {status}", state.0, state.1)).set_status(204)
    }

    fn callout(
        &mut self,
        values: &Values<'_, hook::Callout>,
        _: u32,
        answer: Result<&Answer, &str>,
        state: &mut (u64, String),
    ) -> Outcome {
        state.1 = answer.map_or_else(str::to_owned, |answer| answer.status.to_string());
        Outcome::pass().set_header("x-was", values.get(self.late).unwrap_or_default())
    }

    fn tick(&mut self, _: &Values<'_, hook::Tick>, _: &mut (u64, String)) -> Outcome {
        Outcome::reset("too_late")
    }
}

fn does(what: &str) -> TestRequest {
    TestRequest::default().header("x-do", what)
}

fn probe() -> Harness<Probe> {
    Harness::granted("{}", Grants::default().callout("quota")).expect("a sound configuration")
}

#[test]
fn what_the_host_refuses_fails_the_test() {
    for (what, word) in [
        ("host", "host"),
        ("split", "no value"),
        ("path", "no path"),
        ("status", "not at hand"),
        ("body", "not at hand"),
        ("attribute", "filter.NAME"),
        ("many", "65 edits"),
        ("reply", "101"),
        ("flood", "65536"),
        ("long", "301000"),
        ("state", "4096"),
    ] {
        let refused = catch_unwind(AssertUnwindSafe(|| probe().request(1, &does(what)))).expect_err(what);
        let message = refused.downcast_ref::<String>().expect("a message");
        assert!(message.contains("the host refuses") && message.contains(word), "{what}: {message}");
    }
    assert_eq!(probe().request(1, &does("fine")).edits.len(), 3);
}

#[test]
fn interests_that_the_host_refuses() {
    for (config, word) in [
        (r#"{"values": ["request.colour"]}"#, "no value"),
        (r#"{"values": ["response.status"]}"#, "not known here"),
        (r#"{"values": ["request.header.X-A"]}"#, "lower case"),
        (r#"{"metrics": 65}"#, "at most 64"),
    ] {
        let error = Harness::<Probe>::new(config).expect_err(config);
        assert!(error.contains(word), "{error}");
    }
    let many: Vec<String> = (0..64).map(|number| format!("\"request.header.x-{number}\"")).collect();
    let error = Harness::<Probe>::new(&format!(r#"{{"values": [{}]}}"#, many.join(", "))).expect_err("65 in all");
    assert!(error.contains("65 values"), "{error}");
}

#[test]
fn the_state_of_a_stream_goes_from_hook_to_hook() {
    let mut probe = probe();
    assert!(matches!(probe.request(1, &does("wait")).verdict, Verdict::Wait(1_000)));
    let (id, asked) = probe.sent()[0].clone();
    assert_eq!((asked.service.as_str(), asked.path.as_str()), ("quota", "/ask"));
    let outcome = probe.answer(1, id, Ok(answer(207, &[], b"")));
    assert_eq!(header(&outcome), ("x-was".to_owned(), "wait".to_owned()));
    let outcome = probe.response(1, &TestResponse::new(200));
    assert_eq!(header(&outcome), ("x-seen".to_owned(), "1 207 200".to_owned()));
    probe.request(2, &does("wait"));
    assert!(matches!(probe.tick(2).verdict, Verdict::Reset(reason) if reason == "too_late"));
    assert_eq!(header(&probe.response(3, &TestResponse::new(404))).1, "0  404", "a stream of its own");
}

#[test]
fn a_whole_body_may_change_the_head_and_a_chunk_may_not() {
    let mut whole = Harness::<Probe>::new(r#"{"buffer": 10}"#).expect("sound");
    whole.request(1, &does("nothing"));
    assert_eq!(whole.request_body(1, b"0123456789", true).edits.len(), 2);
    assert!(catch_unwind(AssertUnwindSafe(|| whole.request_body(1, b"01234567890", true))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| probe().request_body(1, b"0", false))).is_err());
    assert!(probe().request_body(1, b"", true).edits.is_empty());
}

fn header(outcome: &Outcome) -> (String, String) {
    match outcome.edits.first() {
        Some(crate::Edit::Set(field)) => (field.name.clone(), String::from_utf8_lossy(&field.value).into_owned()),
        edit => panic!("{edit:?}"),
    }
}

#[test]
fn what_is_not_granted_is_denied() {
    super::simulated::grant(Grants::default());
    assert_eq!(kv::get(b"a"), Err(CallError::Denied("kv")));
    assert_eq!(secrets::get("a"), Err(CallError::Denied("secret")));
    assert_eq!(crypto::sha256(b"a"), Err(CallError::Denied("crypto")));
    assert_eq!(callouts::Request::new("quota", "GET", "/").send(), Err(CallError::Denied("callout")));
    let limit = TokenBuckets::define("a", 1, Duration::from_secs(1), 1);
    assert_eq!(limit.map(|_| ()), Err(CallError::Denied("token-bucket")));
    super::simulated::grant(Grants::default().secret("a", b"b"));
    assert_eq!(secrets::get("a"), Ok(b"b".to_vec()));
}

#[test]
fn values_end_and_the_oldest_make_room() {
    super::simulated::grant(Grants::default().kv(2, 1_000));
    let forever = Duration::ZERO;
    kv::set(b"a", b"1", Duration::from_secs(2)).expect("room");
    assert_eq!(kv::add(b"a", 5, forever), Ok(6));
    assert_eq!(kv::compare_and_swap(b"a", Some(&b"7"[..]), b"x", forever), Err(CallError::Changed));
    advance(Duration::from_secs(2));
    assert_eq!(kv::get(b"a"), Ok(None), "its time counts from when it was made");
    for key in [b"b", b"c", b"d"] {
        kv::set(key, b"1", forever).expect("room is made");
    }
    assert_eq!((kv::get(b"b"), kv::get(b"d")), (Ok(None), Ok(Some(b"1".to_vec()))));
    assert!(matches!(kv::set(b"e", &[0; 1_000], forever), Err(CallError::Full(_))));
    assert!(matches!(kv::set(&[0; 257], b"", forever), Err(CallError::Invalid(_))));
    kv::set(b"d", b"x", forever).expect("room");
    assert!(matches!(kv::add(b"d", 1, forever), Err(CallError::Invalid(_))));
}

#[test]
fn metrics_have_labels_and_lines_are_kept() {
    let seen = Counter::define("seen_total", &["caller"]).expect("sound");
    seen.add(&["a"], 2);
    seen.add(&["b"], 3);
    assert_eq!((metric("seen_total"), labelled_metric("seen_total", &["b"])), (Some(5.0), Some(3.0)));
    let none: &[&str] = &[];
    for (name, labels) in
        [("Seen", none), ("seen_total", none), ("x", &["A"][..]), ("x", &["filter"][..]), ("x", &["a"; 5][..])]
    {
        assert!(Counter::define(name, labels).is_err(), "{name}");
    }
    log::warn("look");
    assert_eq!(logged(), ["warn: look"]);
}

/// Answers with three parts.
#[derive(Debug)]
struct Counting;

impl Filter for Counting {
    type Config = crate::NoConfig;
    type State = u64;

    fn configure(_: Self::Config, ask: &mut Interest) -> Result<Self, String> {
        ask.request_head();
        ask.reply_body();
        Ok(Self)
    }

    fn request_head(&mut self, _: &Request<'_>, _: &mut u64) -> Outcome {
        Outcome::respond(Reply::text(200, "counted", "0"))
    }

    fn reply_body(&mut self, _: &Values<'_, hook::ReplyBody>, state: &mut u64) -> Outcome {
        *state += 1;
        match *state {
            1 | 2 => Outcome::part(state.to_string()),
            3 => Outcome::pass(),
            _ => Outcome::part(""),
        }
    }
}

#[test]
fn an_answer_comes_in_parts() {
    let mut harness = Harness::<Counting>::new("").expect("sound");
    assert_eq!(harness.hooks(), ["request-head", "reply-body"]);
    harness.request(1, &TestRequest::default());
    let parts: Vec<_> = (0..3).map(|_| harness.reply_body(1).edits).collect();
    let bytes = |edits: &[Edit]| matches!(edits, [Edit::Body(bytes)] if !bytes.is_empty());
    assert_eq!(parts.iter().map(|edits| bytes(edits)).collect::<Vec<_>>(), [true, true, false]);
    let refused = catch_unwind(AssertUnwindSafe(|| harness.reply_body(1))).expect_err("no part");
    let text = refused.downcast_ref::<String>().expect("a message");
    assert!(text.contains("a part without a byte"), "{text}");
}
