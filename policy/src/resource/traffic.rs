//! `TrafficPolicy`: how callers spread the requests to a service over its endpoints, and whom they leave out. What parses and passes `check` can be
//! told to proxies.

mod fill;
#[cfg(test)]
mod tests;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::health::{HealthCheckSpec, SuccessRateSpec};
use super::hedge::HedgeSpec;
use super::retry::{ServiceRetrySpec, ServiceTimeouts};
use super::spread::{LocalitySpec, SlowStartSpec};
use super::template::TemplateRef;
use super::{Metadata, ROOT_NAMESPACE, TargetKind, TargetRef, value};
use crate::bundle::{AdaptiveLimit, Balancing, HashKey, Limits, Outliers, SourceKey, Spread};
use crate::route::HOST;

/// Targets that one policy may have, as Gateway API bounds it.
const MAX_TARGETS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// Services of its own namespace, or that namespace with all its services; in the root namespace also the Mesh.
    pub target_refs: Vec<TargetRef>,
    /// What it says beside its own settings, which win over the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancingSpec>,
    /// Absent: nobody is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<Box<OutlierSpec>>,
    /// Absent: nobody is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheckSpec>>,
    /// Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// A rule's take their places. Absent: the Mesh's `requestTimeout`, and none for an attempt or a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ServiceTimeouts>,
    /// A rule's takes its place. Absent: only what provably nobody acted on is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<ServiceRetrySpec>>,
    /// Absent: there is one attempt at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancingSpec {
    pub algorithm: Algorithm,
    /// For the algorithms that go by it, which need one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashSpec>,
    /// Absent: as the Service's `trafficDistribution` says, else all endpoints are as near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalitySpec>,
    /// Absent: a new endpoint has its whole weight at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStartSpec>,
    /// 0: who is ejected takes nothing while another can.
    #[serde(skip_serializing_if = "is_zero")]
    pub panic_threshold_percent: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
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
    let name = value::header_name(deserializer)?;
    if name.eq_ignore_ascii_case(HOST) {
        return Err(D::Error::custom(format!(
            "{name:?} keeps no requests together: callers name one Service in many ways"
        )));
    }
    value::matchable_header(&name).map(|()| Some(name)).map_err(D::Error::custom)
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

/// Limits on what each calling proxy has under way. At least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_active_requests: Option<u32>,
    /// Of those beyond `maxActiveRequests`.
    pub max_pending_requests: u32,
    #[serde(rename = "maxPendingTime", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub max_pending_time_ms: u64,
    /// TCP connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Absent: latency limits nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveSpec>,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            max_active_requests: None,
            max_pending_requests: 0,
            max_pending_time_ms: 1_000,
            max_connections: None,
            max_retries: None,
            adaptive: None,
        }
    }
}

/// A limit of requests that follows from how long they take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdaptiveSpec {
    pub min_limit: u32,
    pub max_limit: u32,
    #[serde(rename = "sampleWindow", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub sample_window_ms: u64,
}

impl Default for AdaptiveSpec {
    fn default() -> Self {
        Self { min_limit: 3, max_limit: 1_000, sample_window_ms: 250 }
    }
}

/// Of `sampleWindow`, in milliseconds.
const WINDOWS: std::ops::RangeInclusive<u64> = 10..=60_000;

/// The most of a limit: a proxy that has more requests under way has other worries.
const MAX_REQUESTS: u32 = 1_000_000;

