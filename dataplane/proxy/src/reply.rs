//! Answers that the proxy makes itself. One `match` turns what failed into status, response flag and stage, so that the
//! client, the access log, the metrics and a meshed peer read the same story: side, stage, rule, reason.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weft_filter_host::{Answering, Cut, ReplyCause};
use weft_policy::bundle::{RequestRefusal, RouteName, TunnelRefusal};
use weft_policy::route::{EgressRefusal, RouteRefusal};
use weft_policy::scope::Ask;
use weft_policy::text::printable;
use weft_transport::http::{ResponseHead, StreamError};
use weft_transport::mesh::Code;

use crate::gate::GateFull;
use crate::shares::Full;
use crate::stalls::Stalled;

/// The header that explains a local reply to a meshed peer: `side;stage;rule;reason`.
pub const WEFT_REPLY: HeaderName = HeaderName::from_static("weft-reply");

/// On a peer's answer in its own name: nobody has seen the request, so that it may be sent to another endpoint.
pub const WEFT_UNSERVED: HeaderName = HeaderName::from_static("weft-unserved");

/// Which proxy of the pair answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Outbound,
    Inbound,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Outbound => "outbound",
            Side::Inbound => "inbound",
        }
    }
}

/// The form in which a client expects an answer of the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Http,
    /// gRPC over HTTP/2: status 200 and trailers only.
    Grpc,
    /// gRPC-Web: the same in header fields, under its own content type.
    GrpcWeb,
}

/// Party that should have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    App,
    Peer,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Party::App => "the app",
            Party::Peer => "the peer",
        })
    }
}

/// Why an address is not one that a client may name: it would mean another place here than at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOutside {
    Unspecified,
    Multicast,
    LinkLocal,
    /// Loopback, named by a client on another host.
    ForeignLoopback,
    /// Loopback, to which a name of an ExternalService led.
    LoopbackByName,
    /// Loopback, to which a route led by an ExternalService that the caller's namespace does not see.
    LoopbackByRoute,
    /// A socket of a workload of the mesh, under a name that is not its service's.
    Workload,
    /// Where clouds tell machines their credentials, and no ExternalService names it.
    Metadata,
}

impl fmt::Display for NotOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotOutside::Unspecified => "an unspecified address",
            NotOutside::Multicast => "a multicast or broadcast address",
            NotOutside::LinkLocal => "a link-local address",
            NotOutside::ForeignLoopback => "this host's loopback, and the client is on another",
            NotOutside::LoopbackByName => "this host's loopback, to which a name outside led",
            NotOutside::LoopbackByRoute => "this host's loopback, to which another namespace's ExternalService led",
            NotOutside::Workload => "a workload of the mesh, to be named by its service or its address",
            NotOutside::Metadata => {
                "where a cloud tells its machines secrets, to be named by an ExternalService's endpoints"
            }
        })
    }
}

/// Envoy's response flags, as far as Weft can mean them, and the two that ztunnel added for TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    None,
    /// No route matched.
    NoRoute,
    /// The destination is not held yet.
    NoCluster,
    /// No healthy endpoint.
    NoHealthyUpstream,
    /// Connection to the peer or app failed.
    UpstreamFailure,
    /// Connection ended while the answer was awaited or streamed.
    UpstreamTermination,
    /// The other side reset the stream.
    UpstreamReset,
    /// The request's deadline passed.
    Timeout,
    /// The client went away.
    Downstream,
    /// Denied by authorization.
    Unauthorized,
    /// Limited.
    RateLimited,
    /// An injected abort.
    FaultInjected,
    /// The client broke the protocol.
    DownstreamProtocol,
    /// The peer or app broke the protocol.
    UpstreamProtocol,
    /// A TCP connection denied by authorization.
    Deny,
    /// All that the app takes at once was in use.
    UpstreamOverflow,
    /// Reset to keep the budget of what stalled streams hold.
    Overload,
    /// Nothing moved on a tunnel for the idle timeout.
    StreamIdle,
}

