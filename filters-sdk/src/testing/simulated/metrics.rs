//! As the interface `metrics`: the names, numbers of labels and limits of the host.

use std::collections::BTreeMap;

use super::HOST;
use crate::bindings::weft::filter::metrics::Kind;
use crate::rules;

const METRICS: usize = 64;
const LABELS: usize = 4;
/// Sets of labels over all metrics.
const SETS: usize = 1_000;

/// Labels that the proxy gives each series itself.
const OWN_LABELS: [&str; 5] = ["name", "filter", "version", "le", "other"];

#[derive(Default)]
pub(super) struct Metrics(Vec<Metric>);

struct Metric {
    name: String,
    kind: Kind,
    labels: Vec<String>,
    /// By the labels' values; what is over the limit has none, and counts as `other`.
    series: BTreeMap<Option<Vec<String>>, f64>,
}

impl Metrics {
    fn sets(&self) -> usize {
        self.0.iter().map(|metric| metric.series.len()).sum()
    }
}

pub(crate) fn define(kind: Kind, name: &str, labels: &[String]) -> Result<u32, String> {
    rules::metric_name(name)?;
    labels.iter().try_for_each(|label| rules::metric_name(label))?;
    if let Some(own) = labels.iter().find(|label| OWN_LABELS.contains(&label.as_str())) {
        return Err(format!("the label {own} is the proxy's own"));
    }
    if labels.len() > LABELS {
        return Err(format!("a metric has at most {LABELS} labels"));
    }
    HOST.with_borrow_mut(|host| {
        let metrics = &mut host.metrics.0;
        let index = match metrics.iter().position(|metric| metric.name == name) {
            Some(known) if metrics[known].kind == kind && metrics[known].labels == labels => known,
            Some(_) => return Err(format!("{name} is of another kind or has other labels")),
            None if metrics.len() == METRICS => return Err(format!("a filter has at most {METRICS} metrics")),
            None => {
                let (name, labels) = (name.to_owned(), labels.to_vec());
                metrics.push(Metric { name, kind, labels, series: BTreeMap::new() });
                metrics.len() - 1
            }
        };
        u32::try_from(index).map_err(|_| "too many metrics".to_owned())
    })
}

pub(crate) fn add(metric: u32, labels: &[String], delta: u64) {
    // A test does not count beyond 2^53.
    #[expect(clippy::cast_precision_loss, reason = "tests count little")]
    change(metric, Kind::Counter, labels, |value| value + delta as f64);
}

pub(crate) fn set(metric: u32, labels: &[String], level: f64) {
    change(metric, Kind::Gauge, labels, |_| level);
}

pub(crate) fn observe(metric: u32, labels: &[String], observed: f64) {
    change(metric, Kind::Histogram, labels, |sum| sum + observed);
}

fn change(metric: u32, kind: Kind, labels: &[String], change: impl FnOnce(f64) -> f64) {
    HOST.with_borrow_mut(|host| {
        let sets = host.metrics.sets();
        let metric = host.metrics.0.get_mut(metric as usize).expect("a metric of another host");
        assert_eq!(metric.kind, kind, "{} is of another kind", metric.name);
        assert_eq!(metric.labels.len(), labels.len(), "{} takes a value for each of its labels", metric.name);
        let own = Some(labels.to_vec());
        let series = if sets < SETS || metric.series.contains_key(&own) { own } else { None };
        let value = metric.series.entry(series).or_default();
        *value = change(*value);
    });
}

/// The sum over all sets of labels, or the value of one; `None` where the metric is not defined.
pub(crate) fn value(name: &str, labels: Option<&[&str]>) -> Option<f64> {
    HOST.with_borrow(|host| {
        let metric = host.metrics.0.iter().find(|metric| metric.name == name)?;
        let Some(labels) = labels else { return Some(metric.series.values().sum()) };
        let own = Some(labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        Some(metric.series.get(&own).copied().unwrap_or_default())
    })
}
