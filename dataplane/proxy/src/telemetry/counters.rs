//! Counters of rare events that belong to no pair of workloads. Those of the request path are resolved once; the rest are
//! looked up by their labels as they happen.

use weft_transport::detect::Detected;
use weft_transport::http::{Refusal, Refused};
use weft_transport::mesh::Breach;
use weft_transport::tls::HandshakeFailure;

use super::names::Metric;
use crate::reply::{Side, Verdict};

/// Counters resolved once.
#[derive(Clone)]
pub struct Counters {
    pub misdirected: metrics::Counter,
    pub plaintext_refused: metrics::Counter,
    pub passthrough: metrics::Counter,
    pub retries: metrics::Counter,
    pub retries_refused: metrics::Counter,
    pub connections_refused: metrics::Counter,
    detected: [metrics::Counter; 5],
}

const DETECTED: [&str; 5] = ["none", "http1", "http2", "tls", "opaque"];

impl Counters {
    /// Registers them, so that they are there at 0 from the first scrape.
    pub fn register() -> Self {
        let counter = |metric: Metric| {
            let counter = metrics::counter!(metric.name());
            counter.absolute(0);
            counter
        };
        let _ = (counter(Metric::ConfigRefused), counter(Metric::StateWriteFailures));
        for (side, failure) in
            [Side::Inbound, Side::Outbound].iter().flat_map(|side| HandshakeFailure::ALL.map(|it| (side, it)))
        {
            let labels = [("side", side.as_str()), ("reason", failure.as_str())];
            metrics::counter!(Metric::HandshakeFailures.name(), &labels).absolute(0);
        }
        for (side, refusal) in
            [Side::Inbound, Side::Outbound].iter().flat_map(|side| Refusal::ALL.map(|refusal| (side, refusal)))
        {
            let labels = [("side", side.as_str()), ("reason", refusal.as_str())];
            metrics::counter!(Metric::Malformed.name(), &labels).absolute(0);
        }
        for limit in Limited::ALL {
            metrics::counter!(Metric::LimitsHit.name(), "limit" => limit.key()).absolute(0);
        }
        for result in ["renewed", "failed"] {
            metrics::counter!(Metric::CertificateRenewals.name(), "result" => result).absolute(0);
        }
        Self {
            misdirected: counter(Metric::MisdirectedRefused),
            plaintext_refused: counter(Metric::PlaintextRefused),
            passthrough: counter(Metric::Passthrough),
            retries: counter(Metric::Retries),
            retries_refused: counter(Metric::RetriesRefused),
            connections_refused: counter(Metric::AppConnectionsRefused),
            detected: DETECTED.map(|protocol| metrics::counter!(Metric::Detected.name(), "protocol" => protocol)),
        }
    }

    pub fn detected(&self, detected: &Detected) -> &metrics::Counter {
        &self.detected[match detected {
            Detected::NeedMore => 0,
            Detected::Http1 => 1,
            Detected::Http2 => 2,
            Detected::Tls { .. } => 3,
            Detected::Opaque => 4,
        }]
    }
}

/// A limit that has no metric of its own.
#[derive(Debug, Clone, Copy)]
pub enum Limited {
    AppResends,
    EndpointsTried,
    OutsideAddresses,
    MetricPairs,
    AppConnections,
    AppConnectionsPerCaller,
    AppStreamsPerCaller,
    H2UnreadFrames,
    NameLookups,
    PeerStreams,
    H2Streams,
    OwnAnswers,
}

impl Limited {
    const ALL: [Self; 12] = [
        Self::AppResends,
        Self::EndpointsTried,
        Self::OutsideAddresses,
        Self::MetricPairs,
        Self::AppConnections,
        Self::AppConnectionsPerCaller,
        Self::AppStreamsPerCaller,
        Self::H2UnreadFrames,
        Self::NameLookups,
        Self::PeerStreams,
        Self::H2Streams,
        Self::OwnAnswers,
    ];

    /// Its key in the configuration, below `limits`.
    fn key(self) -> &'static str {
        match self {
            Limited::AppResends => "app_resends",
            Limited::EndpointsTried => "endpoints_tried",
            Limited::OutsideAddresses => "outside_addresses",
            Limited::MetricPairs => "metric_pairs_per_connection",
            Limited::AppConnections => "app_connections",
            Limited::AppConnectionsPerCaller => "app_connections_per_caller",
            Limited::AppStreamsPerCaller => "app_streams_per_caller_percent",
            Limited::PeerStreams => "peer_stream_wait_ms",
            Limited::H2Streams => "h2_concurrent_streams",
            Limited::OwnAnswers => "own_answer_timeout_s",
            Limited::NameLookups => "name_lookups",
            Limited::H2UnreadFrames => "h2_unread_frames",
        }
    }

    /// Counts that it was hit.
    pub fn hit(self) {
        metrics::counter!(Metric::LimitsHit.name(), "limit" => self.key()).increment(1);
    }
}

/// Counts an answer that the proxy made itself.
pub fn local_reply(side: Side, verdict: &Verdict) {
    let Verdict { stage, reason, .. } = *verdict;
    metrics::counter!(Metric::LocalReplies.name(), "side" => side.as_str(), "stage" => stage, "reason" => reason)
        .increment(1);
}

/// Counts a request that a codec refused.
pub fn refused(side: Side, refused: &Refused) {
    let labels = [("side", side.as_str()), ("reason", refused.refusal.as_str())];
    metrics::counter!(Metric::Malformed.name(), &labels).increment(1);
}

/// Counts a mesh connection that was closed for its peer's breach.
pub fn breach(breach: &Breach) {
    metrics::counter!(Metric::PeerViolations.name(), "code" => breach.code, "reason" => breach.reason).increment(1);
}

/// Counts a mesh handshake. `reason`: why it failed.
pub fn handshake(side: Side, reason: Option<&'static str>) {
    match reason {
        None => metrics::counter!(Metric::Handshakes.name(), "side" => side.as_str()).increment(1),
        Some(reason) => {
            metrics::counter!(Metric::HandshakeFailures.name(), "side" => side.as_str(), "reason" => reason)
                .increment(1);
        }
    }
}
