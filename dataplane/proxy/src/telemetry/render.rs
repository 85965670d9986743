//! The text of a scrape: request-path series of all workers added up by label set, filter counters, and what
//! metrics-exporter-prometheus keeps for the rest.

use std::fmt::{Display, Write as _};

use super::names::{Kind, Metric};
use super::series::{BOUNDS, Histogram, SeriesStore};

type Buckets = ([u64; BOUNDS.len() + 1], u64);

/// Renders the request and TCP series in the Prometheus exposition format 0.0.4.
pub fn series(store: &SeriesStore, out: &mut String) {
    let requests = store.requests.sums(|sum: &mut (u64, Buckets, Buckets, Buckets), series| {
        sum.0 += series.requests.value();
        add(&mut sum.1, &series.duration);
        add(&mut sum.2, &series.request_bytes);
        add(&mut sum.3, &series.response_bytes);
    });
    header(out, Metric::Requests);
    for (labels, sum) in &requests {
        sample(out, Metric::Requests.name(), labels, sum.0);
    }
    histogram(out, Metric::RequestDuration, requests.iter().map(|(labels, sum)| (&**labels, &sum.1)));
    histogram(out, Metric::RequestBytes, requests.iter().map(|(labels, sum)| (&**labels, &sum.2)));
    histogram(out, Metric::ResponseBytes, requests.iter().map(|(labels, sum)| (&**labels, &sum.3)));

    let tcp = store.tcp.sums(|sum: &mut [u64; 4], series| {
        for (total, counter) in sum.iter_mut().zip([&series.opened, &series.closed, &series.sent, &series.received]) {
            *total += counter.value();
        }
    });
    for (index, metric) in
        [Metric::TcpOpened, Metric::TcpClosed, Metric::TcpSent, Metric::TcpReceived].iter().enumerate()
    {
        header(out, *metric);
        for (labels, sum) in &tcp {
            sample(out, metric.name(), labels, sum[index]);
        }
    }
    header(out, Metric::Series);
    let _ = writeln!(out, "{} {}", Metric::Series.name(), store.requests.live() + store.tcp.live());
    header(out, Metric::SeriesDropped);
    let dropped = store.dropped.load(std::sync::atomic::Ordering::Relaxed);
    let _ = writeln!(out, "{} {dropped}", Metric::SeriesDropped.name());
}

/// Writes the `# HELP` and `# TYPE` lines of `metric`.
pub fn header(out: &mut String, metric: Metric) {
    let kind = match metric.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} {kind}", metric.name(), metric.help());
}

/// Writes one sample line.
pub fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

/// Writes the buckets of a histogram; `counts`: between its bounds, and above the last. Gives their sum.
pub fn bucket_samples(
    out: &mut String,
    name: &str,
    labels: &str,
    bounds: impl Iterator<Item = impl Display>,
    counts: impl Iterator<Item = u64>,
) -> u64 {
    let mut cumulative = 0;
    for (bound, count) in bounds.map(Some).chain([None]).zip(counts) {
        cumulative += count;
        let _ = match bound {
            Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}"),
            None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {cumulative}"),
        };
    }
    cumulative
}

fn add(sum: &mut Buckets, histogram: &Histogram) {
    let (counts, total) = histogram.read();
    for (into, count) in sum.0.iter_mut().zip(counts) {
        *into += count;
    }
    sum.1 += total;
}

fn histogram<'a>(out: &mut String, metric: Metric, rows: impl Iterator<Item = (&'a str, &'a Buckets)>) {
    header(out, metric);
    let name = metric.name();
    for (labels, (counts, sum)) in rows {
        let cumulative = bucket_samples(out, name, labels, BOUNDS.iter(), counts.iter().copied());
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}.{:03}", sum / 1_000, sum % 1_000);
        sample(out, &format!("{name}_count"), labels, cumulative);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::series::{PairLabels, RequestEnd, WorkerMetrics};
    use super::*;
    use crate::reply::Flag;

    fn end(code: u16, millis: u64) -> RequestEnd {
        RequestEnd {
            code,
            grpc: false,
            grpc_status: None,
            flag: Flag::None,
            duration: Duration::from_millis(millis),
            request_bytes: 0,
            response_bytes: 128,
        }
    }

    #[test]
    fn workers_are_added_up_and_labels_escaped() {
        let store = Arc::new(SeriesStore::default());
        let mut labels = PairLabels { reporter: "source", ..PairLabels::default() };
        labels.source.workload = "a\"b\\c".to_owned();
        for _ in 0..2 {
            let worker = WorkerMetrics::new(Arc::clone(&store));
            let pair = worker.pair(&labels);
            pair.request(end(200, 3));
            pair.request(end(503, 700));
        }
        let mut text = String::new();
        series(&store, &mut text);
        let line = |needle: &[&str]| {
            text.lines().find(|line| needle.iter().all(|n| line.contains(n))).unwrap_or_default().to_owned()
        };
        assert!(line(&["istio_requests_total{", "response_code=\"200\""]).ends_with(" 2"), "{text}");
        assert!(line(&["source_workload=\"a\\\"b\\\\c\""]).contains("reporter=\"source\""));
        assert!(line(&["duration_milliseconds_bucket", "\"503\"", "le=\"500\""]).ends_with(" 0"));
        assert!(line(&["duration_milliseconds_bucket", "\"503\"", "le=\"1000\""]).ends_with(" 2"));
        assert!(line(&["duration_milliseconds_sum", "\"503\""]).ends_with(" 1400.000"));
        assert!(line(&["istio_response_bytes_count", "\"200\""]).ends_with(" 2"));
    }

    #[test]
    fn series_past_the_limit_are_counted_together() {
        let store = Arc::new(SeriesStore::default());
        let worker = WorkerMetrics::new(Arc::clone(&store));
        for index in 0..=store.limits.per_worker {
            let mut labels = PairLabels { reporter: "source", ..PairLabels::default() };
            labels.source.workload = index.to_string();
            worker.pair(&labels).request(end(200, 1));
        }
        let mut text = String::new();
        series(&store, &mut text);
        assert!(text.contains("istio_requests_total{overflow=\"true\","));
        assert!(text.contains("weft_metrics_series_dropped_total 1"));
    }
}
