//! Protection that policies give to workloads, and its silent loss by a change of something else.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::World;
use super::assemble::protocol_of;
use super::release::resolved;
use super::route_status::Condition;
use super::select::{holds_for, is_missing};
use super::{callout, secret};
use crate::authz::{Action, Conditions};
use crate::bundle::{Direction, ObjectName, Protocol};
use crate::resource::filter::PolicyMode;
use crate::resource::{
    Attaching, Holding, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, Resource, TargetKind, TargetRef,
    WorkloadSpec,
};

/// A workload that a policy would hold for no longer, though nobody changed the policy so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// Everything that stays and would lose a policy that stays, port by port: because a target is gone or mistyped, because
/// it means other workloads now, because a workload has another name, other ports or another protocol. What somebody does
/// to the policy itself is meant so, as long as that alone explains the loss.
pub fn losses(before: &World, after: &World) -> Vec<Loss> {
    let touched = before.differing(after);
    let everywhere = touched.iter().any(|key| key.namespace.is_empty() || key.namespace == ROOT_NAMESPACE);
    let namespaces: BTreeSet<&str> = touched.iter().map(|key| key.namespace.as_str()).collect();
    let is_near = |was: &&Object<WorkloadSpec>| everywhere || namespaces.contains(was.metadata.namespace.as_str());
    losses_of(before, after, before.workloads().filter(is_near))
}

/// The same where only these workloads have changed.
pub fn losses_of_workloads(before: &World, after: &World, names: &BTreeSet<ObjectName>) -> Vec<Loss> {
    losses_of(before, after, names.iter().filter_map(|name| before.workload(name)))
}

fn losses_of<'w>(
    before: &'w World,
    after: &World,
    workloads: impl Iterator<Item = &'w Object<WorkloadSpec>>,
) -> Vec<Loss> {
    let mut losses = BTreeSet::new();
    for was in workloads {
        for heir in heirs(after, was) {
            let lost = before.policies_of(was).filter_map(|policy| Change { before, after, was, heir }.of(policy));
            losses.extend(lost.map(|(policy, why)| Loss { workload: heir.name(), policy, why }));
        }
    }
    losses.into_iter().collect()
}

/// The workload as it is now; of one that is gone, those that are reached where it was.
fn heirs<'w>(after: &'w World, was: &Object<WorkloadSpec>) -> Vec<&'w Object<WorkloadSpec>> {
    if let Some(same) = after.workload(&was.name()) {
        return vec![same];
    }
    let ports = ports(was);
    let is_there = |other: &&Object<WorkloadSpec>| {
        other.spec.address == was.spec.address && !self::ports(other).is_disjoint(&ports)
    };
    after.of_namespace(&was.metadata.namespace).filter(is_there).collect()
}

fn ports(workload: &Object<WorkloadSpec>) -> BTreeSet<u16> {
    workload.spec.ports.iter().map(|port| port.port).collect()
}

/// A workload before and after a change.
#[derive(Clone, Copy)]
struct Change<'w> {
    before: &'w World,
    after: &'w World,
    was: &'w Object<WorkloadSpec>,
    heir: &'w Object<WorkloadSpec>,
}

impl Change<'_> {
    /// The policy, and why it protects less than it did, where that is so.
    fn of(self, policy: &Resource) -> Option<(ObjectKey, String)> {
        let (metadata, targets) = protecting(policy)?;
        let guarded = guarded(self.before, policy, self.was);
        if guarded.is_empty() {
            return None;
        }
        let key = policy.key();
        let now = &self.after.get(&key)?.resource;
        let (_, targets_now) = protecting(now)?;
        if !holds_for(self.after, metadata, targets_now, self.heir) {
            return self.untargeted(metadata, targets, targets_now).map(|why| (key, why));
        }
        // What the policy as it is now would not have guarded before, its author has let go.
        let meant = self::guarded(self.before, now, self.was);
        let guarded = guarded.intersection(&meant).copied().collect();
        self.unguarded(now, &guarded).map(|why| (key, why))
    }

    /// Why no target selects it any more; nothing where other targets are all that has changed.
    fn untargeted(self, policy: &Metadata, targets: &[TargetRef], targets_now: &[TargetRef]) -> Option<String> {
        if let Some(target) = targets_now.iter().find(|target| is_missing(self.after, policy, target)) {
            return Some(format!("its target {} does not exist", named(policy, target)));
        }
        if targets != targets_now && holds_for(self.after, policy, targets, self.heir) {
            return None;
        }
        let selected = |target: &&TargetRef| holds_for(self.before, policy, std::slice::from_ref(*target), self.was);
        Some(match targets.iter().find(selected) {
            Some(target) => format!("its target {} does not select it any more", named(policy, target)),
            None => "no target of it selects it any more".to_owned(),
        })
    }

    /// Why a policy that holds as before guards fewer ports.
    fn unguarded(self, policy: &Resource, guarded_before: &BTreeSet<u16>) -> Option<String> {
        let (still, own) = (guarded(self.after, policy, self.heir), ports(self.heir));
        let lost: BTreeSet<_> = guarded_before.intersection(&own).filter(|port| !still.contains(port)).collect();
        if let Some(port) = lost.first() {
            return Some(format!("port {port} speaks tcp now, which its filter does not look into"));
        }
        let gone: BTreeSet<_> = guarded_before.difference(&own).copied().collect();
        let new: BTreeSet<_> = own.difference(&ports(self.was)).filter(|port| !still.contains(port)).copied().collect();
        let has_moved = !gone.is_empty() && !new.is_empty();
        let words = |ports: &BTreeSet<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        has_moved.then(|| format!("it guards port {}, and the workload has {} now", words(&gone), words(&new)))
    }
}

