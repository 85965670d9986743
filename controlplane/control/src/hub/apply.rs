//! Objects: reading them from the store, applying many of them whole or not at all, deleting them. Objects that live with
//! a proxy's session can't be changed from outside.

mod bounds;
mod consequences;
mod made;
mod opens;
mod places;
mod refusal;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_policy::bundle::{Egress, ObjectName, Revision};
use weft_policy::identity::{SpiffeId, TrustDomain};
use weft_policy::lint::{self, Code, Finding, Near, Scope, Severity};
use weft_policy::manifest::to_yaml;
use weft_policy::plan::{Action, Change, Entry, Loss, Owned, Owner, ProxyKey, World, losses, selects, text_diff};
use weft_policy::resource::{Kind, Object, ObjectKey, ROOT_NAMESPACE, Resource, WorkloadSpec};

pub(super) use self::made::{
    note_grants, note_version, put_filter, put_in_discovery, put_registered, release, remove_registered, stand_ins,
};
use self::opens::Opens;
pub use self::places::Misplaced;
pub use self::refusal::ApplyError;
pub(crate) use self::refusal::unprotects;
use super::filters::AUTHZ;
use super::trying::{Asked, unless_refused};
use super::{Actor, Draft, FilterVersion, Hub, Published, apart};
use crate::claims::{ClaimRecord, Claims, Grants};
use crate::config::Limits;
use crate::seal::Seal;
use crate::store::{Frozen, RecordsOf, Store, StoreError, Unreadable, Write, read_record, write_record};
use crate::token::TokenRecord;
use crate::told::{Shared, Told};

/// An object as it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    entry: Entry,
    /// The proxy that registered it, where a release wrote it that had it beside the entry.
    #[serde(default, skip_serializing)]
    owner: Option<ProxyKey>,
}

impl Record {
    /// The entry, with the values of a Secret opened as far as they can be.
    fn entry(self, seal: Option<&Seal>) -> Entry {
        let mut entry = self.entry;
        if let (Resource::Secret(secret), Some(seal)) = (&mut entry.resource, seal) {
            seal.open(secret);
        }
        if let Some(proxy) = self.owner {
            entry.owner = Owner::Proxy(proxy);
        }
        entry
    }

    /// As the store keeps it: with the values of a Secret, which are redacted wherever else it is written.
    fn text(&self) -> Result<String, StoreError> {
        let Resource::Secret(secret) = &self.entry.resource else { return write_record(self) };
        let mut record = serde_json::to_value(self)?;
        secret.reveal_into(&mut record["entry"]["resource"]["spec"]);
        write_record(&record)
    }
}

/// Result of an apply as a whole.
#[derive(Debug)]
pub struct Applied {
    pub revision: Revision,
    pub changes: Vec<Change>,
    /// Everything that is no reason to refuse the apply.
    pub findings: Vec<Finding>,
}

/// An object that was deleted.
#[derive(Debug)]
pub struct Removed {
    /// The revision without it.
    pub revision: Revision,
    /// What is worth knowing of it.
    pub findings: Vec<Finding>,
}

/// The treatment of a change that takes protection away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is refused.
    Safely,
    /// It is made.
    Forced,
    /// Nothing is made, everything is told.
    DryRun,
}

/// Why an object was not put into the world.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PutError> for ApplyError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Owned(owned) => owned.into(),
            PutError::Store(error) => error.into(),
        }
    }
}

/// Objects and the revisions at which their last change was seen.
pub type Expected = BTreeMap<ObjectKey, Revision>;

/// An object that somebody else has changed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    pub key: ObjectKey,
    pub seen: Revision,
    /// `None`: it is not there.
    pub found: Option<Revision>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, seen: Revision(seen), found } = self;
        match found {
            Some(Revision(found)) => write!(f, "{key} was changed meanwhile: it is of revision {found}, not {seen}"),
            None => write!(f, "{key} is not there any more; it was seen at revision {seen}"),
        }
    }
}

