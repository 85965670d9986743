//! Messages to inner types. Every error names its field; nothing that a peer sends panics.

use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderName, HeaderValue};

use super::{WireError, v1};
use crate::bundle::serde_json_raw::Json;
use crate::bundle::{
    AppVersion, Backend, Direction, Egress, Endpoint, FilterAttachment, FilterLimits, FilterMode, HeaderMatch,
    HeaderModifier, MeshSettings, ObjectName, OnFailure, PathMatch, Protocol, Revision, Route, RouteMatch, RouteRule,
    ServedWorkload, Service, ServicePort, WorkloadPort,
};
use crate::delta::{Delta, Key, Object};
use crate::lineage::Lineage;
use crate::path::PathReading;
use crate::registration::{Fault, Field, Told};

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

impl WireError {
    fn inside(mut self, field: impl std::fmt::Display) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }
}

fn parse<T: FromStr>(field: &str, text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().or_else(|error: T::Err| wrong(field, format_args!("{text:?}: {error}")))
}

/// A part that must be there.
fn part<W, T>(field: &str, value: Option<W>) -> Result<T>
where
    T: TryFrom<W, Error = WireError>,
{
    match value {
        Some(value) => T::try_from(value).map_err(|error| error.inside(field)),
        None => wrong(field, "is missing"),
    }
}

fn list<W, T>(field: &str, values: Vec<W>) -> Result<Vec<T>>
where
    T: TryFrom<W, Error = WireError>,
{
    let each = |(index, value)| T::try_from(value).map_err(|error| error.inside(format_args!("{field}[{index}]")));
    values.into_iter().enumerate().map(each).collect()
}

fn port(field: &str, port: u32) -> Result<u16> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => wrong(field, format_args!("{port} is not a port")),
    }
}

/// An enumeration; 0 and numbers that this version doesn't know are wrong.
fn known<W: TryFrom<i32>>(field: &str, number: i32) -> Result<W> {
    W::try_from(number).or_else(|_| wrong(field, format_args!("{number} is not known to this version")))
}

impl TryFrom<v1::Delta> for Delta {
    type Error = WireError;

    fn try_from(delta: v1::Delta) -> Result<Self> {
        let delta = Self {
            revision: Revision(delta.revision),
            upserts: list("upserts", delta.upserts)?,
            removals: list("removals", delta.removals)?,
            subtractive: delta.subtractive,
            full: delta.full,
        };
        if delta.subtractive && (delta.full || !delta.upserts.is_empty()) {
            return wrong("subtractive", "a subtractive delta only removes");
        }
        Ok(delta)
    }
}

impl TryFrom<v1::Object> for Object {
    type Error = WireError;

    fn try_from(object: v1::Object) -> Result<Self> {
        use v1::object::Object as Wire;
        let inside = |kind: &'static str| move |error: WireError| error.inside(kind);
        match object.object {
            Some(Wire::Mesh(mesh)) => mesh.try_into().map(Self::Mesh).map_err(inside("mesh")),
            Some(Wire::Workload(workload)) => workload.try_into().map(Self::Workload).map_err(inside("workload")),
            Some(Wire::Service(service)) => service.try_into().map(Self::Service).map_err(inside("service")),
            Some(Wire::Route(route)) => route.try_into().map(Self::Route).map_err(inside("route")),
            Some(Wire::Filter(filter)) => filter.try_into().map(Self::Filter).map_err(inside("filter")),
            None => wrong("object", "is missing or not known to this version"),
        }
    }
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
            v1::Kind::Filter => Self::Filter(key.name),
            v1::Kind::Endpoint => {
                Self::Endpoint { service: parse("name", &key.name)?, workload: parse("workload", &key.workload)? }
            }
        })
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

impl TryFrom<v1::Mesh> for MeshSettings {
    type Error = WireError;

