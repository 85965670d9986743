//! `TrafficPolicy`: how callers spread the requests to a service over its endpoints. What parses and passes `check` can be
//! told to proxies.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{TargetKind, TargetRef, value};
use crate::bundle::{Balancing, HashKey, SourceKey};

/// Services that one policy may be for, as Gateway API bounds it.
const MAX_TARGETS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// Services of its own namespace.
    pub target_refs: Vec<TargetRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancingSpec>,
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
            Some(_) if !is_by_key => Some(("hash", format!("{algorithm:?} goes by no key: RingHash and Maglev do"))),
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
        wrong
    }
}
