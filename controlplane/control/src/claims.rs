//! Claims of accounts: services to stand behind, labels and addresses by the grants of their join tokens, and names of
//! workloads that they had first. Decisions only; the hub keeps and publishes them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::resource::{Object, ServiceSpec};

/// Names that one account may keep from others while it doesn't use them.
pub const MAX_NAMES: usize = 1_024;

/// Services, labels and addresses that are granted to one account by all of its tokens together.
pub const MAX_GRANTED: usize = 512;

/// Rights of an account beside the services that its name and their annotations give it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Names of services of its namespace.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<String>,
    /// Labels, by whose force it stands behind what selects by them alone.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<(String, String)>,
    /// Ranges that its workloads may be in, wherever their proxies speak from.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpNet>,
}

impl Grants {
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.labels.is_empty() && self.addresses.is_empty()
    }

    pub fn len(&self) -> usize {
        self.services.len() + self.labels.len() + self.addresses.len()
    }

    fn extend(&mut self, other: &Self) {
        self.services.extend(other.services.iter().cloned());
        self.labels.extend(other.labels.iter().cloned());
        self.addresses.extend(other.addresses.iter().copied());
    }

    /// Those of its rights that `other` does not have, word for word.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            services: self.services.difference(&other.services).cloned().collect(),
            labels: self.labels.difference(&other.labels).cloned().collect(),
            addresses: self.addresses.difference(&other.addresses).copied().collect(),
        }
    }

    /// Each right as people write it: `service=NAME`, `label=KEY=VALUE`, `address=RANGE`.
    pub fn words(&self) -> Vec<String> {
        let services = self.services.iter().map(|service| format!("service={service}"));
        let labels = self.labels.iter().map(|(key, value)| format!("label={key}={value}"));
        let addresses = self.addresses.iter().map(|range| format!("address={range}"));
        services.chain(labels).chain(addresses).collect()
    }

    /// True when workloads of `account` may stand behind a service; `existing` is the one of that name, if any.
    pub fn may_stand_behind(&self, account: &str, name: &str, existing: Option<&Object<ServiceSpec>>) -> bool {
        let lists = |service: &Object<ServiceSpec>| service.accounts().any(|listed| listed == account);
        let by_labels = |service: &Object<ServiceSpec>| {
            let selector = &service.spec.selector;
            !selector.is_empty()
                && selector.iter().all(|(key, value)| self.labels.contains(&(key.clone(), value.clone())))
        };
        name == account
            || self.services.contains(name)
            || existing.is_some_and(|service| lists(service) || by_labels(service))
    }

    /// True when a granted range holds the address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.contains(&address))
    }
}

/// As an audit entry tells them, each after a blank.
impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().iter().try_for_each(|word| write!(f, " {word}"))
    }
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameClaim {
    pub identity: SpiffeId,
    /// When its workload left; `None` while there is one. For people: clocks step.
    pub released_unix: Option<i64>,
    /// The age of the store at which its workload left, seconds; by this the claim ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_age: Option<u64>,
}

/// All claims; as they are stored under their keys. It costs nothing to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    grants: OrdMap<SpiffeId, Grants>,
    names: OrdMap<ObjectName, NameClaim>,
}

/// One claim, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimRecord {
    Grants { identity: SpiffeId, grants: Grants },
    Name { name: ObjectName, claim: NameClaim },
}

/// A claim that changed: its key, and its record unless it ended.
pub type ClaimChange = (String, Option<ClaimRecord>);

impl Claims {
    pub fn load(records: impl IntoIterator<Item = ClaimRecord>) -> Self {
        let mut claims = Self::default();
        for record in records {
            match record {
                ClaimRecord::Grants { identity, grants } => drop(claims.grants.insert(identity, grants)),
                ClaimRecord::Name { name, mut claim } => {
                    if claim.released_unix.is_some() {
                        // A release that knew of no age wrote it: the whole while is kept.
                        claim.released_age.get_or_insert(0);
                    }
                    claims.names.insert(name, claim);
                }
            }
        }
        claims
    }

