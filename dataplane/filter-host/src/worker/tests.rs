//! Runs of chains over guests that are played by closures: no component, no engine's time.

mod model;
mod spares;

use std::sync::{Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode};
use weft_policy::bundle::{Direction, FilterMode, OnFailure, OverBody};
use weft_policy::path::{NormalPath, PathReading};

use super::*;
use crate::chain::{Callout, CalloutAnswer, LocalReply, ReplyCause};
use crate::failure::TrapKind;
use crate::guest::{Guest, Setup, Source, StartError, Whom};
use crate::hook::{Edit, Field, Reply, Verdict};
use crate::host::HostConfig;
use crate::interest::{AskedHook, Interest};
use crate::prepare::{Program, setup};
use crate::spec::{Digest, FilterSpec};
use crate::state::{ConfigShared, Shared};

/// What a played filter says: to what it is told, with the cookie it is handed.
type Say = dyn Fn(&Told<'_>, &[u8]) -> Result<Said, Failure> + Send + Sync;

/// Plays a component: hands out instances that all say the same.
struct Played {
    asked: Vec<AskedHook>,
    say: Arc<Say>,
    /// Instances made, configurations given, configurations forgotten.
    counts: Arc<Mutex<[u32; 3]>>,
}

struct PlayedInstance {
    asked: Vec<AskedHook>,
    say: Arc<Say>,
    counts: Arc<Mutex<[u32; 3]>>,
}

fn count(counts: &Mutex<[u32; 3]>, which: usize) {
    counts.lock().unwrap_or_else(PoisonError::into_inner)[which] += 1;
}

impl std::fmt::Debug for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Played")
    }
}

impl std::fmt::Debug for PlayedInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlayedInstance")
    }
}

impl Source for Played {
    fn start(&self, _setup: &Setup, _within: Duration) -> Result<Box<dyn Guest>, StartError> {
        count(&self.counts, 0);
        let Self { asked, say, counts } = self;
        Ok(Box::new(PlayedInstance { asked: asked.clone(), say: say.clone(), counts: counts.clone() }))
    }
}

impl Guest for PlayedInstance {
    fn configure(&mut self, _id: u32, setup: &Setup, _within: Duration) -> Result<Interest, StartError> {
        count(&self.counts, 1);
        if setup.json == "refused" {
            return Err(StartError::Refused("as told".to_owned()));
        }
        Interest::named(&self.asked, |_| true, setup.bounds).map_err(StartError::Interest)
    }

    fn call(
        &mut self,
        _whom: Whom<'_>,
        told: &Told<'_>,
        cookie: &mut Vec<u8>,
        _buffer: &mut Vec<u8>,
    ) -> Result<Said, Failure> {
        (self.say)(told, cookie)
    }

    fn forget(&mut self, _id: u32, _shared: &Arc<ConfigShared>) -> Result<(), Failure> {
        count(&self.counts, 2);
        Ok(())
    }

    fn memory(&self) -> u64 {
        0
    }
}

fn spec(name: &str) -> FilterSpec {
    FilterSpec {
        name: name.to_owned(),
        filter: name.to_owned(),
        version: "1".to_owned(),
        digest: Digest::of(name.as_bytes()),
        signature: Vec::new(),
        public_key_pem: String::new(),
        statement: None,
        direction: Direction::Inbound,
        config_json: String::new(),
        on_failure: OnFailure::Deny,
        mode: FilterMode::Enforce,
        authorization: false,
        capabilities: Vec::new(),
        grants: Vec::new(),
        scope: String::new(),
        shipped: false,
        memory_bytes: 1 << 20,
        call_timeout: Duration::from_secs(1),
        body_bytes: 16,
        over_body: OverBody::Refuse,
    }
}