impl Flag {
    /// Letters that stand in `response_flags`.
    pub fn letters(self) -> &'static str {
        match self {
            Flag::None => "-",
            Flag::NoRoute => "NR",
            Flag::NoCluster => "NC",
            Flag::NoHealthyUpstream => "UH",
            Flag::UpstreamFailure => "UF",
            Flag::UpstreamTermination => "UC",
            Flag::UpstreamReset => "UR",
            Flag::Timeout => "UT",
            Flag::Downstream => "DC",
            Flag::Unauthorized => "UAEX",
            Flag::RateLimited => "RL",
            Flag::FaultInjected => "FI",
            Flag::DownstreamProtocol => "DPE",
            Flag::UpstreamProtocol => "UPE",
            Flag::Deny => "DENY",
            Flag::UpstreamOverflow => "UO",
            Flag::Overload => "OM",
            Flag::StreamIdle => "SI",
        }
    }
}

/// Cause that kept the application from answering a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error("the request has no Host or :authority")]
    NoAuthority,
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    #[error("{0}")]
    Route(Box<RouteRefusal>),
    #[error("{to}: {refusal}")]
    Egress { to: String, refusal: EgressRefusal },
    #[error("{service} has no endpoints")]
    NoEndpoints { service: String },
    #[error("{service} takes no more of this proxy: {full}")]
    DestinationFull { service: String, full: GateFull },
    #[error("this proxy has no configuration yet")]
    NotReady,
    #[error("{ask} is not held yet: {why}")]
    NotHeld { ask: Box<Ask>, why: &'static str },
    #[error("cannot connect to peer {address}: {reason}")]
    PeerConnect { address: String, reason: String },
    #[error("cannot connect to the app at {address}: {reason}")]
    AppConnect { address: String, reason: String },
    #[error("no free stream to {address} within {wait_ms} ms on {connections} connections")]
    AppSaturated { address: String, wait_ms: u128, connections: usize },
    #[error("this app may send nothing: {0}")]
    OutboundClosed(String),
    #[error("no further connection to {address}: {full}")]
    ConnectionsUsedUp { address: String, full: Full },
    #[error("{0}")]
    Stalled(Stalled),
    #[error("cannot reach {address} outside the mesh: {reason}")]
    Passthrough { address: String, reason: String },
    #[error("no TLS with {address} outside the mesh: {reason}")]
    OutsideTls { address: String, reason: String },
    #[error("{to} did not take the request: {error}")]
    Unprocessed { to: Party, error: StreamError },
    #[error("{to} ended before it answered: {error}")]
    NoAnswer { to: Party, error: StreamError },
    /// This side's app provably did not see the request.
    #[error("{0}")]
    Unserved(Box<Failure>),
    #[error("the peer's app did not see the request: {told}")]
    PeerUnserved { told: String },
    #[error("an answer of {0} was to be followed by another attempt")]
    AnswerDiscarded(StatusCode),
    #[error("the client left")]
    ClientGone,
    #[error("the peer refused the tunnel with {status}: {told}")]
    TunnelRefused { status: StatusCode, told: String },
    #[error("no answer within {0} ms")]
    Timeout(u64),
    #[error("no answer within the {0} ms that its caller waits")]
    CallerDeadline(u64),
    #[error("nothing is left of the time that its caller waits: it was not sent")]
    NoTimeLeft,
    #[error("{0} is not a socket of a workload that this proxy serves")]
    NotServed(String),
    #[error("method CONNECT is not for {0}")]
    ConnectRefused(String),
    #[error("{address} is {why}: it can't be reached through the proxy")]
    NotOutside { address: SocketAddr, why: NotOutside },
    #[error("{0}")]
    TunnelForbidden(TunnelRefusal),
    #[error("{0}")]
    RequestForbidden(RequestRefusal),
    #[error("{0}")]
    NotImplemented(Cow<'static, str>),
    #[error("a policy that took effect since denies this: {0}")]
    NoLongerAllowed(String),
    #[error("Max-Forwards is 0: this hop answers")]
    LastHop,
    #[error("Max-Forwards is 0: this hop would have to answer, and echoes no request")]
    NoTrace,
    #[error("a loop: the request came back to the proxy that sent it")]
    Loop,
    #[error("{}", .0.reason)]
    Filter(Box<FilterReply>),
    #[error("filter {} ended the stream: {}", .0.filter, .0.reason)]
    FilterCut(Box<Cut>),
    #[error("the service was not asked, its proxy answered {status}: {told}")]
    CalloutRefused { status: StatusCode, told: String },
    #[error("it says that it is a filter's question to a service, and a filter would ask a service about it")]
    CalloutAsks,
    #[error("no room to gather a body for a filter")]
    FilterBodies,
    #[error("the body that a filter judges was not there within {0} ms")]
    FilterBodyLate(u64),
    #[error("a filter of the rule that the request took changed its path or authority")]
    FilterRerouted,
    #[error("filter {filter}, which the rule that the request took can't do without, is not ready")]
    RuleClosed { filter: String },
}

/// A filter's own answer.
#[derive(Debug, Clone)]
pub struct FilterReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub filter: Arc<str>,
    pub cause: ReplyCause,
    pub rule: Option<String>,
    pub reason: String,
    /// Who of its chain has more of it.
    pub more: Option<Answering>,
}