    fn try_from(mesh: v1::Mesh) -> Result<Self> {
        Ok(Self {
            trust_domain: parse("trust_domain", &mesh.trust_domain)?,
            trust_bundle_pem: mesh.trust_bundle_pem,
            access_log: mesh.access_log,
            request_timeout_ms: mesh.request_timeout_ms,
            connect_timeout_ms: mesh.connect_timeout_ms,
            max_retries: mesh.max_retries,
            egress: match known::<v1::Egress>("egress", mesh.egress)? {
                v1::Egress::Allow => Egress::Allow,
                v1::Egress::RegistryOnly => Egress::RegistryOnly,
            },
            namespaces: mesh.namespaces.into_iter().collect(),
        })
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

fn app_version(number: i32) -> Result<AppVersion> {
    Ok(match known::<v1::AppVersion>("app_version", number)? {
        v1::AppVersion::AsCaller => AppVersion::AsCaller,
        v1::AppVersion::Http1 => AppVersion::Http1,
        v1::AppVersion::Http2 => AppVersion::Http2,
    })
}

/// Empty: nothing is declared.
fn path_reading(text: &str) -> Result<PathReading> {
    if text.is_empty() { Ok(PathReading::default()) } else { parse("path_reading", text) }
}

/// An IPv4 address mapped into IPv6 is that IPv4 address.
fn address(field: &str, text: &str) -> Result<IpAddr> {
    parse::<IpAddr>(field, text).map(|address| address.to_canonical())
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>> {
    texts.iter().map(|text| address("addresses", text)).collect()
}

impl TryFrom<v1::WorkloadPort> for WorkloadPort {
    type Error = WireError;

    fn try_from(wire: v1::WorkloadPort) -> Result<Self> {
        Ok(Self {
            port: port("port", wire.port)?,
            protocol: protocol(wire.protocol)?,
            app_version: app_version(wire.app_version)?,
            path_reading: path_reading(&wire.path_reading)?,
            opaque_refused: wire.opaque_refused,
        })
    }
}

impl TryFrom<v1::Workload> for ServedWorkload {
    type Error = WireError;

    fn try_from(workload: v1::Workload) -> Result<Self> {
        Ok(Self {
            name: part("name", workload.name)?,
            identity: parse("identity", &workload.identity)?,
            address: address("address", &workload.address)?,
            addresses: addresses(&workload.addresses)?,
            ports: list("ports", workload.ports)?,
            labels: workload.labels,
            service: workload.service.map(|name| part("service", Some(name))).transpose()?,
        })
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = WireError;

    fn try_from(service: v1::Service) -> Result<Self> {
        let endpoints: Vec<Endpoint> = list("endpoints", service.endpoints)?;
        Ok(Self {
            name: part("name", service.name)?,
            ports: list("ports", service.ports)?,
            vip: service.vip.map(|vip| address("vip", &vip)).transpose()?,
            path_reading: path_reading(&service.path_reading)?,
            endpoints: endpoints.into_iter().map(|endpoint| (endpoint.workload.clone(), endpoint)).collect(),
        })
    }
}

impl TryFrom<v1::ServicePort> for ServicePort {
    type Error = WireError;

    fn try_from(wire: v1::ServicePort) -> Result<Self> {
        Ok(Self {
            name: wire.name,
            port: port("port", wire.port)?,
            target_port: port("target_port", wire.target_port)?,
            opaque_refused: wire.opaque_refused,
            protocol: protocol(wire.protocol)?,
            app_version: app_version(wire.app_version)?,
        })
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = WireError;

    fn try_from(endpoint: v1::Endpoint) -> Result<Self> {
        Ok(Self {
            workload: part("workload", endpoint.workload)?,
            identity: endpoint.identity.map(|identity| parse("identity", &identity)).transpose()?,
            address: address("address", &endpoint.address)?,
            addresses: addresses(&endpoint.addresses)?,
            mesh_address: parse("mesh_address", &endpoint.mesh_address)?,
            weight: endpoint.weight,
            labels: endpoint.labels,
        })
    }
}

impl TryFrom<v1::Route> for Route {
    type Error = WireError;

    fn try_from(route: v1::Route) -> Result<Self> {
        Ok(Self {
            name: part("name", route.name)?,
            parent: part("parent", route.parent)?,
            parent_port: route.parent_port.map(|number| port("parent_port", number)).transpose()?,
            consumer_namespace: route.consumer_namespace,
            created: Revision(route.created),
            rules: list("rules", route.rules)?,
        })
    }
}

impl TryFrom<v1::RouteRule> for RouteRule {
    type Error = WireError;

    fn try_from(rule: v1::RouteRule) -> Result<Self> {
        Ok(Self {
            name: rule.name,
            matches: list("matches", rule.matches)?,
            request_headers: modifier("request_headers", rule.request_headers)?,
            backends: list("backends", rule.backends)?,
            request_timeout_ms: rule.request_timeout_ms,
        })
    }
}

impl TryFrom<v1::RouteMatch> for RouteMatch {
    type Error = WireError;

    fn try_from(wire: v1::RouteMatch) -> Result<Self> {
        use v1::route_match::Path;
        let header = |field: v1::HeaderField| HeaderMatch { name: field.name.to_ascii_lowercase(), value: field.value };
        Ok(Self {
            path: wire.path.map(|path| match path {
                Path::Exact(path) => PathMatch::Exact(path),
                Path::Prefix(path) => PathMatch::Prefix(path),
            }),
            method: wire.method,
            headers: wire.headers.into_iter().map(header).collect(),
        })
    }
}

fn modifier(field: &str, wire: Option<v1::HeaderModifier>) -> Result<HeaderModifier> {
    let Some(wire) = wire else { return Ok(HeaderModifier::default()) };
    let name = |name: &str| parse::<HeaderName>(field, name).map(|name| name.as_str().to_owned());
    let fields = |list: Vec<v1::HeaderField>| {
        let one = |entry: v1::HeaderField| {
            parse::<HeaderValue>(field, &entry.value)?;
            Ok((name(&entry.name)?, entry.value))
        };
        list.into_iter().map(one).collect::<Result<Vec<_>>>()
    };
    let remove = wire.remove.iter().map(|text| name(text)).collect::<Result<Vec<_>>>()?;
    Ok(HeaderModifier { set: fields(wire.set)?, add: fields(wire.add)?, remove })
}

impl TryFrom<v1::Backend> for Backend {
    type Error = WireError;

    fn try_from(backend: v1::Backend) -> Result<Self> {
        Ok(Self {
            service: backend.service.map(|name| part("service", Some(name))).transpose()?,
            port: u16::try_from(backend.port).or_else(|_| wrong("port", "is not a port"))?,
            weight: backend.weight,
            request_headers: modifier("request_headers", backend.request_headers)?,
        })
    }
}

impl TryFrom<v1::Filter> for FilterAttachment {
    type Error = WireError;

    fn try_from(filter: v1::Filter) -> Result<Self> {
        let hex = filter.digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return wrong("digest", "is not sha256: and 64 hex digits");
        }
        Ok(Self {
            direction: match known::<v1::Direction>("direction", filter.direction)? {
                v1::Direction::Unspecified => return wrong("direction", "is missing"),
                v1::Direction::Inbound => Direction::Inbound,
                v1::Direction::Outbound => Direction::Outbound,
            },
            mode: match known::<v1::FilterMode>("mode", filter.mode)? {
                v1::FilterMode::Unspecified => return wrong("mode", "is missing"),
                v1::FilterMode::Enforce => FilterMode::Enforce,
                v1::FilterMode::Audit => FilterMode::Audit,
            },
            on_failure: match known::<v1::OnFailure>("on_failure", filter.on_failure)? {
                v1::OnFailure::Unspecified => return wrong("on_failure", "is missing"),
                v1::OnFailure::Deny => OnFailure::Deny,
                v1::OnFailure::Allow => OnFailure::Allow,
            },
            limits: FilterLimits { memory_bytes: filter.memory_bytes, call_timeout_ms: filter.call_timeout_ms },
            workloads: list("workloads", filter.workloads)?,
            config: Json(filter.config),
            name: filter.name,
            filter: filter.filter,
            version: filter.version,
            digest: filter.digest,
            signature: filter.signature,
            public_key_pem: filter.public_key_pem,
            order: filter.order,
            authorization: filter.authorization,
            capabilities: filter.capabilities,
        })
    }
}
