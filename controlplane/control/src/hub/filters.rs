//! Publishing filters: a verified binary becomes a version of a `Filter` in `weft-system`. A filter's later versions must
//! be signed with the key of its first, unless an admin says otherwise.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use weft_policy::bundle::ObjectName;
use weft_policy::identity::{SpiffeId, is_label};
use weft_policy::lint::Near;
use weft_policy::plan::{Action, Change, Entry, Owned, filters_for};
use weft_policy::resource::{Kind, ObjectKey, ROOT_NAMESPACE};

use super::apply::PutError;
use super::trying::{Asked, unless_refused};
use super::{Actor, ApplyError, Draft, Hub, apply};
use crate::artifact::Artifact;
use crate::now_unix;
use crate::store::{StoreError, Write, write_record};

/// One published version; kept for ever, so that going back is always possible.
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
}

/// Binaries that are being sent.
#[derive(Default)]
pub(super) struct Artifacts(tokio::sync::Mutex<BTreeMap<String, Weak<Vec<u8>>>>);

impl Artifacts {
    /// Gives those who ask for a binary this copy of it, as long as its lender keeps it.
    async fn lend(&self, digest: String, bytes: &Arc<Vec<u8>>) {
        self.0.lock().await.insert(digest, Arc::downgrade(bytes));
    }
}

/// A filter version to be published.
pub struct Publication {
    pub name: String,
    pub version: String,
    pub artifact: Artifact,
    /// Take a key that differs from the filter's first one. Admins only.
    pub accept_new_key: bool,
    /// Let it be what policies without a version run, also where a newer version is there.
    pub make_current: bool,
}

/// The filter that enforces access policies. It comes with the control plane.
pub(crate) const AUTHZ: &str = "authz";
/// The control plane itself, as the audit log names it.
pub(crate) const SYSTEM: &str = "system";

