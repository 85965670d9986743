//! Counters of rare events that belong to no pair of workloads. Those of the request path are resolved once; the rest are
//! looked up by their labels as they happen.

use weft_policy::bundle::Nearness;
use weft_transport::detect::Detected;
use weft_transport::http::{Refusal, Refused};
use weft_transport::mesh::Breach;
use weft_transport::quic::PoolSnapshot;
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
    pub retries_over_limit: metrics::Counter,
    pub repeats: metrics::Counter,
    pub connections_refused: metrics::Counter,
    pub without_hash_key: metrics::Counter,
    pub sessions_moved: metrics::Counter,
    pub hedged: metrics::Counter,
    pub hedges_won: metrics::Counter,
    pub ejections: metrics::Counter,
    near: [metrics::Counter; 5],
    pub mirrored_served: metrics::Counter,
    pub retries_received: metrics::Counter,
    detected: [metrics::Counter; 5],
}

const NEAR: [Nearness; 5] =
    [Nearness::Subzone, Nearness::Zone, Nearness::Region, Nearness::Failover(0), Nearness::Elsewhere];

const DETECTED: [&str; 5] = ["none", "http1", "http2", "tls", "opaque"];

impl Counters {
    /// Registers them, so that they are there at 0 from the first scrape.
    pub fn register() -> Self {
        let counter = |metric: Metric| {
            let counter = metrics::counter!(metric.name());
            counter.absolute(0);
            counter
        };
        let near = |nearness: Nearness| {
            let counter = metrics::counter!(Metric::LocalityRequests.name(), "nearness" => nearness.as_str());
            counter.absolute(0);
            counter
        };
        let _ = (counter(Metric::ConfigRefused), counter(Metric::StateWriteFailures));
        for (side, failure) in
            [Side::Inbound, Side::Outbound].iter().flat_map(|side| HandshakeFailure::ALL.map(|it| (side, it)))
        {
            let labels = [("side", side.as_str()), ("reason", failure.as_str())];
            metrics::counter!(Metric::HandshakeFailures.name(), &labels).absolute(0);
            metrics::counter!(Metric::Handshakes.name(), "side" => side.as_str()).absolute(0);
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
        for result in Mirrored::ALL {
            metrics::counter!(Metric::Mirrored.name(), "result" => result.as_str()).absolute(0);
        }
        for result in HealthChecked::ALL {
            metrics::counter!(Metric::HealthChecks.name(), "result" => result.as_str()).absolute(0);
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
            retries_over_limit: counter(Metric::RetriesOverLimit),
            repeats: counter(Metric::Repeats),
            connections_refused: counter(Metric::AppConnectionsRefused),
            without_hash_key: counter(Metric::WithoutHashKey),
            sessions_moved: counter(Metric::SessionsMoved),
            hedged: counter(Metric::Hedged),
            hedges_won: counter(Metric::HedgesWon),
            ejections: counter(Metric::Ejections),
            near: NEAR.map(near),
            mirrored_served: counter(Metric::MirroredServed),
            retries_received: counter(Metric::RetriesReceived),
            detected: DETECTED.map(|protocol| metrics::counter!(Metric::Detected.name(), "protocol" => protocol)),
        }
    }

    pub fn near(&self, nearness: Nearness) -> &metrics::Counter {
        &self.near[match nearness {
            Nearness::Subzone => 0,
            Nearness::Zone => 1,
            Nearness::Region => 2,
            Nearness::Failover(_) => 3,
            Nearness::Elsewhere => 4,
        }]
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
    NamesAsked,
    HealthChecks,
    StandingUndecided,
    FilterBodies,
    FilterBodyTimeout,
}

impl Limited {
    const ALL: [Self; 17] = [
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
        Self::NamesAsked,
        Self::HealthChecks,
        Self::StandingUndecided,
        Self::FilterBodies,
        Self::FilterBodyTimeout,
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
            Limited::NamesAsked => "names_asked",
            Limited::HealthChecks => "health_checks",
            Limited::StandingUndecided => "standing_undecided_ms",
            Limited::NameLookups => "name_lookups",
            Limited::H2UnreadFrames => "h2_unread_frames",
            Limited::FilterBodies => "filter_bodies",
            Limited::FilterBodyTimeout => "filter_body_timeout_ms",
        }
    }

    /// Counts that it was hit.
    pub fn hit(self) {
        metrics::counter!(Metric::LimitsHit.name(), "limit" => self.key()).increment(1);
    }
}

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirrored {
    Answered,
    Failed,
    /// It was slower than its buffer is large.
    Behind,
    /// The request ended before its body was whole.
    Abandoned,
    Late,
    /// As many as may were under way.
    Full,
    /// Its route names no service or port that there is.
    Unresolved,
}

impl Mirrored {
    const ALL: [Self; 7] =
        [Self::Answered, Self::Failed, Self::Behind, Self::Abandoned, Self::Late, Self::Full, Self::Unresolved];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Behind => "behind",
            Self::Abandoned => "abandoned",
            Self::Late => "late",
            Self::Full => "full",
            Self::Unresolved => "unresolved",
        }
    }

    pub fn count(self) {
        metrics::counter!(Metric::Mirrored.name(), "result" => self.as_str()).increment(1);
    }
}

