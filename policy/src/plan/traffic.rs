//! Which TrafficPolicy holds for a service, and what it sets. Of several the oldest does, then the first by name, as Gateway
//! API resolves conflicts of policies; it holds as a whole, and the others are told of it.

use super::protection::named;
use super::route_status::Condition;
use super::select::is_missing;
use super::{Entry, World, mesh_settings};
use crate::bundle::{Balancing, ObjectName, Traffic};
use crate::resource::health::HealthCheckSpec;
use crate::resource::retry::ServiceRetrySpec;
use crate::resource::{Kind, Object, Spec as _, TargetRef, TrafficPolicySpec, duration_text};

/// The policy that holds for a service.
pub(crate) fn holding<'w>(world: &'w World, service: &ObjectName) -> Option<&'w Object<TrafficPolicySpec>> {
    let of = |entry: &'w Entry| Some((entry.created, TrafficPolicySpec::of(&entry.resource)?));
    let policies = world.index().targeting(service).filter_map(of);
    policies.min_by_key(|(created, policy)| (*created, &policy.metadata.name)).map(|(_, policy)| policy)
}

/// The settings of a service. `None`: all are as by default.
pub(super) fn settings(world: &World, service: &ObjectName) -> Option<Traffic> {
    let policy = holding(world, service)?;
    let balancing = policy.spec.load_balancing.as_ref().map(|spec| spec.balancing()).unwrap_or_default();
    let outliers = policy.spec.outlier_detection.as_ref().map(|spec| spec.outliers());
    let health_check = policy.spec.health_check.as_ref().and_then(HealthCheckSpec::health_check);
    let limits = policy.spec.limits.as_ref().map(|spec| spec.limits());
    let timeouts = policy.spec.timeouts.clone().unwrap_or_default();
    Some(Traffic {
        policy: policy.name(),
        balancing,
        outliers,
        health_check,
        limits,
        request_timeout_ms: timeouts.request_ms,
        attempt_timeout_ms: timeouts.backend_request_ms,
        retry: policy.spec.retry.as_ref().map(ServiceRetrySpec::retry),
    })
}

/// A setting of a service as callers keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub setting: &'static str,
    pub value: String,
    /// The policy that says so. `None`: it is the default.
    pub policy: Option<ObjectName>,
}

fn deadline_text(ms: u64) -> String {
    if ms == 0 { "none".to_owned() } else { duration_text(ms) }
}

/// Every setting of a service, each with who set it.
pub fn effective(world: &World, service: &ObjectName) -> Vec<Effective> {
    let policy = holding(world, service);
    let own = |setting, value: Option<String>, default: &str| Effective {
        setting,
        policy: policy.filter(|_| value.is_some()).map(Object::name),
        value: value.unwrap_or_else(|| default.to_owned()),
    };
    let spec = policy.map(|policy| &policy.spec);
    let balancing = spec.and_then(|spec| Some(spec.load_balancing.as_ref()?.balancing().to_string()));
    let outliers = spec.and_then(|spec| Some(spec.outlier_detection.as_ref()?.outliers().to_string()));
    let limits = spec.and_then(|spec| Some(spec.limits.as_ref()?.limits().to_string()));
    let timeouts = spec.and_then(|spec| spec.timeouts.clone()).unwrap_or_default();
    let retry = spec.and_then(|spec| Some(spec.retry.as_ref()?.retry().to_string()));
    let health = spec.and_then(|spec| Some(spec.health_check.as_ref()?.health_check()?.to_string()));
    let of_mesh = deadline_text(mesh_settings(world, "").request_timeout_ms.unwrap_or_default());
    vec![
        own("loadBalancing", balancing, Balancing::default().algorithm()),
        own("outlierDetection", outliers, "nobody is ejected"),
        own("limits", limits, "none"),
        own("timeouts.request", timeouts.request_ms.map(deadline_text), &of_mesh),
        own("timeouts.backendRequest", timeouts.backend_request_ms.map(deadline_text), "none"),
        own("retry", retry, "only what provably nobody acted on"),
        own("healthCheck", health, "nobody is checked"),
    ]
}

