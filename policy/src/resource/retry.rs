//! What manifests say of sending requests again: `retry` of an HTTPRoute's rule (GEP-1731) and of a TrafficPolicy, and the
//! timeouts of both.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{AnyRoute, HttpRouteSpec, Object, value};
use crate::bundle::{GRPC_CODES, Retry};
use crate::text::did_you_mean;

/// Statuses that can be sent again, as Gateway API bounds them.
pub(crate) const RETRIED_CODES: RangeInclusive<u16> = 400..=599;

/// The most further attempts of one request.
const MAX_ATTEMPTS: u32 = 100;

/// The annotation by which an HTTPRoute says that its rules' `retry` is for requests of every method: `any` or `idempotent`.
pub(crate) const RETRY_METHODS: &str = "weft.dev/retry-methods";

/// `retry` of a rule, as Gateway API has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetrySpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(
        rename = "backoff",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub backoff_ms: Option<u64>,
}

impl RetrySpec {
    /// Everything that is wrong; keys are inside `retry`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        check(&self.codes, self.attempts)
    }

    /// As proxies are told it.
    pub(crate) fn retry(&self, any_method: bool) -> Retry {
        let Self { codes, attempts, backoff_ms } = self.clone();
        Retry { codes: distinct(codes), grpc_codes: Vec::new(), attempts, backoff_ms, any_method }
    }
}

impl AnyRoute<'_> {
    /// Whether its rules send requests of every method again.
    pub(crate) fn retries_any_method(self) -> bool {
        self.metadata.annotations.get(RETRY_METHODS).is_some_and(|methods| methods == "any")
    }
}

impl Object<HttpRouteSpec> {
    /// What is wrong about the annotation.
    pub(crate) fn check_retry_methods(&self) -> Option<String> {
        let given = self.metadata.annotations.get(RETRY_METHODS)?;
        (!["any", "idempotent"].contains(&given.as_str())).then(|| format!("{given:?} is not one of any, idempotent"))
    }
}

/// `retry` of a TrafficPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceRetrySpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// By the names that gRPC has for them, as UNAVAILABLE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grpc_codes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(
        rename = "backoff",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub backoff_ms: Option<u64>,
    pub methods: RetriedMethods,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RetriedMethods {
    #[default]
    Idempotent,
    Any,
}

impl ServiceRetrySpec {
    /// Everything that is wrong; keys are inside `retry`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = check(&self.codes, self.attempts);
        let errors = &GRPC_CODES[1..];
        for (index, name) in self.grpc_codes.iter().enumerate().filter(|(_, name)| !errors.contains(&name.as_str())) {
            let meant = did_you_mean(name, errors.iter().copied());
            wrong.push((format!("grpcCodes[{index}]"), format!("{name:?} is not one of {}{meant}", errors.join(", "))));
        }
        wrong
    }

    /// As proxies are told it. A name that this release does not know is left out.
    pub(crate) fn retry(&self) -> Retry {
        let number = |name: &String| GRPC_CODES.iter().position(|known| known == name);
        let numbers = self.grpc_codes.iter().filter_map(number).filter_map(|number| u16::try_from(number).ok());
        Retry {
            codes: distinct(self.codes.clone()),
            grpc_codes: distinct(numbers.collect()),
            attempts: self.attempts,
            backoff_ms: self.backoff_ms,
            any_method: self.methods == RetriedMethods::Any,
        }
    }
}

/// `timeouts` of a rule, as Gateway API has them. `0s`: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    #[serde(
        rename = "request",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_ms: Option<u64>,
    #[serde(
        rename = "backendRequest",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub backend_request_ms: Option<u64>,
}

/// `timeouts` of a TrafficPolicy: those of a rule, and that of streams. `0s`: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceTimeouts {
    #[serde(
        rename = "request",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_ms: Option<u64>,
    #[serde(
        rename = "backendRequest",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub backend_request_ms: Option<u64>,
    #[serde(
        rename = "stream",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub stream_ms: Option<u64>,
}

impl Timeouts {
    /// What is wrong; keys are inside `timeouts`.
    pub(crate) fn check(&self) -> Option<(String, String)> {
        check_times(self.request_ms, self.backend_request_ms)
    }
}

impl ServiceTimeouts {
    /// The same.
    pub(crate) fn check(&self) -> Option<(String, String)> {
        check_times(self.request_ms, self.backend_request_ms)
    }
}

fn check_times(request_ms: Option<u64>, backend_request_ms: Option<u64>) -> Option<(String, String)> {
    let (request, attempt) = (request_ms.filter(|ms| *ms > 0)?, backend_request_ms?);
    let told = value::duration_text;
    let message = || format!("{} is longer than `request`, which is {}", told(attempt), told(request));
    (attempt > request).then(|| ("backendRequest".to_owned(), message()))
}

fn check(codes: &[u16], attempts: Option<u32>) -> Vec<(String, String)> {
    let outside = codes.iter().enumerate().filter(|(_, code)| !RETRIED_CODES.contains(code));
    let (first, last) = (RETRIED_CODES.start(), RETRIED_CODES.end());
    let codes = outside.map(|(index, code)| {
        (format!("codes[{index}]"), format!("{code} is not the status of an error: {first} to {last}"))
    });
    let attempts = attempts.filter(|attempts| *attempts > MAX_ATTEMPTS);
    let attempts =
        attempts.map(|attempts| ("attempts".to_owned(), format!("{attempts} is out of range: 0 to {MAX_ATTEMPTS}")));
    codes.chain(attempts).collect()
}

fn distinct(mut codes: Vec<u16>) -> Vec<u16> {
    codes.sort_unstable();
    codes.dedup();
    codes
}
