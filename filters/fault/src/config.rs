//! The configuration, and what it may say.

use std::time::Duration;

use serde::Deserialize;
use weft_filters_sdk::rules;

use crate::draw::Draw;

/// At least one of the two faults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Configurations with different seeds strike different requests. Default: none.
    #[serde(default)]
    pub(crate) seed: String,
    pub(crate) delay: Option<Delay>,
    pub(crate) abort: Option<Abort>,
}

/// `ms` or `exponential`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delay {
    /// At most 300,000.
    ms: Option<u32>,
    exponential: Option<Exponential>,
    /// Share of the requests, 0 to 100, to 0.0001. Default 100.
    #[serde(default = "all")]
    percentage: f64,
    /// Only requests that have all of these.
    #[serde(default)]
    headers: Vec<HeaderCondition>,
    /// Only requests of these callers: SPIFFE IDs, a trailing `*` makes a prefix. Default: of everybody.
    #[serde(default)]
    identities: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exponential {
    /// 1 to 300,000.
    mean_ms: u32,
    /// Longer ones are as long as this. At most 300,000, which is the default.
    max_ms: Option<u32>,
}

/// `status`, `grpc_status` or `reset`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Abort {
    /// HTTP status, 200 to 599.
    status: Option<u16>,
    /// A status of gRPC, 1 to 16; strikes requests of gRPC only.
    grpc_status: Option<u16>,
    /// The stream is reset.
    #[serde(default)]
    reset: bool,
    #[serde(default = "all")]
    percentage: f64,
    #[serde(default)]
    headers: Vec<HeaderCondition>,
    #[serde(default)]
    identities: Vec<String>,
}

/// The header is there, and has this value where one is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderCondition {
    pub(crate) name: String,
    pub(crate) exact: Option<String>,
}

/// Whom a fault strikes.
pub(crate) struct Whom {
    pub(crate) percentage: f64,
    pub(crate) headers: Vec<HeaderCondition>,
    pub(crate) identities: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DelayKind {
    Fixed(Duration),
    Exponential { mean: Duration, max: Duration },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbortKind {
    Http(u16),
    Grpc(u16),
    Reset,
}

fn all() -> f64 {
    100.0
}

const MAX_DELAY_MS: u32 = 300_000;
/// UNAUTHENTICATED, the last of them.
const HIGHEST_GRPC: u16 = 16;

fn time(key: &str, ms: u32) -> Result<Duration, String> {
    match ms {
        1..=MAX_DELAY_MS => Ok(Duration::from_millis(u64::from(ms))),
        _ => Err(format!(".{key}: {ms} is not 1 to {MAX_DELAY_MS}")),
    }
}

impl Delay {
    /// An error begins with the field, behind a point.
    pub(crate) fn kind(&self) -> Result<DelayKind, String> {
        match (self.ms, self.exponential) {
            (Some(0), None) => Ok(DelayKind::Fixed(Duration::ZERO)),
            (Some(ms), None) => time("ms", ms).map(DelayKind::Fixed),
            (None, Some(Exponential { mean_ms, max_ms })) => {
                let mean = time("exponential.mean_ms", mean_ms)?;
                let max = time("exponential.max_ms", max_ms.unwrap_or(MAX_DELAY_MS))?;
                if max < mean {
                    return Err(".exponential.max_ms: is less than mean_ms".to_owned());
                }
                Ok(DelayKind::Exponential { mean, max })
            }
            (None, None) | (Some(_), Some(_)) => Err(": exactly one of ms and exponential is needed".to_owned()),
        }
    }

    pub(crate) fn whom(self) -> Whom {
        Whom { percentage: self.percentage, headers: self.headers, identities: self.identities }
    }
}

impl Abort {
    /// An error begins with the field, behind a point.
    pub(crate) fn kind(&self) -> Result<AbortKind, String> {
        match (self.status, self.grpc_status, self.reset) {
            (Some(status), None, false) => {
                rules::status(status).map_err(|error| format!(".status: {error}"))?;
                Ok(AbortKind::Http(status))
            }
            (None, Some(code @ 1..=HIGHEST_GRPC), false) => Ok(AbortKind::Grpc(code)),
            (None, Some(code), false) => Err(format!(".grpc_status: {code} is not 1 to {HIGHEST_GRPC}")),
            (None, None, true) => Ok(AbortKind::Reset),
            (None, None, false) | (Some(_), Some(_), _) | (Some(_), _, true) | (_, Some(_), true) => {
                Err(": exactly one of status, grpc_status and reset is needed".to_owned())
            }
        }
    }

    pub(crate) fn whom(self) -> Whom {
        Whom { percentage: self.percentage, headers: self.headers, identities: self.identities }
    }
}

impl DelayKind {
    pub(crate) fn time(self, draw: &Draw) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Exponential { mean, max } => mean.mul_f64(draw.exponential()).clamp(Duration::from_millis(1), max),
        }
    }
}

/// The HTTP status that proxies tell clients of gRPC as this status, or as one of a failure.
pub(crate) fn http_of_grpc(code: u16) -> u16 {
    match code {
        7 => 403,
        8 => 429,
        12 => 404,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
