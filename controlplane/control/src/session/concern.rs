//! Changes that concern the proxy of a session, so that who waits for a change waits for those proxies alone that are told of it.

use super::Session;
use crate::hub::Published;

impl Session {
    /// Notes whether what this world changed concerns the proxy. One that holds everything is told of every change.
    pub(super) fn note_concern(&mut self, world: &Published) {
        let before = self.noticed.replace(world.told.clone());
        let is_same = before.as_ref().is_some_and(|before| std::ptr::eq(&**before, &*world.told));
        let concerns = match &self.scope {
            Some(scope) => scope.is_concerned(&world.told, before.as_deref(), &self.served),
            None => true,
        };
        if !is_same {
            self.hub.registry().record_change(&self.seat, world.revision, concerns);
        }
    }
}
