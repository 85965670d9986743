//! Access rules beside each other: those that say what an earlier one says, and those that a deny policy takes back.

use std::collections::BTreeMap;

use super::lens::{Lens, key_of};
use super::{Code, Report};
use crate::authz::Action;
use crate::resource::access::RuleSpec;
use crate::resource::{AccessPolicySpec, Kind, Object};

type Policy = Object<AccessPolicySpec>;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for policy in lens.world.access_policies() {
        repeated(policy, report);
    }
    contradicted(lens, report);
}

/// A rule's conditions as text, without its name: alike where the rules are.
fn conditions(rule: &RuleSpec) -> (String, String) {
    let text = |part: &dyn std::fmt::Debug| format!("{part:?}");
    let from = if rule.from.is_empty() { String::new() } else { text(&rule.from) };
    let to = if rule.to.is_empty() { String::new() } else { text(&rule.to) };
    (from, to)
}

fn place(index: usize, rule: &RuleSpec) -> String {
    rule.name.as_ref().map_or_else(|| format!("rules[{index}]"), |name| format!("rules[{index}] ({name})"))
}

/// Rules of one policy of which the later adds nothing.
fn repeated(policy: &Policy, report: &mut Report) {
    let object = key_of(Kind::AccessPolicy, &policy.metadata);
    let mut seen = BTreeMap::new();
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        let own = conditions(rule);
        let covering = covering(&own).find_map(|key| seen.get(&key).copied());
        if let Some(first) = covering {
            let message = format!("{} holds for all of it already", place(first, &policy.spec.rules[first]));
            report.tell(Code::RepeatedRule, &object, format!("spec.rules[{index}]"), message);
        }
        seen.entry(own).or_insert(index);
    }
}

/// The conditions of rules that hold wherever one with these does.
fn covering((from, to): &(String, String)) -> impl Iterator<Item = (String, String)> {
    let none = String::new;
    [(from.clone(), to.clone()), (from.clone(), none()), (none(), to.clone()), (none(), none())].into_iter()
}

/// Allow rules that a deny policy covers for every workload of theirs.
fn contradicted(lens: &Lens<'_>, report: &mut Report) {
    let mut denying = BTreeMap::<(String, String), Vec<&Policy>>::new();
    for policy in lens.world.access_policies().filter(|policy| policy.spec.action == Action::Deny) {
        if policy.spec.rules.is_empty() {
            denying.entry((String::new(), String::new())).or_default().push(policy);
        }
        for rule in &policy.spec.rules {
            // Each part of a rule's lists denies by itself.
            let parts = |count: usize| if count == 0 { vec![None] } else { (0..count).map(Some).collect() };
            for from in parts(rule.from.len()) {
                for to in parts(rule.to.len()) {
                    let alone = RuleSpec {
                        name: None,
                        from: from.map(|at| rule.from[at].clone()).into_iter().collect(),
                        to: to.map(|at| rule.to[at].clone()).into_iter().collect(),
                    };
                    denying.entry(conditions(&alone)).or_default().push(policy);
                }
            }
            denying.entry(conditions(rule)).or_default().push(policy);
        }
    }
    if denying.is_empty() {
        return;
    }
    for policy in lens.world.access_policies().filter(|policy| policy.spec.action == Action::Allow) {
        for (index, rule) in policy.spec.rules.iter().enumerate() {
            let own = conditions(rule);
            let mut covering = covering(&own).filter_map(|key| denying.get(&key)).flatten();
            if let Some(deny) = covering.find(|deny| covers_targets(lens, deny, policy)) {
                let message = format!("AccessPolicy {} denies all that it allows", deny.name());
                let object = key_of(Kind::AccessPolicy, &policy.metadata);
                report.tell(Code::Contradicted, &object, format!("spec.rules[{index}]"), message);
            }
        }
    }
}

/// A deny policy holds for every workload that an allow policy holds for, of which there are some.
fn covers_targets(lens: &Lens<'_>, deny: &Policy, allow: &Policy) -> bool {
    let held = |policy: &Policy| lens.held(&key_of(Kind::AccessPolicy, &policy.metadata));
    let mut denied = held(deny).iter();
    let allowed = held(allow);
    !allowed.is_empty() && allowed.iter().all(|workload| denied.any(|other| std::ptr::eq(*other, *workload)))
}
