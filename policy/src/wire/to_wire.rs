//! Inner types to messages. Can't fail.

use super::v1;
use crate::bundle::{
    AppVersion, Backend, Direction, Egress, Endpoint, FilterAttachment, FilterMode, HeaderModifier, MeshSettings,
    ObjectName, OnFailure, PathMatch, Protocol, Route, RouteMatch, RouteRule, ServedWorkload, Service, ServicePort,
    WorkloadPort,
};
use crate::delta::{Delta, Key, Object};
use crate::lineage::Lineage;

impl From<&Delta> for v1::Delta {
    fn from(delta: &Delta) -> Self {
        Self {
            revision: delta.revision.0,
            upserts: delta.upserts.iter().map(Into::into).collect(),
            removals: delta.removals.iter().map(Into::into).collect(),
            subtractive: delta.subtractive,
            full: delta.full,
            lineage: None,
        }
    }
}

impl From<&Lineage> for v1::Lineage {
    fn from(lineage: &Lineage) -> Self {
        let Lineage { store, epoch, supersedes } = lineage.clone();
        Self { store, epoch, supersedes }
    }
}

impl From<&Object> for v1::Object {
    fn from(object: &Object) -> Self {
        use v1::object::Object as Wire;
        let object = match object {
            Object::Mesh(mesh) => Wire::Mesh(mesh.into()),
            Object::Workload(workload) => Wire::Workload(workload.into()),
            Object::Service(service) => Wire::Service(service.into()),
            Object::Route(route) => Wire::Route(route.into()),
            Object::Filter(filter) => Wire::Filter(filter.into()),
        };
        Self { object: Some(object) }
    }
}

