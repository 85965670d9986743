//! The control plane's own metrics, served on 15014. One enum holds every name, unit and meaning; handles are resolved
//! once, at start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Every metric: name and help text.
#[derive(Debug, Clone, Copy)]
enum Name {
    ProxiesConnected,
    Workloads,
    Objects,
    Revision,
    Pushes,
    Removals,
    Acks,
    Nacks,
    PushLatency,
    ConvergenceLatency,
    StalestProxy,
    Certificates,
    Joins,
    JoinsRefused,
    RegistrationsRefused,
    SeatConflicts,
    Throttled,
    FilterBytes,
    ApiRequests,
    ApiErrors,
    StoreCommit,
    StoreChanges,
    StoreFailing,
    StoreFailures,
    StoreConflicts,
    StoreLeads,
    Replicas,
    RootNotFollowed,
    ReplicasSilent,
    ProxiesSentAway,
    UnreadableRecords,
    StoreInDoubt,
    LeftAlone,
    Bans,
    HandshakesFailed,
    ConnectionsRefused,
    ServerCertificateExpiry,
    IntermediateExpiry,
    TrustedRoots,
    PutOff,
    Asks,
    AnswersAhead,
    Subscriptions,
}

impl Name {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::ProxiesConnected => ("weft_control_proxies_connected", "Proxies with an open control stream"),
            Self::Workloads => ("weft_control_workloads", "Workloads in the world, registered or applied"),
            Self::Objects => ("weft_control_objects", "Objects in the world"),
            Self::Revision => ("weft_control_revision", "Newest revision of the world"),
            Self::Pushes => ("weft_control_pushes_total", "Deltas sent to proxies"),
            Self::Removals => ("weft_control_subtractive_pushes_total", "Subtractive deltas sent at once"),
            Self::Acks => ("weft_control_acks_total", "Deltas that proxies took"),
            Self::Nacks => ("weft_control_nacks_total", "Deltas that proxies refused"),
            Self::PushLatency => ("weft_control_push_seconds", "From the first change gathered to its delta sent"),
            Self::ConvergenceLatency => ("weft_control_ack_seconds", "From a delta sent to the answer of its proxy"),
            Self::StalestProxy => ("weft_control_stalest_proxy_seconds", "Longest wait of a proxy that is behind"),
            Self::StoreConflicts => ("weft_control_store_conflicts_total", "Commits that another one came before"),
            Self::StoreLeads => ("weft_control_leads", "1 while this control plane is the one that cleans up, else 0"),
            Self::RootNotFollowed => ("weft_control_root_not_followed", "1 while another has to sign its intermediate"),
            Self::Replicas => ("weft_control_replicas", "Other control planes of the same store that are known"),
            Self::ReplicasSilent => ("weft_control_replicas_silent_total", "Questions to others that stayed open"),
            Self::ProxiesSentAway => ("weft_control_proxies_sent_away_total", "Proxies sent to one that has more room"),
            Self::Certificates => ("weft_control_certificates_issued_total", "Workload certificates issued"),
            Self::Joins => ("weft_control_joins_total", "Proxies that joined by token"),
            Self::JoinsRefused => ("weft_control_joins_refused_total", "Joins and renewals refused"),
            Self::RegistrationsRefused => (
                "weft_control_registrations_refused_total",
                "Workloads that proxies registered in vain, by reason: name, invalid, not_granted, store",
            ),
            Self::SeatConflicts => (
                "weft_control_name_conflicts_total",
                "Proxies told to keep away because another of the same name and account is connected",
            ),
            Self::Throttled => (
                "weft_control_throttled_total",
                "Requests refused at a limit, by reason: renewals, streams, hellos, messages, api, plans, bodies, registrations, joins, asks, signings",
            ),
            Self::FilterBytes => ("weft_control_filter_bytes_sent_total", "Bytes of filter binaries sent to proxies"),
            Self::Asks => ("weft_control_asks_total", "Names and addresses that proxies asked for"),
            Self::AnswersAhead => ("weft_control_answers_ahead_total", "Answers that overtook a delta being prepared"),
            Self::Subscriptions => ("weft_control_subscriptions", "Names and addresses that proxies are told of"),
            Self::ApiRequests => ("weft_control_api_requests_total", "Requests of the operator API"),
            Self::ApiErrors => ("weft_control_api_errors_total", "Requests of the operator API answered 4xx or 5xx"),
            Self::StoreCommit => ("weft_control_store_commit_seconds", "Time of one durable commit"),
            Self::StoreChanges => ("weft_control_store_changes_total", "Changes committed, alone or with others"),
            Self::StoreFailing => ("weft_control_store_failing", "1 while the store can't be written, else 0"),
            Self::StoreFailures => ("weft_control_store_failures_total", "How often the store began to fail"),
            Self::UnreadableRecords => {
                ("weft_control_store_unreadable_records", "Records that can't be read, left aside")
            }
            Self::StoreInDoubt => {
                ("weft_control_store_in_doubt", "1 while the store leads nobody: it was lost, replaced or set back")
            }
            Self::LeftAlone => (
                "weft_control_proxies_left_alone",
                "Connected proxies that are told nothing: they would be led backwards",
            ),
            Self::Bans => ("weft_control_banned_identities", "Identities that are kept out of the mesh"),
            Self::HandshakesFailed => ("weft_control_handshakes_failed_total", "TLS handshakes that failed"),
            Self::ConnectionsRefused => ("weft_control_connections_refused_total", "Connections over the limit"),
            Self::ServerCertificateExpiry => {
                ("weft_control_server_certificate_not_after_seconds", "Expiry of the server certificate, unix time")
            }
            Self::PutOff => (
                "weft_control_upkeep_put_off",
                "1 while something of the control plane's own could not be written and is tried again, by what: \
                 operator_token, filters, certificates, records",
            ),
            Self::IntermediateExpiry => {
                ("weft_control_intermediate_not_after_seconds", "Expiry of the intermediate, unix time")
            }
            Self::TrustedRoots => ("weft_control_trusted_roots", "Roots that the mesh trusts: 2 while one is replaced"),
        }
    }
}

