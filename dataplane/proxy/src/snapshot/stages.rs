//! Chains while a filter of theirs is still being made ready, or can't be. Invariant: nobody is let through meanwhile whom
//! either the chain before or the authorization of now would have refused.

use std::collections::HashMap;
use std::sync::Arc;

use weft_filter_host::{Chain, Prepared};
use weft_policy::bundle::{Bundle, Direction, FilterAttachment, FilterMode, ObjectName, OnFailure, ServedWorkload};

use super::SnapshotError;
use super::rules::RuleChain;

/// How far an attachment is, as it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It is being made ready.
    Pending,
    /// It can't be made ready.
    Failed,
}

/// What runs in the place of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// The attachment as it was told.
    Told,
    /// The configuration that ran before.
    Earlier,
    /// Nothing: requests pass it by.
    Skipped,
    /// Nothing yet, and nothing may be loosened for want of it.
    Nothing,
}

/// Decides what runs in the place of an attachment.
fn runs(readiness: Readiness, has_earlier: bool, is_required: bool) -> Runs {
    match (readiness, has_earlier, is_required) {
        (Readiness::Ready, _, _) => Runs::Told,
        (Readiness::Pending, true, _) | (Readiness::Failed, true, true) => Runs::Earlier,
        (Readiness::Pending | Readiness::Failed, false, true) => Runs::Nothing,
        (Readiness::Pending, false, false) | (Readiness::Failed, _, false) => Runs::Skipped,
    }
}

/// True for an attachment without which more would pass than is meant.
pub fn is_required(attachment: &FilterAttachment) -> bool {
    attachment.mode == FilterMode::Enforce && (attachment.authorization || attachment.on_failure == OnFailure::Deny)
}

/// True for an attachment without which the rules that it is attached to are closed.
pub fn closes_rules(attachment: &FilterAttachment) -> bool {
    !attachment.rules.is_empty() && is_required(attachment)
}

/// Filters that are ready, by attachment name; of one that is awaited, the configuration that ran before.
pub type Loaded = HashMap<String, Arc<Prepared>>;

/// Attachments that are told and do not run as told.
pub type Awaited = HashMap<String, Readiness>;

/// The filters that guard a chain which lacks one of its own: they ran in it when the wait began, and are not what was told
/// since.
pub(super) type Guard = Vec<Arc<Prepared>>;

/// Guards by workload and direction.
pub(super) type Guards = HashMap<(ObjectName, Direction), Guard>;

/// Filters of a bundle as far as they are ready, and what runs until the others are.
pub(super) struct Stage<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) loaded: &'a Loaded,
    pub(super) awaited: &'a Awaited,
}

impl Stage<'_> {
    /// The chain of a workload, and what guards it. `before`: the chain that it follows, with its guard.
    pub(super) fn chain(
        &self,
        workload: &ServedWorkload,
        direction: Direction,
        before: Option<(&Chain, Option<&Guard>)>,
    ) -> Result<(Chain, Option<Guard>), SnapshotError> {
        let attachments = attached(self.bundle, workload, direction);
        let mut filters = Vec::with_capacity(attachments.len());
        let mut lacking = None;
        for attachment in &attachments {
            let (readiness, filter) = self.stands_in(attachment)?;
            filters.extend(filter);
            if is_required(attachment) && readiness != Readiness::Ready {
                // A workload that was not served before has no chain that could stand in.
                before.ok_or_else(|| not_ready(attachment))?;
                lacking = before;
            }
        }
        let Some((chain, guard)) = lacking else { return Ok((Chain::new(filters), None)) };
        // Of the authorization that which ran when the wait began, whatever was told in its place meanwhile.
        let stays = |filter: &&Arc<Prepared>| match guard {
            Some(guard) if filter.spec().authorization => guard.iter().any(|guard| Arc::ptr_eq(guard, filter)),
            Some(_) | None => true,
        };
        let is_told = |filter: &Arc<Prepared>| match filter.spec().authorization {
            true => filters.iter().any(|told| Arc::ptr_eq(told, filter)),
            false => attachments.iter().any(|attachment| attachment.name == filter.spec().name),
        };
        let guard: Guard = chain.filters().iter().filter(stays).filter(|filter| !is_told(filter)).cloned().collect();
        let all = guard.iter().cloned().chain(filters).collect();
        Ok((Chain::new(all), Some(guard)))
    }

    /// The chain of a rule of a route, of these attachments. It is closed while it lacks one that it can't do without.
    pub(super) fn rule_chain<'b>(
        &self,
        attachments: impl Iterator<Item = &'b FilterAttachment>,
    ) -> Result<RuleChain, SnapshotError> {
        let (mut filters, mut lacking) = (Vec::new(), None);
        for attachment in in_order(attachments) {
            let (_, filter) = self.stands_in(attachment)?;
            if filter.is_none() && is_required(attachment) {
                lacking = lacking.or(Some(&attachment.name));
            }
            filters.extend(filter);
        }
        Ok(lacking.map_or_else(|| RuleChain::Runs(Chain::new(filters)), |name| RuleChain::Closed(name.clone())))
    }

    /// How far an attachment is, and what runs in its place.
    fn stands_in(&self, attachment: &FilterAttachment) -> Result<(Readiness, Option<Arc<Prepared>>), SnapshotError> {
        let loaded = self.loaded.get(&attachment.name);
        let readiness = match (self.awaited.get(&attachment.name), loaded) {
            (Some(readiness), _) => *readiness,
            (None, Some(_)) => Readiness::Ready,
            (None, None) if may_be_absent(attachment) => Readiness::Failed,
            (None, None) => return Err(not_ready(attachment)),
        };
        let filter = match runs(readiness, loaded.is_some(), is_required(attachment)) {
            Runs::Told | Runs::Earlier => loaded.cloned(),
            Runs::Skipped | Runs::Nothing => None,
        };
        Ok((readiness, filter))
    }
}

fn not_ready(attachment: &FilterAttachment) -> SnapshotError {
    SnapshotError::FilterNotReady { name: attachment.name.clone() }
}

/// True for an attachment that requests pass by where it can't run. An authorization that is audited lets everything
/// pass.
pub fn may_be_absent(attachment: &FilterAttachment) -> bool {
    attachment.on_failure == OnFailure::Allow && !is_required(attachment)
}

/// The attachments of a workload's chain, in the order in which they run.
fn attached<'b>(bundle: &'b Bundle, workload: &ServedWorkload, direction: Direction) -> Vec<&'b FilterAttachment> {
    let attached = bundle.filters.values().filter(|filter| filter.direction == direction && filter.rules.is_empty());
    in_order(attached.filter(|filter| holds_for(filter, workload)))
}

pub(super) fn holds_for(filter: &FilterAttachment, workload: &ServedWorkload) -> bool {
    filter.workloads.is_empty() || filter.workloads.contains(&workload.name)
}

fn in_order<'b>(attachments: impl Iterator<Item = &'b FilterAttachment>) -> Vec<&'b FilterAttachment> {
    let mut attachments: Vec<_> = attachments.collect();
    attachments.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    attachments
}

#[cfg(test)]
mod tests;