/// Ports of a workload on which a policy that holds for it decides anything.
fn guarded(world: &World, policy: &Resource, workload: &Object<WorkloadSpec>) -> BTreeSet<u16> {
    let own = ports(workload);
    if let Resource::AccessPolicy(policy) = policy
        && policy.spec.action == Action::Deny
    {
        let decides = |port: &u16| {
            let mut rules = policy.spec.rules.iter();
            rules.any(|rule| rule.to.is_empty() || rule.to.iter().any(|to| Conditions::from(to).are_for(*port)))
        };
        return own.into_iter().filter(decides).collect();
    }
    let is_inbound = Holding::of(policy).is_some_and(|held| held.direction == Direction::Inbound);
    if policy.kind().attaches_filters() && is_inbound {
        return own.into_iter().filter(|port| protocol_of(world, workload, *port) != Protocol::Tcp).collect();
    }
    match own.is_empty() {
        // It guards what its caller sends, too.
        true => [0].into(),
        false => own,
    }
}

/// True where a policy that is there restricts the workload.
pub(super) fn restricts(world: &World, policy: &ObjectKey, workload: &Object<WorkloadSpec>) -> bool {
    let Some(policy) = world.get(policy).map(|entry| &entry.resource) else { return false };
    let holds = protecting(policy).is_some_and(|(metadata, targets)| holds_for(world, metadata, targets, workload));
    holds && !guarded(world, policy, workload).is_empty()
}

/// The targets of a policy that restricts. One that makes faults keeps nobody out.
fn protecting(resource: &Resource) -> Option<(&Metadata, &[TargetRef])> {
    let held = Holding::of(resource)?;
    (held.mode == PolicyMode::Enforce && held.kind != Kind::FaultPolicy).then_some((held.metadata, held.targets))
}

pub(super) fn named(policy: &Metadata, target: &TargetRef) -> String {
    match target.kind {
        TargetKind::Service => format!("Service {}/{}", policy.namespace, target.name),
        TargetKind::ExternalService => format!("ExternalService {}/{}", policy.namespace, target.name),
        TargetKind::Workload => format!("Workload {}/{}", policy.namespace, target.name),
        TargetKind::Namespace => format!("Namespace {}", target.name),
        TargetKind::Mesh => format!("Mesh {}", target.name),
        TargetKind::HttpRoute | TargetKind::GrpcRoute => route_named(policy, target),
    }
}

/// A route, or the rule of it that is meant.
pub(crate) fn route_named(policy: &Metadata, target: &TargetRef) -> String {
    let kind = target.kind.route().map_or("route", |(_, kind)| kind.as_str());
    let rule = target.section_name.as_ref().map(|name| format!("rule {name} of ")).unwrap_or_default();
    format!("{rule}{kind} {}/{}", policy.namespace, target.name)
}

/// Tells whether a policy holds for its targets, and of one that attaches a filter which version of it that is.
pub fn policy_status(world: &World, kind: Kind, metadata: &Metadata) -> Vec<Condition> {
    let key = ObjectKey::new(kind, &metadata.namespace, &metadata.name);
    let held = world.get(&key).and_then(|entry| Holding::of(&entry.resource));
    let targets = held.map(|held| held.targets).unwrap_or_default();
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
    let filter = world.get(&key).and_then(|entry| Attaching::of(&entry.resource));
    let of_filter = filter.iter().flat_map(|policy| {
        let found = [Some(resolved(world, policy)), callout::status(world, policy), secret::status(world, policy)];
        let placed = move |found: Condition| Condition { key: policy.place(&found.key).to_owned(), ..found };
        found.into_iter().flatten().map(placed)
    });
    std::iter::once(condition).chain(of_filter).collect()
}
