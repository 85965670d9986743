//! Whether namespaces are apart: no object of one changes what the proxies of another hold, but for the services of the
//! first and the routes that it has for them. Only the mesh, in its own namespace, reaches everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{World, bundle_for};
use crate::bundle::{FilterAttachment, Grant, ObjectName, Revision, RouteAction};
use crate::delta::{Key, Object};
use crate::resource::{Object as Resource, ObjectKey, ROOT_NAMESPACE};
use crate::route::{Meant, Resolution, Resolver, RouteTable};

/// An object that reaches into another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intrusion {
    pub object: ObjectKey,
    pub namespace: String,
    /// What is otherwise there because of it.
    pub changes: Vec<String>,
}

impl fmt::Display for Intrusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, namespace, changes } = self;
        write!(f, "{object} changes what proxies in {namespace} hold: {}", changes.join(", "))
    }
}

/// Every object that changes what proxies of another namespace hold. Empty: the namespaces are apart.
pub fn intrusions(world: &World) -> Vec<Intrusion> {
    let served: BTreeSet<&str> = world.workloads().map(|it| it.metadata.namespace.as_str()).collect();
    let mut found = Vec::new();
    for namespace in owners(world) {
        let own: Vec<_> = world.iter().map(|(key, _)| key).filter(|key| key.namespace == namespace).collect();
        for other in served.iter().filter(|other| **other != namespace) {
            if changes(world, &without(world, &own), other, &namespace).is_empty() {
                continue;
            }
            let alone = own.iter().filter_map(|key| {
                let changes = changes(world, &without(world, &[*key]), other, &namespace);
                (!changes.is_empty()).then(|| Intrusion {
                    object: (*key).clone(),
                    namespace: (*other).to_owned(),
                    changes,
                })
            });
            found.extend(alone);
        }
    }
    found
}

/// Namespaces that have objects; the mesh's own is nobody's.
fn owners(world: &World) -> BTreeSet<String> {
    let all = world.iter().map(|(key, _)| key.namespace.clone());
    all.filter(|namespace| !namespace.is_empty() && namespace != ROOT_NAMESPACE).collect()
}

fn without(world: &World, keys: &[&ObjectKey]) -> World {
    let mut without = world.clone();
    for key in keys {
        without.remove(key);
    }
    without
}

/// The difference for the proxies of a namespace that the objects of `other` make.
fn changes(before: &World, after: &World, namespace: &str, other: &str) -> Vec<String> {
    let (had, has) = (held(before, namespace, other), held(after, namespace, other));
    let keys: BTreeSet<&Key> = had.keys().chain(has.keys()).collect();
    let differing = keys.into_iter().filter(|key| had.get(key) != has.get(key)).map(ToString::to_string);
    let (led, leads) = (reached(before, namespace, namespace), reached(after, namespace, namespace));
    differing.chain(led.difference(&leads).map(|place| format!("the way to {place}"))).collect()
}

/// Everything that the proxies of a namespace hold, without what the other namespace may tell everybody: its services, and
/// its routes for them.
pub(super) fn held(world: &World, namespace: &str, other: &str) -> BTreeMap<Key, Object> {
    let own = world.workloads().filter(|it| it.metadata.namespace == namespace);
    let served: Vec<ObjectName> = own.map(Resource::name).collect();
    let mut bundle = bundle_for(world, &served, Revision(1), "");
    bundle.services.retain(|name, _| name.namespace != other);
    bundle.routes.retain(|name, route| name.namespace != other || route.parent.namespace != other);
    // One is held that nobody here sees where a route leads to it, as the services that it leads to are.
    bundle.externals.retain(|name, _| name.namespace != other);
    // Who sends to a service of the other has asked for what becomes of it.
    let asked = |name: &Option<ObjectName>| name.as_ref().is_some_and(|name| name.namespace == other);
    for route in bundle.routes.values_mut() {
        let is_theirs = route.parent.namespace == other;
        let backends = route.rules.iter_mut().flat_map(|rule| &mut rule.backends);
        let led = backends.filter(|backend| is_theirs || asked(&backend.service));
        led.for_each(|backend| (backend.service, backend.outside) = (None, false));
        for rule in &mut route.rules {
            let of_backends = rule.backends.iter_mut().flat_map(|backend| &mut backend.actions);
            for action in rule.actions.iter_mut().chain(of_backends) {
                if let RouteAction::Mirror(mirror) = action
                    && (is_theirs || asked(&mirror.service))
                {
                    mirror.service = None;
                }
            }
        }
    }
    for filter in bundle.filters.values_mut() {
        forget_callouts(filter, other);
    }
    // The names of namespaces are everybody's: they tell which names are the mesh's.
    if let Some(mesh) = &mut bundle.mesh {
        mesh.namespaces.remove(other);
    }
    bundle.objects()
}

/// Whose filter calls a service of the other namespace has asked for what becomes of it, too.
fn forget_callouts(filter: &mut FilterAttachment, other: &str) {
    let theirs = format!(".{other}.svc.cluster.local:");
    for grant in &mut filter.grants {
        match grant {
            Grant::Callout(callout) => {
                let is_theirs = |authority: &String| authority.contains(&theirs);
                for service in callout.services.iter_mut().filter(|it| it.authority.as_ref().is_some_and(is_theirs)) {
                    service.authority = None;
                }
            }
            Grant::Kv(_) | Grant::Secret(_) | Grant::CryptoKeys(_) => {}
        }
    }
}

/// Where a caller of one namespace comes out who dials the addresses of another's services and workloads.
pub(super) fn reached(world: &World, caller: &str, callee: &str) -> BTreeSet<String> {
    let callers = world.workloads().filter(|it| it.metadata.namespace == caller).map(Resource::name);
    let bundle = bundle_for(world, &callers.take(1).collect::<Vec<_>>(), Revision(1), "");
    let Some(mesh) = bundle.mesh.clone() else { return BTreeSet::new() };
    let table = RouteTable::new(&Arc::new(bundle.clone()));
    let resolver = Resolver { table: &table, mesh: &mesh, from_namespace: caller, is_local: &|_| false };
    let own = bundle.services.values().filter(|service| service.name.namespace == callee);
    let sockets = own.flat_map(|service| {
        let at = |address, port| SocketAddr::new(address, port);
        let vips =
            service.vip.into_iter().flat_map(move |vip| service.ports.iter().map(move |port| at(vip, port.port)));
        let endpoints = service.endpoints.values();
        vips.chain(endpoints.flat_map(move |endpoint| {
            let own = service.ports.iter().filter_map(|port| port.target_of(&endpoint.workload));
            own.map(move |port| at(endpoint.address, port)).collect::<Vec<_>>()
        }))
    });
    let come_out = |socket: SocketAddr| match resolver.resolve(Meant::Address(socket), None) {
        Resolution::Mesh(to) => match to.endpoint {
            Some(endpoint) => format!("{socket}, {endpoint} of {}", to.service.name),
            None => format!("{socket}, {}", to.service.name),
        },
        Resolution::External(_) | Resolution::Outside | Resolution::Refused(_) | Resolution::Unknown(_) => {
            format!("{socket}, outside")
        }
    };
    sockets.map(come_out).collect()
}
