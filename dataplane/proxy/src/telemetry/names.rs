//! Every metric of the proxy: name, type, unit in the name, meaning. Nothing else spells a metric's name.

/// Prometheus type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        /// A metric that weft-proxy exposes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric { $($variant),* }

        impl Metric {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name),* }
            }

            pub const fn kind(self) -> Kind {
                match self { $(Metric::$variant => Kind::$kind),* }
            }

            pub const fn help(self) -> &'static str {
                match self { $(Metric::$variant => $help),* }
            }
        }
    };
}

metrics! {
    Requests = "istio_requests_total", Counter, "Requests by source, destination, code and flags.";
    RequestDuration = "istio_request_duration_milliseconds", Histogram, "Time from the request head to the last byte of the response.";
    RequestBytes = "istio_request_bytes", Histogram, "Body bytes of requests.";
    ResponseBytes = "istio_response_bytes", Histogram, "Body bytes of responses.";
    TcpSent = "istio_tcp_sent_bytes_total", Counter, "Bytes from the service to its client.";
    TcpReceived = "istio_tcp_received_bytes_total", Counter, "Bytes from the client to the service.";
    TcpOpened = "istio_tcp_connections_opened_total", Counter, "TCP connections opened.";
    TcpClosed = "istio_tcp_connections_closed_total", Counter, "TCP connections closed.";
    Build = "istio_build", Gauge, "Component and version.";
    AsksGivenUp = "weft_asks_given_up_total", Counter, "Names and addresses that were asked for and never answered, and that nobody asks for any more.";
    AnswersForgotten = "weft_answers_forgotten_total", Counter, "Answers that something is not there, forgotten because there were more than limits.names_asked.";
    Asks = "weft_asks_total", Counter, "Names and addresses that were asked for at the control plane since this proxy did not hold them.";
    HandshakeFailures = "weft_handshake_failures_total", Counter, "Mesh handshakes that failed, by side (inbound: of peers that dialled; outbound: dialled here) and reason.";
    Handshakes = "weft_handshakes_total", Counter, "Mesh handshakes that succeeded, by side.";
    PeerConnections = "weft_peer_connections", Gauge, "Open QUIC connections, by side.";
    PeerDials = "weft_peer_dials_total", Counter, "QUIC connections dialled.";
    PeerDialsShared = "weft_peer_dials_shared_total", Counter, "Requests that waited for another's dial.";
    PeerEvictions = "weft_peer_evictions_total", Counter, "Pooled connections closed because their endpoint left.";
    PeerSuspected = "weft_peer_suspected_total", Counter, "Connections that fell silent and get no new request until they are heard again.";
    PeerRefused = "weft_peer_refused_total", Counter, "Handshakes and connections of peers refused at a limit.";
    HandshakeRetries = "weft_handshake_retries_total", Counter, "Callers asked to prove their address first.";
    PeerViolations = "weft_peer_violations_total", Counter, "Mesh connections closed because the peer broke HTTP/3 or a limit, by code and reason.";
    AppConnections = "weft_app_connections", Gauge, "Application connections accepted and open.";
    AppConnectionsLimit = "weft_app_connections_limit", Gauge, "Application connections that may be open: limits.max_connections for each worker, at most half of the file descriptors.";
    NotDialled = "weft_dials_refused_total", Counter, "Dials that were not made because three quarters of the file descriptors were used.";
    AppConnectionsRefused = "weft_app_connections_refused_total", Counter, "Application connections refused at the limit.";
    AppPoolReused = "weft_app_pool_reused_total", Counter, "Requests sent to the app on a kept connection.";
    AppPoolDialled = "weft_app_pool_dialled_total", Counter, "Connections dialled to the app.";
    AppStreamsQueued = "weft_app_streams_queued_total", Counter, "Requests that waited because every HTTP/2 stream to the app was in use.";
    AppStreamTimeouts = "weft_app_stream_timeouts_total", Counter, "Requests that waited in vain for an HTTP/2 stream to the app.";
    StalledBytes = "weft_stalled_bytes", Gauge, "Bytes held, or owed room, for streams whose receivers take nothing.";
    StalledStreams = "weft_stalled_streams", Gauge, "Directions of streams and tunnels that wait for their receivers.";
    StalledResets = "weft_stalled_resets_total", Counter, "Streams reset because they had stalled longest when limits.stalled_bytes was used up.";
    LimitsHit = "weft_limits_hit_total", Counter, "Times that a limit which has no metric of its own was hit, by its key in the configuration.";
    LocalReplies = "weft_local_replies_total", Counter, "Answers made by the proxy itself, by side, stage and reason.";
    Retries = "weft_retries_total", Counter, "Requests sent again because they were provably not processed.";
    Repeats = "weft_policy_retries_total", Counter, "Requests sent again because their rule or their service's TrafficPolicy asks for it.";
    RetriesRefused = "weft_retries_refused_total", Counter, "Retries that the budget refused.";
    RetriesOverLimit = "weft_retries_over_limit_total", Counter, "Retries that were not made since as many requests were being sent again as their service's TrafficPolicy lets be.";
    WithoutHashKey = "weft_requests_without_hash_key_total", Counter, "Requests and connections that lacked what their service's TrafficPolicy keeps them together by, and went to any endpoint.";
    SessionsMoved = "weft_sessions_moved_total", Counter, "Requests whose session was kept at an endpoint that takes none, and that went to another.";
    Hedged = "weft_hedged_attempts_total", Counter, "Attempts made beside one whose answer was slow, as their service's TrafficPolicy asks for it.";
    HedgesWon = "weft_hedged_attempts_won_total", Counter, "Attempts beside a slow one whose answer was passed on.";
    EndpointsUnreachable = "weft_endpoints_unreachable", Gauge, "Endpoints skipped because no connection could be made to them, as each worker finds.";
    EndpointsEjected = "weft_endpoints_ejected", Gauge, "Endpoints skipped because they failed too often in a row or succeeded less often than the others, as each worker finds.";
    Ejections = "weft_ejections_total", Counter, "Endpoints ejected because they failed too often in a row, or succeeded less often than the others.";
    ServicesPanicking = "weft_services_panicking", Gauge, "Services of which so few endpoints are in that those that are ejected or fail their checks are used as well, as each worker finds.";
    LocalityRequests = "weft_locality_requests_total", Counter, "Requests and connections sent to endpoints of services that prefer near ones, each attempt, by how near the endpoint is (nearness).";
    EndpointsUnhealthy = "weft_endpoints_unhealthy", Gauge, "Endpoints skipped because their health checks fail.";
    HealthChecks = "weft_health_checks_total", Counter, "Health checks of endpoints, by result.";
    RequestsPending = "weft_requests_pending", Gauge, "Requests that wait since as many to their service are under way as its TrafficPolicy lets be.";
    AdaptiveLimit = "weft_adaptive_limit", Gauge, "Requests that may be under way to a service at a time, as their latency has it now, by service.";
    Mirrored = "weft_mirrored_requests_total", Counter, "Copies of requests that routes mirror, by what became of them (result).";
    MirrorsInFlight = "weft_mirrored_requests_in_flight", Gauge, "Copies of requests under way.";
    RetriesReceived = "weft_retries_received_total", Counter, "Requests of peers that they have sent before to somebody who may have acted on them.";
    MirroredServed = "weft_mirrored_requests_served_total", Counter, "Requests of peers that are copies, which their routes mirror.";
    Passthrough = "weft_passthrough_connections_total", Counter, "Connections and requests to destinations outside the mesh.";
    PlaintextRefused = "weft_inbound_plaintext_refused_total", Counter, "Plain-text connections refused under Strict.";
    MisdirectedRefused = "weft_misdirected_refused_total", Counter, "Requests to sockets that this proxy doesn't serve.";
    Detected = "weft_detected_total", Counter, "Protocols found on connections, by protocol.";
    Malformed = "weft_malformed_requests_total", Counter, "Requests that a codec refused before anybody else saw them, by side and reason.";
    ConfigRevision = "weft_config_revision", Gauge, "Revision of the current snapshot.";
    ConfigStaleness = "weft_config_staleness_seconds", Gauge, "Seconds since the control plane was last heard; 0 while connected.";
    ConfigApplied = "weft_config_applied_total", Counter, "Snapshots swapped in, by kind (full, subtractive, ahead).";
    ConfigSnapshots = "weft_config_snapshots", Gauge, "Snapshots held in memory: the current one, and those that something still holds.";
    ConfigRefused = "weft_config_refused_total", Counter, "Bundles answered with NACK.";
    OutboundClosed = "weft_outbound_closed", Gauge, "Workloads whose apps may send nothing, since a filter that would judge it can't be run here.";
    ControlConnected = "weft_control_connected", Gauge, "1 while the control stream is up.";
    ControlKeptAway = "weft_control_kept_away_total", Counter, "Times that the control plane told this proxy to keep away: another has its name and identity.";
    CertificateExpiry = "weft_certificate_expiry_timestamp_seconds", Gauge, "When the workload certificate ends, Unix seconds.";
    CertificateRenewals = "weft_certificate_renewals_total", Counter, "Renewals, by result.";
    StateWriteFailures = "weft_state_write_failures_total", Counter, "Times that the state directory did not take an identity or a configuration.";
    NotFollowed = "weft_control_not_followed", Gauge, "1 while what the control plane offers is of another store or an older state and is not taken.";
    FilterStates = "weft_filters", Gauge, "Filters in the configuration, by state: loaded, compiling (what ran before goes on), skipped (requests pass them by) and failed.";
    FilterCompile = "weft_filter_compile_seconds", Histogram, "Time that compiling a filter took, by result.";
    FilterCacheBytes = "weft_filter_cache_bytes", Gauge, "Bytes of compiled filters on disk.";
    FilterCacheEntries = "weft_filter_cache_entries", Gauge, "Compiled filters on disk.";
    FilterCacheLookups = "weft_filter_cache_lookups_total", Counter, "Filters looked for among those compiled before, by result: hit, miss, damaged.";
    FilterCacheEvicted = "weft_filter_cache_evicted_total", Counter, "Compiled filters removed from disk: those used least lately, and leftovers of other versions.";
    FilterCalls = "weft_filter_calls_total", Counter, "Calls into a filter.";
    FilterTraps = "weft_filter_traps_total", Counter, "Filter calls that trapped.";
    FilterTimeouts = "weft_filter_timeouts_total", Counter, "Filter calls stopped at their deadline.";
    FilterReplies = "weft_filter_replies_total", Counter, "Requests a filter answered itself, by the reason that it gave.";
    FilterAudited = "weft_filter_audited_total", Counter, "Verdicts not enforced because the filter is in Audit mode.";
    FilterFailedOpen = "weft_filter_failed_open_total", Counter, "Requests that passed a failed filter by onFailure Allow.";
    FilterFailedClosed = "weft_filter_failed_closed_total", Counter, "Requests that a failed filter cost by onFailure Deny.";
    FilterHookCalls = "weft_filter_hook_calls_total", Counter, "Calls into a filter, by hook.";
    FilterCallTime = "weft_filter_call_seconds", Histogram, "How long calls into a filter took.";
    FilterFailures = "weft_filter_failures_total", Counter, "Calls of a filter that failed, by kind.";
    FilterBackoffs = "weft_filter_backoffs_total", Counter, "Times that a filter began to be passed by for one caller, on whom it had failed again and again (onFailure Allow).";
    FilterBackoffSkips = "weft_filter_backoff_skips_total", Counter, "Requests that passed a filter by in such a time.";
    FilterLongBodies = "weft_filter_long_bodies_total", Counter, "Bodies longer than a filter takes.";
    FilterResets = "weft_filter_resets_total", Counter, "Streams that a filter ended without an answer.";
    FilterWaits = "weft_filter_waits_total", Counter, "Times that a filter held a stream for answers or for a time.";
    FilterRecycled = "weft_filter_recycled_total", Counter, "Instances of a filter replaced because their memory had grown.";
    FilterConfiguredInline = "weft_filter_configured_inline_total", Counter, "Requests that waited while an instance of a filter was made or configured: no spare one was ready.";
    FilterLogDropped = "weft_filter_log_lines_dropped_total", Counter, "Log lines of a filter, or about it, over its rate.";
    FilterCuts = "weft_filter_cuts_total", Counter, "Streams that a filter ended after their answer had begun, and connections that it ended, by side and filter.";
    FilterCallouts = "weft_filter_callouts_total", Counter, "Requests that filters had sent to services, by service and result.";
    FilterCalloutsOpen = "weft_filter_callouts_in_flight", Gauge, "Requests that filters had sent to services under way.";
    FilterBodyBytes = "weft_filter_body_bytes", Gauge, "Bytes of bodies that are gathered for filters.";
    FilterInstances = "weft_filter_instances", Gauge, "Live instances of a filter, shared with filters that run the same program.";
    FilterMemory = "weft_filter_memory_bytes", Gauge, "Linear memory of these instances.";
    FilterKeptBytes = "weft_filter_kept_bytes", Gauge, "Bytes that filters keep between calls: values of kv, token buckets, parts of messages.";
    FilterKeptRefusals = "weft_filter_kept_refusals_total", Counter, "Times that something could not be kept for filters, or others had to go for it, by kind: limits.filter_kept_bytes.";
    FilterSpares = "weft_filter_spare_instances", Gauge, "Instances of filters that wait, configured, for the next that is needed.";
    FilterDenied = "weft_filter_denied_calls_total", Counter, "Calls of capabilities that a filter is not granted.";
    FilterKvEvictions = "weft_filter_kv_evictions_total", Counter, "Values of a filter that had to go for others before they ended.";
    FilterMetricOverflows = "weft_filter_metric_overflows_total", Counter, "Values of a filter's own metrics beyond the bound of label sets, counted under other.";
    FilterMetricMisuses = "weft_filter_metric_misuses_total", Counter, "Values that a filter gave to a metric that it has not, or with other labels.";
    FilterCustom = "weft_filter_custom", Gauge, "A metric that filters report themselves.";
    AccessLogDropped = "weft_access_log_dropped_total", Counter, "Access log lines lost: the writer was behind, or the output failed.";
    CaptureRulesPresent = "weft_capture_rules_present", Gauge, "1 while the capture rules are as they should be; without capture there is no such series.";
    CaptureRestored = "weft_capture_restored_total", Counter, "Times that somebody else's change of the capture rules was undone.";
    WorkersStalled = "weft_workers_stalled", Gauge, "Workers that have made no progress for 5 s.";
    SideConnections = "weft_side_connections", Gauge, "Open connections to the admin, metrics and health ports, by port.";
    SideEvicted = "weft_side_connections_evicted_total", Counter, "Connections to those ports closed to make room for newer ones, by port.";
    SourcesDropped = "weft_metrics_sources_dropped_total", Counter, "Times that a peer named a further source workload beyond what is told apart.";
    Series = "weft_metrics_series", Gauge, "Request and connection series held, all workers.";
    SeriesDropped = "weft_metrics_series_dropped_total", Counter, "Requests and connections counted under the overflow series.";
    Draining = "weft_draining", Gauge, "1 after SIGTERM or /drain.";
    Workers = "weft_workers", Gauge, "Data-plane threads.";
    ProcessCpu = "process_cpu_seconds_total", Counter, "User and system time of the process.";
    ProcessOpenFds = "process_open_fds", Gauge, "Open file descriptors.";
    ProcessMaxFds = "process_max_fds", Gauge, "Most file descriptors that may be open.";
    ProcessResident = "process_resident_memory_bytes", Gauge, "Resident memory.";
    ProcessVirtual = "process_virtual_memory_bytes", Gauge, "Virtual memory.";
    ProcessStart = "process_start_time_seconds", Gauge, "When the process started, Unix seconds.";
    ProcessThreads = "process_threads", Gauge, "Threads of the process.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_counters_say_total() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert_eq!(metric.kind() == Kind::Counter, metric.name().ends_with("_total"), "{}", metric.name());
        }
    }
}
