//! What a TrafficPolicy sets for a service, inside the service's object. Preferences only: a proxy that knows none of it
//! balances as by default, ejects nobody and limits nothing. It lets nobody in whom a policy of access keeps out, but sends
//! on what `limits` would have answered 503.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{HealthCheck, Hedge, ObjectName, Retry, is_default};

/// The settings of a service, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The policy that says so.
    pub policy: ObjectName,
    #[serde(default, skip_serializing_if = "is_default")]
    pub balancing: Balancing,
    /// `None`: nobody is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// `None`: nobody is checked. Only to a proxy with the capability `health-checks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// For the whole exchange, in place of the mesh's; a rule's takes its place. 0: no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    /// For each attempt; a rule's takes its place. 0: no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_timeout_ms: Option<u64>,
    /// For a stream, from the beginning of its request. 0: no deadline. Only to a proxy with the capability `stream-timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_timeout_ms: Option<u64>,
    /// A rule's takes its place as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// `None`: there is one attempt at a time. Only to a proxy with the capability `hedging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
}

/// What one proxy may have under way to the service at a time, over all its workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests under way. 0: as many as come; only to a proxy with the capability `traffic-limits`, as all behind `pending_ms`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub active: u32,
    /// Further ones that wait for one of them to end.
    pub pending: u32,
    /// So long at most.
    pub pending_ms: u64,
    /// TCP connections that are open. `None`: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that are being sent again. `None`: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// `None`: latency limits nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveLimit>,
}

/// The bounds of a limit of requests under way that follows from how long they take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveLimit {
    pub least: u32,
    pub most: u32,
    /// It moves once in so long.
    pub window_ms: u64,
}

impl Limits {
    /// True where there is more than the releases before this could hold.
    #[must_use]
    pub fn is_beyond_requests(&self) -> bool {
        self.active == 0 || self.connections.is_some() || self.retries.is_some() || self.adaptive.is_some()
    }
}

/// Which endpoints take no requests for a while because they fail. A count of 0 ejects nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outliers {
    /// Answers of status 500 and above in a row.
    pub consecutive_5xx: u32,
    /// Answers of status 502, 503 or 504 in a row.
    pub consecutive_gateway_errors: u32,
    /// Requests in a row that were not answered.
    pub consecutive_local_failures: u32,
    /// Failures further apart are of two rows.
    pub interval_ms: u64,
    /// Length of the first ejection, and of the longest.
    pub ejection_ms: u64,
    pub longest_ms: u64,
    /// Endpoints of a hundred that may be out.
    pub most_percent: u32,
    /// `None`: nobody is compared with the others. Only to a proxy with the capability `health-checks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
}

/// Who is ejected since it succeeds much less often than the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    /// Nobody is judged where fewer endpoints had enough requests.
    pub minimum_hosts: u32,
    /// Requests within an interval that are enough.
    pub request_volume: u32,
    /// So many thousandths of the standard deviation below the mean are too few.
    pub stdev_thousandths: u32,
}

impl Traffic {
    /// True where it asks for what the capability `health-checks` stands for.
    #[must_use]
    pub fn checks_health(&self) -> bool {
        self.health_check.is_some() || self.outliers.as_ref().is_some_and(|outliers| outliers.success_rate.is_some())
    }

    /// The same without that, for a proxy that can't do it. A service that ejects by success rates alone ejects nobody there.
    #[must_use]
    pub(crate) fn without_health_checks(&self) -> Self {
        let outliers = self.outliers.clone().filter(Outliers::counts_rows);
        let outliers = outliers.map(|outliers| Outliers { success_rate: None, ..outliers });
        Self { outliers, health_check: None, ..self.clone() }
    }
}

impl Outliers {
    /// True where failures in a row eject.
    fn counts_rows(&self) -> bool {
        [self.consecutive_5xx, self.consecutive_gateway_errors, self.consecutive_local_failures]
            .iter()
            .any(|row| *row > 0)
    }
}

/// How requests are spread over the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Balancing {
    /// Of two endpoints the faster one with regard to its load.
    #[default]
    PeakEwma,
    /// Of two endpoints the one with fewer requests in flight.
    LeastRequest,
    RoundRobin,
    Random,
    RingHash(HashKey),
    Maglev(HashKey),
}

/// What keeps requests together: those in which it is the same go to the same endpoint. A request that lacks it goes anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashKey {
    /// The value of a header field, of several the first; its name in lower case.
    Header(String),
    /// The value of a cookie, by its name, case and all.
    Cookie(String),
    Source(SourceKey),
}

/// What is taken of the calling workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKey {
    /// Its SPIFFE ID: all instances of one account have one.
    Identity,
    /// Its address: each instance has its own.
    Address,
}