/// Meaning of one failure, the same everywhere it is told.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    pub status: StatusCode,
    pub flag: Flag,
    pub stage: &'static str,
    /// A short constant, for metrics.
    pub reason: &'static str,
    /// gRPC's number for it.
    pub grpc: u16,
}

/// As nginx and Envoy log a client that did not wait.
const CLIENT_CLOSED: u16 = 499;

impl Failure {
    /// The one place where failures become statuses, flags and labels.
    pub fn verdict(&self) -> Verdict {
        let verdict = |status, flag, stage, reason, grpc| Verdict { status, flag, stage, reason, grpc };
        let unavailable = |flag, stage, reason| verdict(StatusCode::SERVICE_UNAVAILABLE, flag, stage, reason, 14);
        let not_connected = |reason| unavailable(Flag::UpstreamFailure, "connect", reason);
        let bad_gateway = |reason| verdict(StatusCode::BAD_GATEWAY, Flag::UpstreamFailure, "connect", reason, 14);
        let malformed = |reason| verdict(StatusCode::BAD_REQUEST, Flag::DownstreamProtocol, "parse", reason, 3);
        match self {
            Failure::NoAuthority => malformed("no_authority"),
            Failure::BadRequest(_) => malformed("bad_request"),
            Failure::Route(refusal) => route_verdict(refusal),
            Failure::Egress { refusal, .. } => egress_verdict(*refusal),
            Failure::NoEndpoints { .. } => unavailable(Flag::NoHealthyUpstream, "balance", "no_endpoints"),
            Failure::DestinationFull { full, .. } => unavailable(Flag::UpstreamOverflow, "balance", full.reason()),
            Failure::NotReady => unavailable(Flag::NoRoute, "route", "not_ready"),
            Failure::NotHeld { .. } => unavailable(Flag::NoCluster, "route", "not_held"),
            Failure::PeerConnect { .. } => not_connected("peer_connect"),
            Failure::AppConnect { .. } => not_connected("app_connect"),
            Failure::AppSaturated { .. } => unavailable(Flag::UpstreamOverflow, "connect", "app_saturated"),
            Failure::OutboundClosed(_) => unavailable(Flag::NoRoute, "filter", "outbound_closed"),
            Failure::ConnectionsUsedUp { full, .. } => unavailable(Flag::UpstreamOverflow, "connect", full.reason()),
            Failure::Stalled(_) => verdict(StatusCode::SERVICE_UNAVAILABLE, Flag::Overload, "relay", "stalled", 8),
            Failure::Passthrough { .. } => bad_gateway("passthrough"),
            Failure::OutsideTls { .. } => bad_gateway("outside_tls"),
            Failure::Unprocessed { error, .. } => unprocessed(error),
            Failure::NoAnswer { error, .. } => no_answer(error),
            Failure::Unserved(failure) => failure.verdict(),
            Failure::PeerUnserved { .. } => not_connected("peer_unserved"),
            Failure::AnswerDiscarded(_) => not_connected("answer_discarded"),
            Failure::ClientGone => verdict(status(CLIENT_CLOSED), Flag::Downstream, "request", "client_gone", 1),
            Failure::TunnelRefused { status, .. } => {
                let flag = if *status == StatusCode::FORBIDDEN { Flag::Deny } else { Flag::UpstreamFailure };
                verdict(*status, flag, "connect", "tunnel_refused", grpc_of_http(*status))
            }
            Failure::Timeout(_) | Failure::CallerDeadline(_) | Failure::NoTimeLeft => late(self),
            Failure::NotServed(_) => verdict(StatusCode::BAD_REQUEST, Flag::NoRoute, "route", "not_served", 7),
            Failure::ConnectRefused(_) => {
                verdict(StatusCode::BAD_REQUEST, Flag::NoRoute, "route", "connect_refused", 7)
            }
            Failure::NotOutside { .. } => verdict(StatusCode::FORBIDDEN, Flag::NoRoute, "route", "not_outside", 7),
            Failure::TunnelForbidden(TunnelRefusal::Request { .. } | TunnelRefusal::Upgraded) => {
                verdict(StatusCode::BAD_REQUEST, Flag::DownstreamProtocol, "route", "request_in_tunnel", 3)
            }
            Failure::TunnelForbidden(_) | Failure::RequestForbidden(_) => {
                verdict(StatusCode::BAD_REQUEST, Flag::NoRoute, "route", "declared_protocol", 3)
            }
            Failure::NotImplemented(_) => {
                verdict(StatusCode::NOT_IMPLEMENTED, Flag::DownstreamProtocol, "parse", "not_implemented", 12)
            }
            Failure::NoLongerAllowed(_) => {
                verdict(StatusCode::FORBIDDEN, Flag::Unauthorized, "filter", "no_longer_allowed", 7)
            }
            //= rfc9110#section-7.6.2
            Failure::LastHop => verdict(StatusCode::OK, Flag::None, "route", "max_forwards", 0),
            // An echo would give scripts the credentials that a browser keeps from them.
            Failure::NoTrace => verdict(StatusCode::NOT_IMPLEMENTED, Flag::None, "route", "max_forwards", 12),
            Failure::Loop => verdict(StatusCode::LOOP_DETECTED, Flag::NoRoute, "route", "loop", 7),
            Failure::Filter(reply) => filter_verdict(reply),
            Failure::FilterCut(cut) => cut_verdict(cut),
            Failure::CalloutRefused { status, .. } => {
                verdict(*status, Flag::UpstreamFailure, "connect", "callout_refused", grpc_of_http(*status))
            }
            Failure::CalloutAsks => unavailable(Flag::None, "filter", "callout_asks"),
            Failure::FilterBodies => {
                verdict(StatusCode::SERVICE_UNAVAILABLE, Flag::Overload, "filter", "filter_body_budget", 8)
            }
            Failure::FilterBodyLate(_) => {
                verdict(StatusCode::REQUEST_TIMEOUT, Flag::DownstreamProtocol, "filter", "filter_body_late", 4)
            }
            Failure::FilterRerouted => unavailable(Flag::None, "filter", "filter_rerouted"),
            Failure::RuleClosed { .. } => unavailable(Flag::None, "filter", "filter_not_ready"),
        }
    }

