//! Filters and the policies that attach them.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::{Lens, key_of};
use super::{Code, Report, Scope};
use crate::bundle::{ObjectName, needs_every_import};
use crate::plan::{missing_secrets, unfit_expressions, unresolved_callouts};
use crate::resource::capability::{CalloutRef, Capability};
use crate::resource::filter::PolicyMode;
use crate::resource::{
    AccessPolicySpec, Attaching, FilterPolicySpec, FilterSpec, Kind, Object, ObjectKey, ROOT_NAMESPACE,
};
use crate::schema;

/// Filters that every mesh has, used or not.
const SHIPPED: [&str; 8] = ["authz", "body-guard", "expr", "extauth", "fault", "header-edit", "jwt", "ratelimit"];

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for policy in lens.attaching() {
        attached(lens, &policy, report);
    }
    for policy in lens.all::<AccessPolicySpec>() {
        let object = key_of(Kind::AccessPolicy, &policy.metadata);
        let what = ["its denials are counted only", "it is left out"];
        switched_off(policy.spec.mode, what, &object, report);
    }
    let authz = ObjectName::new(ROOT_NAMESPACE, "authz");
    if lens.world.filter(&authz).is_none() && !comes_with_the_mesh(lens, &authz) {
        for policy in lens.all::<AccessPolicySpec>() {
            let object = key_of(Kind::AccessPolicy, &policy.metadata);
            let message = format!("Filter {authz} is not published: it enforces access policies");
            report.tell(Code::AuthzMissing, &object, "", message);
        }
    }
    let used: BTreeSet<_> = lens.world.attaching().map(|policy| filter_of(&policy)).collect();
    for (key, _) in lens.of_kind(Kind::Filter) {
        if !is_shipped(&key.object_name()) && !used.contains(&key.object_name()) {
            report.tell(Code::UnusedFilter, key, "", "no policy names it");
        }
    }
    twice(lens, report);
}

fn is_shipped(filter: &ObjectName) -> bool {
    filter.namespace == ROOT_NAMESPACE && SHIPPED.contains(&filter.name.as_str())
}

/// With files alone, a shipped filter is there, since no file holds it and every mesh has it.
fn comes_with_the_mesh(lens: &Lens<'_>, filter: &ObjectName) -> bool {
    lens.scope == Scope::Files && is_shipped(filter)
}

fn filter_of(policy: &Object<FilterPolicySpec>) -> ObjectName {
    policy.spec.filter.object_name()
}

fn switched_off(mode: PolicyMode, [audited, off]: [&str; 2], object: &ObjectKey, report: &mut Report) {
    match mode {
        PolicyMode::Enforce => {}
        PolicyMode::Audit => report.tell(Code::SwitchedOff, object, "spec.mode", audited),
        PolicyMode::Off => report.tell(Code::SwitchedOff, object, "spec.mode", off),
    }
}

fn attached(lens: &Lens<'_>, policy: &Attaching<'_>, report: &mut Report) {
    let object = policy.key();
    switched_off(policy.spec.mode, ["its verdicts are counted only", "it is attached nowhere"], &object, report);
    for fault in unfit_expressions(&policy.spec) {
        report.tell(Code::ExpressionUnfit, &object, config_key(&fault.at), fault.message);
    }
    let name = filter_of(policy);
    let Some(filter) = lens.world.filter(&name) else {
        if comes_with_the_mesh(lens, &name) {
            return;
        }
        return report.tell(Code::FilterMissing, &object, policy.place("spec.filter.name"), lens.no_filter(&name));
    };
    let reference = &policy.spec.filter;
    let found = lens.world.resolve(reference);
    if let (None, Ok(wanted)) = (found, reference.wanted()) {
        let known = lens.world.releases(&name).map(|release| release.spec.version.as_str());
        let mut known: Vec<&str> = known.chain([filter.spec.version.as_str()]).collect();
        known.sort_by_key(|version| semver::Version::parse(version).ok());
        known.dedup();
        let message = format!("Filter {name} is published as {}, not as {wanted}", known.join(", "));
        let key = if reference.version.is_some() { "spec.filter.version" } else { "spec.filter.channel" };
        report.tell(Code::FilterVersion, &object, policy.place(key), message);
    }
    let spec = found.unwrap_or(&filter.spec);
    capabilities(policy, spec, &object, report);
    for (key, why) in unresolved_callouts(lens.world, policy) {
        report.tell(Code::CalloutNowhere, &object, policy.place(&key), format!("{why}: callouts to it fail"));
    }
    for (key, called) in ungranted_callouts(&name, policy) {
        let message = format!("the policy's capability callout has no service {called}: nobody is asked");
        report.tell(Code::CalloutNowhere, &object, policy.place(&key), message);
    }
    for (key, why) in missing_secrets(lens.world, policy) {
        let message = format!("{why}: {}", policy.spec.outcome_without_filter());
        report.tell(Code::SecretMissing, &object, policy.place(&key), message);
    }
    if lens.world.is_yanked(&name, &spec.version) {
        let message =
            format!("{name} {} was yanked: it runs where it is named, and nobody else takes it up", spec.version);
        report.tell(Code::FilterYanked, &object, policy.place("spec.filter.version"), message);
    }
    if let Some(why) = lens.world.distrusts(&name, spec).filter(|_| policy.spec.mode != PolicyMode::Off) {
        let outcome = policy.spec.outcome_without_filter();
        report.tell(Code::PublisherDistrusted, &object, policy.place("spec.filter"), format!("{why}: {outcome}"));
    }
    for fault in spec.config_schema.iter().flat_map(|known| schema::check(known, &policy.spec.config)) {
        report.tell(Code::ConfigUnfit, &object, policy.place(&config_key(&fault.at)), fault.message);
    }
}

