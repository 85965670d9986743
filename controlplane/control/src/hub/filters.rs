//! Publishing filters: a verified binary becomes a version of a `Filter` in `weft-system`, which is all that changes: channels
//! are moved apart from that. A filter's later versions must be signed with the key of its first, unless an admin says otherwise.

mod channels;
mod garbage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use semver::Version;
use serde::{Deserialize, Serialize};
use weft_policy::bundle::{FILTER_CONTRACTS, ObjectName};
use weft_policy::component::cases::Cases;
use weft_policy::identity::{SpiffeId, is_label};
use weft_policy::lint::Near;
use weft_policy::plan::{Action, Change, Entry, Owned, filters_for};
use weft_policy::resource::filter::STABLE;
use weft_policy::resource::{Kind, ObjectKey, ROOT_NAMESPACE};
use weft_policy::statement::SignedStatement;

pub use self::channels::Moved;
use self::garbage::Orphans;
use super::apply::PutError;
use super::trying::{Asked, unless_refused};
use super::{Actor, ApplyError, Draft, Hub, apply};
use crate::artifact::{Artifact, ArtifactError};
use crate::now_unix;
use crate::store::{StoreError, Write, write_record};

/// One published version. Its number, binary and statement never change; where it was deleted its record stays, so that the
/// number is never given to something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterVersion {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub signature: String,
    pub public_key_pem: String,
    pub abi: String,
    pub capabilities: Vec<String>,
    pub size_bytes: u64,
    pub published_unix: i64,
    pub published_by: String,
    /// `None`: it is from before there were statements, or the control plane vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<SignedStatement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "is_off")]
    pub yanked: bool,
    #[serde(default, skip_serializing_if = "is_off")]
    pub deleted: bool,
    /// The channels that it is or was in, each with the revision that brought it there. `None`: it is from before there were
    /// channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<BTreeMap<String, u64>>,
}

fn is_off(switch: &bool) -> bool {
    !switch
}

/// Binaries that are being sent, and those that nothing names.
#[derive(Default)]
pub(super) struct Artifacts(tokio::sync::Mutex<BTreeMap<String, Weak<Vec<u8>>>>, Orphans);

impl Artifacts {
    /// Gives those who ask for a binary this copy of it, as long as its lender keeps it.
    async fn lend(&self, digest: String, bytes: &Arc<Vec<u8>>) {
        self.0.lock().await.insert(digest, Arc::downgrade(bytes));
    }
}

/// A filter version to be published.
#[derive(Debug)]
pub struct Publication {
    pub name: String,
    pub version: String,
    pub artifact: Artifact,
    /// What the publisher has signed of it. Only the control plane itself, and who publishes again what is there, needs none.
    pub statement: Option<SignedStatement>,
    /// Take a key that differs from the filter's first one. Admins only.
    pub accept_new_key: bool,
    /// Let this channel stand for it from now on. The first version of a filter is in `stable` in any case.
    pub channel: Option<String>,
    /// Nothing is made, and what would be refused is refused.
    pub dry_run: bool,
}

/// The filter that enforces access policies. It comes with the control plane.
pub(crate) const AUTHZ: &str = "authz";
/// The control plane itself, as the audit log names it.
pub(crate) const SYSTEM: &str = "system";