/// An apply of more objects is computed beside the writer.
const FEW: usize = 64;

/// So often a change is computed anew because filters were published meanwhile.
const ATTEMPTS: usize = 3;

/// So many of a change's losses are named in the audit log.
const AUDITED: usize = 32;

impl Hub {
    /// Applies all of `resources` or none. A dry run changes nothing and says what would change.
    pub async fn apply(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        resources: Vec<Resource>,
        how: How,
    ) -> Result<Applied, ApplyError> {
        self.apply_if(actor, resources, how, Expected::new()).await
    }

    /// The same where objects are still as they were expected to be.
    pub async fn apply_if(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        resources: Vec<Resource>,
        how: How,
        expected: Expected,
    ) -> Result<Applied, ApplyError> {
        let order = Order { actor: actor.into(), resources, how, expected };
        if how == How::DryRun {
            return self.preview(order.actor, order.resources, order.expected, false).await;
        }
        let is_large = order.resources.len() > FEW;
        if !order.concerns_filters() {
            let change = move |draft: &mut Draft| order.clone().make(draft);
            return if is_large { self.change_prepared(change).await } else { self.change_together(change).await };
        }
        // What was tried is what is applied: where the world has changed meanwhile, it is tried again.
        for _ in 0..ATTEMPTS {
            let (published, planned) = (self.published(), order.clone());
            let (_, asked) = apart(move || planned.plan(&published)).await?;
            let told = unless_refused(self.tried(&asked, false).await?)?;
            let order = order.clone();
            let change = move |draft: &mut Draft| {
                let before = draft.world.clone();
                let applied = order.clone().make(draft)?;
                match Asked::between(&before, &draft.world, &applied.changes).is_within(&asked) {
                    true => Ok(applied),
                    false => Err(ApplyError::Overtaken),
                }
            };
            let applied =
                if is_large { self.change_prepared(change).await } else { self.change_together(change).await };
            match applied {
                Err(ApplyError::Overtaken) => {}
                Ok(applied) => return Ok(Applied { findings: [applied.findings, told].concat(), ..applied }),
                Err(error) => return Err(error),
            }
        }
        Err(ApplyError::Overtaken)
    }

    /// What an apply would do. With `known_only` no filter is run for it.
    pub async fn preview(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        resources: Vec<Resource>,
        expected: Expected,
        known_only: bool,
    ) -> Result<Applied, ApplyError> {
        let order = Order { actor: actor.into(), resources, how: How::DryRun, expected };
        let token = order.actor.id.strip_prefix("operator:").unwrap_or(&order.actor.id).to_owned();
        let (applied, asked) = self.plan(&token, move |published| order.plan(published)).await??;
        let told = self.tried(&asked, known_only).await?;
        Ok(Applied { findings: [applied.findings, told].concat(), ..applied })
    }

    /// Deletes one object; gives the revision without it.
    pub async fn delete(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        key: ObjectKey,
        how: How,
    ) -> Result<Revision, ApplyError> {
        self.delete_if(actor, key, how, Expected::new()).await.map(|removed| removed.revision)
    }