/// A hook that is asked for: `request-body` as it is, or `request-body=buffer:16`.
fn hook(text: &str) -> AskedHook {
    let (name, option) = text.split_once('=').map_or((text, None), |(name, option)| (name, Some(option)));
    let option = option.and_then(|option| option.split_once(':'));
    let options = option.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    AskedHook { name: name.to_owned(), values: Vec::new(), options: options.into_iter().collect() }
}

/// Filters of one played program, each a configuration of it.
fn program(
    host: &Host,
    specs: &[FilterSpec],
    hooks: &[&str],
    say: impl Fn(&Told<'_>, &[u8]) -> Result<Said, Failure> + Send + Sync + 'static,
) -> (Vec<Arc<Prepared>>, Arc<Mutex<[u32; 3]>>) {
    let counts: Arc<Mutex<[u32; 3]>> = Arc::default();
    let asked: Vec<_> = hooks.iter().map(|text| hook(text)).collect();
    let played = Played { asked: asked.clone(), say: Arc::new(say), counts: counts.clone() };
    let shared = Arc::new(Shared::new(&host.0, 1 << 20, Arc::default()));
    let program = Arc::new(Program::new(&host.0, None, shared, Box::new(played)));
    (specs.iter().map(|spec| join(host, &program, spec, &asked)).collect(), counts)
}

/// One more configuration of a program.
fn join(host: &Host, program: &Arc<Program>, spec: &FilterSpec, asked: &[AskedHook]) -> Arc<Prepared> {
    let setup = setup(&host.0, spec).expect("no grants");
    let interest = Interest::named(asked, |_| true, setup.bounds).expect("hooks that there are");
    let filter = Arc::new(Prepared::assemble(spec.clone(), setup, interest, program.clone(), host.0.take_id()));
    program.welcome(&filter, Vec::new());
    filter
}

fn filter(
    host: &Host,
    spec: &FilterSpec,
    hooks: &[&str],
    say: impl Fn(&Told<'_>, &[u8]) -> Result<Said, Failure> + Send + Sync + 'static,
) -> Arc<Prepared> {
    program(host, std::slice::from_ref(spec), hooks, say).0.pop().expect("one spec")
}

fn host() -> Host {
    Host::new(HostConfig { max_instances: 1, spares: 0, ..HostConfig::default() }).expect("a host")
}

fn pass() -> Result<Said, Failure> {
    Ok(Said::default())
}

fn trap() -> Result<Said, Failure> {
    Err(Failure::new(FailureKind::Trap(TrapKind::Unreachable), "as told"))
}

fn verdict(verdict: Verdict) -> Result<Said, Failure> {
    Ok(Said { verdict, ..Said::default() })
}

fn edit(edit: Edit) -> Result<Said, Failure> {
    Ok(Said { edits: vec![edit], ..Said::default() })
}

fn add(name: &str, value: &str) -> Edit {
    Edit::Add(Field { name: name.to_owned(), value: value.as_bytes().to_vec() })
}

fn reply(status: u16) -> Verdict {
    let (headers, body, rule, reason) = (Vec::new(), Vec::new(), None, "said".to_owned());
    Verdict::Respond(Reply { status, headers, body, rule, reason, after_ms: 0 })
}

/// A request on its way, owned.
struct Request {
    stream: u64,
    principal: &'static str,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Request {
    fn new(stream: u64) -> Self {
        Self { stream, principal: "spiffe://td/ns/a/sa/b", headers: HeaderMap::new(), body: None }
    }

    fn go(&mut self, worker: &mut Worker, chain: &Chain, from: Position, event: Event) -> Outcome {
        let (mut authority, mut path) = (None, Some(NormalPath::new("/".into()).expect("a path")));
        let mut view = RequestView {
            method: &Method::GET,
            authority: &mut authority,
            path: &mut path,
            path_reading: PathReading::default(),
            headers: &mut self.headers,
            body: &mut self.body,
        };
        let attributes = Attributes {
            principal: Some(self.principal),
            source: None,
            destination_port: 80,
            direction: Direction::Inbound,
            request_id: Some("id"),
            destination_service: None,
            route: None,
            tls: true,
            protocol: "h2",
        };
        worker.request_head(chain, from, event, self.stream, &mut view, &attributes)
    }

    fn start(&mut self, worker: &mut Worker, chain: &Chain) -> Outcome {
        self.go(worker, chain, Position::START, Event::Go)
    }
}

/// The answer's headers after its run, or what ended it.
fn respond(worker: &mut Worker, chain: &Chain, stream: u64) -> Result<HeaderMap, Box<LocalReply>> {
    let (mut status, mut headers, mut body) = (StatusCode::OK, HeaderMap::new(), None);
    let mut view = ResponseView { status: &mut status, headers: &mut headers, body: &mut body };
    match worker.response_head(chain, Position::START, Event::Go, stream, &mut view) {
        Outcome::Permitted(()) => Ok(headers),
        Outcome::Respond(reply) => Err(reply),
        Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_) => panic!("held"),
    }
}

fn permitted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Permitted(_))
}

