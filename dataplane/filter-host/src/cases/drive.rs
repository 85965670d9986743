//! Sends one request through a chain as a proxy does, in no time: bodies are there at once, services answer as the case
//! says, waits and delays are counted and not waited for.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weft_policy::bundle::Direction;
use weft_policy::component::cases::{Case, CaseCallout, CaseRequest, CaseResponse, CaseVerdict, Fields, Texts};
use weft_policy::path::{NormalPath, PathReading};

use super::compare;
use crate::chain::{
    Answering, Attributes, Callout, CalloutAnswer, Chunk, Cut, Event, LocalReply, Outcome, Part, Position, ReplyCause,
    RequestView, ResponseView, Summary, comes_in_parts,
};
use crate::order::Chain;
use crate::worker::Worker;

/// Calls of one hook, with those for its waits, delays and body; a filter that wants more has no end.
const MAX_TURNS: u32 = 1_000;
/// Bytes of an answer in parts: cases of strangers run in the control plane.
const MAX_ANSWER: usize = 1 << 20;
const GRPC: &[u8] = b"application/grpc";

/// What became of a request.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) verdict: CaseVerdict,
    pub(super) reply: Option<Box<LocalReply>>,
    /// Of an answer, a reset or a failure.
    pub(super) reason: String,
    pub(super) delay: Duration,
    /// What the app was sent, where it was sent anything.
    pub(super) request: Option<Sent>,
    /// What the caller was sent of the app's answer.
    pub(super) response: Option<Sent>,
    pub(super) attributes: Vec<(String, String)>,
    /// What was not as the case says while it ran.
    pub(super) faults: Vec<String>,
}

/// A message behind the filter.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn refused(reason: String) -> Self {
        Self { verdict: CaseVerdict::Refuse, reason, ..Self::default() }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Pass => {}
            End::Reply(reply) => {
                self.verdict = verdict(reply.cause, CaseVerdict::Respond);
                self.reason.clone_from(&reply.reason);
                self.reply = Some(reply);
            }
            End::Cut(cut) => {
                self.verdict = verdict(cut.cause, CaseVerdict::Reset);
                self.reason = cut.reason;
            }
            End::Endless => self.faults.push(format!("no end after {MAX_TURNS} calls")),
        }
    }

    fn has_ended(&self) -> bool {
        self.verdict != CaseVerdict::Pass || !self.faults.is_empty()
    }
}

fn verdict(cause: ReplyCause, meant: CaseVerdict) -> CaseVerdict {
    match cause {
        ReplyCause::Failed => CaseVerdict::Fail,
        ReplyCause::Denied | ReplyCause::Filter => meant,
    }
}

/// A request of a case, parsed.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: Method,
    authority: Option<Authority>,
    path: Option<NormalPath>,
    headers: HeaderMap,
    chunks: Vec<Bytes>,
}

impl Request {
    pub(super) fn new(case: &CaseRequest) -> Result<Self, String> {
        let method = case.method.as_deref().unwrap_or("GET");
        let path = case.path.as_deref().unwrap_or("/");
        let authority = case.authority.as_deref().unwrap_or("app.test");
        Ok(Self {
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| format!("request.method: {method:?} is no method"))?,
            authority: Some(
                authority.parse().map_err(|_| format!("request.authority: {authority:?} is no authority"))?,
            ),
            path: Some(normal(path).map_err(|why| format!("request.path: {why}"))?),
            headers: headers(&case.headers).map_err(|why| format!("request.headers: {why}"))?,
            chunks: chunks(&case.body),
        })
    }
}

fn normal(path: &str) -> Result<NormalPath, String> {
    NormalPath::new(Bytes::copy_from_slice(path.as_bytes())).map_err(|error| format!("{path:?}: {error}"))
}

fn headers(fields: &Fields) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no name"))?;
        for value in values.as_slice() {
            let value = HeaderValue::from_str(value).map_err(|_| format!("{value:?} is no value of {name}"))?;
            headers.append(&name, value);
        }
    }
    Ok(headers)
}

fn chunks(texts: &Texts) -> Vec<Bytes> {
    texts.as_slice().iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
}

fn joined(chunks: &[Bytes]) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    all
}

/// How a run over a head ended.
enum End {
    Pass,
    Reply(Box<LocalReply>),
    Cut(Box<Cut>),
    Endless,
}

