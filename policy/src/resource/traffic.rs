//! `TrafficPolicy`: how callers spread the requests to a service over its endpoints, and whom they leave out. What parses and passes `check` can be
//! told to proxies.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::health::{HealthCheckSpec, SuccessRateSpec};
use super::retry::{ServiceRetrySpec, Timeouts};
use super::{TargetKind, TargetRef, value};
use crate::bundle::{Balancing, HashKey, Limits, Outliers, SourceKey};

/// Services that one policy may be for, as Gateway API bounds it.
const MAX_TARGETS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// Services of its own namespace.
    pub target_refs: Vec<TargetRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancingSpec>,
    /// Absent: nobody is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierSpec>,
    /// Absent: nobody is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSpec>,
    /// Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// A rule's take their places. Absent: the Mesh's `requestTimeout`, and none for an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// A rule's takes its place. Absent: only what provably nobody acted on is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ServiceRetrySpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancingSpec {
    pub algorithm: Algorithm,
    /// For the algorithms that go by it, which need one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Algorithm {
    #[default]
    PeakEwma,
    LeastRequest,
    RoundRobin,
    Random,
    RingHash,
    Maglev,
}

/// Exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HashSpec {
    #[serde(deserialize_with = "header", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    #[serde(deserialize_with = "cookie", skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceKey>,
}

fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    value::matchable_header_name(deserializer).map(Some)
}

/// A cookie's name is a token, as a header's, but for its case.
//= rfc6265#section-4.1.1
fn cookie<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match (1..=256).contains(&text.len()) && http::HeaderName::try_from(&text).is_ok() {
        true => Ok(Some(text)),
        false => Err(D::Error::custom(format_args!("{text:?} is not the name of a cookie"))),
    }
}

/// Counts of 0 eject nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierSpec {
    #[serde(rename = "consecutive5xx")]
    pub consecutive_5xx: u32,
    pub consecutive_gateway_errors: u32,
    pub consecutive_local_origin_failures: u32,
    #[serde(rename = "interval", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub interval_ms: u64,
    #[serde(rename = "baseEjectionTime", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub base_ejection_time_ms: u64,
    #[serde(rename = "maxEjectionTime", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub max_ejection_time_ms: u64,
    pub max_ejection_percent: u32,
    /// Absent: nobody is compared with the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRateSpec>,
}

/// Envoy's numbers.
impl Default for OutlierSpec {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_origin_failures: 5,
            interval_ms: 10_000,
            base_ejection_time_ms: 30_000,
            max_ejection_time_ms: 300_000,
            max_ejection_percent: 10,
            success_rate: None,
        }
    }
}

fn duration_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    value::duration_ms(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn serialize_ms<S: serde::Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::duration_text(*ms))
}

/// The most of a row.
const MAX_ROW: u32 = 1_000;
/// The longest of its times.
const MAX_MS: u64 = 24 * 3_600_000;

impl OutlierSpec {
    /// Everything that is wrong; keys are inside `outlierDetection`.
    fn check(&self) -> Vec<(&'static str, String)> {
        let rows = [
            ("consecutive5xx", self.consecutive_5xx),
            ("consecutiveGatewayErrors", self.consecutive_gateway_errors),
            ("consecutiveLocalOriginFailures", self.consecutive_local_origin_failures),
        ];
        let times = [
            ("interval", self.interval_ms),
            ("baseEjectionTime", self.base_ejection_time_ms),
            ("maxEjectionTime", self.max_ejection_time_ms),
        ];
        let mut wrong = Vec::new();
        for (key, row) in rows.into_iter().filter(|(_, row)| *row > MAX_ROW) {
            wrong.push((key, format!("{row} is out of range: 0 to {MAX_ROW}")));
        }
        for (key, ms) in times.into_iter().filter(|(_, ms)| !(1..=MAX_MS).contains(ms)) {
            wrong.push((key, format!("{} is out of range: 1ms to 24h", value::duration_text(ms))));
        }
        if self.max_ejection_time_ms < self.base_ejection_time_ms {
            let base = value::duration_text(self.base_ejection_time_ms);
            wrong.push(("maxEjectionTime", format!("is less than baseEjectionTime, {base}")));
        }
        if self.max_ejection_percent > 100 {
            wrong.push(("maxEjectionPercent", format!("{} is out of range: 0 to 100", self.max_ejection_percent)));
        }
        if rows.iter().all(|(_, row)| *row == 0) && self.success_rate.is_none() {
            wrong.push(("", "it ejects nobody: every count is 0".to_owned()));
        }
        wrong.extend(self.success_rate.iter().flat_map(SuccessRateSpec::check));
        wrong
    }

    /// As proxies are told it.
    pub(crate) fn outliers(&self) -> Outliers {
        Outliers {
            consecutive_5xx: self.consecutive_5xx,
            consecutive_gateway_errors: self.consecutive_gateway_errors,
            consecutive_local_failures: self.consecutive_local_origin_failures,
            interval_ms: self.interval_ms,
            ejection_ms: self.base_ejection_time_ms,
            longest_ms: self.max_ejection_time_ms,
            most_percent: self.max_ejection_percent,
            success_rate: self.success_rate.as_ref().map(SuccessRateSpec::success_rate),
        }
    }
}

