//! Nobody attaches a filter whose publisher the mesh does not trust. What was attached before stays written down and
//! does not run, so that a key can be taken out at any moment.

use std::collections::BTreeSet;

use weft_policy::lint::{self, Code, Finding, Near, Severity};
use weft_policy::plan::{Action, Change, World};
use weft_policy::resource::{Attaching, Kind};

use super::ApplyError;

/// Refuses changes by which a policy would ask for such a filter.
pub(super) fn check(world: &World, changes: &[Change]) -> Result<(), ApplyError> {
    let made = changes.iter().filter(|change| matches!(change.action, Action::Created | Action::Changed));
    let policies = made.map(|change| &change.object).filter(|key| key.kind.attaches_filters());
    let refused = policies.filter_map(|key| {
        let policy = Attaching::of(&world.get(key)?.resource)?;
        let (code, severity) = (Code::PublisherDistrusted, Severity::Error);
        let message = world.distrusted(&policy)?;
        Some(Finding { code, severity, object: key.clone(), key: policy.place("spec.filter").to_owned(), message })
    });
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(ApplyError::Unsound(refused)) }
}

/// The policies that a removal of this kind leaves without a trusted publisher, or without a value of a Secret: their
/// filters end with it.
pub(super) fn lost(removed: Kind, before: &World, after: &World, near: &Near) -> Vec<Finding> {
    if !matches!(removed, Kind::Secret | Kind::FilterPublisher) {
        return Vec::new();
    }
    let of = |world: &World| {
        let mut findings = lint::check_near(world, near);
        findings.retain(|finding| matches!(finding.code, Code::PublisherDistrusted | Code::SecretMissing));
        findings
    };
    let known = of(before);
    let known: BTreeSet<_> = known.iter().map(Finding::place).collect();
    let mut new = of(after);
    new.retain(|finding| !known.contains(&finding.place()));
    new
}
