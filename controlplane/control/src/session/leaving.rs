//! Endpoints that leave a proxy's world at once, ahead of everything else.

use std::sync::Arc;

use weft_policy::bundle::{Endpoint, Service};
use weft_policy::delta::{self, Key};
use weft_policy::plan::World;

use crate::told::ToldSet;

/// Endpoints of `before` that leave at once. A service that the proxy holds no longer goes as a whole, with the routes that
/// lead to it: without its endpoints it would refuse until then what they send there. What is there no more goes all the
/// same.
pub(super) fn withdrawn(before: &ToldSet, after: &ToldSet, world: &World) -> Vec<Key> {
    let mut keys = Vec::new();
    for told in before.iter() {
        let now = after.get(&told.key);
        if now.is_some_and(|now| Arc::ptr_eq(now, told)) {
            continue;
        }
        let Some(service) = told.service() else { continue };
        match now.and_then(|now| now.service()) {
            Some(now) => keys.extend(delta::withdrawn(service, Some(now))),
            None => keys.extend(gone(service, world)),
        }
    }
    keys
}

/// The endpoints of a service whose workloads are gone, or elsewhere.
fn gone(service: &Service, world: &World) -> impl Iterator<Item = Key> {
    let is_there = move |endpoint: &Endpoint| {
        world.workload(&endpoint.workload).is_some_and(|workload| workload.spec.mesh_address() == endpoint.mesh_address)
    };
    let left = service.endpoints.values().filter(move |endpoint| !is_there(endpoint));
    left.map(move |endpoint| Key::Endpoint { service: service.name.clone(), workload: endpoint.workload.clone() })
}
