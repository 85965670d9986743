//! The account of one request: opened with its head, filled in as it walks the path, closed once, into metrics and the
//! access log. `connection` is the same for a TCP connection.

pub mod connection;

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode, Version};
use weft_filter_host::comes_in_parts;
use weft_transport::http::{Content, RequestHead, Responder, ResponseHead, SendError, StreamError};

use crate::filtering::{Filtered, Unjudged};
use crate::ledger::Ledger;
use crate::relay::{self, Answered, ClientGone, ExchangeError, Idle, NotTaken, Progress, Source};
use crate::reply::{Failure, Flag, Form, Party, Side};
use crate::snapshot::Current;
use crate::telemetry::access_log::{self, Logged};
use crate::telemetry::counters;
use crate::telemetry::series::{PairMetrics, RequestEnd};

/// Facts about a request, gathered while it is served.
pub struct Record {
    pub side: Side,
    start: Instant,
    /// Form in which the client expects an answer of the proxy's own.
    form: Form,
    /// The request was HEAD: no answer has a body.
    bodiless: bool,
    pub sent: Progress,
    pub received: Progress,
    pub code: u16,
    /// The final head of the app's answer, noted as it leaves: whoever carries the rest may be cut.
    pub answer: Cell<Option<Answered>>,
    /// The answer broke off behind it.
    pub broken: bool,
    pub flag: Flag,
    /// Metrics of the pair of caller and destination; `None` until a destination was found.
    pub metrics: Option<Rc<PairMetrics>>,
    /// Set only while the access log is on.
    log: Option<Box<Logged>>,
}

/// An exchange that ended without a final head for the client.
pub struct Unanswered {
    pub failure: Failure,
    /// The other side provably did not process the request.
    pub unprocessed: bool,
    /// The connection was lost before a byte of the answer.
    pub lost: bool,
}

impl Unanswered {
    pub fn new(to: Party, error: SendError) -> Self {
        let SendError { error, unprocessed } = error;
        let lost = matches!(error, StreamError::ConnectionLost(_));
        let failure = match unprocessed {
            true => Failure::Unprocessed { to, error },
            false => Failure::NoAnswer { to, error },
        };
        Self { failure, unprocessed, lost }
    }
}

impl Record {
    pub fn open(side: Side, client: SocketAddr, head: &RequestHead, access_log: bool) -> Self {
        Self {
            side,
            start: Instant::now(),
            form: form(&head.headers, head.version),
            bodiless: head.method == Method::HEAD,
            sent: Progress::default(),
            received: Progress::default(),
            code: 0,
            answer: Cell::new(None),
            broken: false,
            flag: Flag::None,
            metrics: None,
            log: access_log.then(|| Box::new(Logged { client: Some(client), ..Logged::of(head) })),
        }
    }

    /// When the request came.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The version that the client spoke, where another proxy stands between.
    pub fn spoken(&mut self, version: Version) {
        if !matches!(version, Version::HTTP_2 | Version::HTTP_3) && self.form == Form::Grpc {
            self.form = Form::Http;
        }
        self.log(|log| log.version = version);
    }

    /// True for a gRPC call whose client reads trailers.
    pub fn is_grpc(&self) -> bool {
        self.form == Form::Grpc
    }

    /// Runs `fill` only where the access log is on.
    pub fn log(&mut self, fill: impl FnOnce(&mut Logged)) {
        if let Some(log) = &mut self.log {
            fill(log);
        }
    }

    /// What the access log will say of a copy of the request, whose head is `head`; `None` where it is off.
    pub fn log_of_copy(&self, head: &RequestHead) -> Option<Box<Logged>> {
        let Logged { client, route, source, .. } = &**self.log.as_ref()?;
        let (route, source) = (route.clone(), source.clone());
        Some(Box::new(Logged { client: *client, route, source, mirrored: true, ..Logged::of(head) }))
    }

    /// Notes the head that the client is sent.
    pub fn answered(&mut self, status: StatusCode) {
        self.code = status.as_u16();
    }

    /// Answers the client in the proxy's own name, where it has not been answered yet; a stream that the app reset is reset.
    pub async fn reply(&mut self, failure: &Failure, responder: &mut Option<Responder<'_>>, idle: Idle<'_>) {
        if let Some(responder) = self.fail(failure, responder) {
            let answer = failure.reply(self.side, self.form, self.side == Side::Inbound);
            self.answer(responder, answer, idle).await;
        }
    }