#[test]
fn a_trap_costs_its_own_request_and_no_cookie() {
    let host = host();
    let say = |told: &Told<'_>, cookie: &[u8]| {
        if told.hook != Hook::RequestHead {
            return edit(add("x-cookie", &cookie[0].to_string()));
        }
        if told.stream == 2 {
            return trap();
        }
        Ok(Said { cookie: Some(told.stream.to_le_bytes().to_vec()), ..Said::default() })
    };
    let (filters, counts) = program(&host, &[spec("a")], &["request-head", "response-head", "done"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(filters));
    for stream in [1, 2, 3] {
        let outcome = Request::new(stream).start(&mut worker, &chain);
        assert_eq!(permitted(&outcome), stream != 2, "{outcome:?}");
    }
    for stream in [1, 3] {
        assert_eq!(respond(&mut worker, &chain, stream).expect("fine")["x-cookie"], stream.to_string());
    }
    let reply = respond(&mut worker, &chain, 2).expect("the failed one is not asked again");
    assert!(reply.is_empty());
    for stream in 1..=3 {
        worker.done(&chain, stream, &Summary::default());
    }
    assert!(worker.streams.is_empty());
    assert_eq!(counts.lock().expect("sound")[..2], [2, 2], "another instance after the trap");
}

#[test]
fn each_failure_is_counted_by_its_kind() {
    let host = host();
    let say = |told: &Told<'_>, _: &[u8]| {
        let place = usize::try_from(told.stream).expect("small");
        Err(Failure::new(FailureKind::Trap(TrapKind::ALL[place]), "as told"))
    };
    let filter = filter(&host, &spec("a"), &["request-head"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(vec![filter.clone()]));
    for stream in 0..TrapKind::ALL.len() as u64 {
        let Outcome::Respond(reply) = Request::new(stream).start(&mut worker, &chain) else { panic!("an answer") };
        assert_eq!(reply.reason, "filter_trapped");
    }
    assert_eq!(TrapKind::ALL.map(|kind| filter.stats().traps_of(kind)), [1; TrapKind::ALL.len()]);
}

