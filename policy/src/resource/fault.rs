//! `FaultPolicy`: delays and aborts a share of the requests, to see how callers bear it. It becomes the shipped filter
//! `fault`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attaching::{self, Frame, Typed};
use super::capability::Capability;
use super::filter::{Phase, PolicyMode};
use super::{TargetRef, value};
use crate::authz::check_principal;
use crate::bundle::{Direction, GRPC_CODES, ObjectName, OnFailure};
use crate::text::did_you_mean;

/// The longest that a filter may hold a request.
const MAX_DELAY_MS: u64 = 300_000;
/// Delays beyond so many means are rare: one in twenty thousand.
const MEANS: u64 = 10;
/// Headers, and identities: a filter may look at no more values.
const MAX_CONDITIONS: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// Absent: inbound, and outbound for rules of routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Beside other policies of its phase: smaller runs earlier, equals by name.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub mode: PolicyMode,
    /// Nobody is refused because a fault could not be made, unless that is asked for.
    #[serde(default = "allow")]
    pub on_failure: OnFailure,
    /// Where both strike, the abort comes after the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelaySpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortSpec>,
    /// Only requests that have all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FaultHeaderSpec>,
    /// Only requests of these callers: SPIFFE IDs, a trailing `*` makes a prefix. Empty: of everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
}

fn allow() -> OnFailure {
    OnFailure::Allow
}

/// `fixed` or `exponential`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelaySpec {
    #[serde(
        default,
        rename = "fixed",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub fixed_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential: Option<ExponentialSpec>,
    /// Of the requests, 0 to 100, to 0.0001.
    #[serde(default = "all")]
    pub percentage: f64,
}

/// Most delays are short and a few are long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExponentialSpec {
    #[serde(rename = "mean", deserialize_with = "value::duration_ms", serialize_with = "value::serialize_duration")]
    pub mean_ms: Option<u64>,
    /// Longer ones are as long as this. Absent: ten means, 5m at the most.
    #[serde(
        default,
        rename = "max",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_ms: Option<u64>,
}

/// `httpStatus`, `grpcStatus` or `reset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// By the name that gRPC has for it, as UNAVAILABLE. It strikes gRPC requests only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    /// `true`: the stream is reset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Of the requests, 0 to 100, to 0.0001.
    #[serde(default = "all")]
    pub percentage: f64,
}

fn all() -> f64 {
    100.0
}

/// The header is there, and has this value where one is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultHeaderSpec {
    #[serde(deserialize_with = "value::header_name")]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

