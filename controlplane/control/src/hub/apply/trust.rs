//! Nobody attaches a filter whose publisher the mesh does not trust. What was attached before stays written down and
//! does not run, so that a key can be taken out at any moment.

use weft_policy::lint::{Code, Finding, Severity};
use weft_policy::plan::{Action, Change, World};
use weft_policy::resource::Attaching;

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