    /// The same, once the filters that the request met have seen the answer. An answer that another attempt follows, and a
    /// stream that is reset, are none. `rest`: what is left of the request.
    pub async fn reply_through(
        &mut self,
        filtered: &mut Filtered<'_>,
        failure: &Failure,
        (rest, responder): (&mut Source<'_>, &mut Option<Responder<'_>>),
        idle: Idle<'_>,
    ) {
        let is_none = matches!(failure, Failure::ClientGone | Failure::Unserved(_)) || failure.reset_code().is_some();
        if is_none || responder.is_none() {
            return self.reply(failure, responder, idle).await;
        }
        if let Failure::Filter(reply) = failure
            && comes_in_parts(self.bodiless, reply.status, self.form != Form::Http)
            && let Some(source) = filtered.answer_in_parts(reply)
        {
            // Boxed: rare, and larger than all the rest.
            return Box::pin(self.reply_in_parts(filtered, failure, source, (rest, responder, idle))).await;
        }
        if !filtered.judges_answers() {
            return self.reply(failure, responder, idle).await;
        }
        let (mut head, mut body) = failure.reply(self.side, self.form, self.side == Side::Inbound);
        let judged = {
            let judging = pin!(filtered.own_answer(&mut head, &mut body));
            relay::unless_gone(judging, responder.as_mut()).await
        };
        match judged {
            Ok(Ok(())) => {}
            Ok(Err(instead)) => return self.reply(&instead, responder, idle).await,
            Err(ClientGone) => return self.reply(&Failure::ClientGone, responder, idle).await,
        }
        if self.form != Form::Http {
            // All of it is in the head.
            body = Bytes::new();
        }
        if let Some(responder) = self.fail(failure, responder) {
            self.answer(responder, (head, body), idle).await;
        }
    }