impl LimitsSpec {
    /// Everything that is wrong; keys are inside `limits`.
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for (key, number, least) in [
            ("maxActiveRequests", self.max_active_requests, 1),
            ("maxPendingRequests", Some(self.max_pending_requests), 0),
            ("maxConnections", self.max_connections, 1),
            ("maxRetries", self.max_retries, 0),
        ] {
            if let Some(number) = number.filter(|number| !(least..=MAX_REQUESTS).contains(number)) {
                wrong.push((key, format!("{number} is out of range: {least} to {MAX_REQUESTS}")));
            }
        }
        if !(1..=MAX_MS).contains(&self.max_pending_time_ms) {
            let given = value::duration_text(self.max_pending_time_ms);
            wrong.push(("maxPendingTime", format!("{given} is out of range: 1ms to 24h")));
        }
        wrong.extend(self.adaptive.iter().flat_map(AdaptiveSpec::check));
        let limits_nothing = self.max_active_requests.is_none()
            && self.max_connections.is_none()
            && self.max_retries.is_none()
            && self.adaptive.is_none();
        if limits_nothing {
            let all = "at least one of `maxActiveRequests`, `maxConnections`, `maxRetries` and `adaptive` is expected";
            wrong.push(("", all.to_owned()));
        } else if self.max_pending_requests > 0 && self.max_active_requests.is_none() {
            let message = "nothing waits where there is no `maxActiveRequests`";
            wrong.push(("maxPendingRequests", message.to_owned()));
        }
        wrong
    }

    /// As proxies are told it.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            active: self.max_active_requests.unwrap_or_default(),
            pending: self.max_pending_requests,
            pending_ms: self.max_pending_time_ms,
            connections: self.max_connections,
            retries: self.max_retries,
            adaptive: self.adaptive.as_ref().map(AdaptiveSpec::limit),
        }
    }
}

impl AdaptiveSpec {
    /// Everything that is wrong; keys are inside `limits`.
    fn check(&self) -> Vec<(&'static str, String)> {
        let Self { min_limit, max_limit, sample_window_ms } = self;
        let mut wrong = Vec::new();
        for (key, number) in [("adaptive.minLimit", min_limit), ("adaptive.maxLimit", max_limit)] {
            if !(1..=MAX_REQUESTS).contains(number) {
                wrong.push((key, format!("{number} is out of range: 1 to {MAX_REQUESTS}")));
            }
        }
        if max_limit < min_limit {
            wrong.push(("adaptive.maxLimit", format!("is less than minLimit, {min_limit}")));
        }
        if !WINDOWS.contains(sample_window_ms) {
            let given = value::duration_text(*sample_window_ms);
            wrong.push(("adaptive.sampleWindow", format!("{given} is out of range: 10ms to 1m")));
        }
        wrong
    }

    fn limit(&self) -> AdaptiveLimit {
        AdaptiveLimit { least: self.min_limit, most: self.max_limit, window_ms: self.sample_window_ms }
    }
}

impl HashSpec {
    fn given(&self) -> Vec<HashKey> {
        let header = self.header.iter().cloned().map(HashKey::Header);
        let cookie = self.cookie.iter().cloned().map(HashKey::Cookie);
        header.chain(cookie).chain(self.source.map(HashKey::Source)).collect()
    }
}

impl Algorithm {
    fn is_by_key(self) -> bool {
        matches!(self, Algorithm::RingHash | Algorithm::Maglev)
    }
}

impl LoadBalancingSpec {
    /// Everything that is wrong; keys are inside `loadBalancing`.
    fn check(&self) -> Vec<(String, String)> {
        let of_algorithm = self.check_algorithm().map(|(key, message)| (key.to_owned(), message));
        let mut wrong: Vec<_> = of_algorithm.into_iter().collect();
        let locality = self.locality.iter().flat_map(LocalitySpec::check);
        wrong.extend(locality.map(|(key, message)| (format!("locality.{key}"), message)));
        let by_key = self.algorithm.is_by_key().then(|| format!("{:?}", self.algorithm));
        let slow = self.slow_start.iter().flat_map(|slow| slow.check(by_key.as_deref()));
        let within = |key: &str| if key.is_empty() { String::new() } else { format!(".{key}") };
        wrong.extend(slow.map(|(key, message)| (format!("slowStart{}", within(&key)), message)));
        if self.panic_threshold_percent > 100 {
            let message = format!("{} is out of range: 0 to 100", self.panic_threshold_percent);
            wrong.push(("panicThresholdPercent".to_owned(), message));
        }
        wrong
    }

