//! What a TrafficPolicy says of checks of endpoints (`healthCheck`) and of success rates (`outlierDetection.successRate`).

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value;
use crate::bundle::{HealthCheck, HealthProbe, HttpProbe, StatusRange, SuccessRate};

/// The shortest and the longest interval between two checks of an endpoint.
const INTERVALS_MS: (u64, u64) = (100, 300_000);

/// The most results in a row that decide.
const MAX_THRESHOLD: u32 = 100;

/// The most of `expectedStatuses`.
const MAX_STATUSES: usize = 16;

/// The longest path of a check, and the longest name of a gRPC service.
const MAX_PATH: usize = 1_024;
const MAX_NAME: usize = 256;

/// Exactly one of `http`, `grpc` and `tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthCheckSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheckSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheckSpec>,
    #[serde(rename = "interval", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub interval_ms: u64,
    #[serde(rename = "timeout", deserialize_with = "duration_ms", serialize_with = "serialize_ms")]
    pub timeout_ms: u64,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
}

impl Default for HealthCheckSpec {
    fn default() -> Self {
        Self {
            http: None,
            grpc: None,
            tcp: None,
            interval_ms: 10_000,
            timeout_ms: 1_000,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpCheckSpec {
    pub path: String,
    /// Absent: 200 to 299.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected_statuses: Vec<StatusSpec>,
    #[serde(deserialize_with = "value::host_option", skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Of the Service. Absent: its first.
    #[serde(deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl Default for HttpCheckSpec {
    fn default() -> Self {
        Self { path: "/".to_owned(), expected_statuses: Vec::new(), host: None, port: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcCheckSpec {
    /// Absent: the server as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    #[serde(deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpCheckSpec {
    #[serde(deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A status, as a number, or a range of them such as `200-299`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusSpec(StatusRange);

impl<'de> Deserialize<'de> for StatusSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsStatuses)
    }
}

impl Serialize for StatusSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            StatusRange { from, to } if from == to => serializer.serialize_u16(from),
            range @ StatusRange { .. } => serializer.collect_str(&range),
        }
    }
}

struct AsStatuses;

impl Visitor<'_> for AsStatuses {
    type Value = StatusSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 204, or statuses such as 200-299")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<StatusSpec, E> {
        let status = u16::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(StatusSpec(StatusRange { from: status, to: status }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<StatusSpec, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StatusSpec, E> {
        let range = text.split_once('-').unwrap_or((text, text));
        match (range.0.parse(), range.1.parse()) {
            (Ok(from), Ok(to)) => Ok(StatusSpec(StatusRange { from, to })),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

fn duration_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    value::duration_ms(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn serialize_ms<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::duration_text(*ms))
}

impl HttpCheckSpec {
    /// Everything that is wrong; keys are inside `http`.
    fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if !is_path(&self.path) {
            let message = format!("{:?} is not a path in normal form, such as /healthz or /healthz?full", self.path);
            wrong.push(("path".to_owned(), message));
        }
        if self.expected_statuses.len() > MAX_STATUSES {
            let count = self.expected_statuses.len();
            wrong.push(("expectedStatuses".to_owned(), format!("{count} entries are more than {MAX_STATUSES}")));
        }
        for (index, StatusSpec(range)) in self.expected_statuses.iter().enumerate() {
            if !is_range(*range) {
                let message = format!("{range} is out of range: 200 to 599, the lower first");
                wrong.push((format!("expectedStatuses[{index}]"), message));
            }
        }
        wrong
    }

    fn probe(&self) -> HttpProbe {
        let given: Vec<_> = self.expected_statuses.iter().map(|status| status.0).collect();
        let statuses = if given.is_empty() { vec![StatusRange { from: 200, to: 299 }] } else { given };
        HttpProbe { path: self.path.clone(), host: self.host.clone(), statuses }
    }
}

/// A path that means the same to every app, perhaps with a query.
pub(crate) fn is_path(text: &str) -> bool {
    let is_fit =
        |target: http::uri::PathAndQuery| crate::path::normalize(target.path()).is_ok_and(|path| path == target.path());
    text.starts_with('/') && text.len() <= MAX_PATH && !text.contains('#') && text.parse().is_ok_and(is_fit)
}

/// Final statuses, the lower first.
pub(crate) fn is_range(range: StatusRange) -> bool {
    (200..=599).contains(&range.from) && (range.from..=599).contains(&range.to)
}

/// The name of a gRPC service, or nothing.
pub(crate) fn is_service(name: &str) -> bool {
    name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'))
}

impl HealthCheckSpec {
    /// Everything that is wrong; keys are inside `healthCheck`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let given = [self.http.is_some(), self.grpc.is_some(), self.tcp.is_some()];
        if given.into_iter().filter(|is_given| *is_given).count() != 1 {
            wrong.push((String::new(), "exactly one of `http`, `grpc` and `tcp` is expected".to_owned()));
        }
        let http = self.http.iter().flat_map(HttpCheckSpec::check);
        wrong.extend(http.map(|(key, message)| (format!("http.{key}"), message)));
        if let Some(service) = self.grpc.as_ref().map(|grpc| &grpc.service).filter(|service| !is_service(service)) {
            let message = format!("{service:?} is not the name of a gRPC service, such as shop.Cart");
            wrong.push(("grpc.service".to_owned(), message));
        }
        let (least, most) = INTERVALS_MS;
        let told = value::duration_text;
        if !(least..=most).contains(&self.interval_ms) {
            let message = format!("{} is out of range: {} to {}", told(self.interval_ms), told(least), told(most));
            wrong.push(("interval".to_owned(), message));
        }
        if self.timeout_ms == 0 || self.timeout_ms > self.interval_ms {
            let message =
                format!("{} is out of range: 1ms to the interval, {}", told(self.timeout_ms), told(self.interval_ms));
            wrong.push(("timeout".to_owned(), message));
        }
        let thresholds =
            [("unhealthyThreshold", self.unhealthy_threshold), ("healthyThreshold", self.healthy_threshold)];
        for (key, number) in thresholds.into_iter().filter(|(_, number)| !(1..=MAX_THRESHOLD).contains(number)) {
            wrong.push((key.to_owned(), format!("{number} is out of range: 1 to {MAX_THRESHOLD}")));
        }
        wrong
    }

    /// As proxies are told it. `None`: what an older release took says nothing of what is asked.
    pub(crate) fn health_check(&self) -> Option<HealthCheck> {
        let http = self.http.as_ref().map(|http| (HealthProbe::Http(http.probe()), http.port));
        let grpc = self.grpc.as_ref().map(|grpc| (HealthProbe::Grpc(grpc.service.clone()), grpc.port));
        let tcp = self.tcp.as_ref().map(|tcp| (HealthProbe::Tcp, tcp.port));
        let (probe, port) = http.or(grpc).or(tcp)?;
        Some(HealthCheck {
            probe,
            port,
            interval_ms: self.interval_ms,
            timeout_ms: self.timeout_ms,
            unhealthy: self.unhealthy_threshold,
            healthy: self.healthy_threshold,
        })
    }
}

/// `successRate` of `outlierDetection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SuccessRateSpec {
    pub minimum_hosts: u32,
    pub request_volume: u32,
    /// Kept in thousandths, so that it can be compared.
    #[serde(rename = "stdevFactor", deserialize_with = "thousandths", serialize_with = "serialize_thousandths")]
    pub stdev_thousandths: u32,
}

/// Envoy's numbers.
impl Default for SuccessRateSpec {
    fn default() -> Self {
        Self { minimum_hosts: 5, request_volume: 100, stdev_thousandths: 1_900 }
    }
}

/// The bounds of `successRate`.
const MAX_HOSTS: u32 = 1_000;
const MAX_VOLUME: u32 = 1_000_000;
const MAX_THOUSANDTHS: u32 = 10_000;

#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, and is checked")]
fn thousandths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    f64::deserialize(deserializer).map(|factor| (factor * 1_000.0).round() as u32)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn serialize_thousandths<S: Serializer>(thousandths: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::from(*thousandths) / 1_000.0)
}

impl SuccessRateSpec {
    /// Everything that is wrong; keys are inside `outlierDetection`.
    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for (key, number, least, most) in [
            ("successRate.minimumHosts", self.minimum_hosts, 2, MAX_HOSTS),
            ("successRate.requestVolume", self.request_volume, 1, MAX_VOLUME),
        ] {
            if !(least..=most).contains(&number) {
                wrong.push((key, format!("{number} is out of range: {least} to {most}")));
            }
        }
        if !(1..=MAX_THOUSANDTHS).contains(&self.stdev_thousandths) {
            wrong.push(("successRate.stdevFactor", "is out of range: 0.001 to 10".to_owned()));
        }
        wrong
    }

    /// As proxies are told it.
    pub(crate) fn success_rate(&self) -> SuccessRate {
        let Self { minimum_hosts, request_volume, stdev_thousandths } = *self;
        SuccessRate { minimum_hosts, request_volume, stdev_thousandths }
    }
}
