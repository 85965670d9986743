//! Where routes of bytes hold: at ports that carry them. A port that is declared http or grpc carries requests.

use std::fmt;

use super::World;
use super::http_only::service_protocol;
use super::select::selected_by;
use crate::bundle::{ObjectName, Protocol, RouteKind};
use crate::resource::core::PortSpec;
use crate::resource::route::{ParentRef, Referred};
use crate::resource::{AnyRoute, Object, ServiceSpec};

/// The ports of a parent at which a TLSRoute or a TCPRoute can't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffPorts {
    kind: RouteKind,
    service: ObjectName,
    ports: Vec<u16>,
    /// The route has no other port of this parent.
    pub(super) everywhere: bool,
}

impl OffPorts {
    /// `None`: it can hold at each port that the parent names.
    pub(crate) fn of(world: &World, route: AnyRoute<'_>, parent: &ParentRef) -> Option<Self> {
        if !route.kind.is_of_bytes() {
            return None;
        }
        let service = world.service(&route.named(parent.namespace.as_deref(), &parent.name))?;
        let own = service.spec.served_ports().filter(|port| parent.is_at(port));
        let (on, off): (Vec<&PortSpec>, Vec<&PortSpec>) =
            own.partition(|port| route.kind.holds_at(protocol(world, service, port)));
        let ports = off.iter().map(|port| port.port).collect();
        let found = Self { kind: route.kind, service: service.name(), ports, everywhere: on.is_empty() };
        (!off.is_empty()).then_some(found)
    }
}

impl fmt::Display for OffPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let (service, kind) = (&self.service, self.kind.as_str());
        write!(f, "port {numbers} of Service {service} carries requests: a {kind} holds where bytes are carried")
    }
}

/// What a port of a service carries, with what its workloads say of it.
pub(super) fn protocol(world: &World, service: &Object<ServiceSpec>, port: &PortSpec) -> Protocol {
    service_protocol(port, &selected_by(world, service).collect::<Vec<_>>())
}

/// Why a route of bytes does not lead to a backend whose Service declares that its port carries requests: it refuses bytes.
pub(super) fn refuses_bytes(
    route: AnyRoute<'_>,
    service: &Object<ServiceSpec>,
    backend: Referred<'_>,
) -> Option<String> {
    let port = service.spec.port(backend.port).filter(|_| route.kind.is_of_bytes())?;
    let carries = route.kind.holds_at(port.protocol());
    (!carries).then(|| {
        let (declared, name) = (port.app_protocol.as_deref().unwrap_or_default(), service.name());
        format!("port {} of Service {name} is declared {declared}: no bytes are carried to it", port.port)
    })
}