/// The place of a configuration inside its policy.
fn config_key(at: &str) -> String {
    match at {
        "" => "spec.config".to_owned(),
        at if at.starts_with('[') => format!("spec.config{at}"),
        at => format!("spec.config.{at}"),
    }
}

/// What the filter asks for and what it is granted. One of the first contract needs all that it imports; later ones are
/// told `denied` as they call what is not granted.
fn capabilities(policy: &Attaching<'_>, filter: &FilterSpec, object: &ObjectKey, report: &mut Report) {
    let name = filter_of(policy);
    let (granted, wanted) = (&policy.spec.capabilities, &filter.capabilities);
    let is_granted = |wanted: &&String| granted.iter().any(|granted| granted.word() == wanted.as_str());
    for missing in wanted.iter().filter(|wanted| !is_granted(wanted) && !matches!(wanted.as_str(), "log" | "metrics")) {
        let (code, message) = match needs_every_import(&filter.abi) {
            true => {
                let message = format!("Filter {name} needs the capability {missing}, which is not granted");
                (Code::NotGranted, message)
            }
            // One of a typed kind grants what it needs.
            false if policy.kind != Kind::FilterPolicy => continue,
            false if is_needless(&name, missing, &policy.spec.config) => continue,
            false => {
                let message = format!("Filter {name} may use the capability {missing}, which is denied to it");
                (Code::DeniedCapability, message)
            }
        };
        report.tell(code, object, policy.place("spec.capabilities"), message);
    }
    let is_wanted = |granted: &&Capability| wanted.iter().any(|wanted| granted.word() == wanted.as_str());
    for vain in granted.iter().filter(|granted| !is_wanted(granted) && !granted.is_always_there()) {
        let message = format!("Filter {name} does not use the capability {}", vain.word());
        report.tell(Code::GrantedInVain, object, policy.place("spec.capabilities"), message);
    }
}

/// True where a shipped filter calls a capability for something that this configuration does not ask for: `jwt` for keys
/// that are fetched.
fn is_needless(filter: &ObjectName, capability: &str, config: &serde_json::Value) -> bool {
    let fetches = || config["providers"].as_array().is_some_and(|all| all.iter().any(|it| it.get("jwks").is_some()));
    is_shipped(filter) && filter.name == "jwt" && matches!(capability, "kv" | "callout") && !fetches()
}

/// Places of a shipped filter's configuration that name a callout which is not among those that the policy grants. Where
/// it grants none, that is told of the capability.
fn ungranted_callouts(filter: &ObjectName, policy: &Attaching<'_>) -> Vec<(String, String)> {
    let config = &policy.spec.config;
    let mut called = Vec::new();
    if is_shipped(filter) && filter.name == "extauth" {
        called.push(("spec.config.service".to_owned(), &config["service"]));
    }
    if is_shipped(filter) && filter.name == "jwt" {
        for (index, provider) in config["providers"].as_array().into_iter().flatten().enumerate() {
            called.push((format!("spec.config.providers[{index}].jwks.callout"), &provider["jwks"]["callout"]));
        }
    }
    let services = policy.spec.capabilities.iter().flat_map(Capability::callouts);
    let granted: BTreeSet<&str> = services.map(CalloutRef::called).collect();
    let named = called.into_iter().filter_map(|(key, name)| Some((key, name.as_str()?)));
    let lacking = named.filter(|(_, name)| !granted.is_empty() && !granted.contains(name));
    lacking.map(|(key, name)| (key, name.to_owned())).collect()
}

/// Policies that run one filter with one configuration twice.
fn twice(lens: &Lens<'_>, report: &mut Report) {
    let mut alike = BTreeMap::<_, Vec<Attaching<'_>>>::new();
    for policy in lens.attaching().filter(|policy| policy.spec.mode == PolicyMode::Enforce) {
        let inbound = policy.spec.direction == crate::bundle::Direction::Inbound;
        alike.entry((filter_of(&policy), inbound, policy.spec.config.to_string())).or_default().push(policy);
    }
    for policies in alike.values().filter(|policies| policies.len() > 1) {
        for pair in policies.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let held = |policy: &Attaching<'_>| lens.held(&policy.key());
            // Both are in the order of names: one walk through both finds what is in both.
            let (held_first, held_second) = (held(first), held(second));
            let mut others = held_second.iter().peekable();
            let both = held_first.iter().find(|workload| {
                while others.next_if(|other| other.name() < workload.name()).is_some() {}
                others.peek().is_some_and(|other| other.name() == workload.name())
            });
            if let Some(workload) = both {
                let message = format!(
                    "{} attaches the same filter with the same configuration to Workload {}",
                    first.key(),
                    workload.name()
                );
                report.tell(Code::AttachedTwice, &second.key(), second.place("spec.filter"), message);
            }
        }
    }
}