    /// The same where the object is still as it was expected to be.
    pub async fn delete_if(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        key: ObjectKey,
        how: How,
        expected: Expected,
    ) -> Result<Removed, ApplyError> {
        let (hub, actor) = (self.clone(), actor.into());
        self.change_together(move |draft| {
            let actor = &actor;
            if is_own(&key) {
                return Err(ApplyError::Own(key.clone()));
            }
            draft.unchanged(&expected)?;
            if draft.free_name(actor, &key) {
                return Ok(Removed { revision: Revision(draft.revision.0 - 1), findings: Vec::new() });
            }
            if draft.remove_suspect(&hub, actor, &key)? {
                return Ok(Removed { revision: draft.revision, findings: Vec::new() });
            }
            draft.owned(&key)?;
            let before = draft.world.clone();
            let was_unreadable = draft.set_aside(&store_key(&key));
            let removed = draft.world.remove(&key);
            if removed.is_none() && !was_unreadable {
                return Err(ApplyError::NotFound(key.clone()));
            }
            let is_inside = |(other, _): (&ObjectKey, &Entry)| other.namespace == key.name;
            if key.kind == Kind::Namespace && draft.world.iter().any(is_inside) {
                return Err(ApplyError::Refused(format!("{key} is not empty: delete what is in it first")));
            }
            let near = Near::between(&before, &draft.world, []);
            draft.sound(actor, &before, &near)?;
            let losses = losses(&before, &draft.world);
            draft.unprotect(&losses, how)?;
            if let Some(what) = loosened(&before, &draft.world).filter(|_| how == How::Safely) {
                return Err(ApplyError::Refused(format!("{key}: {what}; --force does it all the same")));
            }
            draft.writes.push(Write::DeleteObject { key: store_key(&key) });
            draft.changed = true;
            draft.removal = true;
            let diff = removed.map(|entry| text_diff(&to_yaml(&entry.resource), "")).unwrap_or_default();
            let change = Change { action: Action::Deleted, object: key.clone(), diff };
            let opens = Opens::between(&before, &draft.world);
            let detail = opens.noted(forced_detail(&losses));
            draft.audit(actor, "delete", key.to_string(), detail).showing(&[change]);
            let told = |world: &World| told_to(actor, world, &near);
            let mut findings = consequences::of_removal(&key, || told(&draft.world), || told(&before));
            findings.extend(opens.findings());
            Ok(Removed { revision: draft.revision, findings })
        })
        .await
    }
}

/// A change that somebody wants.
#[derive(Clone)]
struct Order {
    actor: Actor,
    resources: Vec<Resource>,
    how: How,
    expected: Expected,
}

impl Order {
    fn concerns_filters(&self) -> bool {
        self.resources.iter().any(|resource| {
            let kind = resource.kind();
            matches!(kind, Kind::Filter | Kind::Secret) || kind.attaches_filters()
        })
    }

    fn make(self, draft: &mut Draft) -> Result<Applied, ApplyError> {
        draft.unchanged(&self.expected)?;
        draft.apply_all(&self.actor, self.resources, self.how)
    }

    /// What it would do, and the filters that it would bring.
    fn plan(self, published: &Published) -> Result<(Applied, Asked), ApplyError> {
        let mut draft = Draft::of(published);
        let applied = Self { how: How::DryRun, ..self }.make(&mut draft)?;
        let asked = Asked::between(&published.world, &draft.world, &applied.changes);
        Ok((Applied { revision: published.revision, ..applied }, asked))
    }
}

impl Draft {
    /// Refuses where an object is not of the revision that it was seen at.
    fn unchanged(&self, expected: &Expected) -> Result<(), ApplyError> {
        let stale = |(key, seen): (&ObjectKey, &Revision)| {
            let found = self.world.get(key).map(|entry| entry.modified);
            (found != Some(*seen)).then(|| Stale { key: key.clone(), seen: *seen, found })
        };
        let stale: Vec<_> = expected.iter().filter_map(stale).collect();
        if stale.is_empty() { Ok(()) } else { Err(ApplyError::Stale(stale)) }
    }

