//! What is closed for a proxy beside an object that it can't hold: whatever that would have narrowed. More may be closed than
//! need be, never less.

use weft_policy::bundle::{Direction, FilterMode, Route};
use weft_policy::delta::Object;

use crate::view::View;

/// True where something that is missing would have narrowed what the object lets through.
pub(super) fn is_exposed(object: &Object, missing: &[&Object], view: &View) -> bool {
    let mut missing = missing.iter().copied();
    match object {
        Object::Route(route) => missing.any(|it| {
            let is_of_bytes = route.kind.is_of_bytes();
            matches!(it, Object::Route(other) if is_beside(other, route) && other.kind.is_of_bytes() == is_of_bytes)
        }),
        // What looks into no connection knows no route that could refuse one.
        Object::Service(service) => missing.any(|it| {
            let holds = |other: &Route| !other.outside && other.parent == service.name;
            matches!(it, Object::Route(other) if holds(other) && other.kind.is_of_bytes())
        }),
        // Not every release knows even a closed route of one.
        Object::External(external) => {
            missing.any(|it| matches!(it, Object::Route(other) if other.outside && other.parent == external.name))
        }
        Object::Workload(workload) => missing.any(|it| match it {
            // What is audited lets everything through.
            Object::Filter(filter) => {
                filter.direction == Direction::Inbound
                    && filter.mode == FilterMode::Enforce
                    && view.is_without(&it.key())
                    && (filter.workloads.is_empty() || filter.workloads.contains(&workload.name))
            }
            Object::Mesh(_) | Object::External(_) | Object::Workload(_) | Object::Service(_) | Object::Route(_) => {
                false
            }
        }),
        Object::Mesh(_) | Object::Filter(_) => false,
    }
}

/// True for two routes of one parent.
fn is_beside(other: &Route, route: &Route) -> bool {
    other.outside == route.outside && other.parent == route.parent
}
