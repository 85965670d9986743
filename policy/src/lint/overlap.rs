//! Access rules beside each other: those that say what an earlier one says, and those that a deny policy takes back.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::{Lens, key_of};
use super::{Code, Report};
use crate::authz::Action;
use crate::bundle::ObjectName;
use crate::resource::access::RuleSpec;
use crate::resource::filter::PolicyMode;
use crate::resource::{AccessPolicySpec, Kind, Object};

type Policy = Object<AccessPolicySpec>;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for policy in lens.all::<AccessPolicySpec>() {
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

/// A deny rule by its parts. Each entry of `from` with each of `to` denies by itself, and so do all of them: whichever of
/// the texts a caller's and a request's conditions have, the rule holds for them.
struct Denying<'w> {
    policy: &'w Policy,
    to: BTreeSet<String>,
}

/// Deny rules that are looked at for one allow rule: a world where more begin alike is told less.
const MAX_LOOKS: usize = 256;

/// The texts of a rule's list: none, or that of each entry and that of all.
fn parts<T: std::fmt::Debug>(list: &[T]) -> BTreeSet<String> {
    let each = list.iter().map(|entry| {
        #[cfg(test)]
        crate::plan::work::count();
        format!("{:?}", [entry])
    });
    let whole = (!list.is_empty()).then(|| format!("{list:?}"));
    each.chain(whole).collect()
}

/// Policies that decide; what is watched takes nothing back.
fn enforced<'w>(lens: &Lens<'w>) -> impl Iterator<Item = &'w Policy> {
    lens.all::<AccessPolicySpec>().filter(|policy| policy.spec.mode == PolicyMode::Enforce)
}

/// Allow rules that a deny policy covers for every workload of theirs.
fn contradicted(lens: &Lens<'_>, report: &mut Report) {
    let mut denying = Vec::<Denying<'_>>::new();
    // Deny rules by a text of their `from`; "" where they hold for every caller.
    let mut by_source = BTreeMap::<String, Vec<usize>>::new();
    for policy in enforced(lens).filter(|policy| policy.spec.action == Action::Deny) {
        let everything = policy.spec.rules.is_empty().then(RuleSpec::default);
        for rule in policy.spec.rules.iter().chain(&everything) {
            let sources = if rule.from.is_empty() { [String::new()].into() } else { parts(&rule.from) };
            for source in sources {
                by_source.entry(source).or_default().push(denying.len());
            }
            denying.push(Denying { policy, to: parts(&rule.to) });
        }
    }
    if denying.is_empty() {
        return;
    }
    for policy in enforced(lens).filter(|policy| policy.spec.action == Action::Allow) {
        let mut covered = BTreeMap::<ObjectName, bool>::new();
        let mut covers =
            |deny: &Policy| *covered.entry(deny.name()).or_insert_with(|| covers_targets(lens, deny, policy));
        for (index, rule) in policy.spec.rules.iter().enumerate() {
            let (from, to) = conditions(rule);
            let anybody = String::new();
            let sources = if from.is_empty() { vec![&anybody] } else { vec![&from, &anybody] };
            let near = sources.into_iter().filter_map(|source| by_source.get(source)).flatten().take(MAX_LOOKS);
            let found = near.map(|at| &denying[*at]).find(|deny| {
                #[cfg(test)]
                crate::plan::work::count();
                (deny.to.is_empty() || deny.to.contains(&to)) && covers(deny.policy)
            });
            if let Some(deny) = found {
                let message = format!("AccessPolicy {} denies all that it allows", deny.policy.name());
                let object = key_of(Kind::AccessPolicy, &policy.metadata);
                report.tell(Code::Contradicted, &object, format!("spec.rules[{index}]"), message);
            }
        }
    }
}

/// A deny policy holds for every workload that an allow policy holds for, of which there are some.
fn covers_targets(lens: &Lens<'_>, deny: &Policy, allow: &Policy) -> bool {
    let held = |policy: &Policy| lens.held(&key_of(Kind::AccessPolicy, &policy.metadata));
    let (denied, allowed) = (held(deny), held(allow));
    let mut denied = denied.iter();
    !allowed.is_empty() && allowed.iter().all(|workload| denied.any(|other| std::ptr::eq(*other, *workload)))
}