/// Kinds of refused registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Name,
    Invalid,
    NotGranted,
    Store,
}

impl Refusal {
    /// As a label, and as the audit log names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Invalid => "invalid",
            Self::NotGranted => "not_granted",
            Self::Store => "store",
        }
    }
}

/// An action that a proxy or a person took too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttled {
    Renewals,
    Streams,
    Hellos,
    Messages,
    Api,
    Plans,
    Bodies,
    Registrations,
    Joins,
    Asks,
    /// For other control planes of the store.
    Signings,
}

/// Parts of the control plane's own upkeep that may wait for a disk with room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upkeep {
    OperatorToken,
    /// The shipped ones.
    Filters,
    /// The intermediate and this server's.
    Certificates,
    /// What is over and forgotten: tokens, certificates, names.
    Records,
}

/// Handles of all metrics. One per server, so that several in one process don't mix.
pub struct Metrics {
    handle: PrometheusHandle,
    pub proxies_connected: Gauge,
    pub workloads: Gauge,
    pub objects: Gauge,
    pub revision: Gauge,
    pub pushes: Counter,
    pub removals: Counter,
    pub acks: Counter,
    pub nacks: Counter,
    push_latency: Histogram,
    ack_latency: Histogram,
    pub stalest_proxy: Gauge,
    pub certificates: Counter,
    pub conflicts: Counter,
    pub leads: Gauge,
    pub replicas: Gauge,
    pub root_not_followed: Gauge,
    pub replicas_silent: Counter,
    pub proxies_sent_away: Counter,
    pub joins: Counter,
    pub joins_refused: Counter,
    registrations_refused: [Counter; 4],
    pub name_conflicts: Counter,
    pub asks: Counter,
    pub answers_ahead: Counter,
    throttled: [Counter; 11],
    pub filter_bytes: Counter,
    pub api_requests: Counter,
    pub api_errors: Counter,
    store_commit: Histogram,
    store_changes: Counter,
    store_failing: Gauge,
    store_failures: Counter,
    is_store_failing: AtomicBool,
    unreadable_records: Gauge,
    pub store_in_doubt: Gauge,
    pub left_alone: Gauge,
    pub bans: Gauge,
    pub subscriptions: Gauge,
    handshakes_failed: Counter,
    connections_refused: Counter,
    server_certificate_expiry: Gauge,
    intermediate_expiry: Gauge,
    trusted_roots: Gauge,
    put_off: [Gauge; 4],
}