/// The policy that says how a service is balanced. `None`: it is the default.
pub(crate) fn balanced_by(world: &World, service: &ObjectName) -> Option<ObjectName> {
    effective(world, service).into_iter().find(|it| it.setting == "loadBalancing")?.policy
}

/// The policies for a service that have no effect there: an older one holds.
pub fn without_effect(world: &World, service: &ObjectName) -> Vec<ObjectName> {
    let holding = holding(world, service).map(Object::name);
    let policies = world.index().targeting(service).filter_map(|entry| TrafficPolicySpec::of(&entry.resource));
    policies.map(Object::name).filter(|name| Some(name) != holding.as_ref()).collect()
}

/// The targets of a policy for which an older one holds, with that one.
pub(crate) fn overruled<'w>(
    world: &'w World,
    policy: &Object<TrafficPolicySpec>,
) -> Vec<(usize, &'w Object<TrafficPolicySpec>)> {
    let name = policy.name();
    let older = |(index, target): (usize, &TargetRef)| {
        let service = ObjectName::new(policy.metadata.namespace.clone(), &target.name);
        holding(world, &service).filter(|holding| holding.name() != name).map(|holding| (index, holding))
    };
    policy.spec.target_refs.iter().enumerate().filter_map(older).collect()
}

/// The targets of a policy whose endpoints can't be checked as it says, and why.
fn unchecked(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<String> {
    let Some(check) = policy.spec.health_check.as_ref().and_then(HealthCheckSpec::health_check) else {
        return Vec::new();
    };
    let reason = |target: &TargetRef| {
        let service = world.service(&ObjectName::new(policy.metadata.namespace.clone(), &target.name))?;
        let mut ports = service.spec.served_ports();
        let asked = match check.port {
            Some(number) => service.spec.port(number),
            None => ports.next(),
        };
        let why = match asked {
            Some(port) => format!("port {} is declared {}", port.port, check.misfit(port.protocol())?),
            None => check.port.map_or_else(|| "it has no port".to_owned(), |number| format!("it has no port {number}")),
        };
        Some(format!("endpoints of {} are not checked: {why}", named(&policy.metadata, target)))
    };
    policy.spec.target_refs.iter().filter_map(reason).collect()
}

/// Tells whether a policy holds for its targets: of each that is not there, and of each for which an older one holds.
pub fn traffic_status(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<Condition> {
    let (metadata, targets) = (&policy.metadata, &policy.spec.target_refs);
    if world.is_unreadable(Kind::TrafficPolicy, &policy.name()) {
        let message = "its record in the store can't be read: what could be read of it holds, the rest is as by default; \
                       apply it anew or delete it";
        let (reason, message) = ("Unreadable", message.to_owned());
        return vec![Condition { kind: "Accepted", status: false, reason, message, key: String::new() }];
    }
    let missing = targets.iter().enumerate().filter(|(_, target)| is_missing(world, metadata, target));
    let missing = missing.map(|(index, target)| (index, format!("{} does not exist", named(metadata, target))));
    let missing: Vec<_> = missing.collect();
    let overruled = overruled(world, policy).into_iter().map(|(index, older)| {
        let message =
            format!("for {} the older TrafficPolicy {} holds", named(metadata, &targets[index]), older.name());
        (index, message)
    });
    let overruled: Vec<_> = overruled.collect();
    let reason = match (missing.is_empty(), overruled.is_empty()) {
        (false, _) => "TargetNotFound",
        (true, false) => "Conflicted",
        (true, true) => "UnsupportedValue",
    };
    let of_target = |(index, message): (usize, String)| (format!("spec.targetRefs[{index}]"), message);
    let wrong = missing.into_iter().chain(overruled).map(of_target);
    let unchecked = unchecked(world, policy).into_iter().map(|message| ("spec.healthCheck".to_owned(), message));
    let wrong: Vec<_> = wrong.chain(unchecked).collect();
    let good = Condition::good("Accepted", "every target exists, and no older TrafficPolicy is for one");
    let Some((key, _)) = wrong.first().cloned() else { return vec![good] };
    let message = wrong.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join("; ");
    vec![Condition { status: false, reason, message, key, ..good }]
}
