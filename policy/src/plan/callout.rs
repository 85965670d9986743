//! What a FilterPolicy grants as its proxies are told of it, and the services that filters call by it.

use std::collections::BTreeSet;

use super::external::is_mesh_wide;
use super::route_status::Condition;
use super::select::holds_for;
use super::{World, secret};
use crate::bundle::{CalloutGrant, CalloutService, FilterAttachment, FilterLimits, Grant, KvGrant, ObjectName};
use crate::resource::capability::{CalloutKind, CalloutRef, Capability};
use crate::resource::filter::PolicyMode;
use crate::resource::{
    Attaching, ExternalServiceSpec, FilterPolicySpec, Kind, Metadata, Object, Resource, WorkloadSpec,
};

/// The condition that tells whether the services of a policy's callouts are there.
pub const CALLOUTS_RESOLVED: &str = "CalloutsResolved";

/// Gives an attachment what its policy grants. A component of the first contract knows nothing of capabilities with
/// parameters, and a proxy that runs such components only may know nothing of them either: it is told of none.
pub(super) fn grant(
    world: &World,
    policy: &Object<FilterPolicySpec>,
    attachment: FilterAttachment,
) -> FilterAttachment {
    let FilterPolicySpec { capabilities, limits, .. } = &policy.spec;
    let takes_grants = attachment.takes_grants();
    let word = |capability: &Capability| match capability {
        Capability::Log | Capability::Metrics | Capability::TokenBucket => Some(capability.word().to_owned()),
        Capability::Crypto(_) | Capability::Wasi => takes_grants.then(|| capability.word().to_owned()),
        Capability::Kv(_) | Capability::Callout(_) | Capability::Secret(_) => None,
    };
    let with_parameters = |capability: &Capability| match capability {
        Capability::Log
        | Capability::Metrics
        | Capability::TokenBucket
        | Capability::Crypto(None)
        | Capability::Wasi => None,
        Capability::Secret(secrets) => Some(Grant::Secret(secret::granted(world, &policy.metadata, &secrets.values))),
        Capability::Crypto(Some(crypto)) => {
            Some(Grant::CryptoKeys(secret::granted(world, &policy.metadata, &crypto.keys)))
        }
        Capability::Kv(kv) => {
            let kv = kv.unwrap_or_default();
            Some(Grant::Kv(KvGrant { entries: kv.entries, bytes: kv.bytes, scope: kv.scope }))
        }
        Capability::Callout(callout) => {
            let service = |service: &CalloutRef| CalloutService {
                name: service.called().to_owned(),
                authority: authority(world, &policy.metadata, service).ok(),
            };
            Some(Grant::Callout(CalloutGrant { services: callout.services.iter().map(service).collect() }))
        }
    };
    let of_both = FilterLimits {
        memory_bytes: limits.memory_bytes,
        call_timeout_ms: limits.call_timeout_ms,
        ..FilterLimits::default()
    };
    let limits = match takes_grants {
        true => FilterLimits { body_bytes: limits.body_bytes, over_body: limits.over_body, ..of_both },
        false => of_both,
    };
    FilterAttachment {
        capabilities: capabilities.iter().filter_map(word).collect(),
        grants: capabilities.iter().filter(|_| takes_grants).filter_map(with_parameters).collect(),
        limits,
        ..attachment
    }
}

/// The object that a callout names.
fn named(policy: &Metadata, service: &CalloutRef) -> ObjectName {
    ObjectName::new(service.namespace.as_ref().unwrap_or(&policy.namespace), &service.name)
}

