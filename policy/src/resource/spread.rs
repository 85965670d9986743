//! What `loadBalancing` of a TrafficPolicy says of where endpoints are, how new ones start, and when those that are out are
//! used all the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value;
use crate::bundle::{Failover, Locality, PlaceShare, PlaceShares, Prefer, SlowStart};

/// The regions for which one policy names others, and those that it names for each.
const MAX_FAILOVERS: usize = 64;
const MAX_REGIONS: usize = 16;

/// What endpoints may be taken to carry, in percent.
pub(crate) const OVERPROVISIONING: std::ops::RangeInclusive<u32> = 100..=1_000;
/// Envoy's.
const USUAL_OVERPROVISIONING: u32 = 140;

/// The longest window of a slow start.
const MAX_WINDOW_MS: u64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalitySpec {
    pub prefer: PreferSpec,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<FailoverSpec>,
    /// 140 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overprovisioning_percent: Option<u32>,
    /// In the place of an order: how much callers of a place send where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<PlaceWeightsSpec>,
}

/// Places are `region`, `region/zone` or `region/zone/subzone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceWeightsSpec {
    pub from: String,
    /// In percent of what they send, all together a hundred.
    pub to: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PreferSpec {
    /// Whatever the Service's `trafficDistribution` says.
    #[default]
    None,
    Region,
    Zone,
    Subzone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailoverSpec {
    pub from: String,
    pub to: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStartSpec {
    /// 0: there is none.
    #[serde(rename = "window", deserialize_with = "value::duration_ms", serialize_with = "value::serialize_duration")]
    pub window_ms: Option<u64>,
    #[serde(default = "ten")]
    pub min_weight_percent: u32,
}

/// Envoy's.
fn ten() -> u32 {
    10
}

type Wrong = Vec<(String, String)>;

impl LocalitySpec {
    /// Everything that is wrong; keys are inside `locality`.
    pub(super) fn check(&self) -> Wrong {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, message: String| wrong.push((key.to_owned(), message));
        if self.prefer == PreferSpec::None && (!self.failover.is_empty() || self.overprovisioning_percent.is_some()) {
            let message = "None prefers nothing, and `failover` or `overprovisioningPercent` is given: Region, Zone and Subzone \
                           take them";
            refuse("prefer", message.to_owned());
        }
        if let Some(percent) = self.overprovisioning_percent.filter(|percent| !OVERPROVISIONING.contains(percent)) {
            let (least, most) = (*OVERPROVISIONING.start(), *OVERPROVISIONING.end());
            refuse("overprovisioningPercent", format!("{percent} is out of range: {least} to {most}"));
        }
        if self.failover.len() > MAX_FAILOVERS {
            refuse("failover", format!("{} regions are more than {MAX_FAILOVERS}", self.failover.len()));
        }
        for (index, failover) in self.failover.iter().take(MAX_FAILOVERS).enumerate() {
            if self.failover[..index].iter().any(|other| other.from == failover.from) {
                refuse(&format!("failover[{index}].from"), format!("{:?} is given twice", failover.from));
            }
            failover.check(|key, message| refuse(&format!("failover[{index}].{key}"), message));
        }
        if self.prefer != PreferSpec::None && !self.weights.is_empty() {
            refuse("weights", "is given beside `prefer`: there are shares or an order".to_owned());
        }
        if self.weights.len() > MAX_FAILOVERS {
            refuse("weights", format!("{} places are more than {MAX_FAILOVERS}", self.weights.len()));
        }
        for (index, weights) in self.weights.iter().take(MAX_FAILOVERS).enumerate() {
            if self.weights[..index].iter().any(|other| other.from == weights.from) {
                refuse(&format!("weights[{index}].from"), format!("{:?} is given twice", weights.from));
            }
            weights.check(|key, message| refuse(&format!("weights[{index}].{key}"), message));
        }
        wrong
    }

    /// As proxies are told the weights. What a store holds although `check` refuses it is left out.
    pub(super) fn shares(&self) -> Vec<PlaceShares> {
        let share = |(place, percent): (&String, &u32)| PlaceShare { place: place.clone(), percent: *percent };
        let fit = self.weights.iter().take(MAX_FAILOVERS).filter(|_| self.prefer == PreferSpec::None);
        let fit = fit.filter(|weights| {
            let mut is_fit = true;
            weights.check(|_, _| is_fit = false);
            is_fit
        });
        fit.map(|weights| PlaceShares { from: weights.from.clone(), to: weights.to.iter().map(share).collect() })
            .collect()
    }

    /// As proxies are told it. `None`: all are as near.
    pub(super) fn locality(&self) -> Option<Locality> {
        let prefer = match self.prefer {
            PreferSpec::None => return None,
            PreferSpec::Region => Prefer::Region,
            PreferSpec::Zone => Prefer::Zone,
            PreferSpec::Subzone => Prefer::Subzone,
        };
        let failover = |it: &FailoverSpec| Failover { from: it.from.clone(), to: it.to.clone() };
        Some(Locality {
            failover: self.failover.iter().take(MAX_FAILOVERS).map(failover).collect(),
            overprovisioning_percent: self
                .overprovisioning_percent
                .filter(|percent| OVERPROVISIONING.contains(percent))
                .unwrap_or(USUAL_OVERPROVISIONING),
            ..Locality::preferring(prefer)
        })
    }
}

impl Locality {
    /// Nothing is said but this.
    pub(crate) fn preferring(prefer: Prefer) -> Self {
        Self { prefer, failover: Vec::new(), overprovisioning_percent: USUAL_OVERPROVISIONING }
    }
}

impl FailoverSpec {
    fn check(&self, mut refuse: impl FnMut(&str, String)) {
        if !is_region(&self.from) {
            refuse("from", not_a_region(&self.from));
        }
        if self.to.is_empty() {
            refuse("to", "a region that it turns to is expected".to_owned());
        }
        if self.to.len() > MAX_REGIONS {
            refuse("to", format!("{} regions are more than {MAX_REGIONS}", self.to.len()));
        }
        for (index, region) in self.to.iter().take(MAX_REGIONS).enumerate() {
            let key = format!("to[{index}]");
            if !is_region(region) {
                refuse(&key, not_a_region(region));
            } else if *region == self.from {
                refuse(&key, format!("{region:?} is the region itself, which comes first"));
            } else if self.to[..index].contains(region) {
                refuse(&key, format!("{region:?} is given twice"));
            }
        }
    }
}

impl PlaceWeightsSpec {
    fn check(&self, mut refuse: impl FnMut(&str, String)) {
        let not_a_place = |text: &str| format!("{text:?} is not a place: region, region/zone or region/zone/subzone");
        if !is_place(&self.from) {
            refuse("from", not_a_place(&self.from));
        }
        if self.to.len() > MAX_REGIONS {
            refuse("to", format!("{} places are more than {MAX_REGIONS}", self.to.len()));
        }
        for (place, percent) in self.to.iter().take(MAX_REGIONS) {
            if !is_place(place) {
                refuse("to", not_a_place(place));
            } else if !(1..=100).contains(percent) {
                refuse("to", format!("{percent} for {place} is out of range: 1 to 100"));
            }
        }
        let sum: u64 = self.to.values().map(|percent| u64::from(*percent)).sum();
        if sum != 100 {
            refuse("to", format!("comes to {sum}: a hundred are expected"));
        }
    }
}

/// Values of labels, from the region on.
pub(crate) fn is_place(text: &str) -> bool {
    text.split('/').count() <= 3 && text.split('/').all(is_region)
}

/// A region is the value of a label.
fn is_region(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63 && bytes.iter().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

fn not_a_region(text: &str) -> String {
    format!("{text:?} is no region: it is the value of a label, of letters, digits, '-', '_' and '.'")
}

impl SlowStartSpec {
    /// Everything that is wrong; keys are inside `slowStart`. `by_key`: the algorithm, where it goes by a key.
    pub(super) fn check(&self, by_key: Option<&str>) -> Wrong {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, message: String| wrong.push((key.to_owned(), message));
        if let Some(algorithm) = by_key.filter(|_| self.window_ms.is_some_and(|ms| ms > 0)) {
            let message = format!(
                "{algorithm} goes by a key, and keys would move as a weight grows: PeakEwma, LeastRequest, RoundRobin and Random \
                 start slowly"
            );
            refuse("", message);
        }
        if let Some(ms) = self.window_ms.filter(|ms| *ms > MAX_WINDOW_MS) {
            refuse("window", format!("{} is out of range: 0s to 1h", value::duration_text(ms)));
        }
        if !(1..=100).contains(&self.min_weight_percent) {
            refuse("minWeightPercent", format!("{} is out of range: 1 to 100", self.min_weight_percent));
        }
        wrong
    }

    /// As proxies are told it. `None`: there is none.
    pub(super) fn slow_start(&self) -> Option<SlowStart> {
        let window_ms = self.window_ms.filter(|ms| (1..=MAX_WINDOW_MS).contains(ms))?;
        Some(SlowStart { window_ms, least_percent: self.min_weight_percent.clamp(1, 100) })
    }
}