type Wrong = Vec<(&'static str, String)>;

fn check_percentage(percentage: f64) -> Option<(&'static str, String)> {
    let is_fit = (0.0..=100.0).contains(&percentage);
    (!is_fit).then(|| ("percentage", format!("{percentage} is out of range: 0 to 100")))
}

fn check_delay(key: &'static str, ms: u64) -> Option<(&'static str, String)> {
    let is_fit = (1..=MAX_DELAY_MS).contains(&ms);
    (!is_fit).then(|| (key, format!("{} is out of range: 1ms to 5m", value::duration_text(ms))))
}

impl DelaySpec {
    fn check(&self) -> Wrong {
        let Self { fixed_ms, exponential, percentage } = self;
        let mut wrong = Wrong::new();
        if fixed_ms.is_some() == exponential.is_some() {
            wrong.push(("", "exactly one of `fixed` and `exponential` is expected".to_owned()));
        }
        wrong.extend(fixed_ms.and_then(|ms| check_delay("fixed", ms)));
        if let Some(exponential) = exponential {
            let mean_ms = exponential.mean_ms.unwrap_or_default();
            wrong.extend(check_delay("exponential.mean", mean_ms));
            match exponential.max_ms {
                Some(max_ms) if max_ms < mean_ms => {
                    let message = format!("is less than the mean, {}", value::duration_text(mean_ms));
                    wrong.push(("exponential.max", message));
                }
                Some(max_ms) => wrong.extend(check_delay("exponential.max", max_ms)),
                None => {}
            }
        }
        wrong.extend(check_percentage(*percentage));
        wrong
    }

    fn config(&self) -> Value {
        match &self.exponential {
            None => json!({"ms": self.fixed_ms.unwrap_or_default(), "percentage": self.percentage}),
            Some(ExponentialSpec { mean_ms, max_ms }) => {
                let mean_ms = mean_ms.unwrap_or_default();
                let max_ms = max_ms.unwrap_or_else(|| mean_ms.saturating_mul(MEANS).min(MAX_DELAY_MS));
                let exponential = json!({"mean_ms": mean_ms, "max_ms": max_ms});
                json!({"exponential": exponential, "percentage": self.percentage})
            }
        }
    }
}

impl AbortSpec {
    fn check(&self) -> Wrong {
        let Self { http_status, grpc_status, reset, percentage } = self;
        let mut wrong = Wrong::new();
        let given = [http_status.is_some(), grpc_status.is_some(), *reset];
        if given.into_iter().filter(|given| *given).count() != 1 {
            wrong.push(("", "exactly one of `httpStatus`, `grpcStatus` and `reset: true` is expected".to_owned()));
        }
        if let Some(status) = http_status.filter(|status| !(200..=599).contains(status)) {
            wrong.push(("httpStatus", format!("{status} is out of range: 200 to 599")));
        }
        let errors = &GRPC_CODES[1..];
        if let Some(name) = grpc_status.as_ref().filter(|name| !errors.contains(&name.as_str())) {
            let meant = did_you_mean(name, errors.iter().copied());
            wrong.push(("grpcStatus", format!("{name:?} is not one of {}{meant}", errors.join(", "))));
        }
        wrong.extend(check_percentage(*percentage));
        wrong
    }

    fn config(&self) -> Value {
        let grpc_status = self.grpc_status.as_ref().and_then(|name| GRPC_CODES.iter().position(|known| known == name));
        match (self.http_status, grpc_status) {
            (Some(status), _) => json!({"status": status, "percentage": self.percentage}),
            (None, Some(status)) => json!({"grpc_status": status, "percentage": self.percentage}),
            (None, None) => json!({"reset": true, "percentage": self.percentage}),
        }
    }
}

impl FaultPolicySpec {
    /// Everything that is wrong; keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = attaching::check_frame(self);
        if self.delay.is_none() && self.abort.is_none() {
            wrong.push((String::new(), "at least one of `delay` and `abort` is expected".to_owned()));
        }
        let of_delay = self.delay.iter().flat_map(DelaySpec::check).map(|it| ("delay", it));
        let of_abort = self.abort.iter().flat_map(AbortSpec::check).map(|it| ("abort", it));
        wrong.extend(of_delay.chain(of_abort).map(|(fault, (key, message))| match key {
            "" => (fault.to_owned(), message),
            key => (format!("{fault}.{key}"), message),
        }));
        for (key, count) in [("headers", self.headers.len()), ("identities", self.identities.len())] {
            if count > MAX_CONDITIONS {
                wrong.push((key.to_owned(), format!("has {count} entries; at most {MAX_CONDITIONS} are allowed")));
            }
        }
        for (index, header) in self.headers.iter().enumerate() {
            let at = |message| (format!("headers[{index}].name"), message);
            wrong.extend(value::matchable_header(&header.name).map_err(at).err());
        }
        for (index, identity) in self.identities.iter().enumerate() {
            wrong.extend(check_principal(identity).map_err(|message| (format!("identities[{index}]"), message)).err());
        }
        wrong
    }

    /// A fault's configuration with whom it strikes.
    fn strike(&self, mut fault: Value) -> Value {
        if !self.headers.is_empty() {
            let header = |it: &FaultHeaderSpec| match &it.exact {
                Some(exact) => json!({"name": it.name, "exact": exact}),
                None => json!({"name": it.name}),
            };
            fault["headers"] = self.headers.iter().map(header).collect();
        }
        if !self.identities.is_empty() {
            fault["identities"] = json!(self.identities);
        }
        fault
    }
}

impl Typed for FaultPolicySpec {
    const FILTER: &'static str = "fault";
    const PHASE: Phase = Phase::Traffic;

