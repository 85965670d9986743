//! Chains: prepared filters in the order in which they run. Immutable; snapshots hold them.

use std::sync::Arc;

use weft_policy::bundle::FilterMode;

use crate::chain::Hooks;
use crate::prepare::Prepared;

/// Filters in the order in which they run; those of authorization come last whatever order was given. What comes back
/// runs through them the other way.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    filters: Vec<Arc<Prepared>>,
    hooks: Hooks,
    needs_http: bool,
    keeps: bool,
}

impl Chain {
    /// Keeps the order given, but for the authorization filters, which move to the end.
    pub fn new(mut filters: Vec<Arc<Prepared>>) -> Self {
        filters.sort_by_key(|filter| filter.spec().authorization);
        let hooks_of = |filter: &Arc<Prepared>| filter.interest().hooks;
        let mut hooks = filters.iter().map(hooks_of).fold(Hooks::default(), Hooks::or);
        // A whole body is asked for in the run over its head.
        hooks.request_head |= hooks.whole_request;
        hooks.response_head |= hooks.whole_response;
        let needs_http = filters.iter().any(|filter| {
            let hooks = filter.interest().hooks;
            filter.spec().mode == FilterMode::Enforce && hooks.judge_requests() && !hooks.judge_streams()
        });
        let keeps = hooks.come_again() || hooks.whole_request || hooks.callout || hooks.tick;
        Self { filters, hooks, needs_http, keeps }
    }

    /// True where a filter that is enforced judges requests and no byte streams: one would pass it by.
    pub fn needs_http(&self) -> bool {
        self.needs_http
    }

    /// True where something must be kept for a stream between calls.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    pub fn filters(&self) -> &[Arc<Prepared>] {
        &self.filters
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The part of it that authorizes: what stands is judged again by that alone.
    #[must_use]
    pub fn authorization(&self) -> Self {
        Self::new(self.filters.iter().filter(|filter| filter.spec().authorization).cloned().collect())
    }

    /// True where the filters that authorize are the very same.
    #[must_use]
    pub fn authorizes_as(&self, other: &Self) -> bool {
        let of = |filter: &&Arc<Prepared>| filter.spec().authorization;
        self.filters.iter().filter(of).map(Arc::as_ptr).eq(other.filters.iter().filter(of).map(Arc::as_ptr))
    }

    pub fn has_authorization(&self) -> bool {
        self.filters.last().is_some_and(|filter| filter.spec().authorization)
    }

    /// Hooks that any of the chain's filters asked for: a hook that is false here needs no call.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }
}
