//! One scrape: gauges are read when asked for, request series are added up over the workers, filters tell their own.

mod calls;
mod custom;

use std::fmt::Write as _;

use weft_filter_host::{FilterStats, Host, HostStats, OTHER_REASONS};

use self::custom::Told;
use crate::admin::{Admin, Door};
use crate::side::Side;
use crate::telemetry::counters::Dialled;
use crate::telemetry::names::{Kind, Metric};
use crate::telemetry::process::Process;
use crate::telemetry::render::{self, header, sample};
use crate::telemetry::series::push_label;

/// The whole text, in the Prometheus exposition format 0.0.4.
pub fn render(admin: &Admin) -> String {
    let mut out = String::with_capacity(64 << 10);
    gauges(admin, &mut out);
    Process::now().render(&mut out);
    render::series(&admin.shared.series, &mut out);
    filters(admin, &mut out);
    out.push_str(&admin.prometheus.render());
    out
}

fn gauges(admin: &Admin, out: &mut String) {
    let shared = &admin.shared;
    header(out, Metric::Build);
    sample(out, Metric::Build.name(), &format!("component=\"weft-proxy\",tag=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    let mut gauge = |metric: Metric, value: u64| {
        header(out, metric);
        let _ = writeln!(out, "{} {value}", metric.name());
    };
    gauge(Metric::ConfigStaleness, shared.contact.staleness_ms() / 1_000);
    gauge(Metric::ControlConnected, u64::from(shared.contact.is_connected()));
    let snapshot = shared.snapshot.load();
    let closed = snapshot.as_ref().map_or(0, |snapshot| snapshot.outbound_closed().count());
    gauge(Metric::OutboundClosed, closed as u64);
    gauge(Metric::NotFollowed, u64::from(shared.contact.not_followed().is_some()));
    gauge(Metric::Draining, u64::from(shared.drain.is_draining()));
    gauge(Metric::Workers, shared.config.worker_count() as u64);
    gauge(Metric::ConfigSnapshots, crate::snapshot::live() as u64);
    gauge(Metric::AppConnections, shared.app_connections.value());
    gauge(Metric::AppConnectionsLimit, crate::descriptors::app_connections(&shared.config));
    gauge(Metric::NotDialled, weft_transport::capture::not_dialled());
    gauge(Metric::WorkersStalled, admin.hearts.stalled().len() as u64);
    let stalls = shared.stalls.sums();
    gauge(Metric::StalledBytes, stalls.bytes);
    gauge(Metric::StalledStreams, stalls.streams);
    gauge(Metric::StalledResets, stalls.resets);
    gauge(Metric::EndpointsUnreachable, shared.out.unreachable.value());
    gauge(Metric::EndpointsEjected, shared.out.ejected.value());
    gauge(Metric::ServicesPanicking, shared.out.panicking.value());
    gauge(Metric::EndpointsUnhealthy, shared.checks.unhealthy.value());
    gauge(Metric::RequestsPending, shared.gates.waiting.value());
    gauge(Metric::MirrorsInFlight, shared.copies.value());
    gauge(Metric::FilterCalloutsOpen, shared.filter_callouts.used());
    gauge(Metric::FilterBodyBytes, shared.filter_bodies.used());
    gauge(Metric::FilterKeptBytes, shared.filter_host.kept_bytes());
    gauge(Metric::FilterSpares, shared.filter_host.spare_instances());
    gauge(Metric::AccessLogDropped, shared.access_log.dropped());
    gauge(Metric::SourcesDropped, shared.series.sources_dropped());
    if let Some(capturing) = admin.capture.get() {
        gauge(Metric::CaptureRulesPresent, u64::from(capturing.is_present()));
        gauge(Metric::CaptureRestored, capturing.restored());
    }
    if let Some(identity) = admin.identity.get() {
        gauge(Metric::CertificateExpiry, identity.current().identity.not_after().as_secs());
    }
    for (metric, value) in
        [(Metric::SideConnections, Side::open as fn(&Side) -> u64), (Metric::SideEvicted, Side::evicted)]
    {
        header(out, metric);
        for door in Door::ALL {
            sample(out, metric.name(), &format!("port=\"{}\"", door.as_str()), value(admin.side(door)));
        }
    }
    header(out, Metric::AdaptiveLimit);
    for (service, limit) in shared.gates.adaptive() {
        let mut labels = String::new();
        push_label(&mut labels, "destination_service_name", &service.name);
        push_label(&mut labels, "destination_service_namespace", &service.namespace);
        labels.pop();
        sample(out, Metric::AdaptiveLimit.name(), &labels, u64::from(limit));
    }
    pools(admin, out);
}

fn pools(admin: &Admin, out: &mut String) {
    let shared = &admin.shared;
    let (mut open, mut dials, mut coalesced, mut evicted, mut suspected) = (0, 0, 0, 0, 0);
    let mut handshakes = Dialled::default();
    for stats in shared.pools.lock().expect("no holder panics").iter() {
        let one = stats.snapshot();
        open += one.connections;
        dials += one.dials;
        coalesced += one.coalesced;
        evicted += one.evicted;
        suspected += one.suspected;
        handshakes.add(&one);
    }
    handshakes.tell();
    header(out, Metric::PeerConnections);
    sample(out, Metric::PeerConnections.name(), "side=\"outbound\"", open);
    sample(out, Metric::PeerConnections.name(), "side=\"inbound\"", shared.peer_connections.value());
    let (mut reused, mut dialled, mut queued, mut timed_out) = (0, 0, 0, 0);
    for stats in shared.app_pools.lock().expect("no holder panics").iter() {
        reused += stats.reused.value();
        dialled += stats.dialled.value();
        queued += stats.multiplexed.queued.value();
        timed_out += stats.multiplexed.timed_out.value();
    }
    let (mut refused, mut retries) = (0, 0);
    for stats in shared.admissions.lock().expect("no holder panics").iter() {
        refused += stats.refused();
        retries += stats.retries();
    }
    for (metric, value) in [
        (Metric::PeerSuspected, suspected),
        (Metric::PeerRefused, refused),
        (Metric::HandshakeRetries, retries),
        (Metric::PeerDials, dials),
        (Metric::PeerDialsShared, coalesced),
        (Metric::PeerEvictions, evicted),
        (Metric::AppPoolReused, reused),
        (Metric::AppPoolDialled, dialled),
        (Metric::AppStreamsQueued, queued),
        (Metric::AppStreamTimeouts, timed_out),
    ] {
        header(out, metric);
        let _ = writeln!(out, "{} {value}", metric.name());
    }
}

/// Reads one counter of a filter.
type Read = fn(&FilterStats) -> u64;

fn filters(admin: &Admin, out: &mut String) {
    let hosts = admin.shared.filter_host.stats();
    let columns: [(Metric, Read); 5] = [
        (Metric::FilterCalls, FilterStats::calls),
        (Metric::FilterTraps, |stats| stats.traps.value()),
        (Metric::FilterTimeouts, |stats| stats.timeouts.value()),
        (Metric::FilterFailedOpen, |stats| stats.failed_open.value()),
        (Metric::FilterFailedClosed, |stats| stats.failed_closed.value()),
    ];
    per_filter(&columns, &hosts, out);
    replies(&hosts, out);
    header(out, Metric::FilterKeptRefusals);
    for (kind, count) in admin.shared.filter_host.kept_refusals() {
        sample(out, Metric::FilterKeptRefusals.name(), &format!("kind=\"{kind}\""), count);
    }
    audited(&hosts, out);
    compiled(&admin.shared.filter_host, out);
    calls::render(&hosts, out);
    capabilities(&hosts, out);
    let told = hosts.iter().flat_map(|host| {
        host.stats.custom().into_iter().map(move |metric| Told {
            labels: filter_labels(host),
            name: metric.name().to_owned(),
            kind: metric.kind(),
            series: metric.series(),
        })
    });
    custom::render(&told.collect::<Vec<_>>(), out);
}

/// Writes metrics of which each filter has one sample.
fn per_filter(columns: &[(Metric, Read)], hosts: &[HostStats], out: &mut String) {
    for (metric, read) in columns {
        header(out, *metric);
        for host in hosts {
            sample(out, metric.name(), &filter_labels(host), read(&host.stats));
        }
    }
}

/// What audit mode kept from happening, by the rule that decided; without one, what no rule is named for.
fn audited(hosts: &[HostStats], out: &mut String) {
    header(out, Metric::FilterAudited);
    for host in hosts {
        let labels = filter_labels(host);
        sample(out, Metric::FilterAudited.name(), &labels, host.stats.audited.rest());
        for (rule, count) in host.stats.audited.by_word() {
            sample(out, Metric::FilterAudited.name(), &with_label(&labels, "rule", &rule), count);
        }
    }
}

/// What filters answered themselves, by the reason that they gave.
fn replies(hosts: &[HostStats], out: &mut String) {
    header(out, Metric::FilterReplies);
    for host in hosts {
        let (labels, replies) = (filter_labels(host), &host.stats.replies);
        let others = (OTHER_REASONS.to_owned(), replies.rest());
        for (reason, count) in replies.by_word().into_iter().chain([others]) {
            sample(out, Metric::FilterReplies.name(), &with_label(&labels, "reason", &reason), count);
        }
    }
}

/// These labels, and one more.
fn with_label(labels: &str, name: &str, value: &str) -> String {
    let mut labels = format!("{labels},");
    push_label(&mut labels, name, value);
    labels.pop();
    labels
}

/// What became of the capabilities that filters are granted, and of those that they are not.
fn capabilities(hosts: &[HostStats], out: &mut String) {
    let columns: [(Metric, Read); 4] = [
        (Metric::FilterDenied, |stats| stats.denied_calls.value()),
        (Metric::FilterKvEvictions, |stats| stats.kv_evictions.value()),
        (Metric::FilterMetricOverflows, |stats| stats.metric_overflows.value()),
        (Metric::FilterMetricMisuses, |stats| stats.metric_misuses.value()),
    ];
    per_filter(&columns, hosts, out);
}

/// What compiling took, and what is kept of it.
fn compiled(host: &Host, out: &mut String) {
    header(out, Metric::FilterCompile);
    let name = Metric::FilterCompile.name();
    for (result, timing) in host.compile_times() {
        for (bound, count) in timing.cumulative() {
            sample(out, &format!("{name}_bucket"), &format!("result=\"{result}\",le=\"{bound}\""), count);
        }
        sample(out, &format!("{name}_bucket"), &format!("result=\"{result}\",le=\"+Inf\""), timing.count());
        let _ = writeln!(out, "{name}_sum{{result=\"{result}\"}} {}", timing.sum().as_secs_f64());
        sample(out, &format!("{name}_count"), &format!("result=\"{result}\""), timing.count());
    }
    let Some(cache) = host.cache_stats() else { return };
    for (metric, value) in [
        (Metric::FilterCacheBytes, cache.bytes),
        (Metric::FilterCacheEntries, cache.entries),
        (Metric::FilterCacheEvicted, cache.evicted),
    ] {
        header(out, metric);
        let _ = writeln!(out, "{} {value}", metric.name());
    }
    header(out, Metric::FilterCacheLookups);
    for (result, count) in [("hit", cache.hits), ("miss", cache.misses), ("damaged", cache.damaged)] {
        sample(out, Metric::FilterCacheLookups.name(), &format!("result=\"{result}\""), count);
    }
}

fn filter_labels(host: &HostStats) -> String {
    let mut labels = String::new();
    push_label(&mut labels, "name", &host.name);
    push_label(&mut labels, "filter", &host.filter);
    push_label(&mut labels, "version", &host.version);
    labels.pop();
    labels
}

/// Tells the exporter of the rare counters what they mean, for the HELP of each.
pub fn describe() {
    for metric in Metric::ALL {
        match metric.kind() {
            Kind::Counter => metrics::describe_counter!(metric.name(), metric.help()),
            Kind::Gauge => metrics::describe_gauge!(metric.name(), metric.help()),
            Kind::Histogram => metrics::describe_histogram!(metric.name(), metric.help()),
        }
    }
}
