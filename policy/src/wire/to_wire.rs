//! Inner types to messages. Can't fail.

use super::{encode, v1};
use crate::bundle::{ObjectName, Protocol};
use crate::delta::{Delta, Key};
use crate::lineage::Lineage;
use crate::scope::Ask;

impl From<&Delta> for v1::Delta {
    fn from(delta: &Delta) -> Self {
        Self {
            revision: delta.revision.0,
            upserts: delta.upserts.iter().map(encode).collect(),
            removals: delta.removals.iter().map(Into::into).collect(),
            subtractive: delta.subtractive,
            ahead: delta.ahead,
            full: delta.full,
            lineage: None,
            more: false,
            answered: delta.answered.iter().map(Into::into).collect(),
            view: 0,
            svid_ttl_seconds: 0,
            stages: false,
        }
    }
}

impl From<&Ask> for v1::Ask {
    fn from(ask: &Ask) -> Self {
        let what = match ask {
            Ask::Service(name) => v1::ask::What::Service(name.into()),
            Ask::Address(address) => v1::ask::What::Address(address.to_string()),
        };
        Self { what: Some(what) }
    }
}

impl From<&Lineage> for v1::Lineage {
    fn from(lineage: &Lineage) -> Self {
        let Lineage { store, epoch, supersedes } = lineage.clone();
        Self { store, epoch, supersedes }
    }
}

impl From<&Key> for v1::Key {
    fn from(key: &Key) -> Self {
        let (kind, name, workload) = match key {
            Key::Mesh => (v1::Kind::Mesh, String::new(), String::new()),
            Key::Workload(name) => (v1::Kind::Workload, name.to_string(), String::new()),
            Key::Service(name) => (v1::Kind::Service, name.to_string(), String::new()),
            Key::Route(name) => (v1::Kind::Route, name.to_string(), String::new()),
            Key::External(name) => (v1::Kind::External, name.to_string(), String::new()),
            Key::Filter(name) => (v1::Kind::Filter, name.clone(), String::new()),
            Key::Endpoint { service, workload } => (v1::Kind::Endpoint, service.to_string(), workload.to_string()),
        };
        Self { kind: kind.into(), name, workload }
    }
}

impl From<&ObjectName> for v1::ObjectName {
    fn from(name: &ObjectName) -> Self {
        Self { namespace: name.namespace.clone(), name: name.name.clone() }
    }
}

impl From<Protocol> for v1::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http,
            Protocol::Grpc => Self::Grpc,
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Auto => Self::Auto,
        }
    }
}
