//! The account of one request: opened with its head, filled in as it walks the path, closed once, into metrics and the
//! access log.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use weft_transport::http::{RequestHead, Responder};

use crate::relay::{self, ExchangeError, Progress};
use crate::reply::{Failure, Flag, Side};
use crate::telemetry::access_log;
use crate::telemetry::series::{PairMetrics, RequestEnd};
use crate::worker::Worker;

/// What is known of a request so far.
pub struct Record {
    pub side: Side,
    start: Instant,
    pub grpc: bool,
    pub sent: Progress,
    pub received: Progress,
    pub code: u16,
    pub flag: Flag,
    /// Where it went; unknown until a destination was found.
    pub metrics: Option<Rc<PairMetrics>>,
    /// Set only while the access log is on.
    log: Option<Box<Logged>>,
}

/// What only the access log wants.
pub struct Logged {
    pub method: Method,
    pub path: Option<PathAndQuery>,
    pub authority: Option<Authority>,
    pub version: Version,
    pub user_agent: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
    pub traceparent: Option<HeaderValue>,
    pub route: Option<String>,
    pub upstream: Option<String>,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub stage: Option<&'static str>,
    pub rule: Option<String>,
    pub reason: Option<String>,
}

impl Record {
    pub fn open(side: Side, head: &RequestHead, access_log: bool) -> Self {
        Self {
            side,
            start: Instant::now(),
            grpc: is_grpc(&head.headers),
            sent: Progress::default(),
            received: Progress::default(),
            code: 0,
            flag: Flag::None,
            metrics: None,
            log: access_log.then(|| Box::new(Logged::of(head))),
        }
    }

    pub fn start(&self) -> Instant {
        self.start
    }

    /// Runs `fill` only where the access log is on.
    pub fn log(&mut self, fill: impl FnOnce(&mut Logged)) {
        if let Some(log) = &mut self.log {
            fill(log);
        }
    }

    /// Notes the head that the client is sent.
    pub fn answered(&mut self, status: StatusCode) {
        self.code = status.as_u16();
    }

    /// Answers the client in the proxy's own name, where it has not been answered yet.
    pub async fn reply(&mut self, worker: &Worker, failure: &Failure, responder: &mut Option<Responder<'_>>) {
        let verdict = failure.verdict();
        self.flag = verdict.flag;
        self.log(|log| {
            log.stage = Some(verdict.stage);
            log.rule = failure.rule().map(Cow::into_owned);
            log.reason = Some(failure.to_string());
        });
        worker.local_reply(self.side, &verdict);
        let Some(responder) = responder.take() else { return };
        let (head, body) = failure.reply(self.side, self.grpc, self.side == Side::Inbound);
        self.answered(head.status);
        self.received.grpc_status.set(relay::grpc_status(&head.headers));
        self.received.bytes.set(body.len() as u64);
        let end = body.is_empty();
        match responder.head(&head, end).await {
            Ok(sink) if !end => {
                if relay::send_all(sink, body).await.is_err() {
                    self.flag = Flag::Downstream;
                }
            }
            Ok(_) => {}
            Err(_) => self.flag = Flag::Downstream,
        }
    }

    /// Notes an exchange that failed after its head was sent, or whose client left. Gives back what can still be answered.
    pub fn ended(&mut self, error: ExchangeError, to: &'static str) -> Option<(Failure, bool)> {
        match error {
            ExchangeError::Unanswered { error, unprocessed: true } => Some((Failure::Unprocessed { to, error }, true)),
            ExchangeError::Unanswered { error, unprocessed: false } => Some((Failure::NoAnswer { to, error }, false)),
            ExchangeError::Broken(error) => {
                let failure = Failure::NoAnswer { to, error };
                self.flag = failure.verdict().flag;
                self.log(|log| log.reason = Some(failure.to_string()));
                None
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
    pub fn close(self, worker: &Worker) {
        let duration = self.start.elapsed();
        let end = RequestEnd {
            code: self.code,
            grpc: self.grpc,
            grpc_status: if self.grpc { self.received.grpc_status.get() } else { None },
            flag: self.flag,
            duration,
            request_bytes: self.sent.bytes.get(),
            response_bytes: self.received.bytes.get(),
        };
        match &self.metrics {
            Some(metrics) => metrics.request(end),
            None => worker.unknown_pair(self.side).request(end),
        }
        if let Some(log) = self.log {
            worker.access_log.write(access_log::request_line(self.side, &log, &end));
        }
    }
}

impl Logged {
    fn of(head: &RequestHead) -> Self {
        let header = |name: &str| head.headers.get(name).cloned();
        Self {
            method: head.method.clone(),
            path: head.path.clone(),
            authority: head.authority.clone(),
            version: head.version,
            user_agent: header("user-agent"),
            request_id: header("x-request-id"),
            traceparent: header("traceparent"),
            route: None,
            upstream: None,
            source: None,
            destination: None,
            stage: None,
            rule: None,
            reason: None,
        }
    }
}

/// True for `application/grpc` and its subtypes (gRPC over HTTP/2, Requests).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