    /// Makes the change that an apply is; a dry run throws it away.
    fn apply_all(&mut self, actor: &Actor, resources: Vec<Resource>, how: How) -> Result<Applied, ApplyError> {
        let before = self.world.clone();
        let refused: Vec<_> = resources.iter().filter_map(|resource| admit(resource, &self.world).err()).collect();
        if !refused.is_empty() {
            return Err(ApplyError::Unsound(refused));
        }
        let misplaced = resources.iter().flat_map(|resource| {
            let known = self.world.get(&resource.key()).map(|entry| &entry.resource);
            places::misplaced(actor, resource, known)
        });
        let misplaced: Vec<_> = misplaced.collect();
        if !misplaced.is_empty() {
            return Err(ApplyError::Misplaced(misplaced));
        }
        let mut changes = Vec::with_capacity(resources.len());
        for resource in resources {
            let change = self.put(resource)?;
            if change.action != Action::Unchanged && is_own(&change.object) {
                return Err(ApplyError::Own(change.object));
            }
            changes.push(change);
        }
        bounds::check(self, &before, &changes)?;
        trust::check(&self.world, &changes)?;
        let near = Near::between(&before, &self.world, changes.iter().map(|change| &change.object));
        let losses = losses(&before, &self.world);
        self.sound(actor, &before, &near).map_err(|error| error.beside(&losses, how))?;
        let mut findings = told_to(actor, &self.world, &near);
        consequences::retain_new(&mut findings, &changes, || told_to(actor, &before, &near));
        findings.extend(self.admit_selected(actor, &before, &changes));
        findings.extend(self.unprotect(&losses, how)?);
        let opens = Opens::between(&before, &self.world);
        findings.extend(opens.findings());
        let touched = changes.iter().filter(|change| change.action != Action::Unchanged);
        let names: Vec<_> = touched.map(|change| change.object.to_string()).collect();
        if self.changed {
            let detail = opens.noted(forced_detail(&losses));
            self.audit(actor, "apply", names.join(", "), detail).showing(&changes);
        }
        let revision = if self.changed { self.revision } else { Revision(self.revision.0 - 1) };
        Ok(Applied { revision, changes, findings })
    }

    /// Puts a resource into the world, if it differs from what is there.
    fn put(&mut self, resource: Resource) -> Result<Change, ApplyError> {
        let key = resource.key();
        self.owned(&key)?;
        let old = self.world.get(&key).map(|entry| to_yaml(&entry.resource));
        let new = to_yaml(&resource);
        let action = self.store(&Owner::Applied, resource)?;
        let diff = match action {
            Action::Unchanged => String::new(),
            Action::Created | Action::Changed | Action::Deleted => text_diff(&old.unwrap_or_default(), &new),
        };
        Ok(Change { action, object: key, diff })
    }

    /// Puts a resource into the world and its record into the transaction, unless it is there as it is.
    fn store(&mut self, owner: &Owner, resource: Resource) -> Result<Action, PutError> {
        let key = resource.key();
        let may_move = self.world.get(&key).is_some_and(|old| may_move_endpoints(&old.resource, &resource));
        let action = self.world.put(owner, resource, self.revision, &new_uid())?;
        if action == Action::Unchanged {
            return Ok(action);
        }
        // Each session looks at once whether endpoints left or moved, and sends such a removal without delay.
        self.removal |= may_move;
        if action == Action::Created {
            self.world.note_creation(&key, crate::now_unix());
        }
        self.record(&key)?;
        Ok(action)
    }

    /// Writes the record of an object as the world has it.
    fn record(&mut self, key: &ObjectKey) -> Result<(), StoreError> {
        let Some(entry) = self.world.get(key).cloned() else { return Ok(()) };
        let json = Record { entry, owner: None }.text()?;
        let key = store_key(key);
        self.set_aside(&key);
        self.writes.push(Write::PutObject { key, json });
        self.changed = true;
        Ok(())
    }

    /// Refuses a world with an error that was not there before. `near` names what the change may have brought one to. An error
    /// between objects of which the actor may not read one is told by its code alone.
    pub(super) fn sound(&self, actor: &Actor, before: &World, near: &Near) -> Result<(), ApplyError> {
        let mut new = lint::errors_near(&self.world, near);
        if new.is_empty() {
            return Ok(());
        }
        let known = lint::errors_near(before, near);
        let known: BTreeSet<_> = known.iter().map(Finding::place).collect();
        new.retain(|finding| !known.contains(&finding.place()));
        let Some(first) = new.first().map(|finding| finding.code) else { return Ok(()) };
        if actor.bound.is_some() {
            let seen = lint::errors(&self.world.part(|key| actor.sees(key)));
            new.retain(|finding| seen.contains(finding));
        }
        Err(if new.is_empty() { ApplyError::Conflicts(first) } else { ApplyError::Unsound(new) })
    }