    /// The code with which the other side, or a filter, reset the request's stream: a client that has streams is told by a
    /// reset, too.
    pub fn reset_code(&self) -> Option<u64> {
        if self.is_filters_reset() {
            return Some(Code::REQUEST_CANCELLED);
        }
        let Failure::NoAnswer { error: StreamError::Reset(code), .. } = self else { return None };
        Some(*code)
    }

    /// True where a filter wants the stream reset. One that fails in its middle does not: that is answered where it can be.
    pub fn is_filters_reset(&self) -> bool {
        matches!(self, Failure::FilterCut(cut) if cut.cause != ReplyCause::Failed)
    }

    /// True where the other side itself did not take the request; not where it could not even be written.
    pub fn is_refusal(&self) -> bool {
        let Failure::Unprocessed { error, .. } = self else { return false };
        matches!(error, StreamError::Reset(_) | StreamError::ConnectionLost(_))
    }

    /// True where an endpoint's proxy says that its app did not see the request.
    pub fn is_unserved(&self) -> bool {
        matches!(self, Failure::PeerUnserved { .. })
    }

    /// True where a filter failed in place of deciding.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Failure::Filter(reply) if reply.cause == ReplyCause::Failed)
            || matches!(self, Failure::FilterCut(cut) if cut.cause == ReplyCause::Failed)
    }

    /// True where no connection could be made to an endpoint, so that not a byte was sent.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Failure::PeerConnect { .. }
                | Failure::AppConnect { .. }
                | Failure::Passthrough { .. }
                | Failure::OutsideTls { .. }
        )
    }

    /// The rule that decided, where one did.
    pub fn rule(&self) -> Option<Cow<'_, str>> {
        if let Failure::Filter(reply) = self {
            return Some(Cow::Borrowed(reply.rule.as_deref().unwrap_or(&reply.filter)));
        }
        if let Failure::FilterCut(cut) = self {
            return Some(Cow::Borrowed(&cut.filter));
        }
        if let Failure::RuleClosed { filter } = self {
            return Some(Cow::Borrowed(filter));
        }
        if let Failure::Route(refusal) = self {
            return refusal.route().map(|route| Cow::Owned(RouteName::of(route).to_string()));
        }
        None
    }

    /// The reply as a message: head and body.
    pub fn reply(&self, side: Side, form: Form, to_peer: bool) -> (ResponseHead, Bytes) {
        let verdict = self.verdict();
        let (mut headers, mut own_body) = if let Failure::Filter(reply) = self {
            (reply.headers.clone(), Some(reply.body.clone()))
        } else {
            (HeaderMap::new(), None)
        };
        if form == Form::Http
            && let Failure::Route(refusal) = self
        {
            own_body = answer_of_route(refusal, &mut headers);
        }
        if to_peer {
            headers.insert(WEFT_REPLY, self.weft_reply(side, &verdict));
            if let Failure::Unserved(_) = self {
                headers.insert(WEFT_UNSERVED, HeaderValue::from_static("1"));
            }
        }
        if form != Form::Http {
            let kind = if form == Form::Grpc { "application/grpc" } else { "application/grpc-web+proto" };
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert("grpc-status", HeaderValue::from(verdict.grpc));
            headers.insert("grpc-message", percent_encode(&self.sentence(side, &verdict)));
            return (ResponseHead { status: StatusCode::OK, headers }, Bytes::new());
        }
        let body = match own_body {
            Some(body) => body,
            None => Bytes::from(format!("{}\n", self.sentence(side, &verdict))),
        };
        if !headers.contains_key(http::header::CONTENT_TYPE) && !body.is_empty() {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        let has_more = matches!(self, Failure::Filter(reply) if reply.more.is_some());
        if !has_more {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        (ResponseHead { status: verdict.status, headers }, body)
    }

    fn sentence(&self, side: Side, verdict: &Verdict) -> String {
        // A peer's reason for closing, for one, is the peer's text.
        let told = self.to_string();
        format!("weft {} {}: {}", side.as_str(), verdict.stage, printable(&told))
    }

    fn weft_reply(&self, side: Side, verdict: &Verdict) -> HeaderValue {
        let rule = self.rule().unwrap_or(Cow::Borrowed("-"));
        let text = format!("{};{};{rule};{self}", side.as_str(), verdict.stage);
        let clean: String = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        HeaderValue::try_from(clean).unwrap_or_else(|_| HeaderValue::from_static("-;-;-;-"))
    }
}

/// Puts what a rule of a route answers into the header, and gives the body that is not a sentence.
fn answer_of_route(refusal: &RouteRefusal, headers: &mut HeaderMap) -> Option<Bytes> {
    match refusal {
        RouteRefusal::Redirect { location, .. } => {
            headers.extend(HeaderValue::try_from(location.as_str()).ok().map(|to| (http::header::LOCATION, to)));
            None
        }
        RouteRefusal::Preflight { preflight, .. } => {
            let allowed = preflight.allowed.as_ref()?;
            headers.extend(allowed.clone());
            Some(Bytes::new())
        }
        RouteRefusal::NoRuleMatched { .. }
        | RouteRefusal::NoStreamMatched { .. }
        | RouteRefusal::NoBackend { .. }
        | RouteRefusal::BackendNotFound { .. }
        | RouteRefusal::NoSuchPort { .. }
        | RouteRefusal::AmbiguousPath { .. }
        | RouteRefusal::AmbiguousQuery { .. }
        | RouteRefusal::AmbiguousHead { .. }
        | RouteRefusal::Rewrite { .. }
        | RouteRefusal::TooManyReadings(_) => None,
    }
}

fn unprocessed(error: &StreamError) -> Verdict {
    let (flag, stage, reason) = match matches!(error, StreamError::Busy(_)) {
        true => (Flag::UpstreamOverflow, "connect", "peer_saturated"),
        false => (Flag::UpstreamFailure, "request", "refused"),
    };
    Verdict { status: StatusCode::SERVICE_UNAVAILABLE, flag, stage, reason, grpc: 14 }
}

fn no_answer(error: &StreamError) -> Verdict {
    let (status, flag, reason) = match error {
        StreamError::Reset(_) => (StatusCode::BAD_GATEWAY, Flag::UpstreamReset, "reset"),
        StreamError::ConnectionLost(_) | StreamError::Truncated => {
            (StatusCode::BAD_GATEWAY, Flag::UpstreamTermination, "connection_lost")
        }
        StreamError::Protocol(_) => (StatusCode::BAD_GATEWAY, Flag::UpstreamProtocol, "protocol"),
        StreamError::Limit(_) => (StatusCode::BAD_GATEWAY, Flag::UpstreamProtocol, "limit"),
        StreamError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamOverflow, "peer_saturated"),
    };
    Verdict { status, flag, stage: "response", reason, grpc: 14 }
}

