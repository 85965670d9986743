//! Answers that overtake a delta: a first call does not wait while its proxy compiles filters that do not judge it. Invariant:
//! what goes ahead is told again with the next delta, and what a filter that is missing would refuse does not go ahead.

use std::time::{Duration, Instant};

use weft_policy::bundle::ServedWorkload;
use weft_policy::delta::Object;
use weft_policy::wire::{self, v1};

use super::{Session, restricts_calls};
use crate::told::Told;

/// A proxy that has the filters of a delta compiled already answers sooner than this.
const PREPARING: Duration = Duration::from_millis(20);

impl Session {
    /// When questions are answered ahead of the delta in flight; `None`: they are answered with a delta, or there are none.
    pub(super) fn ahead_due(&self) -> Option<Instant> {
        let waits = self.scope.as_ref().is_some_and(super::Scope::waits_for_flight);
        let may = self.capabilities.contains(wire::ANSWERS_AHEAD) && self.left_alone.is_none() && !self.asks_too_often;
        (waits && may && self.view.is_preparing()).then(|| self.sent_at + PREPARING)
    }

    /// Answers what can be answered without the delta in flight. False when the stream is closed.
    pub(super) async fn send_ahead(&mut self) -> bool {
        if let Some(scope) = &mut self.scope {
            scope.went_ahead();
        }
        if let Err(is_open) = self.may_lead().await {
            return is_open;
        }
        let world = self.hub.published();
        self.look_at(&world);
        let Some(scope) = &self.scope else { return true };
        let answers = scope.answers(&world.told, &self.view, self.hub.knows_absences());
        if answers.is_empty() || self.lacks_judgement() {
            return true;
        }
        let services = world.told.closure(&self.served, &answers);
        let is_meant = |told: &Told| match &told.object {
            Object::Service(service) => services.contains(&service.name),
            Object::Route(route) => services.contains(&route.parent),
            Object::Mesh(_) | Object::Workload(_) | Object::External(_) | Object::Filter(_) => false,
        };
        let is_news =
            |told: &Told| !self.view.has(&told.key, told.version()) && !self.view.held().contains_key(&told.key);
        let told: Vec<_> = self.fitted.iter().filter(|told| is_meant(told) && is_news(told)).cloned().collect();
        self.view.handle_ahead(told.iter().map(|told| told.key.clone()));
        self.hub.metrics().answers_ahead.increment(1);
        let upserts = told.iter().map(|told| told.envelope.clone()).collect();
        let answered = answers.iter().map(Into::into).collect();
        let delta = v1::Delta { revision: world.revision.0, upserts, answered, ahead: true, ..self.delta() };
        tracing::debug!(proxy = %self.seat.key, revision = delta.revision, "answers sent ahead");
        self.send_one(delta).await
    }

    /// True while the proxy has not got everything that is to keep its apps from sending: what they would call waits for that.
    fn lacks_judgement(&self) -> bool {
        self.fitted.iter().any(|told| {
            let keeps = match &told.object {
                Object::Filter(filter) => restricts_calls(filter),
                Object::Workload(ServedWorkload { outbound_closed, .. }) => outbound_closed.is_some(),
                Object::Mesh(_) | Object::Service(_) | Object::Route(_) | Object::External(_) => false,
            };
            keeps && !self.view.has(&told.key, told.version())
        })
    }
}
