//! The copies of a request that its rule and its backend mirror. Whether one is made is the dice's; nothing of it decides
//! about the request itself.

#[cfg(test)]
mod tests;

use super::RouteTable;
use super::plan::{Plan, Target, target};
use crate::bundle::{Mirror, ObjectName, RouteAction, RouteRule, Service};

/// The mirrors of one rule and of each of its backends.
#[derive(Debug, Default)]
pub(super) struct RuleMirrors {
    pub(super) rule: Vec<Mirror>,
    pub(super) backends: Vec<Vec<Mirror>>,
}

impl RuleMirrors {
    pub(super) fn of(rule: &RouteRule) -> Self {
        let of = |actions: &[RouteAction]| mirrors(actions).cloned().collect();
        Self { rule: of(&rule.actions), backends: rule.backends.iter().map(|backend| of(&backend.actions)).collect() }
    }
}

/// The mirrors among actions.
pub fn mirrors(actions: &[RouteAction]) -> impl Iterator<Item = &Mirror> {
    actions.iter().filter_map(|action| match action {
        RouteAction::Mirror(mirror) => Some(mirror),
        RouteAction::RequestHeaders(_)
        | RouteAction::ResponseHeaders(_)
        | RouteAction::Rewrite(_)
        | RouteAction::Redirect(_)
        | RouteAction::Cors(_)
        | RouteAction::RequestTimeoutMs(_)
        | RouteAction::AttemptTimeoutMs(_)
        | RouteAction::Retry(_)
        | RouteAction::Persistence(_) => None,
    })
}

/// One copy of a request.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'t> {
    /// As the route names it; `None`: it does not resolve.
    pub named: Option<&'t ObjectName>,
    /// `None`: there is no such port or service, so that no copy can be sent.
    pub to: Option<(&'t Service, Target<'t>)>,
}

impl<'t> Plan<'t> {
    /// The copies of the request, the rule's first. `dice`: drawn once for each mirror, uniform over all of `u64`.
    pub fn copies(&self, table: &'t RouteTable, mut dice: impl FnMut() -> u64) -> Vec<Copied<'t>> {
        let mirrors = self.mirrors.into_iter().flatten();
        let chosen = mirrors.filter(|mirror| is_copied(mirror, dice()));
        let copied = |mirror: &'t Mirror| {
            let service = mirror.service.as_ref().and_then(|name| table.bundle.services.get(name));
            let to = service.and_then(|service| Some((service, target(service, mirror.port).ok()?)));
            Copied { named: mirror.service.as_ref(), to }
        };
        chosen.map(copied).collect()
    }

    /// True where requests of this plan may be copied.
    pub fn has_mirrors(&self) -> bool {
        self.mirrors.iter().any(|mirrors| !mirrors.is_empty())
    }
}

fn is_copied(mirror: &Mirror, dice: u64) -> bool {
    // Multiplying instead of a remainder: no bias worth naming.
    (u128::from(dice) * u128::from(mirror.denominator)) >> 64 < u128::from(mirror.numerator)
}