/// What a check of an endpoint's health said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChecked {
    Passed,
    Failed,
    /// There was no answer in time.
    Late,
    /// The endpoint's proxy did not let its app see it: nothing is said of the app.
    Refused,
    /// It was not made to its end, for nothing that the endpoint did.
    Undecided,
}

impl HealthChecked {
    const ALL: [Self; 5] = [Self::Passed, Self::Failed, Self::Late, Self::Refused, Self::Undecided];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }

    pub fn count(self) {
        metrics::counter!(Metric::HealthChecks.name(), "result" => self.as_str()).increment(1);
    }
}

/// What became of a request that a filter had sent to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledOut {
    Answered,
    /// There was no answer, or its service's proxy gave it.
    Failed,
    Late,
    /// Its answer is longer than the filter takes, or there was no room for it.
    TooLong,
    /// As many as may were under way.
    Full,
}

impl CalledOut {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::TooLong => "too_long",
            Self::Full => "full",
        }
    }

    /// Counts it. `service`: as the grant names it, so there are as many as grants name.
    pub fn count(self, service: &str) {
        let labels = [("service", service.to_owned()), ("result", self.as_str().to_owned())];
        metrics::counter!(Metric::FilterCallouts.name(), &labels).increment(1);
    }
}

/// Counts a stream that a filter ended behind the head of its answer, or whose bytes it looked at.
pub fn filter_reset(side: Side, filter: &str) {
    let labels = [("side", side.as_str().to_owned()), ("filter", filter.to_owned())];
    metrics::counter!(Metric::FilterCuts.name(), &labels).increment(1);
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

/// Counts the handshake of a peer that dialled us. `reason`: why it failed.
pub fn handshake(reason: Option<&'static str>) {
    let side = Side::Inbound.as_str();
    match reason {
        None => metrics::counter!(Metric::Handshakes.name(), "side" => side).increment(1),
        Some(reason) => {
            metrics::counter!(Metric::HandshakeFailures.name(), "side" => side, "reason" => reason).increment(1);
        }
    }
}

/// Handshakes that were dialled here, as the pools of all workers have counted them.
#[derive(Debug, Default)]
pub struct Dialled {
    established: u64,
    failures: [u64; HandshakeFailure::ALL.len()],
}

impl Dialled {
    pub fn add(&mut self, pool: &PoolSnapshot) {
        self.established += pool.established;
        self.failures.iter_mut().zip(pool.failures).for_each(|(sum, count)| *sum += count);
    }

    /// Brings the counters of this side up to date.
    pub fn tell(&self) {
        let side = Side::Outbound.as_str();
        metrics::counter!(Metric::Handshakes.name(), "side" => side).absolute(self.established);
        for failure in HandshakeFailure::ALL {
            let (reason, count) = (failure.as_str(), self.failures[failure.index()]);
            metrics::counter!(Metric::HandshakeFailures.name(), "side" => side, "reason" => reason).absolute(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_transport::quic::PoolStats;

    use super::*;

    #[test]
    fn handshakes_are_counted_on_both_sides() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            Counters::register();
            handshake(None);
            handshake(Some(HandshakeFailure::Untrusted.as_str()));
            let mut failures = [0; HandshakeFailure::ALL.len()];
            failures[HandshakeFailure::PortClosed.index()] = 2;
            let mut dialled = Dialled::default();
            for established in [3, 4] {
                dialled.add(&PoolSnapshot { established, failures, ..PoolStats::default().snapshot() });
            }
            dialled.tell();
        });
        let text = recorder.handle().render();
        let told: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("weft_handshake") && !line.ends_with(" 0"))
            .map(|line| line.trim_start_matches("weft_handshake"))
            .collect();
        for expected in [
            "s_total{side=\"inbound\"} 1",
            "s_total{side=\"outbound\"} 7",
            "_failures_total{side=\"inbound\",reason=\"untrusted\"} 1",
            "_failures_total{side=\"outbound\",reason=\"port_closed\"} 4",
        ] {
            assert!(told.contains(&expected), "{expected} is not among {told:?}");
        }
        assert_eq!(told.len(), 4, "{told:?}");
    }
}