/// Why a publication was refused.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("filter name {0:?}: lower-case letters, digits and '-', at most 63")]
    Name(String),
    #[error("filter version {0:?} is not MAJOR.MINOR.PATCH")]
    Version(String),
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
    /// Stores the binary and points the `Filter` at it, in one transaction; not where the `Filter` stands for a newer
    /// version, unless that is wanted. The same publication twice is fine.
    pub async fn publish_filter(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        publication: Publication,
    ) -> Result<FilterVersion, PublishError> {
        let Publication { name, version, artifact, accept_new_key, make_current } = publication;
        let actor = actor.into();
        check_names(&name, &version)?;
        if name == AUTHZ && actor.id != SYSTEM {
            return Err(PublishError::Own(name));
        }
        let published = FilterVersion {
            name,
            version,
            digest: artifact.digest,
            signature: artifact.signature,
            public_key_pem: artifact.public_key_pem,
            abi: artifact.shape.abi,
            capabilities: artifact.shape.capabilities,
            size_bytes: artifact.bytes.len() as u64,
            published_unix: now_unix(),
            published_by: actor.id.clone(),
        };
        let known = self.filter_versions().await?;
        let of_name = known.iter().filter(|other| other.name == published.name);
        for other in of_name {
            if other.version == published.version && other.digest != published.digest {
                let FilterVersion { name, version, digest, .. } = other.clone();
                return Err(PublishError::Exists { name, version, digest });
            }
            if other.public_key_pem != published.public_key_pem && !accept_new_key {
                return Err(PublishError::OtherKey(published.name));
            }
        }
        self.trust_publisher(&actor, &published)?;
        let result = published.clone();
        let bytes = artifact.bytes;
        self.try_successor(&published, make_current, &bytes).await?;
        self.change(move |draft| draft.publish(&actor, &published, bytes.clone(), make_current)).await?;
        tracing::info!(filter = %result.name, version = %result.version, digest = %result.digest, "filter published");
        Ok(result)
    }

    /// Refuses a version that can't run with what the policies say that would move to it.
    async fn try_successor(
        &self,
        published: &FilterVersion,
        make_current: bool,
        bytes: &[u8],
    ) -> Result<(), PublishError> {
        // No policy names it, and what it is configured with is checked when it is applied.
        if published.name == AUTHZ {
            return Ok(());
        }
        let before = self.published();
        let mut draft = Draft::of(&before);
        let name = ObjectName::new(ROOT_NAMESPACE, published.name.clone());
        apply::put_filter(&mut draft, &name, published, make_current)?;
        let object = ObjectKey::new(Kind::Filter, ROOT_NAMESPACE, &published.name);
        let change = Change { action: Action::Changed, object, diff: String::new() };
        let asked = Asked::between(&before.world, &draft.world, &[change]);
        if asked.is_empty() {
            return Ok(());
        }
        // This copy serves all who fetch the binary while it is tried.
        let wasm = Arc::new(bytes.to_vec());
        self.artifacts.lend(published.digest.clone(), &wasm).await;
        let problems = self.tried_against(&asked, &before.world).await;
        problems.and_then(unless_refused).map(drop).map_err(PublishError::Unsound)
    }

    /// Refuses filters of other publishers than those that the mesh names, if it names any.
    fn trust_publisher(&self, actor: &Actor, published: &FilterVersion) -> Result<(), PublishError> {
        let world = self.published();
        let keys = world.world.mesh().map(|mesh| mesh.spec.filter_publishers.clone()).unwrap_or_default();
        if keys.is_empty() || actor.id == SYSTEM {
            return Ok(());
        }
        let same = |pem: &String| pem.trim() == published.public_key_pem.trim();
        if keys.iter().any(same) {
            return Ok(());
        }
        Err(PublishError::Untrusted(format!("{}: its key is none of the Mesh's spec.filterPublishers", published.name)))
    }

    /// Every published version, by name, oldest version first.
    pub async fn filter_versions(&self) -> Result<Vec<FilterVersion>, StoreError> {
        let rows = self.blocking(|store| store.filter_versions::<FilterVersion>()).await?;
        let mut versions: Vec<_> = rows.read.into_iter().map(|(_, version)| version).collect();
        versions.sort_by_key(|v| (v.name.clone(), semver::Version::parse(&v.version).ok()));
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

    /// True when a workload of the identity runs a filter of this digest.
    pub fn may_fetch(&self, identity: &SpiffeId, digest: &str) -> bool {
        let published = self.published();
        let of = |(key, _): (&ObjectKey, &Entry)| key.object_name();
        let workloads = published.world.of_kind(Kind::Workload).map(of);
        let is_own = |name: &ObjectName| apply::workload_identity(&published.world, name).as_ref() == Some(identity);
        let own: Vec<_> = workloads.filter(is_own).collect();
        filters_for(&published.world, &own).values().any(|filter| filter.digest == digest)
    }
}

impl Draft {
    fn publish(
        &mut self,
        actor: &Actor,
        published: &FilterVersion,
        bytes: Vec<u8>,
        make_current: bool,
    ) -> Result<(), PublishError> {
        let name = ObjectName::new(ROOT_NAMESPACE, published.name.clone());
        let json = write_record(published)?;
        let before = self.world.clone();
        self.writes.push(Write::PutArtifact { digest: published.digest.clone(), bytes });
        let key = format!("{}@{}", published.name, published.version);
        self.set_aside(&key);
        self.writes.push(Write::PutFilterVersion { key, json });
        apply::put_filter(self, &name, published, make_current)?;
        self.sound(&Actor::default(), &before, &Near::Everything).map_err(PublishError::Unsound)?;
        self.audit(actor, "filter.publish", name.to_string(), format!("{} {}", published.version, published.digest));
        Ok(())
    }
}

fn check_names(name: &str, version: &str) -> Result<(), PublishError> {
    if !is_label(name) {
        return Err(PublishError::Name(name.to_owned()));
    }
    semver::Version::parse(version).map(|_| ()).map_err(|_| PublishError::Version(version.to_owned()))
}
