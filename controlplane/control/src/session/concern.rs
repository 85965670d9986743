//! Changes that concern the proxy of a session, so that who waits for a change waits for those proxies alone that are told of it.

use std::sync::Arc;

use super::Session;
use crate::hub::Published;

impl Session {
    /// Notes whether what this world changed concerns the proxy. One that is told everything is told of every change. False where it
    /// does not, and the proxy has all that it is to have: it is in step with this world without a word.
    pub(super) fn note_concern(&mut self, world: &Published) -> bool {
        let before = self.noticed.replace(world.told.clone());
        let is_same = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &world.told));
        let concerns = match &self.scope {
            Some(scope) if self.whole_for.is_none() => scope.is_concerned(&world.told, before.as_deref(), &self.served),
            Some(_) | None => true,
        };
        let has_seen = before.zip(self.looked_at.as_ref()).is_some_and(|(before, seen)| Arc::ptr_eq(&before, seen));
        let is_at_rest = has_seen && self.gathering.is_none() && self.left_alone.is_none() && self.view.is_at_rest();
        if !concerns && is_at_rest && self.hub.may_lead(self.follows.as_ref()).is_ok() {
            self.looked_at = Some(world.told.clone());
            self.view.pass_by(world.revision);
            self.hub.registry().record_passed(&self.seat, world.revision);
            return false;
        }
        if !is_same {
            self.hub.registry().record_change(&self.seat, world.revision, concerns);
        }
        true
    }
}