#[test]
fn traps_of_one_caller_are_nobody_else_s() {
    let host = host();
    let say = |told: &Told<'_>, _: &[u8]| {
        let caller = told.attributes.and_then(|it| it.principal).unwrap_or_default();
        if caller == "evil" { trap() } else { edit(add("x-seen", "yes")) }
    };
    let (mut closed, mut open) = (spec("closed"), spec("open"));
    (closed.on_failure, open.on_failure) = (OnFailure::Deny, OnFailure::Allow);
    let mut worker = Worker::new(&host);
    for spec in [closed, open] {
        let filter = filter(&host, &spec, &["request-head"], say);
        let chain = Chain::new(vec![filter.clone()]);
        for stream in 1..200 {
            let mut request = Request { principal: "evil", ..Request::new(stream) };
            let outcome = request.start(&mut worker, &chain);
            assert_eq!(permitted(&outcome), spec.on_failure == OnFailure::Allow);
            let mut request = Request { principal: "good", ..Request::new(stream) };
            assert!(permitted(&request.start(&mut worker, &chain)) && request.headers.contains_key("x-seen"));
        }
        let stats = filter.stats();
        if spec.on_failure == OnFailure::Deny {
            assert_eq!((stats.traps.value(), stats.failed_closed.value()), (199, 199), "each is tried");
        } else {
            assert!(stats.traps.value() < 199 && stats.backoff_skips.value() > 0, "it is spared for a while");
            assert_eq!(stats.traps.value() + stats.backoff_skips.value(), 199);
        }
    }
}

#[test]
fn a_body_is_gathered_judged_and_replaced() {
    let host = host();
    let say = |told: &Told<'_>, _: &[u8]| {
        if told.hook != Hook::RequestBody {
            return pass();
        }
        if told.chunk == b"bad" { verdict(reply(422)) } else { edit(Edit::Body(told.chunk.to_ascii_uppercase())) }
    };
    let hooks = ["request-head", "request-body=buffer:8"];
    let mut lenient = spec("lenient");
    lenient.over_body = OverBody::Pass;
    let mut worker = Worker::new(&host);
    for (spec, long) in [(spec("strict"), Some(413)), (lenient, None)] {
        let chain = Chain::new(vec![filter(&host, &spec, &hooks, say)]);
        let mut ask = |stream, body: Option<&'static [u8]>| {
            let mut request = Request::new(stream);
            let Outcome::Body { most: 8, resume } = request.start(&mut worker, &chain) else { panic!("a body") };
            request.body = body.map(Bytes::from_static);
            let event = if body.is_some() { Event::Body } else { Event::TooLong };
            let outcome = request.go(&mut worker, &chain, resume, event);
            worker.done(&chain, stream, &Summary::default());
            (outcome, request.body)
        };
        let (outcome, body) = ask(1, Some(b"good"));
        assert!(permitted(&outcome));
        assert_eq!(body.as_deref(), Some(&b"GOOD"[..]));
        let Outcome::Respond(reply) = ask(2, Some(b"bad")).0 else { panic!("an answer") };
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
        for outcome in [ask(3, None).0, ask(4, Some(b"far too long")).0] {
            match (long, outcome) {
                (Some(status), Outcome::Respond(reply)) => assert_eq!(reply.status.as_u16(), status),
                (None, Outcome::Permitted(_)) => {}
                (_, outcome) => panic!("{outcome:?}"),
            }
        }
    }
}

#[test]
fn an_audited_filter_counts_bodies_that_it_would_have_refused_for_their_length() {
    for (over_body, counted) in [(OverBody::Refuse, 1), (OverBody::Pass, 0)] {
        let host = host();
        let mut watching = spec("watching");
        (watching.mode, watching.over_body) = (FilterMode::Audit, over_body);
        let hooks = ["request-head", "request-body=buffer:8"];
        let chain = Chain::new(vec![filter(&host, &watching, &hooks, |_, _| pass())]);
        let mut worker = Worker::new(&host);
        let mut request = Request::new(1);
        let Outcome::Body { resume, .. } = request.start(&mut worker, &chain) else { panic!("a body") };
        assert!(permitted(&request.go(&mut worker, &chain, resume, Event::TooLong)), "it goes on");
        let stats = chain.filters()[0].stats();
        assert_eq!((stats.audited.value(), stats.long_bodies.value()), (counted, 1), "{over_body:?}");
    }
}

