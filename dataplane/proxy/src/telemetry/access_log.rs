//! The JSON access log: one line per request or connection, one schema (keys as in Istio's JSON log, plus Weft's side,
//! stage, rule and reason). Lines go to standard output or a file from a thread of their own; a slow reader or a
//! full disk costs lines, counted, never latency.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_transport::http::{Refused, RequestHead, Target};

pub use super::line_writer::LineWriter as AccessLog;
use super::line_writer::{Output, Room};
use super::series::RequestEnd;
use crate::reply::{Failure, Flag, Side};

/// Starts the writer: to `file`, else to standard output.
///
/// # Errors
/// The file can't be opened.
pub fn start(file: Option<PathBuf>, room: Room) -> std::io::Result<AccessLog> {
    AccessLog::start("access-log", file.map_or(Output::Standard, Output::File), room)
}

/// Fields of a request that only the access log needs.
pub struct Logged {
    /// Address that the request came from.
    pub client: Option<SocketAddr>,
    pub method: Method,
    pub path: Option<Target>,
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
    /// The code, as in `weft_local_replies_total`.
    pub reason: Option<&'static str>,
    /// The same as a sentence.
    pub message: Option<String>,
    /// A copy of a request, which a route mirrors.
    pub mirrored: bool,
    /// Another attempt was made beside one that was slow.
    pub hedged: bool,
    /// Tries, those that could not be connected among them.
    pub attempts: u32,
    /// A further one was wanted and refused by the retry budget or a limit.
    pub retry_refused: bool,
    /// What filters have noted of it, by name.
    pub attributes: Vec<(String, String)>,
}

impl Logged {
    pub fn of(head: &RequestHead) -> Self {
        let header = |name: &str| head.headers.get(name).cloned();
        Self {
            client: None,
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
            message: None,
            mirrored: false,
            hedged: false,
            attempts: 0,
            retry_refused: false,
            attributes: Vec::new(),
        }
    }

    /// Notes one more try.
    pub fn tried(&mut self, retry_refused: bool) {
        self.attempts += 1;
        self.retry_refused = retry_refused;
    }

    /// Notes what failed, by its code and in words.
    pub fn failed(&mut self, failure: &Failure) {
        self.reason = Some(failure.verdict().reason);
        self.message = Some(failure.to_string());
    }
}

/// The line of a finished request.
pub fn request_line(side: Side, log: &Logged, end: &RequestEnd) -> String {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            line.insert(key.to_owned(), value);
        }
    };
    put("start_time", json!(start_time(end.duration)));
    put("side", json!(side.as_str()));
    put("downstream_remote_address", json!(log.client));
    put("method", json!(log.method.as_str()));
    put("path", json!(log.path.as_ref().map(ToString::to_string)));
    put("authority", json!(log.authority.as_ref().map(|authority| authority.as_str())));
    put("protocol", json!(protocol(log.version)));
    put("response_code", json!(end.code));
    put("grpc_status", json!(end.grpc_status));
    put("response_flags", json!(end.flag.letters()));
    put("bytes_received", json!(end.request_bytes));
    put("bytes_sent", json!(end.response_bytes));
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a request fit 53 bits")]
    put("duration", json!(end.duration.as_micros() as f64 / 1_000.0));
    put("route_name", json!(log.route));
    put("upstream_host", json!(log.upstream));
    put("source_principal", json!(log.source));
    put("destination_principal", json!(log.destination));
    put("user_agent", text(log.user_agent.as_ref()));
    put("request_id", text(log.request_id.as_ref()));
    put("traceparent", text(log.traceparent.as_ref()));
    put("stage", json!(log.stage));
    put("rule", json!(log.rule));
    put("reason", json!(log.reason));
    put("message", json!(log.message));
    put("mirrored", json!(log.mirrored.then_some(true)));
    put("hedged", json!(log.hedged.then_some(true)));
    put("attempts", json!((log.attempts > 1).then_some(log.attempts)));
    put("retry_refused", json!(log.retry_refused.then_some(true)));
    if !log.attributes.is_empty() {
        let attributes = log.attributes.iter().map(|(name, value)| (name.clone(), json!(value)));
        put("filter_attributes", Value::Object(attributes.collect()));
    }
    Value::Object(line).to_string()
}

/// Fields of the line for a TCP connection.
#[derive(Debug)]
pub struct Connection<'a> {
    pub side: Side,
    pub client: SocketAddr,
    pub duration: Duration,
    pub authority: &'a str,
    pub upstream: Option<&'a str>,
    pub flags: &'a str,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub source: Option<&'a str>,
    pub destination: Option<&'a str>,
    pub stage: Option<&'a str>,
    pub rule: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub message: Option<&'a str>,
}

/// The line of a finished TCP connection.
pub fn connection_line(connection: &Connection<'_>) -> String {
    json!({
        "start_time": start_time(connection.duration),
        "side": connection.side.as_str(),
        "downstream_remote_address": connection.client,
        "protocol": "TCP",
        "authority": connection.authority,
        "upstream_host": connection.upstream,
        "response_flags": connection.flags,
        "bytes_received": connection.bytes_received,
        "bytes_sent": connection.bytes_sent,
        "duration": connection.duration.as_secs_f64() * 1_000.0,
        "source_principal": connection.source,
        "destination_principal": connection.destination,
        "stage": connection.stage,
        "rule": connection.rule,
        "reason": connection.reason,
        "message": connection.message,
    })
    .to_string()
}

/// The line of a request that a codec refused: of what it asked for nothing is known for sure.
pub fn refused_line(
    side: Side,
    client: SocketAddr,
    source: Option<&str>,
    version: Version,
    refused: &Refused,
) -> String {
    json!({
        "start_time": start_time(Duration::ZERO),
        "side": side.as_str(),
        "downstream_remote_address": client,
        "protocol": protocol(version),
        "response_code": refused.status.map_or(0, |status| status.as_u16()),
        "response_flags": Flag::DownstreamProtocol.letters(),
        "source_principal": source,
        "stage": "parse",
        "reason": refused.refusal.as_str(),
        "message": refused.reason,
    })
    .to_string()
}

fn start_time(duration: Duration) -> String {
    OffsetDateTime::from(SystemTime::now() - duration).format(&Rfc3339).unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn text(value: Option<&HeaderValue>) -> Value {
    value.map_or(Value::Null, |value| Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()))
}
