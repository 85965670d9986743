//! A proxy's account of a workload that it serves. The same checks run on both sides: in `weft-proxy --check` before it
//! is sent, and in the control plane before it is believed. A `Registration` that exists makes a resource that can be
//! stored, loaded and planned; whether its account may have all that it asks for is decided by the control plane.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::bundle::{ObjectName, Protocol};
use crate::identity::{SpiffeId, is_label, is_subdomain};
use crate::resource::core::is_port_name;
use crate::resource::mesh::WorkloadPortSpec;
use crate::resource::{Metadata, Object, Resource, WorkloadSpec, wrong_labels};
use crate::text::printable;

/// Labels of one workload.
pub const MAX_LABELS: usize = 64;
/// Ports of one workload.
pub const MAX_PORTS: usize = 128;
/// The largest share that a workload may ask for; most ask for 1.
pub const MAX_WEIGHT: u32 = 100;
/// Labels under this prefix are the control plane's own.
pub const OWN_PREFIX: &str = "weft.dev/";

/// Names that mean something else wherever a program looks them up.
const RESERVED: [&str; 11] = [
    "broadcasthost",
    "instance-data",
    "internal",
    "isatap",
    "kubernetes",
    "local",
    "localdomain",
    "localhost",
    "metadata",
    "weft-control",
    "wpad",
];

/// A workload as it is told, believed by nobody yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    pub namespace: String,
    pub name: String,
    pub address: String,
    /// Address at which the proxy takes mesh traffic, ip:port.
    pub mesh_address: String,
    pub ports: Vec<(u32, Protocol)>,
    pub labels: BTreeMap<String, String>,
    /// Names of ports, by which a Service's targetPort may mean them.
    pub port_names: BTreeMap<u32, String>,
    /// Service to stand behind.
    pub service: Option<String>,
    pub weight: u32,
}

/// A part of what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    ProxyName,
    Namespace,
    Name,
    Address,
    MeshAddress,
    Ports,
    Labels,
    Service,
    Weight,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxyName => "proxy_name",
            Self::Namespace => "namespace",
            Self::Name => "name",
            Self::Address => "address",
            Self::MeshAddress => "mesh_address",
            Self::Ports => "ports",
            Self::Labels => "labels",
            Self::Service => "service",
            Self::Weight => "weight",
        })
    }
}

/// Why a part of it can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Fault {
    pub field: Field,
    pub reason: String,
}

/// A workload that can be made of what was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    workload: Object<WorkloadSpec>,
    service: Option<String>,
}

impl Registration {
    /// # Errors
    /// Everything that is wrong with what was told.
    pub fn new(told: Told, identity: &SpiffeId) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        names(&told, &mut faults);
        labels(&told.labels, &mut faults);
        let ports = ports(&told.ports, &told.port_names, &mut faults);
        let address = parsed(Field::Address, "an IP address", &told.address, &mut faults);
        let mesh_address: Option<SocketAddr> = parsed(Field::MeshAddress, "ip:port", &told.mesh_address, &mut faults);
        let (address, mesh_address) =
            (address.map(|address: IpAddr| address.to_canonical()), mesh_address.map(canonical));
        let dialled = [(Field::Address, address), (Field::MeshAddress, mesh_address.map(|socket| socket.ip()))];
        for (field, address) in dialled {
            if let Some(reason) = address.and_then(not_a_host) {
                faults.push(Fault { field, reason });
            }
        }
        if mesh_address.is_some_and(|socket| socket.port() == 0) {
            faults.push(Fault { field: Field::MeshAddress, reason: "port 0 can't be dialled".to_owned() });
        }
        if told.weight > MAX_WEIGHT {
            let reason = format!("{} is more than {MAX_WEIGHT}", told.weight);
            faults.push(Fault { field: Field::Weight, reason });
        }
        let (Some(address), Some(mesh_address), true) = (address, mesh_address, faults.is_empty()) else {
            return Err(faults);
        };
        let metadata =
            Metadata { name: told.name, namespace: told.namespace, labels: told.labels, ..Metadata::default() };
        let spec = WorkloadSpec {
            address,
            addresses: Vec::new(),
            ports,
            service_account: identity.service_account().to_owned(),
            weight: told.weight.max(1),
            mesh_address: Some(mesh_address),
        };
        let resource = Resource::Workload(Object { metadata, spec });
        let faults: Vec<_> =
            resource.check().into_iter().map(|wrong| Fault { field: Field::Name, reason: wrong.to_string() }).collect();
        if faults.is_empty()
            && let Resource::Workload(workload) = resource
        {
            return Ok(Self { workload, service: told.service });
        }
        Err(faults)
    }

    pub fn name(&self) -> ObjectName {
        self.workload.name()
    }

    /// The resource that it makes; the control plane adds the labels by which its service selects it.
    pub fn workload(&self) -> &Object<WorkloadSpec> {
        &self.workload
    }

    /// The service that it asks to stand behind.
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }
}

