//! Protection that policies give to workloads, and its silent loss by a change of something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::World;
use super::route_status::Condition;
use super::select::{holds_for, is_missing, selected_by, selects};
use crate::bundle::ObjectName;
use crate::resource::filter::PolicyMode;
use crate::resource::{Kind, Metadata, Object, ObjectKey, Resource, TargetKind, TargetRef, WorkloadSpec};

/// A workload that a policy would hold for no longer, though nobody changed the policy so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    pub workload: ObjectName,
    pub policy: ObjectKey,
    pub why: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, policy, why } = self;
        write!(f, "Workload {workload} would no longer be protected by {policy}: {why}")
    }
}

/// Everything that stays and would lose a policy that stays: because its target is gone, because the target means other
/// workloads now, or because the policy names a target that isn't there.
pub fn losses(before: &World, after: &World) -> Vec<Loss> {
    let mut losses = Vec::new();
    let mut left = Left { before, after, known: BTreeMap::new() };
    let policies = before.of_kind(Kind::FilterPolicy).chain(before.of_kind(Kind::AccessPolicy));
    for (key, entry) in policies {
        let Some((metadata, targets)) = protecting(&entry.resource) else { continue };
        let now = after.get(key).and_then(|entry| protecting(&entry.resource));
        let Some((_, targets_now)) = now.filter(|_| !targets.is_empty()) else { continue };
        let missing = targets_now.iter().find(|target| is_missing(after, metadata, target));
        // Other targets that exist are what its author wants.
        if missing.is_none() && targets != targets_now {
            continue;
        }
        for name in left.of(metadata, targets, targets == targets_now) {
            let (Some(was), Some(workload)) = (before.workload(&name), after.workload(&name)) else { continue };
            if !holds_for(after, metadata, targets_now, workload) {
                let why = why(before, metadata, targets, missing, was);
                losses.push(Loss { workload: name, policy: key.clone(), why });
            }
        }
    }
    losses
}

/// Workloads that stay, but not behind the service that they stood behind; looked up once for each service.
struct Left<'w> {
    before: &'w World,
    after: &'w World,
    known: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
}

impl Left<'_> {
    /// Workloads that one of a policy's targets may have lost. With the same targets as before only a service's selection
    /// can have changed.
    fn of(&mut self, policy: &Metadata, targets: &[TargetRef], are_same: bool) -> BTreeSet<ObjectName> {
        let mut found = BTreeSet::new();
        for target in targets {
            let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
            match target.kind {
                TargetKind::Service if are_same => found.extend(self.behind(&name).iter().cloned()),
                TargetKind::Service => found.extend(stood_behind(self.before, &name).map(Object::name)),
                TargetKind::Workload | TargetKind::Namespace if are_same => {}
                TargetKind::Workload => found.extend([name]),
                TargetKind::Namespace => found.extend(self.before.workloads_of(&target.name).map(Object::name)),
            }
        }
        found
    }

    fn behind(&mut self, service: &ObjectName) -> &BTreeSet<ObjectName> {
        let (before, after) = (self.before, self.after);
        self.known.entry(service.clone()).or_insert_with(|| {
            let now = after.service(service);
            let is_lost = |name: &ObjectName| {
                after.workload(name).is_some_and(|workload| !now.is_some_and(|service| selects(service, workload)))
            };
            stood_behind(before, service).map(Object::name).filter(is_lost).collect()
        })
    }
}

/// The workloads of a service; those of its whole namespace if it can't be read.
fn stood_behind<'w>(world: &'w World, name: &ObjectName) -> Box<dyn Iterator<Item = &'w Object<WorkloadSpec>> + 'w> {
    match world.service(name) {
        Some(service) => Box::new(selected_by(world, service)),
        None if world.is_unreadable(Kind::Service, name) => Box::new(world.workloads_of(&name.namespace)),
        None => Box::new(std::iter::empty()),
    }
}

/// The targets of a policy that restricts.
fn protecting(resource: &Resource) -> Option<(&Metadata, &[TargetRef])> {
    match resource {
        Resource::AccessPolicy(policy) => Some((&policy.metadata, &policy.spec.target_refs)),
        Resource::FilterPolicy(policy) if policy.spec.mode == PolicyMode::Enforce => {
            Some((&policy.metadata, &policy.spec.target_refs))
        }
        Resource::Namespace(_)
        | Resource::Mesh(_)
        | Resource::Service(_)
        | Resource::Workload(_)
        | Resource::HttpRoute(_)
        | Resource::Filter(_)
        | Resource::FilterPolicy(_) => None,
    }
}

fn why(
    before: &World,
    policy: &Metadata,
    targets: &[TargetRef],
    missing: Option<&TargetRef>,
    workload: &Object<WorkloadSpec>,
) -> String {
    if let Some(target) = missing {
        return format!("its target {} does not exist", named(policy, target));
    }
    let selected = |target: &&TargetRef| holds_for(before, policy, std::slice::from_ref(*target), workload);
    match targets.iter().find(selected) {
        Some(target) => format!("its target {} does not select it any more", named(policy, target)),
        None => "no target of it selects it any more".to_owned(),
    }
}

fn named(policy: &Metadata, target: &TargetRef) -> String {
    match target.kind {
        TargetKind::Service => format!("Service {}/{}", policy.namespace, target.name),
        TargetKind::Workload => format!("Workload {}/{}", policy.namespace, target.name),
        TargetKind::Namespace => format!("Namespace {}", target.name),
    }
}

/// Tells whether a policy holds for its targets.
pub fn policy_status(world: &World, kind: Kind, metadata: &Metadata) -> Vec<Condition> {
    let key = ObjectKey::new(kind, &metadata.namespace, &metadata.name);
    let targets = match world.get(&key).map(|entry| &entry.resource) {
        Some(Resource::AccessPolicy(policy)) => policy.spec.target_refs.as_slice(),
        Some(Resource::FilterPolicy(policy)) => policy.spec.target_refs.as_slice(),
        Some(_) | None => &[],
    };
    let missing = targets.iter().enumerate().find(|(_, target)| is_missing(world, metadata, target));
    let condition = match missing {
        None => Condition::good("Accepted", "every target exists"),
        Some((index, target)) => Condition {
            kind: "Accepted",
            status: false,
            reason: "TargetNotFound",
            message: format!("{} does not exist", named(metadata, target)),
            key: format!("spec.targetRefs[{index}]"),
        },
    };
    vec![condition]
}
