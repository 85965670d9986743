//! Kinds, names, labels and bounds of the metrics that filters define.

use super::*;

fn labels(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn counter(metrics: &CustomMetrics, name: &str, names: &[&str]) -> Result<Arc<CustomMetric>, String> {
    metrics.define(CustomKind::Counter, name, labels(names))
}

#[test]
fn kinds_names_and_bounds() {
    let metrics = CustomMetrics::default();
    let seen = counter(&metrics, "seen", &[]).expect("sound");
    assert_eq!(seen.add(Vec::new(), 2), Taken::Counted);
    assert_eq!(counter(&metrics, "seen", &[]).expect("the same").add(Vec::new(), 3), Taken::Counted);
    assert_eq!(seen.set(Vec::new(), 9.0), Taken::Misused);
    assert_eq!(seen.value(), CustomValue::Counter(5));
    assert!(metrics.define(CustomKind::Gauge, "seen", Vec::new()).is_err());
    for bad in ["", "Seen", "1x", "a-b", &"x".repeat(65)] {
        assert!(counter(&metrics, bad, &[]).is_err(), "{bad:?}");
        assert!(counter(&metrics, "labelled", &[bad]).is_err(), "{bad:?}");
    }
    let histogram = metrics.define(CustomKind::Histogram, "size", Vec::new()).expect("sound");
    assert_eq!(histogram.observe(Vec::new(), 0.5), Taken::Counted);
    assert_eq!(histogram.observe(Vec::new(), 1e9), Taken::Counted);
    assert_eq!(histogram.observe(Vec::new(), f64::NAN), Taken::Misused);
    let CustomValue::Histogram { buckets, sum } = histogram.value() else { panic!("a histogram") };
    assert_eq!((buckets[0], buckets[14], sum), (1, 1, 1e9 + 0.5));
    for n in 2..MAX_METRICS {
        metrics.define(CustomKind::Gauge, &format!("g{n}"), Vec::new()).expect("room");
    }
    assert!(metrics.define(CustomKind::Gauge, "one_more", Vec::new()).is_err());
}

#[test]
fn names_of_labels_are_checked() {
    let metrics = CustomMetrics::default();
    for bad in [&["name"][..], &["le"], &["other"], &["a", "a"], &["a", "b", "c", "d", "e"]] {
        assert!(counter(&metrics, "m", bad).is_err(), "{bad:?}");
    }
    counter(&metrics, "m", &["tenant", "plan"]).expect("sound");
    assert_eq!(counter(&metrics, "m", &["tenant"]).map(drop), Err("m has the labels [tenant, plan]".to_owned()));
}

#[test]
fn each_set_of_labels_is_counted_and_one_for_all_beyond_the_bound() {
    let metrics = CustomMetrics::default();
    let first = counter(&metrics, "first", &["tenant"]).expect("sound");
    let second = counter(&metrics, "second", &["tenant"]).expect("sound");
    assert_eq!(first.add(Vec::new(), 1), Taken::Misused, "no label");
    for n in 0..MAX_SETS - 1 {
        assert_eq!(first.add(vec![format!("t{n:04}")], 1), Taken::Counted);
    }
    assert_eq!(second.add(labels(&["a"]), 1), Taken::Counted);
    assert_eq!(second.add(labels(&["b"]), 1), Taken::Beyond, "both metrics share the bound");
    assert_eq!(first.add(labels(&["c"]), 2), Taken::Beyond);
    assert_eq!(first.add(labels(&["d"]), 3), Taken::Beyond);
    assert_eq!(first.add(labels(&["t0000"]), 4), Taken::Counted, "those that are there go on");
    let series = first.series();
    assert_eq!(series.len(), MAX_SETS);
    let told = |index: usize| (series[index].labels.clone(), series[index].value.clone());
    let label = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(told(0), (label("tenant", "t0000"), CustomValue::Counter(5)));
    assert_eq!(told(MAX_SETS - 1), (label("other", "true"), CustomValue::Counter(5)));
}

#[test]
fn a_long_value_is_cut_between_characters() {
    let metrics = CustomMetrics::default();
    let metric = counter(&metrics, "m", &["path"]).expect("sound");
    assert_eq!(metric.add(vec!["ä".repeat(MAX_LABEL_VALUE)], 1), Taken::Counted);
    assert_eq!(metric.series()[0].labels[0].1, "ä".repeat(MAX_LABEL_VALUE / 2));
}

#[test]
fn no_two_series_of_a_filter_have_one_name() {
    for (first, second, expect) in [("size", "size_count", true), ("size", "size_total", false)] {
        for (kinds, expect) in
            [([CustomKind::Histogram, CustomKind::Counter], expect), ([CustomKind::Gauge, CustomKind::Counter], false)]
        {
            let metrics = CustomMetrics::default();
            metrics.define(kinds[0], first, Vec::new()).expect("sound");
            assert_eq!(metrics.define(kinds[1], second, Vec::new()).is_err(), expect, "{first} {second}");
            let metrics = CustomMetrics::default();
            metrics.define(kinds[1], second, Vec::new()).expect("sound");
            assert_eq!(metrics.define(kinds[0], first, Vec::new()).is_err(), expect, "{second} {first}");
        }
    }
}