/// The name of a proxy, as its workloads are named.
///
/// # Errors
/// It is none.
pub fn proxy_name(name: &str) -> Result<(), Fault> {
    match is_subdomain(name) {
        true => Ok(()),
        false => Err(Fault { field: Field::ProxyName, reason: not_a_name(name) }),
    }
}

fn not_a_name(name: &str) -> String {
    format!("{:?} is not a name: lower-case letters, digits, '-' and '.', at most 253", printable(name))
}

fn names(told: &Told, faults: &mut Vec<Fault>) {
    let mut refuse = |field, reason| faults.push(Fault { field, reason });
    if !is_label(&told.namespace) {
        let reason = format!(
            "{:?} is not a namespace: lower-case letters, digits and '-', at most 63",
            printable(&told.namespace)
        );
        refuse(Field::Namespace, reason);
    }
    if !is_subdomain(&told.name) {
        refuse(Field::Name, not_a_name(&told.name));
    }
    if let Some(service) = &told.service {
        if !is_label(service) {
            let reason = format!(
                "{:?} is not the name of a service: lower-case letters, digits and '-', at most 63",
                printable(service)
            );
            refuse(Field::Service, reason);
        } else if RESERVED.contains(&service.as_str()) {
            refuse(Field::Service, format!("{service:?} is reserved: programs look it up for something else"));
        }
    }
}

fn labels(labels: &BTreeMap<String, String>, faults: &mut Vec<Fault>) {
    let mut refuse = |reason| faults.push(Fault { field: Field::Labels, reason });
    if labels.len() > MAX_LABELS {
        return refuse(format!("{} labels; at most {MAX_LABELS} are taken", labels.len()));
    }
    for (key, message) in wrong_labels(labels) {
        refuse(format!("{key:?} {message}"));
    }
    for key in labels.keys().filter(|key| key.starts_with(OWN_PREFIX)) {
        refuse(format!("{:?} is the control plane's own", printable(key)));
    }
}

fn ports(told: &[(u32, Protocol)], names: &BTreeMap<u32, String>, faults: &mut Vec<Fault>) -> Vec<WorkloadPortSpec> {
    let mut refuse = |reason| faults.push(Fault { field: Field::Ports, reason });
    if told.len().max(names.len()) > MAX_PORTS {
        refuse(format!("{} ports; at most {MAX_PORTS} are taken", told.len().max(names.len())));
        return Vec::new();
    }
    let (mut seen, mut ports) = (BTreeSet::new(), Vec::with_capacity(told.len()));
    for (number, protocol) in told {
        match u16::try_from(*number) {
            Ok(port) if port != 0 && *protocol == Protocol::Udp => {
                refuse(format!("port {port}: UDP is not carried yet"));
            }
            Ok(port) if port != 0 && seen.insert(port) => {
                ports.push(WorkloadPortSpec { port, protocol: *protocol, name: names.get(number).cloned() });
            }
            Ok(port) if port != 0 => refuse(format!("port {port} is listed twice")),
            Ok(_) | Err(_) => refuse(format!("{number} is not a port: 1 to 65535")),
        }
    }
    let mut named = BTreeSet::new();
    for (number, name) in names {
        if told.iter().all(|(port, _)| port != number) {
            refuse(format!("{number} has a name and is not listed"));
        } else if !is_port_name(name) {
            let name = printable(name);
            refuse(format!(
                "{name:?} is not the name of a port: lower-case letters, digits and '-', at most 15, with a letter"
            ));
        } else if !named.insert(name) {
            refuse(format!("{name:?} is the name of several ports"));
        }
    }
    ports
}

fn parsed<T: std::str::FromStr>(field: Field, what: &str, text: &str, faults: &mut Vec<Fault>) -> Option<T> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        faults.push(Fault { field, reason: format!("{:?} is not {what}", printable(text)) });
    }
    parsed
}

fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

/// Why callers on other machines could not mean one host by it.
fn not_a_host(address: IpAddr) -> Option<String> {
    let (link_local, reserved) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] == 0 || v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), false),
    };
    let why = if address.is_unspecified() {
        "stands for every address of a machine, so nobody can dial it: give the one that callers reach"
    } else if address.is_multicast() {
        "is a group's, no host's"
    } else if link_local {
        "is link-local: it means another machine on each link"
    } else if reserved {
        "is reserved, no host's"
    } else {
        return None;
    };
    Some(format!("{address} {why}"))
}
