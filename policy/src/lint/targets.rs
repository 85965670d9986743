//! The mesh as a whole, the targets of policies, and what several claim.

use super::lens::{Lens, key_of};
use super::{Code, Report};
use crate::bundle::ObjectName;
use crate::plan::{Idle, claimed_before, is_missing, overruled, route_named};
use crate::resource::filter::PolicyMode;
use crate::resource::{
    ExternalServiceSpec, Kind, Metadata, ObjectKey, ROOT_NAMESPACE, Resource, TargetKind, TargetRef, TrafficPolicySpec,
};

/// A handshake takes at least one round trip.
const SHORTEST_CONNECT_MS: u64 = 10;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    meshes(lens, report);
    for policy in lens.holding().filter(|policy| policy.mode != PolicyMode::Off) {
        let object = key_of(policy.kind, policy.metadata);
        targets(lens, &object, policy.metadata, policy.targets, report);
    }
    for policy in lens.all::<TrafficPolicySpec>() {
        let object = key_of(Kind::TrafficPolicy, &policy.metadata);
        missing(lens, &object, &policy.metadata, &policy.spec.target_refs, report);
        for (index, Idle { settings, older, .. }) in overruled(lens.world, policy) {
            let message = format!("the older TrafficPolicy {older} sets {} here", settings.join(", "));
            report.tell(Code::Overruled, &object, format!("spec.targetRefs[{index}]"), message);
        }
    }
    for external in lens.all::<ExternalServiceSpec>() {
        let object = key_of(Kind::ExternalService, &external.metadata);
        for (index, older) in claimed_before(lens.world, external) {
            let message = format!("for this host the older ExternalService {older} holds at the ports that both have");
            report.tell(Code::Overruled, &object, format!("spec.hosts[{index}]"), message);
        }
    }
}

fn meshes(lens: &Lens<'_>, report: &mut Report) {
    for (index, (key, entry)) in lens.world.of_kind(Kind::Mesh).enumerate() {
        if index > 0 {
            report.tell(Code::SecondMesh, key, "metadata.name", "there is a Mesh already; one holds for all");
        }
        let Resource::Mesh(mesh) = &entry.resource else { continue };
        let (wanted, own) = (&mesh.spec.trust_domain, &lens.world.trust_domain);
        if wanted != own {
            let message = format!("{wanted} is not this control plane's trust domain, which is {own}");
            report.tell(Code::ForeignMesh, key, "spec.trustDomain", message);
        }
        if let Some(ms) = mesh.spec.defaults.connect_timeout_ms.filter(|ms| *ms < SHORTEST_CONNECT_MS) {
            let message = format!("no connection is made in {ms} ms");
            report.tell(Code::ShortTimeout, key, "spec.defaults.connectTimeout", message);
        }
    }
}

fn targets(lens: &Lens<'_>, object: &ObjectKey, policy: &Metadata, targets: &[TargetRef], report: &mut Report) {
    let is_told = missing(lens, object, policy, targets, report);
    if !is_told && lens.knows_workloads() && lens.held(object).is_empty() {
        let message = match targets {
            [] => "there is no workload that it would hold for",
            _ => "no workload is behind its targets",
        };
        report.tell(Code::HoldsForNobody, object, if targets.is_empty() { "" } else { "spec.targetRefs" }, message);
    }
}

/// Tells of the targets that are not there or another namespace's. True where there are any.
fn missing(lens: &Lens<'_>, object: &ObjectKey, policy: &Metadata, targets: &[TargetRef], report: &mut Report) -> bool {
    let mut is_told = false;
    for (index, target) in targets.iter().enumerate() {
        let key = format!("spec.targetRefs[{index}]");
        let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
        let is_foreign = target.kind == TargetKind::Namespace
            && target.name != policy.namespace
            && policy.namespace != ROOT_NAMESPACE;
        if is_foreign {
            let message = format!("a policy of {} can't target namespace {}", policy.namespace, target.name);
            report.tell(Code::ForeignTarget, object, key, message);
            is_told = true;
        } else if is_missing(lens.world, policy, target) {
            let message = match target.kind {
                TargetKind::Namespace => {
                    format!("there is nothing in namespace {}{}", target.name, lens.meant_namespace(&target.name))
                }
                TargetKind::Service => lens.no_service(&name),
                TargetKind::Workload => lens.no_workload(&name),
                TargetKind::ExternalService => format!("ExternalService {name} does not exist"),
                TargetKind::Mesh => format!("Mesh {} does not exist", target.name),
                TargetKind::HttpRoute | TargetKind::GrpcRoute => {
                    let key = target.kind.route().map(|(kind, _)| ObjectKey::new(kind, &name.namespace, &name.name));
                    let is_there = key.is_some_and(|key| lens.world.route(&key).is_some());
                    // Without the route nothing is to be said of its rules.
                    let section_name = target.section_name.clone().filter(|_| is_there);
                    let absent = TargetRef { section_name, ..target.clone() };
                    format!("{} does not exist", route_named(policy, &absent))
                }
            };
            report.tell(Code::TargetMissing, object, key, message);
            is_told = true;
        }
    }
    is_told
}
