//! Endpoints that leave go ahead of everything else that a proxy is told. A service that the proxy loses as a whole keeps its
//! endpoints until the delta that takes it away together with the routes to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_policy::delta::{self, Key};
use weft_policy::plan::{World, has_endpoint};
use weft_policy::wire::v1;

use super::Session;
use crate::hub::Published;
use crate::told::ToldSet;

impl Session {
    /// Sends the endpoints that left or moved. False when the stream is closed.
    pub(super) async fn send_removals(&mut self, world: &Published) -> bool {
        if self.left_alone.is_some() {
            return true;
        }
        let before = self.target.clone();
        self.look_at(world);
        let removals = match Arc::ptr_eq(&before, &self.target) {
            true => Vec::new(),
            false => withdrawn(&before, &self.target, &world.world),
        };
        if removals.is_empty() {
            return true;
        }
        let touched = removals.iter().filter_map(|key| {
            let Key::Endpoint { service, .. } = key else { return None };
            Some(Key::Service(service.clone()))
        });
        self.view.handle_subtraction(&touched.collect::<BTreeSet<_>>());
        tracing::debug!(proxy = %self.seat.key, removals = removals.len(), "endpoint removals sent");
        self.hub.metrics().removals.increment(1);
        let removals = removals.iter().map(Into::into).collect();
        let delta = v1::Delta { revision: world.revision.0, removals, subtractive: true, ..self.delta() };
        self.send_one(delta).await
    }
}

/// Endpoints of `before` that leave at once: those that their service has lost, and of a service that the proxy loses as a
/// whole those that are gone from the world.
fn withdrawn(before: &ToldSet, after: &ToldSet, world: &World) -> Vec<Key> {
    let mut keys = Vec::new();
    for told in before.iter() {
        let now = after.get(&told.key);
        if now.is_some_and(|now| Arc::ptr_eq(now, told)) {
            continue;
        }
        if let Some(service) = told.service() {
            let now = now.and_then(|now| now.service());
            keys.extend(delta::withdrawn(service, now, |endpoint| !has_endpoint(world, endpoint)));
        }
    }
    keys
}