/// Of a request whose time is over.
fn late(failure: &Failure) -> Verdict {
    let (stage, reason) = if let Failure::NoTimeLeft = failure {
        ("request", "no_time_left")
    } else if let Failure::CallerDeadline(_) = failure {
        ("response", "caller_deadline")
    } else {
        ("response", "timeout")
    };
    Verdict { status: StatusCode::GATEWAY_TIMEOUT, flag: Flag::Timeout, stage, reason, grpc: 4 }
}

fn route_verdict(refusal: &RouteRefusal) -> Verdict {
    let (flag, reason, grpc) = match refusal {
        RouteRefusal::NoRuleMatched { .. } => (Flag::NoRoute, "no_rule_matched", 12),
        RouteRefusal::NoStreamMatched { .. } => (Flag::NoRoute, "no_stream_matched", 12),
        RouteRefusal::NoBackend { .. } => (Flag::NoRoute, "no_backend", 14),
        RouteRefusal::BackendNotFound { .. } => (Flag::NoRoute, "backend_not_found", 14),
        RouteRefusal::NoSuchPort { .. } => (Flag::NoRoute, "no_such_port", 12),
        RouteRefusal::AmbiguousPath { .. } | RouteRefusal::TooManyReadings(_) => {
            (Flag::DownstreamProtocol, "ambiguous_path", 3)
        }
        RouteRefusal::AmbiguousQuery { .. } => (Flag::DownstreamProtocol, "ambiguous_query", 3),
        RouteRefusal::AmbiguousHead { .. } => (Flag::DownstreamProtocol, "ambiguous_head", 3),
        RouteRefusal::Redirect { .. } => (Flag::None, "redirect", 12),
        RouteRefusal::Preflight { preflight, .. } if preflight.allowed.is_some() => (Flag::None, "preflight", 12),
        RouteRefusal::Preflight { .. } => (Flag::None, "origin_not_allowed", 7),
        RouteRefusal::Rewrite { .. } => (Flag::NoRoute, "not_rewritten", 13),
    };
    Verdict { status: status(refusal.status()), flag, stage: "route", reason, grpc }
}

