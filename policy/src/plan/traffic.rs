//! What callers keep of a service's settings, and what is told of the policies and templates that say them.

use super::merge::{Idle, Level, Merged, Setter, Source, Sources, merged, merged_outside, older_of_tier, overruled};
use super::protection::named;
use super::route_status::Condition;
use super::select::is_missing;
use super::{World, spread};
use crate::bundle::{Balancing, HealthCheck, ObjectName, Traffic};
use crate::resource::hedge::HedgeSpec;
use crate::resource::template::{self, Misfit, TemplateRef};
use crate::resource::{
    Kind, Object, PolicyTemplateSpec, ServiceSpec, TargetKind, TargetRef, TrafficPolicySpec, duration_text,
};

/// The settings of a service. `None`: all are as by default.
pub(super) fn settings(merged: &Merged) -> Option<Traffic> {
    let policy = merged.nearest()?.name();
    let spec = &merged.spec;
    let balancing = spec.load_balancing.as_ref().map(|spec| spec.balancing()).unwrap_or_default();
    let outliers = spec.outlier_detection.as_ref().map(|spec| spec.outliers());
    let health_check = spec.health_check.as_ref().and_then(|check| check.health_check());
    let limits = spec.limits.as_ref().map(|spec| spec.limits());
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    Some(Traffic {
        policy,
        balancing,
        outliers,
        health_check,
        limits,
        request_timeout_ms: timeouts.request_ms,
        attempt_timeout_ms: timeouts.backend_request_ms,
        stream_timeout_ms: timeouts.stream_ms,
        retry: spec.retry.as_ref().map(|retry| retry.retry()),
        hedge: spec.hedge.as_ref().and_then(HedgeSpec::hedge),
    })
}

/// The settings of an ExternalService. Nobody's addresses are balanced, checked or ejected: what policies say of that
/// holds for services.
pub(super) fn settings_outside(merged: &Merged) -> Option<Traffic> {
    let all = settings(merged)?;
    let sets_some = all.limits.is_some()
        || all.request_timeout_ms.is_some()
        || all.attempt_timeout_ms.is_some()
        || all.stream_timeout_ms.is_some()
        || all.retry.is_some();
    sets_some.then(|| Traffic {
        balancing: Balancing::default(),
        outliers: None,
        health_check: None,
        hedge: None,
        ..all
    })
}

/// The settings of a policy of which an ExternalService has nothing, by their keys.
fn without_effect_outside(policy: &TrafficPolicySpec) -> Vec<&'static str> {
    let said = [
        ("loadBalancing", policy.load_balancing.is_some()),
        ("outlierDetection", policy.outlier_detection.is_some()),
        ("healthCheck", policy.health_check.is_some()),
        ("hedge", policy.hedge.is_some()),
    ];
    said.into_iter().filter_map(|(key, is_said)| is_said.then_some(key)).collect()
}

/// A setting of a service as callers keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub setting: &'static str,
    pub value: String,
    /// Who says so. `None`: it is the default.
    pub by: Option<Source>,
}

impl Effective {
    /// The TrafficPolicy that says so. `None`: another kind does, or it is the default.
    #[must_use]
    pub fn policy(&self) -> Option<&ObjectName> {
        self.by.as_ref().and_then(Source::policy)
    }
}

fn deadline_text(ms: u64) -> String {
    if ms == 0 { "none".to_owned() } else { duration_text(ms) }
}

