//! Which endpoints of a service are used before others, by where they are and how long they have been there. Preferences
//! only: a proxy that knows none of it uses all alike. Nobody is believed: where a workload is, it says itself by its labels,
//! which draws requests of services that it may stand behind and no others.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The labels by which workloads say where they are.
pub const REGION: &str = "topology.kubernetes.io/region";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const SUBZONE: &str = "topology.istio.io/subzone";

type Labels = BTreeMap<String, String>;

/// Only to a proxy with the capability `spread`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// `None`: all are as near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// `None`: a new endpoint has its whole weight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Where fewer endpoints of a hundred are in, those that are ejected or fail their checks are used as well. 0: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub panic_percent: u32,
    /// How much callers of some places send where, and no nearer ones first; only to a proxy with the capability
    /// `place-shares`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<PlaceShares>,
}

/// Places to which callers of one send so much. A place is `region`, `region/zone` or `region/zone/subzone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceShares {
    pub from: String,
    pub to: Vec<PlaceShare>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceShare {
    pub place: String,
    /// All of a caller's come to a hundred.
    pub percent: u32,
}

impl Spread {
    /// Those of a caller at this place: of several the one that says most of it. `None`: none is for it.
    #[must_use]
    pub fn shares_of(&self, caller: Place<'_>) -> Option<&PlaceShares> {
        let own = self.shares.iter().filter(|shares| caller.is_in(&shares.from));
        own.max_by_key(|shares| shares.from.len())
    }
}

impl PlaceShares {
    /// The number of the place that an endpoint is in: of several the one that says most of it. `None`: it is in none.
    #[must_use]
    pub fn place_of(&self, endpoint: Place<'_>) -> Option<usize> {
        let own = self.to.iter().enumerate().filter(|(_, share)| endpoint.is_in(&share.place));
        own.max_by_key(|(_, share)| share.place.len()).map(|(number, _)| number)
    }
}

/// `from eu/a 80 % to eu/a, 20 % to eu/b`.
impl fmt::Display for PlaceShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to: Vec<_> = self.to.iter().map(|share| format!("{} % to {}", share.percent, share.place)).collect();
        write!(f, "from {} {}", self.from, to.join(", "))
    }
}

/// Near endpoints take what they can, farther ones the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locality {
    pub prefer: Prefer,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Failover>,
    /// What endpoints are taken to carry, in percent of the part of them that is in.
    pub overprovisioning_percent: u32,
}

/// The smallest place whose endpoints come before those outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prefer {
    Region,
    Zone,
    Subzone,
}

/// Regions to which callers of one region turn before any other, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    pub from: String,
    pub to: Vec<String>,
}

/// The weight of a new endpoint grows in proportion to time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    pub window_ms: u64,
    /// It begins with so much of its weight.
    pub least_percent: u32,
}

/// How near an endpoint is to a caller; the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    Subzone,
    Zone,
    Region,
    /// In a region that the caller's turns to, by its number in their order.
    Failover(u8),
    Elsewhere,
}

impl Nearness {
    /// The same as a number, for which only the order counts.
    #[must_use]
    pub fn distance(self) -> u8 {
        match self {
            Self::Subzone => 0,
            Self::Zone => 1,
            Self::Region => 2,
            Self::Failover(number) => number.saturating_add(3).min(u8::MAX - 1),
            Self::Elsewhere => u8::MAX,
        }
    }

    /// A short constant, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subzone => "subzone",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Failover(_) => "failover",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Where a workload says that it is. What it does not say is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'l> {
    region: &'l str,
    zone: &'l str,
    subzone: &'l str,
}

impl<'l> Place<'l> {
    #[must_use]
    pub fn of(labels: &'l Labels) -> Self {
        let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
        Self { region: label(REGION), zone: label(ZONE), subzone: label(SUBZONE) }
    }

    /// True where all that the name of a place says is so of this one.
    #[must_use]
    pub fn is_in(self, place: &str) -> bool {
        let mut own = [self.region, self.zone, self.subzone].into_iter();
        place.split('/').all(|part| !part.is_empty() && own.next() == Some(part))
    }

    /// True where it says neither region nor zone.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        self.region.is_empty() && self.zone.is_empty()
    }
}

/// `region/zone/subzone`, as far as they are known.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [self.region, self.zone, self.subzone].into_iter().filter(|part| !part.is_empty());
        f.write_str(&known.collect::<Vec<_>>().join("/"))
    }
}

impl Locality {
    /// How near an endpoint is to a caller. To one that does not say where it is all are as far. A zone is one of its region:
    /// the same name in another is another zone.
    #[must_use]
    pub fn nearness(&self, caller: Place<'_>, endpoint: Place<'_>) -> Nearness {
        let in_zone = !caller.zone.is_empty() && (caller.region, caller.zone) == (endpoint.region, endpoint.zone);
        let in_subzone = in_zone && !caller.subzone.is_empty() && caller.subzone == endpoint.subzone;
        let in_region = !caller.region.is_empty() && caller.region == endpoint.region;
        let nearest = match self.prefer {
            Prefer::Subzone if in_subzone => Some(Nearness::Subzone),
            Prefer::Subzone | Prefer::Zone if in_zone => Some(Nearness::Zone),
            Prefer::Subzone | Prefer::Zone | Prefer::Region => None,
        };
        nearest.or(in_region.then_some(Nearness::Region)).unwrap_or_else(|| {
            let number = self.turns_to(caller).position(|region| region == endpoint.region);
            number.and_then(|number| u8::try_from(number).ok()).map_or(Nearness::Elsewhere, Nearness::Failover)
        })
    }

    fn turns_to(&self, caller: Place<'_>) -> impl Iterator<Item = &str> {
        let ours = self.failover.iter().find(|it| !caller.region.is_empty() && it.from == caller.region);
        ours.into_iter().flat_map(|it| it.to.iter().map(String::as_str))
    }
}

impl Prefer {
    /// As manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Region => "Region",
            Self::Zone => "Zone",
            Self::Subzone => "Subzone",
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = match self.prefer {
            Prefer::Region => "region",
            Prefer::Zone => "zone, region",
            Prefer::Subzone => "subzone, zone, region",
        };
        write!(f, "{}: {first}", self.prefer.as_str())?;
        for Failover { from, to } in &self.failover {
            write!(f, ", from {from} to {}", to.join(", "))?;
        }
        write!(f, ", then elsewhere, each as far as it carries at {} %", self.overprovisioning_percent)
    }
}

impl fmt::Display for SlowStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "from {} % of the weight to all in {}",
            self.least_percent,
            crate::text::duration_text(self.window_ms)
        )
    }
}