#[test]
fn chunks_pass_through_in_both_directions() {
    let host = host();
    let one = |name: &'static str| {
        move |told: &Told<'_>, _: &[u8]| {
            if !told.hook.is_body() {
                return edit(add("x-by", name));
            }
            match told.chunk {
                b"cut" => verdict(Verdict::Reset("no more; of it".to_owned())),
                b"same" => pass(),
                chunk => edit(Edit::Body([chunk, name.as_bytes()].concat())),
            }
        }
    };
    let hooks = ["request-body", "request-trailers", "response-body", "response-trailers"];
    let chain =
        Chain::new(vec![filter(&host, &spec("a"), &hooks, one("a")), filter(&host, &spec("b"), &hooks, one("b"))]);
    let mut worker = Worker::new(&host);
    assert!(permitted(&Request::new(1).start(&mut worker, &chain)));
    let up = worker.request_chunk(&chain, 1, Bytes::from_static(b"x"), false).expect("fine");
    let down = worker.response_chunk(&chain, 1, Bytes::from_static(b"x"), false).expect("fine");
    assert_eq!((&up.bytes[..], &down.bytes[..]), (&b"xab"[..], &b"xba"[..]), "down is the other way");
    let same = Bytes::from_static(b"same");
    let passed = worker.request_chunk(&chain, 1, same.clone(), false).expect("fine");
    assert_eq!(passed.bytes.as_ptr(), same.as_ptr(), "no copy");
    let mut trailers = HeaderMap::new();
    worker.request_trailers(&chain, 1, &mut trailers).expect("fine");
    assert_eq!(trailers.get_all("x-by").iter().collect::<Vec<_>>(), ["a", "b"]);
    let mut trailers = HeaderMap::new();
    worker.response_trailers(&chain, 1, &mut trailers).expect("fine");
    assert_eq!(trailers.get_all("x-by").iter().collect::<Vec<_>>(), ["b", "a"]);
    let cut = worker.request_chunk(&chain, 1, Bytes::from_static(b"cut"), false).expect_err("cut");
    assert_eq!((&*cut.filter, &*cut.reason, cut.close), ("a", "no more? of it", false));
    assert_eq!(cut.cause, ReplyCause::Filter);
    assert!(worker.request_chunk(&chain, 2, same, false).expect("nobody judged it").after.is_zero());
}

#[test]
fn messages_come_one_by_one() {
    let host = host();
    let say = |told: &Told<'_>, _: &[u8]| match told.chunk {
        b"drop" => edit(Edit::Body(Vec::new())),
        b"up" => edit(Edit::Body(b"UP".to_vec())),
        b"trap" => trap(),
        b"" if told.end => edit(Edit::Body(b"end".to_vec())),
        _ => pass(),
    };
    let mut framed = bytes::BytesMut::new();
    for body in ["one", "drop", "up"] {
        crate::frames::frame(body.as_bytes(), &mut framed);
    }
    let mut expect = bytes::BytesMut::new();
    for body in ["one", "UP", "end"] {
        crate::frames::frame(body.as_bytes(), &mut expect);
    }
    let mut open = spec("open");
    open.on_failure = OnFailure::Allow;
    let chain = Chain::new(vec![filter(&host, &open, &["request-body=frames:grpc"], say)]);
    let mut worker = Worker::new(&host);
    for size in 1..=framed.len() {
        let stream = size as u64;
        assert!(permitted(&Request::new(stream).start(&mut worker, &chain)));
        let mut out = Vec::new();
        let mut send = |bytes: &[u8], end| {
            let chunk = worker.request_chunk(&chain, stream, Bytes::copy_from_slice(bytes), end).expect("fine");
            out.extend_from_slice(&chunk.bytes);
        };
        framed.chunks(size).for_each(|bytes| send(bytes, false));
        send(b"", true);
        assert_eq!(out, expect[..], "chunks of {size}");
        worker.done(&chain, stream, &Summary::default());
    }
    assert!(permitted(&Request::new(1).start(&mut worker, &chain)));
    let trapping = [0, 0, 0, 0, 4, b't', b'r', b'a', b'p', 0, 0];
    let chunk = worker.request_chunk(&chain, 1, Bytes::copy_from_slice(&trapping), false).expect("passed by");
    assert_eq!(&chunk.bytes[..], trapping, "what was held goes on with the rest");
    assert!(permitted(&Request::new(2).start(&mut worker, &chain)));
    let long = Bytes::from_static(&[0, 0, 0, 1, 0]);
    let cut = worker.request_chunk(&chain, 2, long, false).expect_err("longer than the policy's limit");
    assert_eq!(cut.reason, "filter_body_too_long");
    assert!(permitted(&Request::new(3).start(&mut worker, &chain)));
    let cut = worker.request_chunk(&chain, 3, Bytes::from_static(&[0, 0]), true).expect_err("half a message");
    assert_eq!(cut.reason, "filter_message_cut_short");
}