/// Where callouts to a service go, as an app would name it.
///
/// # Errors
/// There is none of this name, it is for others, or its port takes no requests.
pub(crate) fn authority(world: &World, policy: &Metadata, service: &CalloutRef) -> Result<String, String> {
    let (name, port) = (named(policy, service), service.port);
    match service.kind {
        CalloutKind::Service => {
            let found = world.service(&name).ok_or_else(|| format!("Service {name} does not exist"))?;
            let own = found.spec.port(port).ok_or_else(|| format!("Service {name} has no port {port}"))?;
            own.protocol().takes_requests(port).map_err(|refusal| format!("Service {name}: {refusal}"))?;
            Ok(format!("{}.{}.svc.cluster.local:{port}", name.name, name.namespace))
        }
        CalloutKind::ExternalService => {
            let found = world.external(&name);
            // Whether there is one in another namespace is nobody's business here.
            if name.namespace != policy.namespace && !found.is_some_and(is_mesh_wide) {
                return Err(format!("ExternalService {name} is for its own namespace only"));
            }
            let found = found.ok_or_else(|| format!("ExternalService {name} does not exist"))?;
            outside(&found.spec, port).map_err(|reason| format!("ExternalService {name} {reason}"))
        }
    }
}

fn outside(spec: &ExternalServiceSpec, port: u16) -> Result<String, String> {
    let own = spec.ports.iter().find(|own| own.port == port).ok_or_else(|| format!("has no port {port}"))?;
    if !own.protocol.is_http() {
        return Err(format!("takes no HTTP requests at port {port}; with `tls: {{mode: Originate}}` it is http"));
    }
    let host = spec.hosts.iter().find(|host| !host.starts_with('*')).ok_or("has no host but patterns")?;
    Ok(format!("{host}:{port}"))
}

/// A policy of a kind whose filters may call services.
fn calling(resource: &Resource) -> Option<Attaching<'_>> {
    matches!(resource.kind(), Kind::FilterPolicy | Kind::JwtPolicy).then(|| Attaching::of(resource)).flatten()
}

/// The services of the mesh that the filters of a workload may call: its proxy holds them, as it holds what the
/// workload uses.
pub(super) fn called_by_filters(world: &World, workload: &Object<WorkloadSpec>) -> BTreeSet<ObjectName> {
    let near = world.index().near_policies(world, workload).filter_map(calling);
    let calling = near.filter(|policy| {
        policy.spec.mode != PolicyMode::Off
            && policy.spec.callouts().next().is_some()
            && holds_for(world, &policy.metadata, &policy.spec.target_refs, workload)
    });
    let services = calling.flat_map(|policy| {
        let services = callees(&policy).filter(|(kind, _)| *kind == CalloutKind::Service);
        services.map(|(_, name)| name).collect::<Vec<_>>()
    });
    services.collect()
}

/// The objects that a policy's callouts name, with their kinds.
pub fn callees(policy: &Object<FilterPolicySpec>) -> impl Iterator<Item = (CalloutKind, ObjectName)> {
    policy.spec.callouts().map(move |(_, service)| (service.kind, named(&policy.metadata, service)))
}

/// Each callout of a policy that leads nowhere: its place inside the manifest, and why.
pub(crate) fn unresolved(world: &World, policy: &Object<FilterPolicySpec>) -> Vec<(String, String)> {
    let wrong = policy.spec.callouts().filter_map(|(key, service)| {
        let why = authority(world, &policy.metadata, service).err()?;
        Some((format!("spec.{key}"), why))
    });
    wrong.collect()
}

/// Tells whether every callout leads somewhere. `None`: the policy grants none.
pub(super) fn status(world: &World, policy: &Object<FilterPolicySpec>) -> Option<Condition> {
    policy.spec.callouts().next()?;
    let good = Condition::good(CALLOUTS_RESOLVED, "every service of its callouts exists");
    let unresolved = unresolved(world, policy);
    let Some((key, _)) = unresolved.first() else { return Some(good) };
    let message = unresolved.iter().map(|(_, why)| format!("{why}: callouts to it fail"));
    let message = message.collect::<Vec<_>>().join("; ");
    Some(Condition { status: false, reason: "BackendNotFound", message, key: key.clone(), ..good })
}