impl Balancing {
    /// As manifests write it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::PeakEwma => "PeakEwma",
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::RingHash(_) => "RingHash",
            Self::Maglev(_) => "Maglev",
        }
    }

    #[must_use]
    pub fn hash_key(&self) -> Option<&HashKey> {
        match self {
            Self::RingHash(key) | Self::Maglev(key) => Some(key),
            Self::PeakEwma | Self::LeastRequest | Self::RoundRobin | Self::Random => None,
        }
    }
}

impl HashKey {
    /// The bytes that keep a request together with others. `fields`: the values of a header field, in order. `None`: the
    /// request lacks them, or what keeps it is no part of it.
    pub fn find<'r, F: Iterator<Item = &'r [u8]>>(&self, fields: impl FnOnce(&str) -> F) -> Option<&'r [u8]> {
        let value = match self {
            Self::Header(name) => fields(name).next(),
            Self::Cookie(name) => {
                fields("cookie").flat_map(pairs).find(|pair| pair.0 == name.as_bytes()).map(|it| it.1)
            }
            Self::Source(_) => None,
        };
        value.filter(|value| !value.is_empty())
    }
}

/// The cookies in one field, each by name and value.
//= rfc6265#section-4.2.1
pub(super) fn pairs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pair = |text: &'_ [u8]| text.iter().position(|byte| *byte == b'=');
    let cookies = field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    cookies.filter_map(move |text| pair(text).map(|at| (&text[..at], &text[at + 1..])))
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())?;
        self.hash_key().map_or(Ok(()), |key| write!(f, " by {key}"))
    }
}

impl fmt::Display for Outliers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consecutive_5xx, consecutive_gateway_errors, consecutive_local_failures, .. } = self;
        let rows = [
            (consecutive_5xx, "of 5xx"),
            (consecutive_gateway_errors, "gateway errors"),
            (consecutive_local_failures, "unanswered"),
        ];
        let rows = rows.into_iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}"));
        let duration = crate::text::duration_text;
        if self.counts_rows() {
            let (rows, interval) = (rows.collect::<Vec<_>>().join(" or "), duration(self.interval_ms));
            write!(f, "{rows} in a row (each within {interval})")?;
        }
        if let Some(rates) = &self.success_rate {
            let or = if self.counts_rows() { " or " } else { "" };
            write!(f, "{or}{rates} in {}", duration(self.interval_ms))?;
        }
        write!(
            f,
            ", out for {} to {}, at most {} %",
            duration(self.ejection_ms),
            duration(self.longest_ms),
            self.most_percent
        )
    }
}

impl fmt::Display for SuccessRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minimum_hosts, request_volume, stdev_thousandths } = self;
        let factor = f64::from(*stdev_thousandths) / 1_000.0;
        write!(
            f,
            "a success rate {factor} deviations below the mean of {minimum_hosts} or more with {request_volume} requests"
        )
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { active, pending, pending_ms, connections, retries, adaptive } = self;
        let duration = crate::text::duration_text;
        let active = (*active > 0).then(|| format!("{active} active requests"));
        let by_latency = adaptive.as_ref().map(|AdaptiveLimit { least, most, window_ms }| {
            format!("{least} to {most} requests by their latency in each {}", duration(*window_ms))
        });
        let connections = connections.map(|count| format!("{count} TCP connections"));
        let retries = retries.map(|count| format!("{count} retries"));
        for (index, told) in active.into_iter().chain(by_latency).chain(connections).chain(retries).enumerate() {
            match index {
                0 => write!(f, "{told} of each proxy")?,
                _ => write!(f, ", {told}")?,
            }
            if index == 0 && *pending > 0 {
                write!(f, ", {pending} pending for up to {}", duration(*pending_ms))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Source(SourceKey::Identity) => f.write_str("the caller's identity"),
            Self::Source(SourceKey::Address) => f.write_str("the caller's address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_field() {
        fn check(key: &HashKey, fields: &[&str], expect: Option<&str>) {
            let found = key.find(|_| fields.iter().map(|field| field.as_bytes()));
            assert_eq!(found, expect.map(str::as_bytes), "{key} in {fields:?}");
        }
        let header = HashKey::Header("x-user".to_owned());
        check(&header, &["ann", "bob"], Some("ann"));
        check(&header, &[""], None);
        check(&header, &[], None);
        let cookie = HashKey::Cookie("Sid".to_owned());
        check(&cookie, &["a=b; Sid=1=2; Sid=3"], Some("1=2"));
        check(&cookie, &["a=b", "c=d;Sid=1"], Some("1"));
        check(&cookie, &["sid=1; Sid", "Sid=", "xSid=4"], None);
        check(&cookie, &[";;=;", "="], None);
        check(&HashKey::Source(SourceKey::Identity), &["x"], None);
    }
}