impl From<&Key> for v1::Key {
    fn from(key: &Key) -> Self {
        let (kind, name, workload) = match key {
            Key::Mesh => (v1::Kind::Mesh, String::new(), String::new()),
            Key::Workload(name) => (v1::Kind::Workload, name.to_string(), String::new()),
            Key::Service(name) => (v1::Kind::Service, name.to_string(), String::new()),
            Key::Route(name) => (v1::Kind::Route, name.to_string(), String::new()),
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

impl From<&MeshSettings> for v1::Mesh {
    fn from(mesh: &MeshSettings) -> Self {
        Self {
            trust_domain: mesh.trust_domain.to_string(),
            trust_bundle_pem: mesh.trust_bundle_pem.clone(),
            access_log: mesh.access_log,
            request_timeout_ms: mesh.request_timeout_ms,
            connect_timeout_ms: mesh.connect_timeout_ms,
            max_retries: mesh.max_retries,
            egress: match mesh.egress {
                Egress::Allow => v1::Egress::Allow,
                Egress::RegistryOnly => v1::Egress::RegistryOnly,
            }
            .into(),
            namespaces: mesh.namespaces.iter().cloned().collect(),
        }
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

impl From<AppVersion> for v1::AppVersion {
    fn from(version: AppVersion) -> Self {
        match version {
            AppVersion::AsCaller => Self::AsCaller,
            AppVersion::Http1 => Self::Http1,
            AppVersion::Http2 => Self::Http2,
        }
    }
}

impl From<&WorkloadPort> for v1::WorkloadPort {
    fn from(port: &WorkloadPort) -> Self {
        Self {
            port: port.port.into(),
            protocol: v1::Protocol::from(port.protocol).into(),
            app_version: v1::AppVersion::from(port.app_version).into(),
            path_reading: port.path_reading.to_string(),
            opaque_refused: port.opaque_refused,
        }
    }
}

impl From<&ServedWorkload> for v1::Workload {
    fn from(workload: &ServedWorkload) -> Self {
        Self {
            name: Some((&workload.name).into()),
            identity: workload.identity.to_string(),
            address: workload.address.to_string(),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            ports: workload.ports.iter().map(Into::into).collect(),
            labels: workload.labels.clone(),
            service: workload.service.as_ref().map(Into::into),
        }
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: Some((&service.name).into()),
            ports: service.ports.iter().map(Into::into).collect(),
            vip: service.vip.map(|vip| vip.to_string()),
            path_reading: service.path_reading.to_string(),
            endpoints: service.endpoints.values().map(Into::into).collect(),
        }
    }
}

impl From<&ServicePort> for v1::ServicePort {
    fn from(port: &ServicePort) -> Self {
        Self {
            name: port.name.clone(),
            port: port.port.into(),
            target_port: port.target_port.into(),
            opaque_refused: port.opaque_refused,
            protocol: v1::Protocol::from(port.protocol).into(),
            app_version: v1::AppVersion::from(port.app_version).into(),
        }
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            workload: Some((&endpoint.workload).into()),
            identity: endpoint.identity.as_ref().map(ToString::to_string),
            address: endpoint.address.to_string(),
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            mesh_address: endpoint.mesh_address.to_string(),
            weight: endpoint.weight,
            labels: endpoint.labels.clone(),
        }
    }
}

impl From<&Route> for v1::Route {
    fn from(route: &Route) -> Self {
        Self {
            name: Some((&route.name).into()),
            parent: Some((&route.parent).into()),
            parent_port: route.parent_port.map(Into::into),
            consumer_namespace: route.consumer_namespace.clone(),
            created: route.created.0,
            rules: route.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&RouteRule> for v1::RouteRule {
    fn from(rule: &RouteRule) -> Self {
        Self {
            name: rule.name.clone(),
            matches: rule.matches.iter().map(Into::into).collect(),
            request_headers: Some((&rule.request_headers).into()),
            backends: rule.backends.iter().map(Into::into).collect(),
            request_timeout_ms: rule.request_timeout_ms,
        }
    }
}

impl From<&RouteMatch> for v1::RouteMatch {
    fn from(route_match: &RouteMatch) -> Self {
        use v1::route_match::Path;
        let header = |header: &crate::bundle::HeaderMatch| field(&header.name, &header.value);
        Self {
            path: route_match.path.as_ref().map(|path| match path {
                PathMatch::Exact(path) => Path::Exact(path.clone()),
                PathMatch::Prefix(path) => Path::Prefix(path.clone()),
            }),
            method: route_match.method.clone(),
            headers: route_match.headers.iter().map(header).collect(),
        }
    }
}

fn field(name: &str, value: &str) -> v1::HeaderField {
    v1::HeaderField { name: name.to_owned(), value: value.to_owned() }
}

impl From<&HeaderModifier> for v1::HeaderModifier {
    fn from(modifier: &HeaderModifier) -> Self {
        let fields = |list: &[(String, String)]| list.iter().map(|(name, value)| field(name, value)).collect();
        Self { set: fields(&modifier.set), add: fields(&modifier.add), remove: modifier.remove.clone() }
    }
}

impl From<&Backend> for v1::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            service: backend.service.as_ref().map(Into::into),
            port: backend.port.into(),
            weight: backend.weight,
            request_headers: Some((&backend.request_headers).into()),
        }
    }
}

impl From<&FilterAttachment> for v1::Filter {
    fn from(filter: &FilterAttachment) -> Self {
        let direction = match filter.direction {
            Direction::Inbound => v1::Direction::Inbound,
            Direction::Outbound => v1::Direction::Outbound,
        };
        let mode = match filter.mode {
            FilterMode::Enforce => v1::FilterMode::Enforce,
            FilterMode::Audit => v1::FilterMode::Audit,
        };
        let on_failure = match filter.on_failure {
            OnFailure::Deny => v1::OnFailure::Deny,
            OnFailure::Allow => v1::OnFailure::Allow,
        };
        Self {
            name: filter.name.clone(),
            filter: filter.filter.clone(),
            version: filter.version.clone(),
            digest: filter.digest.clone(),
            signature: filter.signature.clone(),
            public_key_pem: filter.public_key_pem.clone(),
            direction: direction.into(),
            order: filter.order,
            mode: mode.into(),
            on_failure: on_failure.into(),
            authorization: filter.authorization,
            config: filter.config.0.clone(),
            capabilities: filter.capabilities.clone(),
            memory_bytes: filter.limits.memory_bytes,
            call_timeout_ms: filter.limits.call_timeout_ms,
            workloads: filter.workloads.iter().map(Into::into).collect(),
        }
    }
}
