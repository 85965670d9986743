//! Decides whether a resource may enter the world: one judgement for each kind, whoever made the resource. Records of
//! the store are read without it, so that a stricter release still reads the records of an older one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::core::{ACCOUNTS, PATH_READING};
use super::publisher::unusable;
use super::retry::RETRY_METHODS;
use super::{
    DEFAULT_NAMESPACE, Holding, Kind, Metadata, Object, ROOT_NAMESPACE, Resource, ServiceSpec, TargetKind, TargetRef,
    USES, WorkloadSpec, used_service,
};
use crate::bundle::Protocol;
use crate::identity::{is_label, is_subdomain};
use crate::manifest::ResourceError;

/// Bytes of the name and of the value of a label.
//= kubernetes-labels#syntax-and-character-set
const MAX_LABEL: usize = 63;

impl Resource {
    /// Everything that is wrong with it by itself; empty where it is fit.
    pub fn check(&self) -> Vec<ResourceError> {
        let mut wrong = Vec::new();
        metadata(self.kind(), self.metadata(), &mut wrong);
        if let Some(held) = Holding::of(self) {
            not_for_the_mesh(held.kind, held.targets, &mut wrong);
        }
        let checked = match self {
            Self::Service(service) => {
                service_itself(service, &mut wrong);
                service.spec.check()
            }
            Self::Workload(workload) => {
                spec_of_workload(&workload.spec, &mut wrong);
                Vec::new()
            }
            Self::HttpRoute(route) => {
                if let Some(message) = route.check_retry_methods() {
                    refuse(&mut wrong, format!("metadata.annotations.{RETRY_METHODS}"), message);
                }
                route.spec.check()
            }
            Self::GrpcRoute(route) => route.spec.check(),
            Self::TlsRoute(route) => route.spec.check(),
            Self::TcpRoute(route) => route.spec.check(),
            Self::ReferenceGrant(grant) => grant.spec.check(),
            Self::Secret(secret) => secret.spec.check(),
            Self::FilterPolicy(policy) => policy.spec.check(),
            Self::RateLimitPolicy(policy) => policy.spec.check(),
            Self::FaultPolicy(policy) => policy.spec.check(),
            Self::JwtPolicy(policy) => policy.spec.check(),
            Self::AccessPolicy(policy) => {
                not_for_routes(self.kind(), &policy.spec.target_refs, &mut wrong);
                policy.check()
            }
            Self::PolicyTemplate(template) => template.spec.check(),
            Self::TrafficPolicy(policy) => policy.spec.check(&policy.metadata),
            Self::ExternalService(external) => external.check(),
            Self::Mesh(mesh) => unusable(&mesh.spec.filter_publishers, "filterPublishers").collect(),
            Self::FilterPublisher(publisher) => publisher.spec.check(),
            Self::Namespace(_) | Self::Filter(_) => Vec::new(),
        };
        for (key, message) in checked {
            let key = if key.is_empty() { "spec".to_owned() } else { format!("spec.{key}") };
            refuse(&mut wrong, key, message);
        }
        wrong
    }
}

fn refuse(wrong: &mut Vec<ResourceError>, key: impl Into<String>, message: impl Into<String>) {
    wrong.push(ResourceError { key: key.into(), message: message.into() });
}

fn metadata(kind: Kind, metadata: &Metadata, wrong: &mut Vec<ResourceError>) {
    let Metadata { name, namespace, labels, annotations: _ } = metadata;
    if matches!(kind, Kind::Namespace | Kind::Workload)
        && let Some(text) = metadata.listed_uses().find(|text| used_service(text, DEFAULT_NAMESPACE).is_none())
    {
        let message = format!("{text:?} is no service: NAME or NAME.NAMESPACE, apart by commas, is expected");
        refuse(wrong, format!("metadata.annotations.{USES}"), message);
    }
    if !is_subdomain(name) {
        refuse(wrong, "metadata.name", not_a_name(name));
    } else if matches!(kind, Kind::Namespace | Kind::Service) && !is_label(name) {
        refuse(wrong, "metadata.name", format!("{name:?} is not a DNS label, at most 63 without dots"));
    }
    match kind.is_namespaced() {
        true if !is_label(namespace) => {
            let message = format!("{namespace:?} is not a name: lower-case letters, digits and '-', at most 63");
            refuse(wrong, "metadata.namespace", message);
        }
        false if !namespace.is_empty() => {
            let message = format!("kind {kind} is of the whole mesh and has no namespace");
            refuse(wrong, "metadata.namespace", message);
        }
        true | false => {}
    }
    for (key, message) in wrong_labels(labels) {
        refuse(wrong, format!("metadata.labels.{key}"), message);
    }
}

fn not_a_name(name: &str) -> String {
    format!("{name:?} is not a name: lower-case letters, digits, '-' and '.', at most 253")
}