    fn frame(&self) -> Frame<'_> {
        let Self { target_refs, direction, order, mode, on_failure, .. } = self;
        let direction = attaching::direction_for(*direction, target_refs);
        Frame { targets: target_refs, direction, order: *order, mode: *mode, on_failure: *on_failure }
    }

    fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }

    /// Its name tells its choice of requests from that of other policies.
    fn config(&self, policy: &ObjectName) -> Value {
        let mut config = json!({"seed": policy.to_string()});
        if let Some(delay) = &self.delay {
            config["delay"] = self.strike(delay.config());
        }
        if let Some(abort) = &self.abort {
            config["abort"] = self.strike(abort.config());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> FaultPolicySpec {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn it_is_the_filter_policy_of_the_shipped_filter() {
        fn check(text: &str, expect: &Value) {
            let policy = attaching::tested(&spec(text));
            assert_eq!(policy["config"], *expect, "{text}");
            assert_eq!((&policy["phase"], &policy["onFailure"]), (&json!("Traffic"), &json!("Allow")), "{text}");
            assert_eq!(policy["filter"]["name"], "fault");
        }
        check(
            "{delay: {fixed: 1s, percentage: 2.5}, abort: {grpcStatus: UNAVAILABLE}, headers: [{name: X-A, exact: b}, {name: c}], \
             identities: ['spiffe://a/ns/b/sa/*']}",
            &json!({
                "seed": "shop/p",
                "delay": {"ms": 1_000, "percentage": 2.5, "identities": ["spiffe://a/ns/b/sa/*"],
                          "headers": [{"name": "x-a", "exact": "b"}, {"name": "c"}]},
                "abort": {"grpc_status": 14, "percentage": 100.0, "identities": ["spiffe://a/ns/b/sa/*"],
                          "headers": [{"name": "x-a", "exact": "b"}, {"name": "c"}]},
            }),
        );
        let exponential = json!({"mean_ms": 200, "max_ms": 2_000});
        check(
            "{delay: {exponential: {mean: 200ms}}}",
            &json!({"seed": "shop/p", "delay": {"exponential": exponential, "percentage": 100.0}}),
        );
        check("{abort: {httpStatus: 503}}", &json!({"seed": "shop/p", "abort": {"status": 503, "percentage": 100.0}}));
        check("{abort: {reset: true}}", &json!({"seed": "shop/p", "abort": {"reset": true, "percentage": 100.0}}));
    }

    #[test]
    fn every_mistake_is_told() {
        fn check(text: &str, expect: &[&str]) {
            let wrong = spec(text).check();
            let wrong: Vec<_> = wrong.iter().map(|(key, message)| format!("{key}: {message}")).collect();
            assert_eq!(wrong, expect, "{text}");
        }
        check("{delay: {fixed: 1ms}}", &[]);
        check("{abort: {reset: true, percentage: 0}}", &[]);
        check("{}", &[": at least one of `delay` and `abort` is expected"]);
        check(
            "{order: 9000000, delay: {exponential: {mean: 6m, max: 1s}, percentage: 101}, abort: {percentage: -1, httpStatus: 99, reset: \
             true}, headers: [{name: te}], identities: [web]}",
            &[
                "order: 9000000 is out of range: -8388607 to 8388607",
                "delay.exponential.mean: 6m is out of range: 1ms to 5m",
                "delay.exponential.max: is less than the mean, 6m",
                "delay.percentage: 101 is out of range: 0 to 100",
                "abort: exactly one of `httpStatus`, `grpcStatus` and `reset: true` is expected",
                "abort.httpStatus: 99 is out of range: 200 to 599",
                "abort.percentage: -1 is out of range: 0 to 100",
                "headers[0].name: \"te\" never reaches a rule: it belongs to one hop and is not passed on",
                "identities[0]: \"web\": a SPIFFE ID begins with spiffe://",
            ],
        );
        check("{delay: {fixed: 6m}}", &["delay.fixed: 6m is out of range: 1ms to 5m"]);
        check("{delay: {}}", &["delay: exactly one of `fixed` and `exponential` is expected"]);
        let wrong = spec("{abort: {grpcStatus: UNAVAILABEL}}").check().remove(0);
        assert_eq!(wrong.0, "abort.grpcStatus");
        assert!(wrong.1.ends_with("; did you mean `UNAVAILABLE`?"), "{}", wrong.1);
    }
}