/// Sends the request through the chain, and the case's answer back.
///
/// # Errors
/// The case can't be meant so.
pub(super) fn request(
    worker: &mut Worker,
    chain: &Chain,
    stream: u64,
    request: Request,
    case: &Case,
) -> Result<Seen, String> {
    let mut run = Run { worker, chain, stream, services: Services::new(&case.callouts), seen: Seen::default() };
    let request = run.request(request, case);
    if let (Some(response), false) = (&case.response, run.seen.has_ended()) {
        run.response(response)?;
    }
    run.seen.request = request;
    run.seen.faults.extend(run.services.faults());
    let attributes = run.worker.attributes(stream);
    let text = |(name, value): (&str, &[u8])| (name.to_owned(), String::from_utf8_lossy(value).into_owned());
    run.seen.attributes = attributes.map(text).collect();
    let status = run.seen.response.as_ref().map_or(0, |response| response.status);
    let summary = Summary { status, duration: run.seen.delay, ..Summary::default() };
    run.worker.done(chain, stream, &summary);
    Ok(run.seen)
}

struct Run<'a> {
    worker: &'a mut Worker,
    chain: &'a Chain,
    stream: u64,
    services: Services<'a>,
    seen: Seen,
}

impl Run<'_> {
    /// What the app is sent; `None`: nothing.
    fn request(&mut self, mut request: Request, case: &Case) -> Option<Sent> {
        let attributes = Attributes {
            principal: case.caller.as_deref(),
            source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            destination_port: 80,
            direction: Direction::Inbound,
            // Of a request without one chance decides, and that a case may say.
            request_id: None,
            destination_service: Some("cases/app"),
            route: None,
            tls: case.caller.is_some(),
            protocol: "h2",
        };
        let all: Bytes = joined(&request.chunks).into();
        let mut body = None;
        let end = self.settle(&all, &mut body, |worker, chain, stream, from, event, body| {
            let mut view = RequestView {
                method: &request.method,
                authority: &mut request.authority,
                path: &mut request.path,
                path_reading: PathReading::default(),
                headers: &mut request.headers,
                body,
            };
            worker.request_head(chain, from, event, stream, &mut view, &attributes).map(drop)
        });
        self.seen.end(end);
        if self.seen.has_ended() {
            let is_grpc = request.headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(GRPC));
            self.rest_of_reply(request.method == Method::HEAD, is_grpc);
            return None;
        }
        let chunks = body.map_or(request.chunks, |body| vec![body]);
        let body = match self.chain.hooks().request_body {
            false => joined(&chunks),
            true => self.pass(chunks, Worker::request_chunk)?,
        };
        Some(Sent {
            path: request.path.map(|path| path.to_string()).unwrap_or_default(),
            authority: request.authority.map(|authority| authority.to_string()).unwrap_or_default(),
            status: 0,
            headers: request.headers,
            body,
        })
    }

    fn response(&mut self, case: &CaseResponse) -> Result<(), String> {
        let mut status = status(case)?;
        let mut headers = headers(&case.headers).map_err(|why| format!("response.headers: {why}"))?;
        let chunks = chunks(&case.body);
        let all: Bytes = joined(&chunks).into();
        let mut body = None;
        let end = self.settle(&all, &mut body, |worker, chain, stream, from, event, body| {
            let mut view = ResponseView { status: &mut status, headers: &mut headers, body };
            worker.response_head(chain, from, event, stream, &mut view)
        });
        self.seen.end(end);
        if self.seen.has_ended() {
            return Ok(());
        }
        let chunks = body.map_or(chunks, |body| vec![body]);
        let body = match self.chain.hooks().response_body {
            false => Some(joined(&chunks)),
            true => self.pass(chunks, Worker::response_chunk),
        };
        self.seen.response = body.map(|body| Sent { status: status.as_u16(), headers, body, ..Sent::default() });
        Ok(())
    }

    /// Has a filter that answered in parts give all of them.
    fn rest_of_reply(&mut self, is_head: bool, is_grpc: bool) {
        let Some(mut reply) = self.seen.reply.take() else { return };
        if let Some(by) = reply.more.filter(|_| comes_in_parts(is_head, reply.status, is_grpc)) {
            let mut body = Vec::from(std::mem::take(&mut reply.body));
            let end = self.parts(by, &mut body);
            self.seen.end(end);
            reply.body = body.into();
        }
        self.seen.reply = Some(reply);
    }

    fn parts(&mut self, by: Answering, body: &mut Vec<u8>) -> End {
        let (mut event, mut open) = (Event::Go, VecDeque::new());
        for _ in 0..MAX_TURNS {
            event = match self.worker.reply_part(self.chain, self.stream, by, &event) {
                Ok(Part::Bytes(Chunk { bytes, .. })) if body.len() + bytes.len() > MAX_ANSWER => {
                    self.seen.faults.push(format!("an answer of more than {MAX_ANSWER} bytes, which no case has"));
                    return End::Pass;
                }
                Ok(Part::Bytes(Chunk { bytes, after })) => {
                    self.seen.delay += after;
                    body.extend_from_slice(&bytes);
                    open.clear();
                    Event::Go
                }
                Ok(Part::Wait { calls, within: _ }) => self.awaited(&mut open, calls),
                Ok(Part::End) => return End::Pass,
                Err(cut) => return End::Cut(cut),
            };
        }
        End::Endless
    }

    /// What ends a wait: the next answer of a service, or its time.
    fn awaited(&mut self, open: &mut VecDeque<Callout>, calls: Vec<Callout>) -> Event {
        open.extend(calls);
        let answered = |call: Callout| Event::Answer { id: call.id, answer: self.services.answer(&call) };
        open.pop_front().map_or(Event::Tick, answered)
    }

    /// Calls a hook of a head until it is decided.
    fn settle(
        &mut self,
        all: &Bytes,
        body: &mut Option<Bytes>,
        mut step: impl FnMut(&mut Worker, &Chain, u64, Position, Event, &mut Option<Bytes>) -> Outcome<()>,
    ) -> End {
        let (mut from, mut event) = (Position::START, Event::Go);
        let mut open = VecDeque::new();
        for _ in 0..MAX_TURNS {
            match step(self.worker, self.chain, self.stream, from, event, body) {
                Outcome::Permitted(()) => return End::Pass,
                Outcome::Respond(reply) => return End::Reply(reply),
                Outcome::Reset(cut) => return End::Cut(cut),
                Outcome::Delay { after, resume } => {
                    self.seen.delay += after;
                    open.clear();
                    (from, event) = (resume, Event::Go);
                }
                Outcome::Body { most, resume } => {
                    let fits = all.len() <= most;
                    *body = fits.then(|| all.clone());
                    (from, event) = (resume, if fits { Event::Body } else { Event::TooLong });
                }
                Outcome::Wait { calls, within: _, resume } => {
                    (from, event) = (resume, self.awaited(&mut open, calls));
                }
            }
        }
        End::Endless
    }

    /// Passes a body in chunks; an empty one is an end. `None`: it was cut.
    fn pass(
        &mut self,
        chunks: Vec<Bytes>,
        mut through: impl FnMut(&mut Worker, &Chain, u64, Bytes, bool) -> Result<Chunk, Box<Cut>>,
    ) -> Option<Vec<u8>> {
        let chunks = if chunks.is_empty() { vec![Bytes::new()] } else { chunks };
        let last = chunks.len() - 1;
        let mut out = Vec::new();
        for (number, bytes) in chunks.into_iter().enumerate() {
            match through(self.worker, self.chain, self.stream, bytes, number == last) {
                Ok(Chunk { bytes, after }) => {
                    self.seen.delay += after;
                    out.extend_from_slice(&bytes);
                }
                Err(cut) => {
                    self.seen.end(End::Cut(cut));
                    return None;
                }
            }
        }
        Some(out)
    }
}