/// The key under which a setting is said, which may be that of several.
fn said_as(setting: &'static str) -> &'static str {
    if setting.starts_with("loadBalancing.") { "loadBalancing" } else { setting }
}

/// Every setting of a service, each with who set it.
pub fn effective(world: &World, service: &ObjectName) -> Vec<Effective> {
    let Merged { spec, sources, idle: _ } = merged(world, service);
    let own = |setting, value: Option<String>, default: &str| {
        let by = value.is_some().then(|| sources.get(said_as(setting)).cloned()).flatten();
        Effective { setting, value: value.unwrap_or_else(|| default.to_owned()), by }
    };
    let balancing = spec.load_balancing.as_ref().map(|spec| spec.balancing().to_string());
    let outliers = spec.outlier_detection.as_ref().map(|spec| spec.outliers().to_string());
    let limits = spec.limits.as_ref().map(|spec| spec.limits().to_string());
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    let retry = spec.retry.as_ref().map(|spec| spec.retry().to_string());
    let health = spec.health_check.as_ref().and_then(|check| check.health_check()).map(|check| check.to_string());
    let told = spec.load_balancing.as_ref().map(spread::told).unwrap_or_default();
    let of_service = world.service(service).filter(|_| told.locality.is_none()).and_then(spread::of_service);
    let mut locality = own("loadBalancing.locality", told.locality, spread::NOBODY_FIRST);
    if let Some(of_service) = of_service {
        let by = Some(Source { level: Level::Service, by: Setter::Service(service.clone()) });
        locality = Effective { value: of_service.to_string(), by, ..locality };
    }
    let of_mesh =
        deadline_text(world.mesh().and_then(|mesh| mesh.spec.defaults.request_timeout_ms).unwrap_or_default());
    let mut all = vec![
        own("loadBalancing", balancing, Balancing::default().algorithm()),
        own("outlierDetection", outliers, "nobody is ejected"),
        own("limits", limits, "none"),
        own("timeouts.request", timeouts.request_ms.map(deadline_text), &of_mesh),
        own("timeouts.backendRequest", timeouts.backend_request_ms.map(deadline_text), "none"),
        own("retry", retry, "only what provably nobody acted on"),
        locality,
        own("loadBalancing.slowStart", told.slow_start, spread::AT_ONCE),
        own("loadBalancing.panicThresholdPercent", told.panic, spread::NEVER),
        own("healthCheck", health, "nobody is checked"),
    ];
    // Told only where somebody asks for them.
    all.extend(timeouts.stream_ms.map(|ms| own("timeouts.stream", Some(deadline_text(ms)), "")));
    let hedge = spec.hedge.as_ref().and_then(HedgeSpec::hedge).map(|hedge| hedge.to_string());
    all.extend(hedge.map(|hedge| own("hedge", Some(hedge), "")));
    let is_mesh_s = |it: &&mut Effective| it.setting == "timeouts.request" && it.by.is_none();
    all.iter_mut().filter(is_mesh_s).for_each(|it| it.by = by_mesh(world));
    all
}

/// The Mesh, where it says how long a request may take.
fn by_mesh(world: &World) -> Option<Source> {
    let mesh = world.mesh().filter(|mesh| mesh.spec.defaults.request_timeout_ms.is_some_and(|ms| ms > 0))?;
    Some(Source { level: Level::Mesh, by: Setter::Mesh(mesh.metadata.name.clone()) })
}

/// Who says the settings of a service, by their keys. One that is not there is the default.
pub(crate) fn sources_of(world: &World, service: &ObjectName) -> Sources {
    merged(world, service).sources
}

/// The same of an ExternalService.
pub(crate) fn sources_outside(world: &World, external: &ObjectName) -> Sources {
    merged_outside(world, external).sources
}

/// The settings for a service that policies say in vain: equally near ones are older.
pub fn without_effect(world: &World, service: &ObjectName) -> Vec<Idle> {
    merged(world, service).idle
}

/// What a policy asks of its template in vain, by the key inside `spec`.
pub(crate) fn unfit_template(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<(String, String)> {
    let Some(TemplateRef { name, parameters }) = &policy.spec.template else { return Vec::new() };
    let Some(template) = world.template(name) else { return Vec::new() };
    let own = &policy.metadata.namespace;
    if !template.spec.admits(own) {
        let message = format!("PolicyTemplate {name} is not for namespace {own}");
        return vec![("template.name".to_owned(), message)];
    }
    let told = |Misfit { parameter, message }: Misfit| match parameter {
        Some(parameter) => (format!("template.parameters.{parameter}"), message),
        None => ("template".to_owned(), message),
    };
    template.spec.misfits(parameters).into_iter().map(told).collect()
}

/// True where a policy names a template that is not there, as far as one can tell.
pub(crate) fn lacks_template(world: &World, policy: &Object<TrafficPolicySpec>) -> bool {
    policy.spec.template.as_ref().is_some_and(|used| {
        world.template(&used.name).is_none() && !world.is_unreadable(Kind::PolicyTemplate, &template::named(&used.name))
    })
}

/// The targets of a policy whose endpoints can't be checked as it says, and why.
fn unchecked(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<String> {
    let Some(check) = policy.spec.health_check.as_ref().and_then(|check| check.health_check()) else {
        return Vec::new();
    };
    let namespace = &policy.metadata.namespace;
    let reason = |target: &TargetRef| {
        let why = match target.kind {
            TargetKind::Service => misfit(&check, world.service(&ObjectName::new(namespace.clone(), &target.name))?)?,
            TargetKind::Namespace => misfit_of_all(&check, world.of_namespace(&target.name))?,
            TargetKind::Mesh => misfit_of_all(&check, world.services())?,
            TargetKind::Workload | TargetKind::ExternalService | TargetKind::HttpRoute | TargetKind::GrpcRoute => {
                return None;
            }
        };
        Some(format!("endpoints of {} are not checked: {why}", named(&policy.metadata, target)))
    };
    policy.spec.target_refs.iter().filter_map(reason).collect()
}

/// Why endpoints of a service can't be checked so.
fn misfit(check: &HealthCheck, service: &Object<ServiceSpec>) -> Option<String> {
    let mut ports = service.spec.served_ports();
    let asked = match check.port {
        Some(number) => service.spec.port(number),
        None => ports.next(),
    };
    Some(match asked {
        Some(port) => format!("port {} is declared {}", port.port, check.misfit(port.protocol())?),
        None => check.port.map_or_else(|| "it has no port".to_owned(), |number| format!("it has no port {number}")),
    })
}

/// The same where it is so of each of several services; the first tells why.
fn misfit_of_all<'s>(check: &HealthCheck, services: impl Iterator<Item = &'s Object<ServiceSpec>>) -> Option<String> {
    let mut first = None;
    for service in services {
        let why = misfit(check, service)?;
        first.get_or_insert_with(|| format!("no Service there has a port for it; of {}: {why}", service.name()));
    }
    first
}

/// Everything because of which a policy says less than it is written to: a reason, the key inside `spec` and the words.
fn shortcomings(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<(&'static str, String, String)> {
    let (metadata, targets) = (&policy.metadata, &policy.spec.target_refs);
    let missing = targets.iter().enumerate().filter(|(_, target)| is_missing(world, metadata, target));
    let missing = missing.map(|(index, target)| {
        ("TargetNotFound", format!("targetRefs[{index}]"), format!("{} does not exist", named(metadata, target)))
    });
    let template = policy.spec.template.iter().filter(|_| lacks_template(world, policy)).map(|used| {
        ("TemplateNotFound", "template.name".to_owned(), format!("PolicyTemplate {} does not exist", used.name))
    });
    let unfit = unfit_template(world, policy).into_iter().map(|(key, message)| {
        let message = format!("{key}: {message}");
        ("TemplateRefused", key, message)
    });
    let overruled = overruled(world, policy).into_iter().map(|(index, Idle { settings, older, .. })| {
        let (target, settings) = (named(metadata, &targets[index]), settings.join(", "));
        let message = format!("for {target} the older TrafficPolicy {older} sets {settings}");
        ("Conflicted", format!("targetRefs[{index}]"), message)
    });
    let unchecked = unchecked(world, policy).into_iter();
    let unchecked = unchecked.map(|message| ("UnsupportedValue", "healthCheck".to_owned(), message));
    let idle = without_effect_outside(&policy.spec).join(", ");
    let outside = targets.iter().enumerate().filter(|(_, target)| target.kind == TargetKind::ExternalService);
    let outside = outside.filter(|_| !idle.is_empty()).map(|(index, target)| {
        let message = format!("for {} {idle} has no effect: nothing is balanced outside", named(metadata, target));
        ("UnsupportedValue", format!("targetRefs[{index}]"), message)
    });
    missing.chain(template).chain(unfit).chain(overruled).chain(unchecked).chain(outside).collect()
}

/// Tells whether a policy holds for its targets: of each that is not there, and of each for which an older one says the same.
pub fn traffic_status(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<Condition> {
    if world.is_unreadable(Kind::TrafficPolicy, &policy.name()) {
        let message = "its record in the store can't be read: what could be read of it holds, the rest is as by default; \
                       apply it anew or delete it";
        let (reason, message) = ("Unreadable", message.to_owned());
        return vec![Condition { kind: "Accepted", status: false, reason, message, key: String::new() }];
    }
    let wrong = shortcomings(world, policy);
    let good = Condition::good("Accepted", "every target exists, and no older TrafficPolicy sets the same for one");
    let Some((reason, key, _)) = wrong.first() else { return vec![good] };
    let (reason, key) = (*reason, format!("spec.{key}"));
    let message = wrong.iter().map(|(.., message)| message.as_str()).collect::<Vec<_>>().join("; ");
    vec![Condition { status: false, reason, message, key, ..good }]
}

/// Tells whether a template says what services of its tier get.
pub fn template_status(world: &World, template: &Object<PolicyTemplateSpec>) -> Vec<Condition> {
    let good = Condition::good("Accepted", "policies and services may use it");
    let Some(older) = older_of_tier(world, template) else { return vec![good] };
    let (message, key) = (taken_tier(older), "spec.tier".to_owned());
    vec![Condition { status: false, reason: "Conflicted", message, key, ..good }]
}

/// Why the tier of a younger template is not its.
pub(crate) fn taken_tier(older: &Object<PolicyTemplateSpec>) -> String {
    format!("the older PolicyTemplate {} is of this tier", older.metadata.name)
}