    fn check_algorithm(&self) -> Option<(&'static str, String)> {
        let algorithm = self.algorithm;
        let is_by_key = algorithm.is_by_key();
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

    /// The same of where endpoints are and how long they have been there. What is not fit is as if it were not there.
    pub(crate) fn spread(&self) -> Spread {
        let slow = self.slow_start.as_ref().filter(|_| !self.algorithm.is_by_key());
        Spread {
            locality: self.locality.as_ref().and_then(LocalitySpec::locality),
            slow_start: slow.and_then(SlowStartSpec::slow_start),
            panic_percent: self.panic_threshold_percent.min(100),
            shares: self.locality.as_ref().map(LocalitySpec::shares).unwrap_or_default(),
        }
    }
}

/// Why a policy may not be for a target; the key is inside the target.
fn unfit(own: &Metadata, target: &TargetRef) -> Option<(&'static str, String)> {
    if target.section_name.is_some() && target.kind.route().is_none() {
        return Some(("sectionName", "only a route has named rules".to_owned()));
    }
    let Metadata { namespace, .. } = own;
    match target.kind {
        TargetKind::Service | TargetKind::ExternalService => None,
        TargetKind::Namespace if target.name == *namespace => None,
        TargetKind::Namespace => {
            let message = format!("a TrafficPolicy is for services of its own namespace, {namespace}");
            Some(("name", format!("{message}, not for those of {}", target.name)))
        }
        TargetKind::Mesh if namespace == ROOT_NAMESPACE => None,
        TargetKind::Mesh => {
            Some(("kind", format!("a TrafficPolicy for the whole mesh is one of {ROOT_NAMESPACE}, not of {namespace}")))
        }
        TargetKind::Workload | TargetKind::HttpRoute | TargetKind::GrpcRoute => {
            Some(("kind", format!("a TrafficPolicy is for Services, not for a {:?}", target.kind)))
        }
    }
}

impl TrafficPolicySpec {
    /// Everything that is wrong with a policy that has this metadata; keys are inside `spec`.
    pub(crate) fn check(&self, own: &Metadata) -> Vec<(String, String)> {
        let mut wrong = self.check_targets(own);
        let template = self.template.iter().flat_map(TemplateRef::check);
        wrong.extend(template.map(|(key, message)| (format!("template.{key}"), message)));
        wrong.extend(self.check_settings());
        wrong
    }

    fn check_targets(&self, own: &Metadata) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let targets = &self.target_refs;
        if targets.is_empty() {
            wrong.push((
                "targetRefs".to_owned(),
                "what it is for is expected: Services, ExternalServices, its Namespace or the Mesh".to_owned(),
            ));
        }
        if targets.len() > MAX_TARGETS {
            wrong.push(("targetRefs".to_owned(), format!("{} targets are more than {MAX_TARGETS}", targets.len())));
        }
        for (index, target) in targets.iter().enumerate() {
            if let Some((key, message)) = unfit(own, target) {
                wrong.push((format!("targetRefs[{index}].{key}"), message));
            } else if targets[..index].iter().any(|other| other.kind == target.kind && other.name == target.name) {
                wrong.push((format!("targetRefs[{index}].name"), format!("{:?} is given twice", target.name)));
            }
        }
        wrong
    }

    /// Everything that is wrong with what it sets; keys are inside `spec`.
    pub(crate) fn check_settings(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let balancing = self.load_balancing.iter().flat_map(LoadBalancingSpec::check);
        wrong.extend(balancing.map(|(key, message)| (format!("loadBalancing.{key}"), message)));
        let outliers = self.outlier_detection.iter().flat_map(|spec| spec.check());
        let within = |key: &str| if key.is_empty() { String::new() } else { format!(".{key}") };
        wrong.extend(outliers.map(|(key, message)| (format!("outlierDetection{}", within(key)), message)));
        let health = self.health_check.iter().flat_map(|check| check.check());
        wrong.extend(health.map(|(key, message)| (format!("healthCheck{}", within(&key)), message)));
        let limits = self.limits.iter().flat_map(LimitsSpec::check);
        wrong.extend(limits.map(|(key, message)| (format!("limits{}", within(key)), message)));
        let timeouts = self.timeouts.iter().filter_map(ServiceTimeouts::check);
        wrong.extend(timeouts.map(|(key, message)| (format!("timeouts.{key}"), message)));
        let retry = self.retry.iter().flat_map(|retry| retry.check());
        wrong.extend(retry.map(|(key, message)| (format!("retry.{key}"), message)));
        let hedge = self.hedge.iter().flat_map(HedgeSpec::check);
        wrong.extend(hedge.map(|(key, message)| (format!("hedge.{key}"), message)));
        wrong
    }
}
