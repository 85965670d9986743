//! Protection that policies give to workloads, and its silent loss by a change of something else.

use std::fmt;

use serde::Serialize;

use super::World;
use super::problems::Condition;
use super::select::{holds_for, is_missing};
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
    for (key, entry) in before.iter() {
        let Some((metadata, targets)) = protecting(&entry.resource) else { continue };
        let now = after.get(key).and_then(|entry| protecting(&entry.resource));
        let Some((_, targets_now)) = now.filter(|_| !targets.is_empty()) else { continue };
        let missing = targets_now.iter().find(|target| is_missing(after, metadata, target));
        // Other targets that exist are what its author wants.
        if missing.is_none() && targets != targets_now {
            continue;
        }
        for workload in before.workloads().filter(|workload| holds_for(before, metadata, targets, workload)) {
            let name = workload.name();
            let Some(workload) = after.workload(&name) else { continue };
            if !holds_for(after, metadata, targets_now, workload) {
                let was = before.workload(&name).unwrap_or(workload);
                let why = why(before, metadata, targets, missing, was);
                losses.push(Loss { workload: name, policy: key.clone(), why });
            }
        }
    }
    losses
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
        None => {
            Condition { kind: "Accepted", status: true, reason: "Accepted", message: String::new(), key: String::new() }
        }
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
