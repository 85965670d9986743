//! Objects in their envelopes. What the envelope says decides before anything inside is read; inside is the bundle's object
//! in its own encoding, which refuses every field and variant that it does not know. Nothing that is not understood is
//! passed over but an object of an unknown kind that requires nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::check::check;
use super::{
    BACKEND_ANSWERS, CAPABILITIES, ENDPOINT_PORTS, EXTERNAL_ROUTES, EXTERNAL_SERVICE, EXTERNAL_STREAMS, EXTERNAL_TLS,
    FILTER_RULES, FILTER_SECRETS, FILTER_SHIPPED, FILTER_STATEMENT, GRPC_ROUTE, HEALTH_CHECKS, HEDGING, HOST_MATCH,
    OUTBOUND_CLOSED, PLACE_SHARES, REQUEST_MIRROR, ROUTE_RETRIES, Refused, SCOPE, SESSION_PERSISTENCE, SPREAD,
    STREAM_TIMEOUT, TCP_ROUTE, TLS_ROUTE, TRAFFIC_LIMITS, TRAFFIC_POLICY, v1,
};
use crate::bundle::{
    External, ExternalTls, FilterAttachment, Grant, Limits, Route, RouteAction, RouteKind, Service, Traffic,
};
use crate::delta::{Key, Object};
use crate::route::HOST;

/// Wraps an object for the wire.
pub fn encode(object: &Object) -> v1::Object {
    let payload = payload(object);
    let (key, version) = (Some((&object.key()).into()), digest(&payload));
    v1::Object { key, version, requires: requires(object), payload: payload.into() }
}

/// Capabilities without which a proxy would do less than the object says. A new field, variant or kind that restricts
/// comes with a new one, and is written only where it is used.
fn requires(object: &Object) -> Vec<String> {
    match object {
        Object::Filter(filter) => {
            let statement = filter.statement.as_ref().map(|_| FILTER_STATEMENT.to_owned());
            let rules = (!filter.rules.is_empty()).then(|| FILTER_RULES.to_owned());
            let shipped = filter.shipped.then(|| FILTER_SHIPPED.to_owned());
            let secrets = has_secrets(filter).then(|| FILTER_SECRETS.to_owned());
            let further = statement.into_iter().chain(rules).chain(shipped).chain(secrets);
            std::iter::once(filter.contract.clone()).chain(further).collect()
        }
        Object::Mesh(mesh) if mesh.ranges.is_some() => vec![SCOPE.to_owned()],
        Object::Workload(workload) if workload.outbound_closed.is_some() => vec![OUTBOUND_CLOSED.to_owned()],
        Object::Service(service) => required_by(service).map(str::to_owned).collect(),
        Object::Route(route) => required_by_route(route).map(str::to_owned).collect(),
        Object::External(external) => required_outside(external).map(str::to_owned).collect(),
        Object::Mesh(_) | Object::Workload(_) => Vec::new(),
    }
}

fn has_secrets(filter: &FilterAttachment) -> bool {
    filter.grants.iter().any(|grant| matches!(grant, Grant::Secret(_) | Grant::CryptoKeys(_)))
}

fn required_by(service: &Service) -> impl Iterator<Item = &'static str> {
    let has_others = service.ports.iter().any(|port| !port.other_targets.is_empty());
    let ports = has_others.then_some(ENDPOINT_PORTS);
    let traffic = service.traffic.as_ref();
    let limits = traffic.and_then(|traffic| traffic.limits.as_ref());
    let limits = limits.is_some_and(Limits::is_beyond_requests).then_some(TRAFFIC_LIMITS);
    let checks = traffic.filter(|traffic| traffic.checks_health()).map(|_| HEALTH_CHECKS);
    let shares = service.spread.as_ref().filter(|spread| !spread.shares.is_empty()).map(|_| PLACE_SHARES);
    let spread = service.spread.as_ref().map(|_| SPREAD).into_iter().chain(shares);
    let hedge = traffic.filter(|traffic| traffic.hedge.is_some()).map(|_| HEDGING);
    let stream = required_of_streams(service.traffic.as_deref());
    let traffic = traffic.map(|_| TRAFFIC_POLICY);
    ports.into_iter().chain(traffic).chain(limits).chain(checks).chain(spread).chain(hedge).chain(stream)
}

fn required_of_streams(traffic: Option<&Traffic>) -> Option<&'static str> {
    traffic.and_then(|traffic| traffic.stream_timeout_ms).map(|_| STREAM_TIMEOUT)
}