/// Labels that selectors, metrics and terminals can't carry, each with the reason.
pub fn wrong_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    let judged = |(key, value): (&String, &String)| {
        let message = if !is_label_key(key) {
            "is not the key of a label: [prefix/]name of letters, digits, '-', '_' and '.', the name at most 63"
        } else if !is_label_value(value) {
            "its value is not that of a label: at most 63 letters, digits, '-', '_' and '.'"
        } else {
            return None;
        };
        Some((crate::text::printable(key).into_owned(), message.to_owned()))
    };
    labels.iter().filter_map(judged)
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && !name.is_empty() && is_label_value(name),
        None => !key.is_empty() && is_label_value(key),
    }
}

/// Empty, or bounded by letters or digits.
fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= MAX_LABEL && bytes.iter().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

/// A policy for workloads has a form for all of them.
fn not_for_the_mesh(kind: Kind, targets: &[TargetRef], wrong: &mut Vec<ResourceError>) {
    for (index, target) in targets.iter().enumerate() {
        let message = match target.kind {
            TargetKind::Mesh => format!("a {kind} for the whole mesh is one of {ROOT_NAMESPACE} without targetRefs"),
            TargetKind::ExternalService => format!("a {kind} is for workloads, which an ExternalService has none of"),
            TargetKind::Service
            | TargetKind::Workload
            | TargetKind::Namespace
            | TargetKind::HttpRoute
            | TargetKind::GrpcRoute => continue,
        };
        refuse(wrong, format!("spec.targetRefs[{index}].kind"), message);
    }
}

/// The callee decides no routes: a policy of callees has none to be for.
fn not_for_routes(kind: Kind, targets: &[TargetRef], wrong: &mut Vec<ResourceError>) {
    for (index, target) in targets.iter().enumerate() {
        if target.kind.route().is_some() {
            let message = format!("no {kind} is for a route: it judges at the callee, which decides none");
            refuse(wrong, format!("spec.targetRefs[{index}].kind"), message);
        } else if target.section_name.is_some() {
            refuse(wrong, format!("spec.targetRefs[{index}].sectionName"), "only a route has named rules");
        }
    }
}

fn service_itself(service: &Object<ServiceSpec>, wrong: &mut Vec<ResourceError>) {
    if let Some(address) = service.spec.cluster_ip {
        virtual_address(address, wrong);
    }
    if let Err(error) = service.path_reading() {
        refuse(wrong, format!("metadata.annotations.{PATH_READING}"), error.to_string());
    }
    if let Some(account) = service.accounts().find(|account| !is_subdomain(account)) {
        let message = format!("{account:?} is not a service account: names apart by commas are expected");
        refuse(wrong, format!("metadata.annotations.{ACCOUNTS}"), message);
    }
}

fn spec_of_workload(spec: &WorkloadSpec, wrong: &mut Vec<ResourceError>) {
    one_host("spec.address", spec.address, wrong);
    for (index, address) in spec.addresses.iter().enumerate() {
        one_host(&format!("spec.addresses[{index}]"), *address, wrong);
    }
    if let Some(socket) = spec.mesh_address.filter(|socket| !can_be_dialled(*socket)) {
        refuse(wrong, "spec.meshAddress", format!("{:?} is not ip:port", socket.to_string()));
    }
    if !is_subdomain(&spec.service_account) {
        refuse(wrong, "spec.serviceAccount", not_a_name(&spec.service_account));
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let key = format!("spec.ports[{index}]");
        if port.port == 0 {
            refuse(wrong, format!("{key}.port"), "0 is not a port: 1 to 65535");
        }
        if port.protocol == Protocol::Udp {
            refuse(wrong, format!("{key}.protocol"), "protocol udp is not supported yet");
        }
        if let Some(name) = &port.name
            && spec.ports[..index].iter().any(|other| other.name.as_ref() == Some(name))
        {
            refuse(wrong, format!("{key}.name"), format!("{name:?} is given twice"));
        }
    }
}

/// Everybody's requests to it become the service's: an address that machines give a meaning of their own is none.
fn virtual_address(address: IpAddr, wrong: &mut Vec<ResourceError>) {
    one_host("spec.clusterIP", address, wrong);
    if address.to_canonical().is_loopback() {
        refuse(wrong, "spec.clusterIP", format!("{address} is each machine's own"));
    }
}

fn one_host(key: &str, address: IpAddr, wrong: &mut Vec<ResourceError>) {
    if !is_one_host(address) {
        refuse(wrong, key, format!("{address} is not the address of one machine"));
    }
}

pub(super) fn is_one_host(address: IpAddr) -> bool {
    let is_link_local = match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_unspecified() && !address.is_multicast() && !is_link_local
}

/// Callers can send to it.
fn can_be_dialled(socket: SocketAddr) -> bool {
    socket.port() != 0 && is_one_host(socket.ip())
}