/// Why nothing was published or moved.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("filter name {0:?}: lower-case letters, digits and '-', at most 63")]
    Name(String),
    #[error("filter version {0:?} is not MAJOR.MINOR.PATCH")]
    Version(String),
    #[error("channel {0:?}: lower-case letters, digits and '-', at most 63")]
    Channel(String),
    #[error(
        "{name} {version} is published already with digest {digest}: a version never changes, take the next number"
    )]
    Exists { name: String, version: String, digest: String },
    #[error(
        "{0} was first published with another key; an admin can accept the new one (weft filter publish --accept-new-key)"
    )]
    OtherKey(String),
    #[error("{0} enforces every AccessPolicy of the mesh: it comes with the control plane, take another name")]
    Own(String),
    #[error("{0}")]
    Untrusted(String),
    #[error(
        "{0} comes without a signed statement (headers weft-statement and weft-statement-signature): publish it with this release's weft"
    )]
    Unstated(String),
    #[error("{name} {version} does not do what its own cases say: {}", .faults.join("; "))]
    Cases { name: String, version: String, faults: Vec<String> },
    #[error(transparent)]
    Misstated(#[from] ArtifactError),
    #[error("no filter {0} is published")]
    Unknown(String),
    #[error("{name} {version} was yanked: it is not taken up any more (weft filter yank --undo takes that back)")]
    Yanked { name: String, version: String },
    #[error(
        "channel {channel} stands for {name} {current}, and versions of a channel only go up: weft filter rollback {name} \
         --channel {channel} --to {version} goes back"
    )]
    Older { name: String, version: String, channel: String, current: String },
    #[error("{0}")]
    InUse(String),
    #[error(transparent)]
    Unsound(ApplyError),
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PutError> for PublishError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Owned(owned) => owned.into(),
            PutError::Store(error) => error.into(),
        }
    }
}

impl Hub {
    /// Stores the binary as a version beside the others, in one transaction; a channel moves only where that is wanted, or where
    /// the filter has no version yet. The same publication twice is fine.
    pub async fn publish_filter(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        publication: Publication,
    ) -> Result<FilterVersion, PublishError> {
        let actor = actor.into();
        let known = self.filter_records().await?;
        let (record, channel) = self.record_of(&actor, &publication, &known)?;
        let Publication { artifact, dry_run, .. } = publication;
        let bytes = artifact.bytes;
        // This copy serves all who fetch the binary while it is tried.
        let wasm = Arc::new(bytes.clone());
        self.artifacts.lend(record.digest.clone(), &wasm).await;
        if let Some(cases) = artifact.shape.cases {
            self.try_cases(&record, cases, &wasm).await?;
        }
        let (tried, into) = (record.clone(), channel.clone());
        self.try_change(&record.name, move |draft| draft.put_version(tried.clone(), into.as_deref()).map(drop)).await?;
        if dry_run {
            return Ok(record);
        }
        let made = record.clone();
        let published =
            self.change(move |draft| draft.publish(&actor, made.clone(), bytes.clone(), channel.as_deref())).await?;
        let FilterVersion { name, version, digest, .. } = &published;
        tracing::info!(filter = %name, %version, %digest, "filter published");
        Ok(published)
    }

    /// The record of a publication, and the channel that is to stand for it.
    fn record_of(
        &self,
        actor: &Actor,
        publication: &Publication,
        known: &[FilterVersion],
    ) -> Result<(FilterVersion, Option<String>), PublishError> {
        let Publication { name, version, artifact, statement, accept_new_key, channel, dry_run: _ } = publication;
        check_names(name, version)?;
        if let Some(channel) = channel.as_ref().filter(|channel| !is_label(channel)) {
            return Err(PublishError::Channel(channel.clone()));
        }
        if *name == AUTHZ && actor.id != SYSTEM {
            return Err(PublishError::Own(name.clone()));
        }
        let of_name = known.iter().filter(|other| other.name == *name);
        let same = of_name.clone().find(|other| other.version == *version);
        if let Some(other) = same.filter(|other| other.digest != artifact.digest) {
            let FilterVersion { name, version, digest, .. } = other.clone();
            return Err(PublishError::Exists { name, version, digest });
        }
        let has_other_key = |other: &FilterVersion| other.public_key_pem != artifact.public_key_pem;
        if !accept_new_key && of_name.clone().any(has_other_key) {
            return Err(PublishError::OtherKey(name.clone()));
        }
        // What stays of an earlier publication has to be of this key as well. Of one that was deleted nothing stays.
        let before = same.filter(|same| !same.deleted);
        let statement = statement.as_ref().or_else(|| before?.statement.as_ref());
        match (statement, before) {
            (Some(signed), _) => artifact.is_stated(name, version, signed)?,
            (None, Some(_)) => {}
            (None, None) if actor.id == SYSTEM => {}
            (None, None) => return Err(PublishError::Unstated(format!("{name} {version}"))),
        }
        let record = FilterVersion {
            name: name.clone(),
            version: version.clone(),
            digest: artifact.digest.clone(),
            signature: artifact.signature.clone(),
            public_key_pem: artifact.public_key_pem.clone(),
            abi: artifact.shape.abi.clone(),
            capabilities: artifact.shape.capabilities.clone(),
            size_bytes: artifact.bytes.len() as u64,
            published_unix: before.map_or_else(now_unix, |before| before.published_unix),
            published_by: before.map_or_else(|| actor.id.clone(), |before| before.published_by.clone()),
            statement: statement.cloned(),
            config_schema: artifact.shape.schema.as_ref().map(|(schema, _)| schema.clone()),
            yanked: before.is_some_and(|before| before.yanked),
            deleted: false,
            channels: before.map_or_else(|| Some(BTreeMap::new()), |before| before.channels.clone()),
        };
        self.trust_publisher(actor, &record)?;
        let is_first = self.published().world.filter(&root(name)).is_none();
        Ok((record, channel.clone().or_else(|| is_first.then(|| STABLE.to_owned()))))
    }