#[test]
fn parts_of_messages_are_held_within_what_the_process_keeps() {
    let config = HostConfig { max_instances: 1, spares: 0, kept_bytes: 6, ..HostConfig::default() };
    let host = Host::new(config).expect("a host");
    let (mut open, closed) = (spec("open"), spec("closed"));
    open.on_failure = OnFailure::Allow;
    let hooks = ["request-body=frames:grpc"];
    let mut worker = Worker::new(&host);
    let part = Bytes::from_static(&[0, 0, 0, 0, 9, b'x', b'y']);
    for spec in [open, closed] {
        let filter = filter(&host, &spec, &hooks, |_, _| pass());
        let chain = Chain::new(vec![filter.clone()]);
        assert!(permitted(&Request::new(1).start(&mut worker, &chain)));
        assert!(worker.request_chunk(&chain, 1, part.slice(..6), false).expect("held").bytes.is_empty());
        assert_eq!(host.kept_bytes(), 6);
        let more = worker.request_chunk(&chain, 1, part.slice(6..), false);
        match spec.on_failure {
            OnFailure::Allow => assert_eq!(more.expect("passed by").bytes, part, "not a byte is lost"),
            OnFailure::Deny => assert_eq!(more.expect_err("cut").reason, "filter_no_room"),
        }
        assert_eq!(filter.stats().no_room.value(), 1);
        worker.done(&chain, 1, &Summary::default());
        assert_eq!(host.kept_bytes(), 0);
    }
    assert_eq!(host.kept_refusals().last(), Some(("message", 2)));
}

#[test]
fn a_wait_ends_with_an_answer_or_with_its_time() {
    let host = host();
    let callout = || Callout {
        id: 7,
        service: "quota".to_owned(),
        method: Method::GET,
        path: NormalPath::new("/".into()).expect("a path"),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: Duration::from_secs(1),
        most: 1,
    };
    let say = move |told: &Told<'_>, _: &[u8]| match told.answer {
        None => Ok(Said { verdict: Verdict::Wait(50), callouts: [callout()].into_iter().collect(), ..Said::default() }),
        Some((7, Ok(answer))) if answer.status.is_success() => edit(add("x-quota", "there")),
        Some((_, Ok(_))) => verdict(reply(429)),
        Some((_, Err(why))) => edit(add("x-quota", why)),
    };
    let answer = |status| CalloutAnswer { status, headers: HeaderMap::new(), body: Bytes::new() };
    let chain = Chain::new(vec![
        filter(&host, &spec("asks"), &["request-head", "callout"], say),
        filter(&host, &spec("next"), &["request-head"], |_, _| edit(add("x-next", "yes"))),
    ]);
    let mut worker = Worker::new(&host);
    let mut ask = |stream, event| {
        let mut request = Request::new(stream);
        let Outcome::Wait { calls, within, resume } = request.start(&mut worker, &chain) else { panic!("a wait") };
        assert_eq!((calls, within), (vec![callout()], Duration::from_millis(50)));
        let outcome = request.go(&mut worker, &chain, resume, event);
        worker.done(&chain, stream, &Summary::default());
        (outcome, request.headers)
    };
    let (outcome, headers) = ask(1, Event::Answer { id: 7, answer: Ok(answer(StatusCode::OK)) });
    assert!(permitted(&outcome) && headers["x-quota"] == "there" && headers.contains_key("x-next"));
    let (outcome, headers) = ask(2, Event::Answer { id: 7, answer: Err("dead".to_owned()) });
    assert!(permitted(&outcome) && headers["x-quota"] == "dead");
    let (outcome, headers) = ask(3, Event::Answer { id: 7, answer: Ok(answer(StatusCode::CONFLICT)) });
    let Outcome::Respond(reply) = outcome else { panic!("{outcome:?}") };
    assert!(reply.status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key("x-next"));
    let Outcome::Respond(reply) = ask(4, Event::Tick).0 else { panic!("it has no hook tick") };
    assert_eq!((reply.status.as_u16(), &*reply.reason), (503, "filter_wait_over"));
    assert!(worker.streams.is_empty());
}

