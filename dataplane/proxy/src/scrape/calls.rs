//! What calls of filters cost and how they fail: by hook, by kind, and in time.

use std::fmt::Write as _;

use weft_filter_host::{CALL_TIME_BOUNDS, FilterStats, Hook, HostStats};

use super::{Read, filter_labels, per_filter};
use crate::telemetry::names::Metric;
use crate::telemetry::render::{bucket_samples, header, sample};
use crate::telemetry::series::push_label;

pub(super) fn render(hosts: &[HostStats], out: &mut String) {
    let columns: [(Metric, Read); 8] = [
        (Metric::FilterBackoffs, |stats| stats.backoffs.value()),
        (Metric::FilterBackoffSkips, |stats| stats.backoff_skips.value()),
        (Metric::FilterLongBodies, |stats| stats.long_bodies.value()),
        (Metric::FilterResets, |stats| stats.resets.value()),
        (Metric::FilterWaits, |stats| stats.waits.value()),
        (Metric::FilterRecycled, |stats| stats.recycled.value()),
        (Metric::FilterConfiguredInline, |stats| stats.configured_inline.value()),
        (Metric::FilterLogDropped, |stats| stats.log_lines_dropped.value()),
    ];
    per_filter(&columns, hosts, out);
    let programs: [(Metric, Read); 2] = [
        (Metric::FilterInstances, |stats| stats.instances.value()),
        (Metric::FilterMemory, |stats| stats.memory_bytes.value()),
    ];
    for (metric, read) in programs {
        header(out, metric);
        for host in hosts {
            sample(out, metric.name(), &filter_labels(host), read(&host.program));
        }
    }
    by(Metric::FilterHookCalls, "hook", hosts, out, |stats| {
        Hook::ALL.into_iter().map(|hook| (hook.name(), stats.calls_at(hook))).collect()
    });
    by(Metric::FilterFailures, "kind", hosts, out, FilterStats::failures);
    header(out, Metric::FilterCallTime);
    for host in hosts {
        call_time(host, out);
    }
}

/// Samples of one metric with a label more; those that never happened are left out.
fn by(
    metric: Metric,
    label: &str,
    hosts: &[HostStats],
    out: &mut String,
    read: impl Fn(&FilterStats) -> Vec<(&'static str, u64)>,
) {
    header(out, metric);
    for host in hosts {
        for (value, count) in read(&host.stats).into_iter().filter(|(_, count)| *count > 0) {
            let mut labels = filter_labels(host);
            labels.push(',');
            push_label(&mut labels, label, value);
            labels.pop();
            sample(out, metric.name(), &labels, count);
        }
    }
}

fn call_time(host: &HostStats, out: &mut String) {
    let (labels, name) = (filter_labels(host), Metric::FilterCallTime.name());
    let times = &host.stats.call_time;
    let seconds = CALL_TIME_BOUNDS.iter().map(|micros| std::time::Duration::from_micros(*micros).as_secs_f64());
    let cumulative = bucket_samples(out, name, &labels, seconds, times.buckets());
    let sum = times.sum().as_secs_f64();
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {cumulative}");
}
