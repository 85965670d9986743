//! Filters and the policies that attach them.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::{Lens, key_of};
use super::{Code, Report};
use crate::bundle::ObjectName;
use crate::resource::filter::PolicyMode;
use crate::resource::{AccessPolicySpec, FilterPolicySpec, Kind, Object, ROOT_NAMESPACE};

/// Filters that every mesh has, used or not.
const SHIPPED: [&str; 7] = ["authz", "body-guard", "extauth", "fault", "header-edit", "jwt", "ratelimit"];

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for policy in lens.all::<FilterPolicySpec>() {
        attached(lens, policy, report);
    }
    let authz = ObjectName::new(ROOT_NAMESPACE, "authz");
    if lens.world.filter(&authz).is_none() {
        for policy in lens.all::<AccessPolicySpec>() {
            let object = key_of(Kind::AccessPolicy, &policy.metadata);
            let message = format!("Filter {authz} is not published: it enforces access policies");
            report.tell(Code::AuthzMissing, &object, "", message);
        }
    }
    let used: BTreeSet<_> = lens.world.filter_policies().map(filter_of).collect();
    for (key, _) in lens.of_kind(Kind::Filter) {
        let is_shipped = key.namespace == ROOT_NAMESPACE && SHIPPED.contains(&key.name.as_str());
        if !is_shipped && !used.contains(&key.object_name()) {
            report.tell(Code::UnusedFilter, key, "", "no policy names it");
        }
    }
    twice(lens, report);
}

fn filter_of(policy: &Object<FilterPolicySpec>) -> ObjectName {
    let reference = &policy.spec.filter;
    ObjectName::new(reference.namespace.clone(), reference.name.clone())
}

fn attached(lens: &Lens<'_>, policy: &Object<FilterPolicySpec>, report: &mut Report) {
    let object = key_of(Kind::FilterPolicy, &policy.metadata);
    match policy.spec.mode {
        PolicyMode::Enforce => {}
        PolicyMode::Audit => report.tell(Code::SwitchedOff, &object, "spec.mode", "its verdicts are counted only"),
        PolicyMode::Off => report.tell(Code::SwitchedOff, &object, "spec.mode", "it is attached nowhere"),
    }
    let name = filter_of(policy);
    let Some(filter) = lens.world.filter(&name) else {
        return report.tell(Code::FilterMissing, &object, "spec.filter.name", lens.no_filter(&name));
    };
    let wanted_version = policy.spec.filter.version.as_deref();
    let pinned = lens.world.filter_version(&name, wanted_version);
    if let (None, Some(version)) = (pinned, wanted_version) {
        let message = format!("Filter {name} is published as {}, not as {version}", filter.spec.version);
        report.tell(Code::FilterVersion, &object, "spec.filter.version", message);
    }
    let is_given = |name: &str| matches!(name, "log" | "metrics");
    let (granted, wanted) = (&policy.spec.capabilities, &pinned.unwrap_or(&filter.spec).capabilities);
    for missing in wanted.iter().filter(|wanted| !granted.contains(wanted) && !is_given(wanted)) {
        let message = format!("Filter {name} needs the capability {missing}, which is not granted");
        report.tell(Code::NotGranted, &object, "spec.capabilities", message);
    }
    for vain in granted.iter().filter(|granted| !wanted.contains(granted) && !is_given(granted)) {
        let message = format!("Filter {name} does not use the capability {vain}");
        report.tell(Code::GrantedInVain, &object, "spec.capabilities", message);
    }
}

/// Policies that run one filter with one configuration twice.
fn twice(lens: &Lens<'_>, report: &mut Report) {
    let mut alike = BTreeMap::<_, Vec<&Object<FilterPolicySpec>>>::new();
    for policy in lens.all::<FilterPolicySpec>().filter(|policy| policy.spec.mode == PolicyMode::Enforce) {
        let inbound = policy.spec.direction == crate::bundle::Direction::Inbound;
        alike.entry((filter_of(policy), inbound, policy.spec.config.to_string())).or_default().push(policy);
    }
    for policies in alike.values().filter(|policies| policies.len() > 1) {
        for pair in policies.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            let held = |policy: &Object<FilterPolicySpec>| lens.held(&key_of(Kind::FilterPolicy, &policy.metadata));
            // Both are in the order of names: one walk through both finds what is in both.
            let (held_first, held_second) = (held(first), held(second));
            let mut others = held_second.iter().peekable();
            let both = held_first.iter().find(|workload| {
                while others.next_if(|other| other.name() < workload.name()).is_some() {}
                others.peek().is_some_and(|other| other.name() == workload.name())
            });
            if let Some(workload) = both {
                let message = format!(
                    "FilterPolicy {} attaches the same filter with the same configuration to Workload {}",
                    first.name(),
                    workload.name()
                );
                report.tell(Code::AttachedTwice, &key_of(Kind::FilterPolicy, &second.metadata), "spec.filter", message);
            }
        }
    }
}
