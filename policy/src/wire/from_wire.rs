//! Messages to inner types. Every error names its field; nothing that a peer sends panics.

use std::str::FromStr;

use super::{WireError, v1};
use crate::bundle::{ObjectName, Protocol};
use crate::delta::Key;
use crate::identity::is_label;
use crate::lineage::Lineage;
use crate::registration::{Fault, Field, Told};
use crate::scope::Ask;

type Result<T> = std::result::Result<T, WireError>;

/// Longer ids and further superseded stores are cut off: who says so much gets no belief.
const LINEAGE: (usize, usize) = (64, 64);

impl From<v1::Lineage> for Lineage {
    fn from(lineage: v1::Lineage) -> Self {
        let id = |text: String| text.chars().filter(|c| !c.is_control()).take(LINEAGE.0).collect::<String>();
        let supersedes = lineage.supersedes.into_iter().take(LINEAGE.1).map(id).collect();
        Self { store: id(lineage.store), epoch: lineage.epoch, supersedes }
    }
}

fn wrong<T>(field: &str, message: impl ToString) -> Result<T> {
    Err(WireError { field: field.to_owned(), message: message.to_string() })
}

fn parse<T: FromStr>(field: &str, text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().or_else(|error: T::Err| wrong(field, format_args!("{text:?}: {error}")))
}

/// An enumeration; 0 and numbers that this version doesn't know are wrong.
fn known<W: TryFrom<i32>>(field: &str, number: i32) -> Result<W> {
    W::try_from(number).or_else(|_| wrong(field, format_args!("{number} is not known to this version")))
}

impl TryFrom<v1::Key> for Key {
    type Error = WireError;

    fn try_from(key: v1::Key) -> Result<Self> {
        Ok(match known::<v1::Kind>("kind", key.kind)? {
            v1::Kind::Unspecified => return wrong("kind", "is missing"),
            v1::Kind::Mesh => Self::Mesh,
            v1::Kind::Workload => Self::Workload(parse("name", &key.name)?),
            v1::Kind::Service => Self::Service(parse("name", &key.name)?),
            v1::Kind::Route => Self::Route(parse("name", &key.name)?),
            v1::Kind::External => Self::External(parse("name", &key.name)?),
            v1::Kind::Filter => Self::Filter(key.name),
            v1::Kind::Endpoint => {
                Self::Endpoint { service: parse("name", &key.name)?, workload: parse("workload", &key.workload)? }
            }
        })
    }
}

impl TryFrom<v1::Ask> for Ask {
    type Error = WireError;

    /// Names are those that services can have.
    fn try_from(ask: v1::Ask) -> Result<Self> {
        match ask.what {
            None => wrong("ask", "is of a kind that this version doesn't know"),
            Some(v1::ask::What::Service(name)) => {
                let name = ObjectName::try_from(name)?;
                match is_label(&name.namespace) && is_label(&name.name) {
                    true => Ok(Self::Service(name)),
                    false => wrong("ask.service", "is no name of a service"),
                }
            }
            Some(v1::ask::What::Address(text)) => parse("ask.address", &text).map(Self::address),
        }
    }
}

impl TryFrom<v1::ObjectName> for ObjectName {
    type Error = WireError;

    fn try_from(name: v1::ObjectName) -> Result<Self> {
        if name.namespace.is_empty() || name.name.is_empty() {
            return wrong("name", "is empty");
        }
        Ok(Self { namespace: name.namespace, name: name.name })
    }
}

fn protocol(number: i32) -> Result<Protocol> {
    match known::<v1::Protocol>("protocol", number)? {
        v1::Protocol::Unspecified => wrong("protocol", "is missing"),
        v1::Protocol::Http => Ok(Protocol::Http),
        v1::Protocol::Grpc => Ok(Protocol::Grpc),
        v1::Protocol::Tcp => Ok(Protocol::Tcp),
        v1::Protocol::Udp => Ok(Protocol::Udp),
        v1::Protocol::Auto => Ok(Protocol::Auto),
    }
}

impl TryFrom<&v1::WorkloadRegistration> for Told {
    type Error = Fault;

    /// Nothing is judged here but what this version can't even name.
    fn try_from(workload: &v1::WorkloadRegistration) -> std::result::Result<Self, Fault> {
        let port = |port: &v1::WorkloadPort| {
            let fault = |error: WireError| Fault { field: Field::Ports, reason: error.to_string() };
            protocol(port.protocol).map(|protocol| (port.port, protocol)).map_err(fault)
        };
        Ok(Self {
            namespace: workload.namespace.clone(),
            name: workload.name.clone(),
            address: workload.address.clone(),
            mesh_address: workload.mesh_address.clone(),
            ports: workload.ports.iter().map(port).collect::<std::result::Result<_, _>>()?,
            labels: workload.labels.clone(),
            port_names: workload.port_names.clone(),
            service: workload.service.clone(),
            weight: workload.weight,
        })
    }
}