#[test]
fn waits_without_end_and_for_nothing_are_failures() {
    let host = host();
    let wait = |_: &Told<'_>, _: &[u8]| verdict(Verdict::Wait(1));
    let endless = Chain::new(vec![filter(&host, &spec("endless"), &["request-head", "tick"], wait)]);
    let mut worker = Worker::new(&host);
    let mut request = Request::new(1);
    let mut outcome = request.start(&mut worker, &endless);
    let mut waits = 0;
    while let Outcome::Wait { resume, .. } = outcome {
        waits += 1;
        outcome = request.go(&mut worker, &endless, resume, Event::Tick);
    }
    assert_eq!(waits, MAX_WAITS);
    for hooks in [&["request-head"][..], &["connection", "request-body"]] {
        let chain = Chain::new(vec![filter(&host, &spec("nothing"), hooks, wait)]);
        let mut request = Request::new(2);
        let ended = match request.start(&mut worker, &chain) {
            Outcome::Respond(reply) => reply.reason,
            Outcome::Permitted(_) => {
                worker.request_chunk(&chain, 2, Bytes::from_static(b"x"), false).expect_err("nothing waits here").reason
            }
            outcome @ (Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_)) => {
                panic!("{outcome:?}")
            }
        };
        assert_eq!(ended, "filter_result_invalid");
        worker.done(&chain, 2, &Summary::default());
    }
}

#[test]
fn one_instance_serves_all_configurations_of_a_program() {
    let host = host();
    let specs = [spec("a/one"), spec("a/two"), spec("a/three")];
    let (filters, counts) = program(&host, &specs, &["request-head"], |_, _| pass());
    let counted = || *counts.lock().expect("sound");
    let chain = Chain::new(filters);
    let mut worker = Worker::new(&host);
    for stream in 1..10 {
        assert!(permitted(&Request::new(stream).start(&mut worker, &chain)));
    }
    assert_eq!(counted(), [1, 3, 0], "one instance, each configuration once");
    let kept = Chain::new(chain.filters()[..1].to_vec());
    drop(chain);
    worker.retire();
    assert_eq!(counted(), [1, 3, 2], "those that nobody holds are forgotten");
    assert!(permitted(&Request::new(1).start(&mut worker, &kept)));
    drop(kept);
    worker.retire();
    assert_eq!(counted(), [1, 3, 2], "the instance went with its program");
}