    /// Refuses to take protection away, unless that is what somebody wants; a dry run tells of it only.
    fn unprotect(&mut self, losses: &[Loss], how: How) -> Result<Vec<Finding>, ApplyError> {
        match how {
            How::Safely if !losses.is_empty() => Err(ApplyError::Unprotects(losses.to_vec())),
            How::Safely | How::Forced => Ok(Vec::new()),
            How::DryRun => Ok(losses.iter().map(unprotects).collect()),
        }
    }

    /// Ends the claim of an account to the name of a workload that is not there. True where there was one.
    fn free_name(&mut self, actor: &Actor, key: &ObjectKey) -> bool {
        let is_unused = key.kind == Kind::Workload && self.world.get(key).is_none();
        let freed = is_unused && self.claim(|draft| draft.claims.free(&key.object_name()));
        if freed {
            self.audit(actor, "workload.free", key.to_string(), String::new()).within([key.namespace.clone()]);
        }
        freed
    }

    /// Takes out a registered workload whose proxy is not connected, as its operator wants. True where it is one.
    fn remove_suspect(&mut self, hub: &Hub, actor: &Actor, key: &ObjectKey) -> Result<bool, ApplyError> {
        let name = key.object_name();
        let owner = (key.kind == Kind::Workload).then(|| self.world.registered_by(&name)).flatten();
        let Some(_) = owner.filter(|owner| !hub.registry().is_connected(owner)) else { return Ok(false) };
        remove_registered(self, &name, hub.age())?;
        self.claim(|draft| draft.claims.free(&name));
        self.audit(actor, "delete", key.to_string(), String::new()).within([key.namespace.clone()]);
        Ok(true)
    }

    /// Grants the accounts of registered workloads what an operator's Service selects from now on, and says so.
    fn admit_selected(&mut self, actor: &Actor, before: &World, changes: &[Change]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let services = changes.iter().map(|change| &change.object).filter(|key| key.kind == Kind::Service);
        for key in services {
            let Some(service) = self.world.service(&key.object_name()).cloned() else { continue };
            let was = before.service(&key.object_name());
            let owner = |workload: &Object<WorkloadSpec>| {
                let owner = self.world.registered_by(&workload.name())?;
                let is_new = !was.is_some_and(|was| selects(was, workload));
                is_new.then(|| (workload.name(), owner.clone()))
            };
            let selected: Vec<_> = self.world.standing_behind(&service).filter_map(owner).collect();
            for (name, owner) in selected {
                let account = owner.identity.service_account();
                let (grants, service_name) = (self.claims.grants(&owner.identity), &service.metadata.name);
                if grants.may_stand_behind(account, service_name, Some(&service)) {
                    continue;
                }
                let more = Grants { services: [service_name.clone()].into(), ..Grants::default() };
                self.claim(|draft| draft.claims.grant(&owner.identity, &more));
                let message =
                    format!("selects Workload {name}: account {} may stand behind it from now on", owner.identity);
                self.audit(actor, "service.grant", key.to_string(), message.clone()).within([key.namespace.clone()]);
                let (object, key) = (key.clone(), "spec.selector".to_owned());
                let (code, severity) = (Code::GrantedBySelector, Severity::Warning);
                findings.push(Finding { code, severity, object, key, message });
            }
        }
        findings
    }

    /// Refuses to touch what a proxy's session owns.
    fn owned(&self, key: &ObjectKey) -> Result<(), Owned> {
        match self.world.get(key).map(|entry| &entry.owner) {
            None | Some(Owner::Applied) => Ok(()),
            Some(owner) => Err(Owned { key: key.clone(), owner: Box::new(owner.clone()) }),
        }
    }
}