fn egress_verdict(refusal: EgressRefusal) -> Verdict {
    let (flag, stage, reason, grpc) = match refusal {
        EgressRefusal::NoAuthority => (Flag::DownstreamProtocol, "parse", "no_authority", 3),
        EgressRefusal::NoSuchService => (Flag::NoRoute, "route", "no_such_service", 14),
        EgressRefusal::RegistryOnly => (Flag::NoRoute, "route", "egress_registry_only", 7),
        EgressRefusal::OtherHost => (Flag::NoRoute, "route", "egress_other_host", 3),
    };
    Verdict { status: status(refusal.status()), flag, stage, reason, grpc }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn filter_verdict(reply: &FilterReply) -> Verdict {
    let (flag, reason) = match reply.status {
        _ if reply.cause == ReplyCause::Denied => (Flag::Unauthorized, "authorization"),
        StatusCode::TOO_MANY_REQUESTS => (Flag::RateLimited, "rate_limited"),
        _ if reply.reason.starts_with("fault") => (Flag::FaultInjected, "fault"),
        _ => (Flag::None, "filter"),
    };
    let grpc = own_grpc(reply).unwrap_or_else(|| grpc_of_http(reply.status));
    Verdict { status: reply.status, flag, stage: "filter", reason, grpc }
}

/// The status of gRPC that a filter gives itself: clients of gRPC are told that in the place of what HTTP's means.
fn own_grpc(reply: &FilterReply) -> Option<u16> {
    let named: u16 = reply.headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    (named <= HIGHEST_GRPC).then_some(named)
}

/// UNAUTHENTICATED, the last of them.
const HIGHEST_GRPC: u16 = 16;

fn cut_verdict(cut: &Cut) -> Verdict {
    let (status, flag, reason, grpc) = match cut.cause {
        ReplyCause::Denied => (StatusCode::FORBIDDEN, Flag::Unauthorized, "filter_reset", 7),
        ReplyCause::Filter => (StatusCode::SERVICE_UNAVAILABLE, Flag::None, "filter_reset", 14),
        ReplyCause::Failed => (StatusCode::SERVICE_UNAVAILABLE, Flag::None, "filter_failed", 14),
    };
    Verdict { status, flag, stage: "filter", reason, grpc }
}

/// gRPC's mapping of HTTP statuses (grpc/doc/http-grpc-status-mapping.md), with 429 as RESOURCE_EXHAUSTED.
fn grpc_of_http(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 => 8,
        502..=504 => 14,
        _ => 2,
    }
}

/// The reason that a peer's proxy gives for an answer of its own.
pub fn told(headers: &HeaderMap) -> &str {
    headers.get(WEFT_REPLY).and_then(|value| value.to_str().ok()).unwrap_or("no reason given")
}

/// `grpc-message` is percent-encoded outside printable ASCII (gRPC over HTTP/2, Responses).
pub fn percent_encode(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("percent-encoded text is printable ASCII")
}