    pub fn grants(&self, identity: &SpiffeId) -> &Grants {
        static NONE: Grants = Grants { services: BTreeSet::new(), labels: BTreeSet::new(), addresses: BTreeSet::new() };
        self.grants.get(identity).unwrap_or(&NONE)
    }

    /// Adds to what an account was granted. `None` where it had it all.
    pub fn grant(&mut self, identity: &SpiffeId, more: &Grants) -> Option<ClaimChange> {
        let mut grants = self.grants(identity).clone();
        grants.extend(more);
        if grants == *self.grants(identity) {
            return None;
        }
        self.grants.insert(identity.clone(), grants.clone());
        Some((format!("grants/{identity}"), Some(ClaimRecord::Grants { identity: identity.clone(), grants })))
    }

    /// Takes away what an account was granted. `None` where it had none of it.
    pub fn withdraw(&mut self, identity: &SpiffeId, less: &Grants) -> Option<ClaimChange> {
        let grants = self.grants(identity).without(less);
        if grants == *self.grants(identity) {
            return None;
        }
        let key = format!("grants/{identity}");
        if grants.is_empty() {
            self.grants.remove(identity);
            return Some((key, None));
        }
        self.grants.insert(identity.clone(), grants.clone());
        Some((key, Some(ClaimRecord::Grants { identity: identity.clone(), grants })))
    }

    /// Every account that was granted something.
    pub fn granted(&self) -> impl Iterator<Item = (&SpiffeId, &Grants)> {
        self.grants.iter().filter(|(_, grants)| !grants.is_empty())
    }

    /// The account that a name belongs to, with the time that its workload left, if it did.
    pub fn holder(&self, name: &ObjectName) -> Option<&NameClaim> {
        self.names.get(name)
    }

    /// The name is in use by the account.
    pub fn take(&mut self, name: &ObjectName, identity: &SpiffeId) -> Option<ClaimChange> {
        let claim = NameClaim { identity: identity.clone(), released_unix: None, released_age: None };
        if self.names.get(name) == Some(&claim) {
            return None;
        }
        self.names.insert(name.clone(), claim.clone());
        Some((key_of(name), Some(ClaimRecord::Name { name: name.clone(), claim })))
    }

    /// The workload of that name left: the name stays its account's for a while.
    pub fn leave(&mut self, name: &ObjectName, age: u64, now_unix: i64) -> Option<ClaimChange> {
        let claim = self.names.get_mut(name)?;
        (claim.released_unix, claim.released_age) = (Some(now_unix), Some(age));
        let claim = claim.clone();
        Some((key_of(name), Some(ClaimRecord::Name { name: name.clone(), claim })))
    }

    /// Ends the claim to a name: the next account that asks may have it.
    pub fn free(&mut self, name: &ObjectName) -> Option<ClaimChange> {
        self.names.remove(name).map(|_| (key_of(name), None))
    }

    /// Ends the claims that are over.
    pub fn sweep(&mut self, before_age: u64) -> Vec<ClaimChange> {
        self.over(before_age).iter().filter_map(|name| self.free(name)).collect()
    }

    /// Unused names to which the claim is over: those that left before an age of the store, and the oldest over each
    /// account's bound.
    pub fn over(&self, before_age: u64) -> Vec<ObjectName> {
        let mut unused: BTreeMap<&SpiffeId, Vec<(u64, &ObjectName)>> = BTreeMap::new();
        for (name, claim) in &self.names {
            if let Some(released) = claim.released_age {
                unused.entry(&claim.identity).or_default().push((released, name));
            }
        }
        let mut over = Vec::new();
        for names in unused.values_mut() {
            names.sort_unstable();
            let surplus = names.len().saturating_sub(MAX_NAMES);
            let is_over =
                |(index, (released, _)): &(usize, &(u64, &ObjectName))| *index < surplus || *released < before_age;
            over.extend(names.iter().enumerate().filter(is_over).map(|(_, (_, name))| (*name).clone()));
        }
        over
    }
}

fn key_of(name: &ObjectName) -> String {
    format!("name/{name}")
}