const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Makes the handles at the start.
struct Register {
    recorder: PrometheusRecorder,
    metadata: metrics::Metadata<'static>,
}

type Label = Option<(&'static str, &'static str)>;

impl Register {
    fn new() -> Self {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).expect("the buckets are not empty");
        let metadata = metrics::Metadata::new("weft_control", metrics::Level::INFO, None);
        Self { recorder: builder.build_recorder(), metadata }
    }

    fn key(name: Name, label: Label) -> metrics::Key {
        let key = metrics::Key::from_static_name(name.text().0);
        key.with_extra_labels(
            label.map(|(key, value)| metrics::Label::from_static_parts(key, value)).into_iter().collect(),
        )
    }

    fn counter(&self, name: Name, label: Label) -> Counter {
        let (key, help) = name.text();
        self.recorder.describe_counter(metrics::KeyName::from_const_str(key), None, help.into());
        self.recorder.register_counter(&Self::key(name, label), &self.metadata)
    }

    fn gauge(&self, name: Name, label: Label) -> Gauge {
        let (key, help) = name.text();
        self.recorder.describe_gauge(metrics::KeyName::from_const_str(key), None, help.into());
        self.recorder.register_gauge(&Self::key(name, label), &self.metadata)
    }

    fn histogram(&self, name: Name) -> Histogram {
        let (key, help) = name.text();
        self.recorder.describe_histogram(metrics::KeyName::from_const_str(key), None, help.into());
        self.recorder.register_histogram(&Self::key(name, None), &self.metadata)
    }
}