/// Whether endpoints may leave or move as one object becomes the other. A weight moves none: it is told with the rest.
fn may_move_endpoints(old: &Resource, new: &Resource) -> bool {
    match (old, new) {
        (Resource::Workload(old), Resource::Workload(new)) => {
            let mut weighted = old.clone();
            weighted.spec.weight = new.spec.weight;
            weighted != *new
        }
        (_, new) => matches!(new, Resource::Workload(_) | Resource::Service(_)),
    }
}

/// The restriction of the whole mesh that goes with its `Mesh`, or with the last FilterPublisher.
fn loosened(before: &World, after: &World) -> Option<&'static str> {
    let is_closed = |world: &World| world.mesh().is_some_and(|mesh| mesh.spec.egress == Egress::RegistryOnly);
    if is_closed(before) && !is_closed(after) {
        return Some("without it applications reach every destination outside (egress RegistryOnly)");
    }
    let is_open = !before.trusts_everybody() && after.trusts_everybody();
    is_open.then_some("without it everybody's filters are accepted (filterPublishers, FilterPublisher)")
}

/// What an actor is told of a world, near a change.
fn told_to(actor: &Actor, world: &World, near: &Near) -> Vec<Finding> {
    match &actor.bound {
        None => lint::check_near(world, near),
        Some(_) => lint::check(&world.part(|key| actor.sees(key)), Scope::Part),
    }
}

/// True for what the mesh can't do without: it is the control plane's own.
fn is_own(key: &ObjectKey) -> bool {
    key.kind == Kind::Filter && key.namespace == ROOT_NAMESPACE && key.name == AUTHZ
}

/// The protection that a forced change took away, as text for the audit log.
pub(super) fn forced_detail(losses: &[Loss]) -> String {
    let opened = losses.iter().take(AUDITED).map(|loss| format!("{} from {}", loss.workload, loss.policy));
    let opened: Vec<_> = opened.collect();
    if opened.is_empty() { String::new() } else { format!("forced; unprotected: {}", opened.join(", ")) }
}

/// Filters are taken as they were published only.
fn admit(resource: &Resource, world: &World) -> Result<(), Finding> {
    let Resource::Filter(filter) = resource else { return Ok(()) };
    let wanted = &filter.spec.version;
    let refuse = |key: &str, message| {
        let (object, key, severity) = (resource.key(), key.to_owned(), Severity::Error);
        Err(Finding { code: Code::NeverPublished, severity, object, key, message })
    };
    let name = filter.name();
    let is_there = || world.filter(&name).is_some_and(|known| known.spec == filter.spec);
    match world.published_version(&name, wanted) {
        Some(_) if world.is_yanked(&name, wanted) && !is_there() => {
            refuse("spec.version", format!("version {wanted} was yanked: nobody takes it up any more"))
        }
        Some(published) if *published == filter.spec => Ok(()),
        Some(_) => refuse("spec", format!("it differs from what was published as {wanted}")),
        None => refuse("spec.version", format!("version {wanted} was never published: weft filter publish")),
    }
}

