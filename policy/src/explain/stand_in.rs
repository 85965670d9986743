//! What runs in the place of a filter that may not run: its publisher is not trusted, or a secret of its is missing.

use super::Engine;
use crate::authz;
use crate::bundle::FilterAttachment;

/// The rules by which it refuses whatever the filter would judge. `None`: the filter itself runs, or it is the one of the
/// access policies.
pub(super) fn of(filter: &FilterAttachment) -> Option<Engine> {
    if filter.authorization || filter.filter != "authz" {
        return None;
    }
    let config: authz::Config = serde_json::from_str(&filter.config.0).ok()?;
    Engine::new(&config).ok()
}