#[test]
fn attributes_reach_later_filters_and_the_record() {
    let host = host();
    let set = |_: &Told<'_>, _: &[u8]| {
        edit(Edit::Attribute(Field { name: "filter.team".to_owned(), value: b"red".to_vec() }))
    };
    let read = |told: &Told<'_>, _: &[u8]| {
        let value = told.set.iter().find(|it| &*it.name == "filter.team").map(|it| it.value.clone());
        Ok(Said {
            edits: vec![Edit::Set(Field { name: "x-team".to_owned(), value: value.unwrap_or_default() })],
            ..Said::default()
        })
    };
    let chain = Chain::new(vec![
        filter(&host, &spec("sets"), &["request-head"], set),
        filter(&host, &spec("reads"), &["request-head"], read),
    ]);
    let mut worker = Worker::new(&host);
    let mut request = Request::new(1);
    assert!(permitted(&request.start(&mut worker, &chain)));
    assert_eq!(request.headers["x-team"], HeaderValue::from_static("red"));
    assert_eq!(worker.attributes(1).collect::<Vec<_>>(), [("filter.team", &b"red"[..])]);
    worker.done(&chain, 1, &Summary::default());
    assert_eq!(worker.attributes(1).count(), 0);
}

#[test]
fn an_answer_in_place_of_another_passes_the_filters_before() {
    let host = host();
    let one = |name: &'static str| {
        move |told: &Told<'_>, _: &[u8]| match (told.hook, name) {
            (Hook::ResponseHead, "answers") => verdict(reply(418)),
            (Hook::ResponseHead, _) => edit(add("x-by", name)),
            _ => pass(),
        }
    };
    let hooks = ["request-head", "response-head"];
    let filters = ["first", "answers", "last"].map(|name| filter(&host, &spec(name), &hooks, one(name)));
    let (mut worker, chain) = (Worker::new(&host), Chain::new(filters.to_vec()));
    assert!(permitted(&Request::new(1).start(&mut worker, &chain)));
    assert_eq!(respond(&mut worker, &chain, 1).expect_err("an answer").status, StatusCode::IM_A_TEAPOT);
    let headers = respond(&mut worker, &chain, 1).expect("of the one before");
    assert_eq!(headers.get_all("x-by").iter().collect::<Vec<_>>(), ["first"]);
    worker.done(&chain, 1, &Summary::default());
    assert!(worker.streams.is_empty());
}

#[test]
fn what_is_held_of_messages_goes_on_where_the_filter_fails_on_the_other_direction() {
    let host = host();
    let mut open = spec("open");
    open.on_failure = OnFailure::Allow;
    let say = |told: &Told<'_>, _: &[u8]| if told.hook == Hook::RequestBody { trap() } else { pass() };
    let hooks = ["request-body=frames:grpc", "response-body=frames:grpc"];
    let (mut worker, chain) = (Worker::new(&host), Chain::new(vec![filter(&host, &open, &hooks, say)]));
    assert!(permitted(&Request::new(1).start(&mut worker, &chain)));
    let message = Bytes::from_static(&[0, 0, 0, 0, 1, b'x']);
    let down = worker.response_chunk(&chain, 1, message.slice(..3), false).expect("held");
    assert!(down.bytes.is_empty());
    let up = worker.request_chunk(&chain, 1, message.clone(), true).expect("passed by");
    assert_eq!(up.bytes, message);
    let down = worker.response_chunk(&chain, 1, message.slice(3..), true).expect("passed by");
    assert_eq!(down.bytes, message, "not a byte is lost");
}

#[test]
fn a_head_that_passes_does_not_excuse_a_body_that_fails() {
    let host = host();
    let mut open = spec("open");
    open.on_failure = OnFailure::Allow;
    let say = |told: &Told<'_>, _: &[u8]| if told.hook == Hook::RequestBody { trap() } else { pass() };
    let filter = filter(&host, &open, &["request-head", "request-body=buffer:8"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(vec![filter.clone()]));
    for stream in 1..=20 {
        let mut request = Request { body: Some(Bytes::from_static(b"bad")), ..Request::new(stream) };
        assert!(permitted(&request.start(&mut worker, &chain)));
        worker.done(&chain, stream, &Summary::default());
    }
    let stats = filter.stats();
    assert!(stats.traps.value() < 20 && stats.backoff_skips.value() > 0, "it is spared for a while");
}
