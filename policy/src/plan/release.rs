//! Versions of filters side by side: which one a policy runs. A channel stands for one version and knows those that it
//! stood for before, so that publishing alone changes nothing and going back needs no second publication.

use std::collections::BTreeMap;

use semver::Version;

use super::World;
use super::route_status::Condition;
use crate::authz;
use crate::bundle::serde_json_raw::Json;
use crate::bundle::{FILTER_CONTRACT, FilterAttachment, FilterLimits, ObjectName, contract_of};
use crate::resource::filter::{FilterRef, STABLE, Wanted};
use crate::resource::{Attaching, FilterPolicySpec, FilterSpec, Kind, Object, ROOT_NAMESPACE};
use crate::statement::{KeyId, SignedStatement};

/// The condition that tells whether a policy's filter is there.
const RESOLVED: &str = "ResolvedRefs";

/// A published version of a filter of the root namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    pub spec: FilterSpec,
    /// `None`: it was published before there were statements, or the control plane vouches for it.
    pub statement: Option<SignedStatement>,
    /// It ships with the control plane, so that it needs no publisher.
    pub shipped: bool,
    /// Only policies that name this very version run it.
    pub yanked: bool,
    /// The channels that it is or was in, each with the revision that brought it there. `None`: it is from before there
    /// were channels, when each version that was published was for everybody.
    pub channels: Option<BTreeMap<String, u64>>,
}

impl Release {
    /// A version that is in no channel.
    #[must_use]
    pub fn of(spec: FilterSpec) -> Self {
        Self { spec, statement: None, shipped: false, yanked: false, channels: Some(BTreeMap::new()) }
    }

    /// The revision that brought it into a channel.
    #[must_use]
    pub fn since(&self, channel: &str) -> Option<u64> {
        match &self.channels {
            Some(channels) => channels.get(channel).copied(),
            None => (channel == STABLE).then_some(0),
        }
    }

    /// The channels that it is or was in, as they are to be written once one of them changes.
    #[must_use]
    pub fn marks(&self) -> BTreeMap<String, u64> {
        self.channels.clone().unwrap_or_else(|| BTreeMap::from([(STABLE.to_owned(), 0)]))
    }

    fn number(&self) -> Option<Version> {
        Version::parse(&self.spec.version).ok()
    }
}

/// Which version a policy runs, or why it runs none.
pub(super) fn resolved(world: &World, policy: &Object<FilterPolicySpec>) -> Condition {
    let reference = &policy.spec.filter;
    let filter = reference.object_name();
    let wanted = reference.wanted().map_or_else(|(_, wrong)| wrong, |wanted| wanted.to_string());
    let refused = |reason, message: String| Condition {
        kind: RESOLVED,
        status: false,
        reason,
        message,
        key: "spec.filter".to_owned(),
    };
    let Some(spec) = world.resolve(reference) else {
        return refused("FilterNotFound", format!("Filter {filter} has no version for {wanted}"));
    };
    match world.distrusts(&filter, spec) {
        Some(why) => refused("PublisherNotTrusted", why),
        None => Condition::good(RESOLVED, format!("Filter {filter} {}, for {wanted}", spec.version)),
    }
}

impl World {
    /// The version that a channel of a filter stands for.
    #[must_use]
    pub fn in_channel(&self, filter: &ObjectName, channel: &str) -> Option<&FilterSpec> {
        if channel == STABLE {
            return self.filter(filter).map(|filter| &filter.spec);
        }
        let newest = self.releases(filter).filter_map(|release| Some((release.since(channel)?, release)));
        newest.max_by_key(|(since, _)| *since).map(|(_, release)| &release.spec)
    }

