//! Metrics that filters define themselves, each a family of its own: `weft_filter_custom_NAME`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use weft_filter_host::{CustomKind, CustomSeries, CustomValue, HISTOGRAM_BOUNDS};

use crate::telemetry::names::Metric;
use crate::telemetry::render::{bucket_samples, sample};
use crate::telemetry::series::push_label;

/// One metric of one filter.
#[derive(Debug)]
pub(super) struct Told {
    /// Of the filter.
    pub(super) labels: String,
    pub(super) name: String,
    pub(super) kind: CustomKind,
    pub(super) series: Vec<CustomSeries>,
}

/// Writes the metrics of all filters. What is called alike is one family.
pub(super) fn render(metrics: &[Told], out: &mut String) {
    let mut families = BTreeMap::<&str, Vec<&Told>>::new();
    for told in metrics {
        families.entry(&told.name).or_default().push(told);
    }
    for (name, metrics) in families {
        let name = format!("{}_{name}", Metric::FilterCustom.name());
        header(&name, &metrics, out);
        for told in metrics {
            told.series.iter().for_each(|series| one(&name, &told.labels, series, out));
        }
    }
}

/// A family has one type: where filters mean different kinds by one name it has none.
fn header(name: &str, metrics: &[&Told], out: &mut String) {
    let kinds = || metrics.iter().map(|told| told.kind);
    let first = kinds().next().filter(|first| kinds().all(|kind| kind == *first));
    let kind = match first {
        Some(CustomKind::Counter) => "counter",
        Some(CustomKind::Gauge) => "gauge",
        Some(CustomKind::Histogram) => "histogram",
        None => "untyped",
    };
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", Metric::FilterCustom.help());
}

fn one(name: &str, of_filter: &str, series: &CustomSeries, out: &mut String) {
    let mut labels = format!("{of_filter},");
    series.labels.iter().for_each(|(name, value)| push_label(&mut labels, name, value));
    labels.pop();
    match &series.value {
        CustomValue::Counter(value) => sample(out, name, &labels, *value),
        CustomValue::Gauge(value) => _ = writeln!(out, "{name}{{{labels}}} {}", number(*value)),
        CustomValue::Histogram { buckets, sum } => {
            let counts = buckets.iter().copied();
            let cumulative = bucket_samples(out, name, &labels, HISTOGRAM_BOUNDS.iter(), counts);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", number(*sum));
            sample(out, &format!("{name}_count"), &labels, cumulative);
        }
    }
}

/// A number as the format has it, which names what is none otherwise than Rust does.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(filter: &str, name: &str, labels: &[(&str, &str)], value: CustomValue) -> Told {
        let kind = match &value {
            CustomValue::Counter(_) => CustomKind::Counter,
            CustomValue::Gauge(_) => CustomKind::Gauge,
            CustomValue::Histogram { .. } => CustomKind::Histogram,
        };
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let series = vec![CustomSeries { labels, value }];
        Told { labels: format!("name=\"{filter}\""), name: name.to_owned(), kind, series }
    }

    #[test]
    fn each_kind_is_a_family_of_its_own() {
        let mut buckets = vec![0; HISTOGRAM_BOUNDS.len() + 1];
        (buckets[3], buckets[14]) = (1, 1);
        let metrics = [
            told("x", "seen_total", &[("tenant", "a\"b")], CustomValue::Counter(3)),
            told("x", "level", &[], CustomValue::Gauge(f64::INFINITY)),
            told("x", "size", &[], CustomValue::Histogram { buckets, sum: 20_003.5 }),
        ];
        let mut text = String::new();
        render(&metrics, &mut text);
        let lines = [
            "# TYPE weft_filter_custom_seen_total counter",
            "weft_filter_custom_seen_total{name=\"x\",tenant=\"a\\\"b\"} 3",
            "# TYPE weft_filter_custom_level gauge",
            "weft_filter_custom_level{name=\"x\"} +Inf",
            "# TYPE weft_filter_custom_size histogram",
            "weft_filter_custom_size_bucket{name=\"x\",le=\"2.5\"} 0",
            "weft_filter_custom_size_bucket{name=\"x\",le=\"5\"} 1",
            "weft_filter_custom_size_bucket{name=\"x\",le=\"+Inf\"} 2",
            "weft_filter_custom_size_sum{name=\"x\"} 20003.5",
            "weft_filter_custom_size_count{name=\"x\"} 2",
        ];
        for line in lines {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE").count(), 3, "{text}");
    }

    #[test]
    fn a_name_that_means_two_kinds_has_no_type() {
        let metrics =
            [told("a", "seen", &[], CustomValue::Counter(1)), told("b", "seen", &[], CustomValue::Gauge(2.5))];
        let mut text = String::new();
        render(&metrics, &mut text);
        assert!(text.contains("# TYPE weft_filter_custom_seen untyped\n"), "{text}");
        assert!(text.contains("weft_filter_custom_seen{name=\"a\"} 1\n"), "{text}");
        assert!(text.contains("weft_filter_custom_seen{name=\"b\"} 2.5\n"), "{text}");
    }
}