    /// Refuses a change of a filter's versions by which a policy would run what it can't run with what it says.
    async fn try_change(
        &self,
        filter: &str,
        change: impl Fn(&mut Draft) -> Result<(), PublishError> + Send,
    ) -> Result<(), PublishError> {
        let before = self.published();
        let asked = {
            let mut draft = Draft::of(&before);
            change(&mut draft)?;
            let object = ObjectKey::new(Kind::Filter, ROOT_NAMESPACE, filter);
            let changed = Change { action: Action::Changed, object, diff: String::new() };
            Asked::between(&before.world, &draft.world, &[changed])
        };
        // No policy names authz, and what that is configured with is checked when it is applied.
        if asked.is_empty() || filter == AUTHZ {
            return Ok(());
        }
        let problems = self.tried_against(&asked, &before.world).await;
        problems.and_then(unless_refused).map(drop).map_err(PublishError::Unsound)
    }

    /// Refuses a binary that does not do what its own cases say.
    async fn try_cases(&self, record: &FilterVersion, cases: Cases, wasm: &Arc<Vec<u8>>) -> Result<(), PublishError> {
        if !self.config().try_filters {
            return Ok(());
        }
        let found = self.trials.cases(wasm.clone(), cases, self.config().request_timeout()).await;
        let faults = found.ok_or(PublishError::Unsound(ApplyError::Trying))?;
        if faults.is_empty() {
            return Ok(());
        }
        Err(PublishError::Cases { name: record.name.clone(), version: record.version.clone(), faults })
    }

    /// Refuses filters of other publishers than those that the mesh names, if it names any.
    fn trust_publisher(&self, actor: &Actor, record: &FilterVersion) -> Result<(), PublishError> {
        if actor.id == SYSTEM {
            return Ok(());
        }
        let release = apply::release(record);
        match self.published().world.distrusts(&root(&record.name), &release.spec) {
            Some(why) => Err(PublishError::Untrusted(why)),
            None => Ok(()),
        }
    }

    /// Every published version, by name, oldest version first.
    pub async fn filter_versions(&self) -> Result<Vec<FilterVersion>, StoreError> {
        let mut versions = self.filter_records().await?;
        versions.retain(|version| !version.deleted);
        Ok(versions)
    }

    /// The same with those that were deleted.
    pub(crate) async fn filter_records(&self) -> Result<Vec<FilterVersion>, StoreError> {
        let rows = self.blocking(|store| store.filter_versions::<FilterVersion>()).await?;
        let mut versions: Vec<_> = rows.read.into_iter().map(|(_, version)| version).collect();
        versions.sort_by_key(|v| (v.name.clone(), number(&v.version)));
        Ok(versions)
    }