fn status(case: &CaseResponse) -> Result<StatusCode, String> {
    let status = case.status.unwrap_or(200);
    StatusCode::from_u16(status).map_err(|_| format!("{status} is no status"))
}

/// Services, as one request finds them.
struct Services<'a> {
    /// Those that were not asked yet.
    waiting: Vec<&'a CaseCallout>,
    faults: Vec<String>,
}

impl<'a> Services<'a> {
    fn new(callouts: &'a [CaseCallout]) -> Self {
        Self { waiting: callouts.iter().collect(), faults: Vec::new() }
    }

    fn answer(&mut self, call: &Callout) -> Result<CalloutAnswer, String> {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.service == call.service) else {
            self.faults.push(format!("{} was asked for {}, for which the case has no answer", call.service, call.path));
            return Err("nobody answers".to_owned());
        };
        let case = self.waiting.remove(place);
        let faults = &mut self.faults;
        let of = |what: &str| format!("{what} of the callout to {}", case.service);
        let (path, body) = (call.path.to_string(), String::from_utf8_lossy(&call.body).into_owned());
        faults.extend(compare::is(&of("method"), case.method.as_deref(), call.method.as_str()));
        faults.extend(compare::is(&of("path"), case.path.as_deref(), &path));
        faults.extend(compare::is(&of("body"), case.body.as_deref(), &body));
        faults.extend(compare::fields(&format!(" of the callout to {}", case.service), &case.headers, &call.headers));
        match (&case.answer, &case.error) {
            (Some(answer), _) => answer_of(answer, call.most).inspect_err(|why| self.faults.push(why.clone())),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err("no answer".to_owned()),
        }
    }

    /// What was found, and whom nobody asked.
    fn faults(&mut self) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        faults.extend(self.waiting.iter().map(|waiting| format!("{} was not asked", waiting.service)));
        faults
    }
}

fn answer_of(case: &CaseResponse, most: usize) -> Result<CalloutAnswer, String> {
    let body: Bytes = joined(&chunks(&case.body)).into();
    if body.len() > most {
        return Err(format!("an answer of {} bytes, and the filter takes {most}", body.len()));
    }
    let headers = headers(&case.headers).map_err(|why| format!("callouts: {why}"))?;
    Ok(CalloutAnswer { status: status(case)?, headers, body })
}
