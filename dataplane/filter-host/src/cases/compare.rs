//! What is to be seen, against what was seen: one sentence for each difference.

use std::sync::Arc;

use http::HeaderMap;
use weft_policy::component::cases::{CaseVerdict, Expect, ExpectedFields};

use super::drive::{Seen, Sent};
use crate::metrics::{CustomMetric, CustomSeries, CustomValue};

/// Characters of a value that a sentence repeats.
const SHOWN: usize = 200;

pub(super) fn faults(expect: &Expect, seen: &Seen) -> Vec<String> {
    let mut faults = seen.faults.clone();
    if expect.verdict != seen.verdict {
        let why = if seen.reason.is_empty() { String::new() } else { format!(" ({})", shown(&seen.reason)) };
        faults.push(format!("verdict: {}{why}, not {}", seen.verdict.as_str(), expect.verdict.as_str()));
        // The rest would say the same again.
        return faults;
    }
    faults.extend(reason(expect, seen));
    faults.extend(reply(expect, seen));
    if let Some(wanted) = expect.delay_ms {
        faults.extend(is("delay_ms", Some(&wanted.to_string()), &seen.delay.as_millis().to_string()));
    }
    if let Some(wanted) = &expect.request {
        let Some(sent) = &seen.request else {
            faults.push("request: the app is sent nothing".to_owned());
            return faults;
        };
        faults.extend(is("request.path", wanted.path.as_deref(), &sent.path));
        faults.extend(is("request.authority", wanted.authority.as_deref(), &sent.authority));
        faults.extend(fields(" of the request", &wanted.headers, &sent.headers));
        faults.extend(is("request.body", wanted.body.as_deref(), &body(sent)));
    }
    if let Some(wanted) = &expect.response {
        let Some(sent) = &seen.response else {
            faults.push("response: no answer of the app passes".to_owned());
            return faults;
        };
        let status = wanted.status.map(|status| status.to_string());
        faults.extend(is("response.status", status.as_deref(), &sent.status.to_string()));
        faults.extend(fields(" of the response", &wanted.headers, &sent.headers));
        faults.extend(is("response.body", wanted.body.as_deref(), &body(sent)));
    }
    faults.extend(attributes(&expect.attributes, &seen.attributes));
    faults
}

fn reason(expect: &Expect, seen: &Seen) -> Option<String> {
    let wanted = expect.reason.as_deref()?;
    match expect.verdict {
        CaseVerdict::Refuse if seen.reason.contains(wanted) => None,
        CaseVerdict::Refuse => Some(format!("reason: {}, without {wanted:?}", shown(&seen.reason))),
        CaseVerdict::Pass | CaseVerdict::Respond | CaseVerdict::Reset | CaseVerdict::Fail => {
            is("reason", Some(wanted), &seen.reason)
        }
    }
}

fn reply(expect: &Expect, seen: &Seen) -> Vec<String> {
    let Some(reply) = &seen.reply else {
        let wanted = [
            ("status", expect.status.is_some()),
            ("rule", expect.rule.is_some()),
            ("headers", !expect.headers.is_empty()),
            ("body", expect.body.is_some()),
            ("contains", expect.contains.is_some()),
        ];
        let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
        return wanted.map(|(key, _)| format!("{key}: the filter gave no answer")).collect();
    };
    let mut faults = Vec::new();
    let status = expect.status.map(|status| status.to_string());
    faults.extend(is("status", status.as_deref(), reply.status.as_str()));
    faults.extend(is("rule", expect.rule.as_deref(), reply.rule.as_deref().unwrap_or_default()));
    faults.extend(fields(" of the answer", &expect.headers, &reply.headers));
    let body = String::from_utf8_lossy(&reply.body);
    faults.extend(is("body", expect.body.as_deref(), &body));
    if let Some(part) = expect.contains.as_ref().filter(|part| !body.contains(part.as_str())) {
        faults.push(format!("body: {}, without {}", shown(&body), shown(part)));
    }
    faults
}

fn body(sent: &Sent) -> String {
    String::from_utf8_lossy(&sent.body).into_owned()
}

/// A sentence where something is expected and found otherwise.
pub(super) fn is(what: &str, expected: Option<&str>, found: &str) -> Option<String> {
    let expected = expected.filter(|expected| *expected != found)?;
    Some(format!("{what}: {}, not {}", shown(found), shown(expected)))
}

/// A sentence where something is there or absent against what is expected, or another.
pub(super) fn differs(what: &str, expected: Option<&String>, found: Option<&String>) -> Option<String> {
    let text = |value: Option<&String>| value.map_or_else(|| "nothing".to_owned(), |value| shown(value));
    (expected != found).then(|| format!("{what}: {}, not {}", text(found), text(expected)))
}

/// The same of fields; `of` says whose.
pub(super) fn fields(of: &str, expected: &ExpectedFields, found: &HeaderMap) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, wanted) in expected {
        let wanted = wanted.as_ref().map_or(&[][..], |texts| texts.as_slice());
        let values = found.get_all(name.as_str()).iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        if values != wanted {
            faults.push(format!("header {name}{of}: {}, not {}", all(&values), all(wanted)));
        }
    }
    faults
}

fn attributes(expected: &ExpectedFields, found: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, wanted) in expected {
        let wanted = wanted.as_ref().map_or(&[][..], |texts| texts.as_slice());
        let values = found.iter().filter(|(known, _)| known == name);
        let values: Vec<_> = values.map(|(_, value)| value.clone()).collect();
        if values != wanted {
            faults.push(format!("attribute {name}: {}, not {}", all(&values), all(wanted)));
        }
    }
    faults
}

/// The filter's own metrics, counted from the start of the case.
pub(super) fn metrics(expect: &Expect, found: &[Arc<CustomMetric>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, wanted) in &expect.metrics {
        let of = |metric: &Arc<CustomMetric>| {
            let all = metric.series();
            all.into_iter().find(|series| full_name(metric, series) == *name).and_then(|series| number(&series))
        };
        let value = found.iter().find_map(of);
        let wanted = wanted.as_f64();
        if value != wanted {
            let text = |number: Option<f64>| number.map_or_else(|| "nothing".to_owned(), |number| number.to_string());
            faults.push(format!("metric {name}: {}, not {}", text(value), text(wanted)));
        }
    }
    faults
}

fn full_name(metric: &CustomMetric, series: &CustomSeries) -> String {
    let values: Vec<_> = series.labels.iter().map(|(_, value)| value.as_str()).collect();
    if values.is_empty() { metric.name().to_owned() } else { format!("{}{{{}}}", metric.name(), values.join(",")) }
}

/// Of a histogram how many there were.
fn number(series: &CustomSeries) -> Option<f64> {
    match &series.value {
        CustomValue::Counter(count) => whole(*count),
        CustomValue::Gauge(value) => Some(*value),
        CustomValue::Histogram { buckets, .. } => whole(buckets.iter().sum()),
    }
}

/// Counts of a case are small.
fn whole(count: u64) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

fn all(values: &[String]) -> String {
    match values {
        [] => "nothing".to_owned(),
        values => values.iter().map(|value| shown(value)).collect::<Vec<_>>().join(", "),
    }
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}