    /// Answers the client with what a filter makes as it is taken, once the filters before that one have seen its head, and
    /// past those that look at its body.
    async fn reply_in_parts(
        &mut self,
        filtered: &mut Filtered<'_>,
        failure: &Failure,
        mut source: Source<'_>,
        (rest, responder, idle): (&mut Source<'_>, &mut Option<Responder<'_>>, Idle<'_>),
    ) {
        let (mut head, _) = failure.reply(self.side, self.form, self.side == Side::Inbound);
        let judged = match filtered.judges_answers() {
            false => Ok(Ok(None)),
            true => {
                let judging = pin!(filtered.response(&mut head, &mut source));
                relay::unless_gone(judging, responder.as_mut()).await
            }
        };
        let instead = match judged {
            Ok(Ok(instead)) => instead,
            Ok(Err(unjudged)) => {
                let failure = match (unjudged, source.take_cut()) {
                    (Unjudged::Ended(failure), _) => failure,
                    (Unjudged::Broken(_), Some(cut)) => Failure::FilterCut(cut),
                    (Unjudged::Broken(error), None) => Failure::NoAnswer { to: Party::App, error },
                };
                // What it asked for is over, and the filters before it see what comes in its place.
                drop(source);
                return Box::pin(self.reply_through(filtered, &failure, (rest, responder), idle)).await;
            }
            Err(ClientGone) => return self.reply(&Failure::ClientGone, responder, idle).await,
        };
        let Some(to) = self.fail(failure, responder) else { return };
        if let Some(body) = instead {
            return self.answer(to, (head, body), idle).await;
        }
        if filtered.look_at_answer(&mut source) {
            head.headers.remove(CONTENT_LENGTH);
        }
        self.answered(head.status);
        if let Err(error) = relay::stream((rest, to), &head, &mut source, (&self.received, idle)).await {
            self.ended(error, Party::App);
        }
    }

    /// Notes a failure. Gives the responder where its client can be answered.
    fn fail<'r>(&mut self, failure: &Failure, responder: &mut Option<Responder<'r>>) -> Option<Responder<'r>> {
        let verdict = failure.verdict();
        self.flag = verdict.flag;
        if let Failure::ClientGone = failure {
            self.code = verdict.status.as_u16();
            *responder = None;
            return None;
        }
        self.log(|log| {
            log.stage = Some(verdict.stage);
            log.rule = failure.rule().map(Cow::into_owned);
            log.reason = Some(verdict.reason);
            log.message = Some(failure.to_string());
        });
        counters::local_reply(self.side, &verdict);
        let mut responder = responder.take()?;
        // HTTP/1 has no streams to reset: its connection ends behind the answer.
        if let Responder::H1(h1) = &mut responder
            && failure.is_filters_reset()
        {
            h1.close_after();
        }
        match failure.reset_code() {
            Some(code) => responder.reset(code),
            None => Some(responder),
        }
    }

    async fn answer(&mut self, responder: Responder<'_>, (head, body): (ResponseHead, Bytes), idle: Idle<'_>) {
        self.answered(head.status);
        self.received.grpc_status.set(relay::grpc_status(&head.headers));
        let bodiless = self.bodiless || Content::of(head.status) != Content::Framed;
        let body = if bodiless { Bytes::new() } else { body };
        let length = body.len() as u64;
        match relay::answer(responder, &head, body, idle).await {
            Ok(()) => self.received.bytes.set(length),
            Err(NotTaken) => self.flag = Flag::Downstream,
        }
    }

    /// Notes an exchange that failed after its head was sent, or whose client left. Gives back what can still be answered.
    pub fn ended(&mut self, error: ExchangeError, to: Party) -> Option<Unanswered> {
        match error {
            ExchangeError::Unanswered(error) => Some(Unanswered::new(to, error)),
            ExchangeError::Unserved(told) => {
                Some(Unanswered { failure: Failure::PeerUnserved { told }, unprocessed: true, lost: false })
            }
            ExchangeError::Broken(error) => {
                let failure = Failure::NoAnswer { to, error };
                self.broken = true;
                self.flag = failure.verdict().flag;
                self.log(|log| log.failed(&failure));
                None
            }
            ExchangeError::Stalled(stalled) => {
                let failure = Failure::Stalled(stalled);
                if self.code == 0 {
                    return Some(Unanswered { failure, unprocessed: false, lost: false });
                }
                self.flag = failure.verdict().flag;
                self.log(|log| log.failed(&failure));
                None
            }
            ExchangeError::Filter(failure) => {
                if self.code == 0 {
                    return Some(Unanswered { failure, unprocessed: false, lost: false });
                }
                if let Failure::FilterCut(cut) = &failure {
                    counters::filter_reset(self.side, &cut.filter);
                }
                self.flag = failure.verdict().flag;
                self.log(|log| {
                    log.rule = failure.rule().map(Cow::into_owned);
                    log.failed(&failure);
                });
                None
            }
            ExchangeError::Late(failure) => Some(Unanswered { failure, unprocessed: false, lost: false }),
            ExchangeError::Discarded(status) => {
                let failure = Failure::AnswerDiscarded(status);
                Some(Unanswered { failure, unprocessed: false, lost: false })
            }
            ExchangeError::ClientGone => {
                self.flag = Flag::Downstream;
                if self.code == 0 {
                    self.code = 499;
                }
                None
            }
        }
    }

    /// Counts the request and writes its line.
    pub fn close(self, ledger: &Ledger, snapshot: Option<&Current>) {
        let grpc = self.form != Form::Http;
        let end = RequestEnd {
            code: match (self.code, self.answer.get()) {
                (0, Some(answered)) => answered.sent.as_u16(),
                (code, _) => code,
            },
            grpc,
            grpc_status: if grpc { self.received.grpc_status.get() } else { None },
            flag: self.flag,
            duration: self.start.elapsed(),
            request_bytes: self.sent.bytes.get(),
            response_bytes: self.received.bytes.get(),
        };
        match &self.metrics {
            Some(metrics) => metrics.request(end),
            None => ledger.unknown_pair(self.side, snapshot).request(end),
        }
        if let Some(log) = self.log {
            ledger.access_log.write(access_log::request_line(self.side, &log, &end));
        }
    }
}

/// Kind of a request by its content type: gRPC is `application/grpc` and its subtypes over HTTP/2 (gRPC over HTTP/2,
/// Requests); gRPC-Web is a protocol of its own.
fn form(headers: &HeaderMap, version: Version) -> Form {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return Form::Http };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return Form::Http };
    match rest.first() {
        None | Some(b'+' | b';' | b' ') if matches!(version, Version::HTTP_2 | Version::HTTP_3) => Form::Grpc,
        Some(b'-') if rest.starts_with(b"-web") => Form::GrpcWeb,
        _ => Form::Http,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_grpc_over_http2_is_grpc() {
        let check = |value: &'static str, version, expect| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(form(&headers, version), expect, "{value} {version:?}");
        };
        check("application/grpc", Version::HTTP_2, Form::Grpc);
        check("application/grpc+proto", Version::HTTP_2, Form::Grpc);
        check("application/grpc;x=1", Version::HTTP_3, Form::Grpc);
        check("application/grpc", Version::HTTP_11, Form::Http);
        check("application/grpc-web", Version::HTTP_11, Form::GrpcWeb);
        check("application/grpc-web-text+proto", Version::HTTP_2, Form::GrpcWeb);
        check("application/grpcish", Version::HTTP_2, Form::Http);
        check("text/plain", Version::HTTP_2, Form::Http);
    }
}