/// Reads the world from the store. Records that can't be read are named, and an access policy among them denies
/// everything that it held for: nothing opens because a record was damaged. Of a traffic policy holds what can be read.
pub(super) fn load(
    store: &Store,
    frozen: &Frozen,
    trust_domain: &TrustDomain,
    roots: &str,
) -> Result<Published, StoreError> {
    let revision = frozen.revision();
    let mut world = World::new(trust_domain.clone());
    for (_, version) in frozen.filter_versions::<FilterVersion>().read {
        note_version(&mut world, &version);
    }
    let rows = frozen.objects::<Record>();
    let seal = store.seal();
    for (_, record) in rows.read {
        world.insert(record.entry(seal.as_deref()));
    }
    for key in rows.unreadable.iter().filter_map(Unreadable::object) {
        world.note_unreadable(key);
    }
    let services: Vec<_> = world.services().map(Object::name).collect();
    for unreadable in &rows.unreadable {
        let closed = made::closed_policy(unreadable, revision);
        let closed = closed.or_else(|| made::closed_route(unreadable, revision, &services));
        if let Some(entry) = closed.or_else(|| made::partial_traffic_policy(unreadable, revision)) {
            world.insert(entry);
        }
        if let Some(entry) = made::closed_calls(unreadable, trust_domain, revision) {
            world.insert(entry);
        }
    }
    let claims = frozen.claims().read.into_iter().map(|(_, record)| record);
    let unreadable = unreadable_records(store)?.into_iter().map(|record| (record.key.clone(), record)).collect();
    let world = Arc::new(world);
    Ok(Published {
        revision,
        told: Arc::new(Shared::new(world.clone(), roots.into(), Told::of)),
        world,
        claims: Arc::new(Claims::load(claims)),
        unreadable: Arc::new(unreadable),
        last_removal: revision,
        limits: Limits::default(),
    })
}

/// Puts an object as another control plane stored it into the world, or takes it out; gives its kind. `None`: the record can't
/// be read.
pub(super) fn take_object(world: &mut World, key: &str, record: Option<&str>, seal: Option<&Seal>) -> Option<Kind> {
    let key = object_key(key)?;
    match record {
        Some(record) => {
            let entry = read_record::<Record>(record).ok()?.entry(seal);
            if let Resource::Secret(secret) = &entry.resource
                && secret.spec.is_sealed()
            {
                let why = "another control plane encrypted values with another secret than that of ca_secret_file here; \
                           policies that grant them are closed for proxies of this one";
                tracing::error!(secret = %key, "{why}");
            }
            world.insert(entry);
        }
        None => drop(world.remove(&key)),
    }
    Some(key.kind)
}

/// The proxy that registered the workload with this key, where it is one's.
pub(super) fn registrant<'a>(world: &'a World, key: &str) -> Option<&'a ProxyKey> {
    let key = object_key(key).filter(|key| key.kind == Kind::Workload)?;
    world.registered_by(&ObjectName::new(&key.namespace, &key.name))
}

fn object_key(stored: &str) -> Option<ObjectKey> {
    let mut parts = stored.splitn(3, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ObjectKey::new(kind.parse().ok()?, namespace, name))
}

/// Notes a filter version as another control plane stored it.
pub(super) fn take_version(world: &mut World, record: Option<&str>) -> Option<()> {
    let version = read_record::<FilterVersion>(record?).ok()?;
    note_version(world, &version);
    Some(())
}

/// Every record of the store that can't be read.
pub fn unreadable_records(store: &Store) -> Result<Vec<Unreadable>, StoreError> {
    let mut all = store.unreadable::<Record>(RecordsOf::Objects)?;
    all.extend(store.unreadable::<FilterVersion>(RecordsOf::FilterVersions)?);
    all.extend(store.unreadable::<TokenRecord>(RecordsOf::Tokens)?);
    all.extend(store.unreadable::<ClaimRecord>(RecordsOf::Claims)?);
    all.extend(store.unreadable::<super::Ban>(RecordsOf::Bans)?);
    Ok(all)
}

/// Objects, and workloads among them.
pub(super) fn count(world: &World) -> (u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(world.len()), number(world.of_kind(Kind::Workload).count()))
}

/// The identity of an applied or registered workload.
pub(super) fn workload_identity(world: &World, name: &ObjectName) -> Option<SpiffeId> {
    let workload = world.workload(name)?;
    world.trust_domain.workload(&name.namespace, &workload.spec.service_account).ok()
}

pub(super) fn store_key(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind.plural(), key.namespace, key.name)
}

//= rfc9562#section-5.4
/// A random UUID.
fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::token::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