impl Metrics {
    pub fn new() -> Self {
        let register = Register::new();
        let counter = |name| register.counter(name, None);
        let gauge = |name| register.gauge(name, None);
        let histogram = |name| register.histogram(name);
        let by_reason = |name, reason| register.counter(name, Some(("reason", reason)));
        Self {
            proxies_connected: gauge(Name::ProxiesConnected),
            workloads: gauge(Name::Workloads),
            objects: gauge(Name::Objects),
            revision: gauge(Name::Revision),
            pushes: counter(Name::Pushes),
            removals: counter(Name::Removals),
            acks: counter(Name::Acks),
            nacks: counter(Name::Nacks),
            push_latency: histogram(Name::PushLatency),
            ack_latency: histogram(Name::ConvergenceLatency),
            stalest_proxy: gauge(Name::StalestProxy),
            certificates: counter(Name::Certificates),
            conflicts: counter(Name::StoreConflicts),
            leads: gauge(Name::StoreLeads),
            replicas: gauge(Name::Replicas),
            root_not_followed: gauge(Name::RootNotFollowed),
            replicas_silent: counter(Name::ReplicasSilent),
            proxies_sent_away: counter(Name::ProxiesSentAway),
            joins: counter(Name::Joins),
            joins_refused: counter(Name::JoinsRefused),
            registrations_refused: [Refusal::Name, Refusal::Invalid, Refusal::NotGranted, Refusal::Store]
                .map(|why| by_reason(Name::RegistrationsRefused, why.as_str())),
            name_conflicts: counter(Name::SeatConflicts),
            asks: counter(Name::Asks),
            answers_ahead: counter(Name::AnswersAhead),
            throttled: [
                "renewals",
                "streams",
                "hellos",
                "messages",
                "api",
                "plans",
                "bodies",
                "registrations",
                "joins",
                "asks",
                "signings",
            ]
            .map(|reason| by_reason(Name::Throttled, reason)),
            filter_bytes: counter(Name::FilterBytes),
            api_requests: counter(Name::ApiRequests),
            api_errors: counter(Name::ApiErrors),
            store_commit: histogram(Name::StoreCommit),
            store_changes: counter(Name::StoreChanges),
            store_failing: gauge(Name::StoreFailing),
            store_failures: counter(Name::StoreFailures),
            is_store_failing: AtomicBool::new(false),
            unreadable_records: gauge(Name::UnreadableRecords),
            store_in_doubt: gauge(Name::StoreInDoubt),
            left_alone: gauge(Name::LeftAlone),
            bans: gauge(Name::Bans),
            subscriptions: gauge(Name::Subscriptions),
            handshakes_failed: counter(Name::HandshakesFailed),
            connections_refused: counter(Name::ConnectionsRefused),
            server_certificate_expiry: gauge(Name::ServerCertificateExpiry),
            intermediate_expiry: gauge(Name::IntermediateExpiry),
            trusted_roots: gauge(Name::TrustedRoots),
            put_off: ["operator_token", "filters", "certificates", "records"]
                .map(|what| register.gauge(Name::PutOff, Some(("what", what)))),
            handle: register.recorder.handle(),
        }
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Moves histogram samples into their buckets; called now and then, since they buffer until somebody renders.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// When this server's certificates end.
    #[expect(clippy::cast_precision_loss, reason = "unix seconds stay far below 2^52")]
    pub fn expiries(&self, server: time::OffsetDateTime, intermediate: time::OffsetDateTime) {
        self.server_certificate_expiry.set(server.unix_timestamp() as f64);
        self.intermediate_expiry.set(intermediate.unix_timestamp() as f64);
    }

    pub fn trusted_roots(&self, count: u32) {
        self.trusted_roots.set(f64::from(count));
    }

    pub fn pushed(&self, waited: Duration) {
        self.pushes.increment(1);
        self.push_latency.record(waited.as_secs_f64());
    }

    pub fn answered(&self, accepted: bool, waited: Duration) {
        if accepted {
            self.acks.increment(1)
        } else {
            self.nacks.increment(1)
        }
        self.ack_latency.record(waited.as_secs_f64());
    }

    /// So many changes landed together.
    pub fn committed(&self, took: Duration, changes: u64) {
        self.store_commit.record(took.as_secs_f64());
        self.store_changes.increment(changes);
    }

    /// Records whether writes to the store fail, and counts each time that this begins.
    pub fn store_fault(&self, is_failing: bool) {
        if self.is_store_failing.swap(is_failing, Ordering::Relaxed) != is_failing && is_failing {
            self.store_failures.increment(1);
        }
        self.store_failing.set(f64::from(u8::from(is_failing)));
    }

    pub fn unreadable_records(&self, count: usize) {
        self.unreadable_records.set(u32::try_from(count).map_or(f64::from(u32::MAX), f64::from));
    }

    pub fn handshake_failed(&self) {
        self.handshakes_failed.increment(1);
    }

    pub(crate) fn throttled(&self, what: Throttled) {
        let [renewals, streams, hellos, messages, api, plans, bodies, registrations, joins, asks, signings] =
            &self.throttled;
        let counter = match what {
            Throttled::Renewals => renewals,
            Throttled::Streams => streams,
            Throttled::Hellos => hellos,
            Throttled::Messages => messages,
            Throttled::Api => api,
            Throttled::Plans => plans,
            Throttled::Bodies => bodies,
            Throttled::Registrations => registrations,
            Throttled::Asks => asks,
            Throttled::Joins => joins,
            Throttled::Signings => signings,
        };
        counter.increment(1);
    }

    pub(crate) fn registration_refused(&self, why: Refusal) {
        let [name, invalid, not_granted, store] = &self.registrations_refused;
        let counter = match why {
            Refusal::Name => name,
            Refusal::Invalid => invalid,
            Refusal::NotGranted => not_granted,
            Refusal::Store => store,
        };
        counter.increment(1);
    }

    /// Whether a part of the upkeep is put off.
    pub(crate) fn put_off(&self, what: Upkeep, is_put_off: bool) {
        let [operator_token, filters, certificates, records] = &self.put_off;
        let gauge = match what {
            Upkeep::OperatorToken => operator_token,
            Upkeep::Filters => filters,
            Upkeep::Certificates => certificates,
            Upkeep::Records => records,
        };
        gauge.set(f64::from(u8::from(is_put_off)));
    }

    pub fn connection_refused(&self) {
        self.connections_refused.increment(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