    /// A binary; all who send it at a time share one copy.
    pub async fn artifact(&self, digest: String) -> Result<Option<Arc<Vec<u8>>>, StoreError> {
        let mut in_use = self.artifacts.0.lock().await;
        in_use.retain(|_, bytes| bytes.strong_count() > 0);
        if let Some(bytes) = in_use.get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(bytes));
        }
        let wanted = digest.clone();
        let found = self.blocking(move |store| store.artifact(&wanted)).await?.map(Arc::new);
        in_use.extend(found.as_ref().map(|bytes| (digest, Arc::downgrade(bytes))));
        Ok(found)
    }

    /// True when a workload of the identity runs a filter of this digest, or would in a proxy of an earlier release.
    pub fn may_fetch(&self, identity: &SpiffeId, digest: &str) -> bool {
        let published = self.published();
        let of = |(key, _): (&ObjectKey, &Entry)| key.object_name();
        let workloads = published.world.of_kind(Kind::Workload).map(of);
        let is_own = |name: &ObjectName| apply::workload_identity(&published.world, name).as_ref() == Some(identity);
        let own: Vec<_> = workloads.filter(is_own).collect();
        filters_for(&published.world, &own).values().any(|filter| {
            let older = |runs: &str| published.world.shipped_for(filter, |contract| contract == runs);
            let mut of_contracts = FILTER_CONTRACTS.into_iter().filter_map(older);
            filter.digest == digest || of_contracts.any(|older| older.digest == digest)
        })
    }
}

impl Draft {
    /// Notes a version as its record says from now on; gives the record, in the channel where one is named.
    fn put_version(&mut self, mut record: FilterVersion, channel: Option<&str>) -> Result<FilterVersion, PublishError> {
        if let Some(channel) = channel {
            self.may_enter(&record, channel)?;
            self.enter(&mut record, channel)?;
        }
        self.keep_version(&record)?;
        Ok(record)
    }

    /// Writes the record of a version, and has the world say what it says.
    fn keep_version(&mut self, record: &FilterVersion) -> Result<(), PublishError> {
        let json = write_record(record)?;
        let key = format!("{}@{}", record.name, record.version);
        self.set_aside(&key);
        self.writes.push(Write::PutFilterVersion { key, json });
        self.changed |= apply::note_version(&mut self.world, record);
        Ok(())
    }

    fn publish(
        &mut self,
        actor: &Actor,
        record: FilterVersion,
        bytes: Vec<u8>,
        channel: Option<&str>,
    ) -> Result<FilterVersion, PublishError> {
        let before = self.world.clone();
        let filter = root(&record.name);
        // Another control plane may have been asked to publish the same number.
        let known = before.published_version(&filter, &record.version);
        if let Some(spec) = known.filter(|spec| spec.digest != record.digest) {
            let (name, version, digest) = (record.name, record.version, spec.digest.clone());
            return Err(PublishError::Exists { name, version, digest });
        }
        self.writes.push(Write::PutArtifact { digest: record.digest.clone(), bytes });
        let record = self.put_version(self.as_it_is(record), channel)?;
        self.sound(&Actor::default(), &before, &Near::Everything).map_err(PublishError::Unsound)?;
        let FilterVersion { version, digest, .. } = &record;
        let into = channel.map(|channel| format!(", channel {channel}")).unwrap_or_default();
        self.audit(actor, "filter.publish", filter.to_string(), format!("{version} {digest}{into}"));
        Ok(record)
    }

    /// A record with what may have changed of it since it was read: others may yank it or move channels meanwhile.
    fn as_it_is(&self, record: FilterVersion) -> FilterVersion {
        match self.world.release(&root(&record.name), &record.version) {
            Some(release) => FilterVersion { yanked: release.yanked, channels: release.channels.clone(), ..record },
            None => record,
        }
    }
}

fn root(name: &str) -> ObjectName {
    ObjectName::new(ROOT_NAMESPACE, name)
}

fn number(version: &str) -> Option<Version> {
    Version::parse(version).ok()
}

fn check_names(name: &str, version: &str) -> Result<(), PublishError> {
    if !is_label(name) {
        return Err(PublishError::Name(name.to_owned()));
    }
    Version::parse(version).map(|_| ()).map_err(|_| PublishError::Version(version.to_owned()))
}
