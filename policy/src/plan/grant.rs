//! References into other namespaces that need nobody's grant.

use crate::bundle::ObjectName;
use crate::resource::AnyRoute;

/// A consumer's route may send requests for a producer's service to that very service, says GAMMA: its callers may do so
/// without any route.
pub(super) fn needs_no_grant(route: AnyRoute<'_>, backend: &ObjectName) -> bool {
    route.spec.parent_refs.iter().any(|parent| {
        let namespace = parent.namespace.as_ref().unwrap_or(&route.metadata.namespace);
        parent.is_service() && *namespace == backend.namespace && parent.name == backend.name
    })
}