/// Limits on the requests of each calling proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    pub max_active_requests: u32,
    #[serde(default)]
    pub max_pending_requests: u32,
    #[serde(
        rename = "maxPendingTime",
        default = "one_second",
        deserialize_with = "duration_ms",
        serialize_with = "serialize_ms"
    )]
    pub max_pending_time_ms: u64,
}

fn one_second() -> u64 {
    1_000
}

/// The most of a limit: a proxy that has more requests under way has other worries.
const MAX_REQUESTS: u32 = 1_000_000;

impl LimitsSpec {
    /// Everything that is wrong; keys are inside `limits`.
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for (key, number, least) in
            [("maxActiveRequests", self.max_active_requests, 1), ("maxPendingRequests", self.max_pending_requests, 0)]
        {
            if !(least..=MAX_REQUESTS).contains(&number) {
                wrong.push((key, format!("{number} is out of range: {least} to {MAX_REQUESTS}")));
            }
        }
        if !(1..=MAX_MS).contains(&self.max_pending_time_ms) {
            let given = value::duration_text(self.max_pending_time_ms);
            wrong.push(("maxPendingTime", format!("{given} is out of range: 1ms to 24h")));
        }
        wrong
    }

    /// As proxies are told it.
    pub(crate) fn limits(&self) -> Limits {
        let Self { max_active_requests: active, max_pending_requests: pending, max_pending_time_ms: pending_ms } =
            *self;
        Limits { active, pending, pending_ms }
    }
}

impl HashSpec {
    fn given(&self) -> Vec<HashKey> {
        let header = self.header.iter().cloned().map(HashKey::Header);
        let cookie = self.cookie.iter().cloned().map(HashKey::Cookie);
        header.chain(cookie).chain(self.source.map(HashKey::Source)).collect()
    }
}

impl LoadBalancingSpec {
    /// Everything that is wrong; keys are inside `loadBalancing`.
    fn check(&self) -> Option<(&'static str, String)> {
        let algorithm = self.algorithm;
        let is_by_key = matches!(algorithm, Algorithm::RingHash | Algorithm::Maglev);
        let one = "one of `header`, `cookie` and `source`";
        match &self.hash {
            None if is_by_key => Some(("algorithm", format!("{algorithm:?} needs `hash`: {one}"))),
            Some(_) if !is_by_key => {
                let message = format!("{algorithm:?} goes by no key, and `hash` is given: RingHash and Maglev do");
                Some(("algorithm", message))
            }
            Some(hash) if hash.given().len() != 1 => Some(("hash", format!("exactly {one} is expected"))),
            Some(_) | None => None,
        }
    }

    /// As proxies are told it. What an older release took and this one refuses is as by default.
    pub(crate) fn balancing(&self) -> Balancing {
        let key = || self.hash.as_ref().and_then(|hash| hash.given().into_iter().next());
        match self.algorithm {
            Algorithm::PeakEwma => Balancing::PeakEwma,
            Algorithm::LeastRequest => Balancing::LeastRequest,
            Algorithm::RoundRobin => Balancing::RoundRobin,
            Algorithm::Random => Balancing::Random,
            Algorithm::RingHash => key().map(Balancing::RingHash).unwrap_or_default(),
            Algorithm::Maglev => key().map(Balancing::Maglev).unwrap_or_default(),
        }
    }
}

impl TrafficPolicySpec {
    /// Everything that is wrong; keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let targets = &self.target_refs;
        if targets.is_empty() {
            wrong.push(("targetRefs".to_owned(), "a Service that it is for is expected".to_owned()));
        }
        if targets.len() > MAX_TARGETS {
            wrong.push(("targetRefs".to_owned(), format!("{} targets are more than {MAX_TARGETS}", targets.len())));
        }
        for (index, target) in targets.iter().enumerate() {
            if target.kind != TargetKind::Service {
                let message = format!("a TrafficPolicy is for Services, not for a {:?}", target.kind);
                wrong.push((format!("targetRefs[{index}].kind"), message));
            } else if targets[..index].iter().any(|other| other.kind == target.kind && other.name == target.name) {
                wrong.push((format!("targetRefs[{index}].name"), format!("{:?} is given twice", target.name)));
            }
        }
        let balancing = self.load_balancing.as_ref().and_then(LoadBalancingSpec::check);
        wrong.extend(balancing.map(|(key, message)| (format!("loadBalancing.{key}"), message)));
        let outliers = self.outlier_detection.iter().flat_map(OutlierSpec::check);
        let within = |key: &str| if key.is_empty() { String::new() } else { format!(".{key}") };
        wrong.extend(outliers.map(|(key, message)| (format!("outlierDetection{}", within(key)), message)));
        let health = self.health_check.iter().flat_map(HealthCheckSpec::check);
        wrong.extend(health.map(|(key, message)| (format!("healthCheck{}", within(&key)), message)));
        let limits = self.limits.iter().flat_map(LimitsSpec::check);
        wrong.extend(limits.map(|(key, message)| (format!("limits.{key}"), message)));
        let timeouts = self.timeouts.iter().filter_map(Timeouts::check);
        wrong.extend(timeouts.map(|(key, message)| (format!("timeouts.{key}"), message)));
        let retry = self.retry.iter().flat_map(ServiceRetrySpec::check);
        wrong.extend(retry.map(|(key, message)| (format!("retry.{key}"), message)));
        wrong
    }
}