fn required_by_route(route: &Route) -> impl Iterator<Item = &'static str> {
    let kind = match route.kind {
        RouteKind::Grpc => Some(GRPC_ROUTE),
        RouteKind::Http => None,
        RouteKind::Tls => Some(TLS_ROUTE),
        RouteKind::Tcp => Some(TCP_ROUTE),
    };
    let retries = route.repeats().then_some(ROUTE_RETRIES);
    let mirrors = route.mirrors().then_some(REQUEST_MIRROR);
    let sessions = route.keeps_sessions().then_some(SESSION_PERSISTENCE);
    let mut backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let leads_out = backends.clone().any(|backend| backend.outside);
    let outside = (route.outside || leads_out).then_some(EXTERNAL_ROUTES);
    let streams = (leads_out && route.kind.is_of_bytes()).then_some(EXTERNAL_STREAMS);
    let answers = |action: &RouteAction| matches!(action, RouteAction::Redirect(_) | RouteAction::Cors(_));
    let answers = backends.any(|backend| backend.actions.iter().any(answers)).then_some(BACKEND_ANSWERS);
    let mut matches = route.rules.iter().flat_map(|rule| &rule.matches);
    let host = matches.any(|matching| matching.headers.iter().any(|header| header.name == HOST)).then_some(HOST_MATCH);
    let outside = outside.into_iter().chain(streams);
    kind.into_iter().chain(retries).chain(mirrors).chain(sessions).chain(outside).chain(answers).chain(host)
}

fn required_outside(external: &External) -> impl Iterator<Item = &'static str> {
    let tls = external.tls.as_ref().is_some_and(ExternalTls::is_beyond_name_and_roots).then_some(EXTERNAL_TLS);
    let traffic = external.traffic.as_deref();
    let routes = traffic.map(|_| EXTERNAL_ROUTES);
    std::iter::once(EXTERNAL_SERVICE).chain(routes).chain(tls).chain(required_of_streams(traffic))
}

fn payload(object: &Object) -> Vec<u8> {
    fn json(value: &impl Serialize) -> Vec<u8> {
        serde_json::to_vec(value).expect("objects of a bundle have string keys and no failing serialiser")
    }
    match object {
        Object::Mesh(mesh) => json(mesh),
        Object::Workload(workload) => json(workload),
        Object::Service(service) => json(service),
        Object::Route(route) => json(route),
        Object::External(external) => json(external),
        Object::Filter(filter) if has_secrets(filter) => json(&with_secrets(filter)),
        Object::Filter(filter) => json(filter),
    }
}

/// A filter with the values of its secrets, which are redacted wherever else it is written.
fn with_secrets(filter: &FilterAttachment) -> serde_json::Value {
    let mut told = serde_json::to_value(filter).expect("an attachment has string keys and no failing serialiser");
    for (index, grant) in filter.grants.iter().enumerate() {
        let kind = match grant {
            Grant::Kv(_) | Grant::Callout(_) => continue,
            Grant::Secret(_) => "Secret",
            Grant::CryptoKeys(_) => "CryptoKeys",
        };
        for (at, secret) in grant.secrets().iter().enumerate() {
            told["grants"][index][kind]["values"][at]["value"] = secret.value.to_base64().into();
        }
    }
    told
}

/// The beginning of a SHA-256: what other proxies say of themselves stands in a service, and nobody shall find words with
/// which a changed object has the number of the one before.
fn digest(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What came out of an envelope.
pub(super) enum Opened {
    Object {
        key: Key,
        object: Box<Object>,
        version: u64,
    },
    /// Of a kind that this version does not know, and nothing that it can do depends on it.
    Unknown(v1::Key),
}

pub(super) fn open(envelope: v1::Object) -> Result<Opened, Refused> {
    let Some(told) = envelope.key else { return Err(Refused::whole("an object has no key")) };
    let missing = envelope.requires.iter().filter(|it| !CAPABILITIES.contains(&it.as_str()) && *it != SCOPE);
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Refused::object(told, format!("it requires {}, which this version can't do", missing.join(", "))));
    }
    if v1::Kind::try_from(told.kind).is_err() {
        return Ok(Opened::Unknown(told));
    }
    let key = match Key::try_from(told.clone()) {
        Ok(key) => key,
        Err(error) => return Err(Refused::object(told, error.to_string())),
    };
    match inside(&key, &envelope.payload) {
        Ok(object) => Ok(Opened::Object { key, object: Box::new(object), version: envelope.version }),
        Err(reason) => Err(Refused::object(told, reason)),
    }
}

fn inside(key: &Key, payload: &[u8]) -> Result<Object, String> {
    fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        deserializer.end().map_err(|error| error.to_string())?;
        Ok(value)
    }
    let object = match key {
        Key::Mesh => Object::Mesh(json(payload)?),
        Key::Workload(_) => Object::Workload(json(payload)?),
        Key::Service(_) => Object::Service(json(payload)?),
        Key::Route(_) => Object::Route(json(payload)?),
        Key::External(_) => Object::External(json(payload)?),
        Key::Filter(_) => Object::Filter(json(payload)?),
        Key::Endpoint { .. } => return Err("endpoints come with their service".to_owned()),
    };
    if object.key() != *key {
        return Err(format!("its envelope says {key}, inside is {}", object.key()));
    }
    check(&object).map_err(|error| error.to_string())?;
    Ok(object)
}