    /// The version that a channel stood for before the one that it stands for now.
    #[must_use]
    pub fn before_in_channel(&self, filter: &ObjectName, channel: &str) -> Option<&Release> {
        let current = self.in_channel(filter, channel)?;
        let now = Version::parse(&current.version).ok()?;
        let earlier = self.releases(filter).filter_map(|release| {
            let (since, number) = (release.since(channel)?, release.number()?);
            (!release.yanked && number < now).then_some(((since, number), release))
        });
        earlier.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, release)| release)
    }

    /// The channels that stand for a version of a filter.
    #[must_use]
    pub fn channels_of(&self, filter: &ObjectName, version: &str) -> Vec<String> {
        let marked = self.releases(filter).flat_map(|release| release.marks().into_keys());
        let mut channels: Vec<String> = marked.chain([STABLE.to_owned()]).collect();
        channels.sort();
        channels.dedup();
        channels.retain(|channel| self.in_channel(filter, channel).is_some_and(|spec| spec.version == version));
        channels
    }

    /// The version that a policy runs by what it says of its filter. `None`: there is none.
    #[must_use]
    pub fn resolve(&self, reference: &FilterRef) -> Option<&FilterSpec> {
        let filter = reference.object_name();
        match reference.wanted().ok()? {
            Wanted::Channel(channel) => self.in_channel(&filter, channel),
            Wanted::Exact(version) => {
                let current = self.in_channel(&filter, STABLE).filter(|spec| spec.version == version);
                current.or_else(|| self.published_version(&filter, version))
            }
            Wanted::Range(range, channel) => {
                let current = self.in_channel(&filter, channel).filter(|spec| !self.is_yanked(&filter, &spec.version));
                let known = self.releases(&filter).filter(|it| !it.yanked && it.since(channel).is_some());
                let fit = known.map(|release| &release.spec).chain(current).filter_map(|spec| {
                    let number = Version::parse(&spec.version).ok()?;
                    (number.pre.is_empty() && range.matches(&number)).then_some((number, spec))
                });
                fit.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, spec)| spec)
            }
        }
    }

    /// True for a version that nobody is to take up any more.
    #[must_use]
    pub fn is_yanked(&self, filter: &ObjectName, version: &str) -> bool {
        self.release(filter, version).is_some_and(|release| release.yanked)
    }

    /// The policies that run a version of a filter, and those that run any.
    pub fn users<'w>(
        &'w self,
        filter: &'w ObjectName,
        version: Option<&'w str>,
    ) -> impl Iterator<Item = Attaching<'w>> {
        self.attaching().filter(move |policy| {
            let reference = &policy.spec.filter;
            let runs = |version| self.resolve(reference).is_some_and(|spec| spec.version == version);
            reference.is_of(filter) && version.is_none_or(runs)
        })
    }

    /// The attachment of a filter that ships with the control plane for a proxy that runs other contracts than that of
    /// its component: by the newest shipped version of one that it `runs`. `None`: no version is, the filter does not
    /// ship, or what its policy sets is of a later contract.
    #[must_use]
    pub fn shipped_for(&self, filter: &FilterAttachment, runs: impl Fn(&str) -> bool) -> Option<FilterAttachment> {
        let name = ObjectName::new(ROOT_NAMESPACE, filter.filter.clone());
        let own = self.release(&name, &filter.version).filter(|own| own.spec.digest == filter.digest);
        let FilterLimits { memory_bytes, call_timeout_ms, .. } = filter.limits;
        let limits = FilterLimits { memory_bytes, call_timeout_ms, ..FilterLimits::default() };
        if !own.is_some_and(|own| own.shipped) || !filter.grants.is_empty() || filter.limits != limits {
            return None;
        }
        let fit =
            self.releases(&name).filter(|it| it.shipped && !it.yanked && runs(contract_of(&it.spec.abi).as_str()));
        let Release { spec, statement, .. } = fit.max_by_key(|it| it.number())?;
        let contract = contract_of(&spec.abi);
        Some(FilterAttachment {
            config: config_for(filter, &contract),
            version: spec.version.clone(),
            digest: spec.digest.clone(),
            signature: spec.signature.clone(),
            public_key_pem: spec.public_key.clone(),
            statement: statement.clone(),
            contract,
            ..filter.clone()
        })
    }

    /// True where nobody says whose filters run, so that everybody's do. A FilterPublisher that can't be read says so.
    #[must_use]
    pub fn trusts_everybody(&self) -> bool {
        self.unlimited_publishers().is_empty()
            && self.publishers().next().is_none()
            && !self.has_unreadable(Kind::FilterPublisher)
    }

    fn unlimited_publishers(&self) -> &[String] {
        self.mesh().map(|mesh| mesh.spec.filter_publishers.as_slice()).unwrap_or_default()
    }

    /// Why the mesh does not run a version of a filter: its key is none of the Mesh's, and none that a FilterPublisher
    /// has for its name.
    #[must_use]
    pub fn distrusts(&self, filter: &ObjectName, spec: &FilterSpec) -> Option<String> {
        let is_shipped = || self.release(filter, &spec.version).is_some_and(|release| release.shipped);
        if self.trusts_everybody() || is_shipped() {
            return None;
        }
        let own = KeyId::of_pem(&spec.public_key);
        let is_trusted = own.is_some_and(|own| {
            self.unlimited_publishers().iter().any(|key| KeyId::of_pem(key) == Some(own))
                || self.publishers().any(|publisher| publisher.spec.may_publish(own, &filter.name))
        });
        (!is_trusted).then(|| {
            let key = own.map_or_else(|| "an unreadable key".to_owned(), |key| key.to_string());
            let limited = match self.publishers().next() {
                Some(_) => ", nor one that a FilterPublisher has for this name",
                None => "",
            };
            let version = &spec.version;
            format!("Filter {filter} {version} is of {key}, which is none of the Mesh's spec.filterPublishers{limited}")
        })
    }

    /// The same of the filter that a policy asks for.
    #[must_use]
    pub fn distrusted(&self, policy: &Object<FilterPolicySpec>) -> Option<String> {
        let reference = &policy.spec.filter;
        let filter = reference.object_name();
        self.distrusts(&filter, self.resolve(reference)?)
    }
}

/// The configuration of a shipped filter for its component of another contract: `authz` of 0.1 knows fewer conditions.
fn config_for(filter: &FilterAttachment, contract: &str) -> Json {
    let is_older = filter.filter == "authz" && contract == FILTER_CONTRACT;
    let config = is_older.then(|| serde_json::from_str::<authz::Config>(&filter.config.0).ok()).flatten();
    match config.and_then(|config| config.for_older()) {
        Some(config) => Json(serde_json::to_string(&config).expect("a config has string keys only")),
        None => filter.config.clone(),
    }
}
