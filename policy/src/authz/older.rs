//! Rules for engines of contract 0.1, which know neither addresses nor hosts nor claims. Invariant: such an engine lets nobody
//! in whom today's would refuse if address, host and claims were not known.

use super::{Action, Config, Operation, Policy, Rule, Source};

impl Config {
    /// The same without conditions on addresses, hosts and claims: what allows by one is left out, and what denies by one
    /// denies by its other conditions. `None`: it has no such condition.
    #[must_use]
    pub fn for_older(&self) -> Option<Self> {
        let rules = || self.policies.iter().flat_map(|policy| &policy.rules);
        let is_newer = |rule: &Rule| rule.from.iter().any(is_blind) || rule.to.iter().any(Operation::is_hosted);
        rules().any(is_newer).then(|| {
            let policies = self.policies.iter().map(policy).collect();
            Self { trust_domain: self.trust_domain.clone(), policies }
        })
    }
}

/// True where it looks at what they don't know.
fn is_blind(source: &Source) -> bool {
    source.is_placed() || source.is_claimed()
}

fn policy(policy: &Policy) -> Policy {
    let rules = policy.rules.iter().enumerate().filter_map(|(index, of)| rule(policy.action, index, of)).collect();
    Policy { name: policy.name.clone(), action: policy.action, rules }
}

/// `None`: it is left out.
fn rule(action: Action, index: usize, rule: &Rule) -> Option<Rule> {
    let from = list(action, &rule.from, is_blind, |source| Source {
        ip_blocks: Vec::new(),
        not_ip_blocks: Vec::new(),
        claims: Vec::new(),
        ..source.clone()
    })?;
    let to = list(action, &rule.to, Operation::is_hosted, |operation| Operation {
        hosts: Vec::new(),
        not_hosts: Vec::new(),
        ..operation.clone()
    })?;
    // A rule is told by its place among all, also where some are left out.
    Some(Rule { name: rule.name.clone().or_else(|| Some(index.to_string())), from, to })
}

/// The entries of a list, of which any will do. `None`: none is left that can be met.
fn list<T: Clone + Default + PartialEq>(
    action: Action,
    entries: &[T],
    is_blind: impl Fn(&T) -> bool,
    bare: impl Fn(&T) -> T,
) -> Option<Vec<T>> {
    let kept: Vec<T> = match action {
        Action::Allow => entries.iter().filter(|entry| !is_blind(entry)).cloned().collect(),
        Action::Deny => entries.iter().map(bare).collect(),
    };
    if kept.is_empty() && !entries.is_empty() {
        return None;
    }
    // One without any condition is met by everything, which no entry may say, and no list does.
    Some(if kept.contains(&T::default()) { Vec::new() } else { kept })
}
