//! `HTTPRoute` of Gateway API v1: GAMMA parentRefs; path, method, header and query matches; weights; filters; timeouts;
//! retries; sessions. The rest of the standard is kept as it was written: a route with a filter that can't be done
//! leads nowhere, and its status says so. A `GRPCRoute`, a `TLSRoute` and a `TCPRoute` are written otherwise and are
//! the same inside.

mod any;
mod cors;
mod filter;
mod grpc;
mod mirror;
mod session;
mod stream;

use std::net::IpAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::core::PortSpec;
use super::retry::{RetrySpec, Timeouts};
use super::value::{self, Filled};
use super::{Kind, Unserved};
use crate::bundle::ObjectName;
use crate::host::{bare, plain};
use crate::identity::is_subdomain;
use crate::route::{HOST, METHODS, pattern};

pub use any::AnyRoute;
pub use cors::CorsSpec;
pub use filter::{
    FilterFields, HeaderField, HeaderModifierSpec, PathModifierSpec, RedirectSpec, RewriteSpec, RouteFilter,
};
pub(crate) use filter::{FilterType, REDIRECTS};
pub use grpc::{GrpcRouteSpec, RpcSpec};
pub use mirror::{MirrorRef, MirrorSpec};
pub use session::{CookieConfig, LifetimeType, SessionSpec, SessionType};
pub use stream::{TcpRouteSpec, TlsRouteSpec};

/// Limits of the standard.
pub(crate) const MAX_RULES: usize = 16;
pub(crate) const MAX_MATCHES: usize = 64;
pub(crate) const MAX_BACKENDS: usize = 16;
pub(crate) const MAX_FILTERS: usize = 16;
pub(crate) const MAX_PARENTS: usize = 32;
pub(crate) const MAX_FIELDS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// One that takes every request, where none is written.
    #[serde(default = "default_rules")]
    pub rules: Vec<RuleSpec>,
    /// The server names of a TLSRoute. Else for routes of Gateways: nothing is inferred of them for a Service
    /// (GEP-1294), of which lint tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    #[serde(default, skip_serializing)]
    pub use_default_gateways: Filled,
}

fn default_rules<R: Default>() -> Vec<R> {
    vec![R::default()]
}

/// The service or ExternalService that the route is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    #[serde(default = "gateway_group")]
    pub group: String,
    #[serde(default = "gateway")]
    pub kind: String,
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    #[serde(default, deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name of the service's port.
    #[serde(default, deserialize_with = "value::object_name_option", skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

impl ParentRef {
    /// `None`: another kind of parent is somebody else's.
    pub(crate) fn place(&self) -> Option<Place> {
        Place::of(&self.group, &self.kind)
    }

    pub(crate) fn is_service(&self) -> bool {
        self.place() == Some(Place::Service)
    }

    pub(crate) fn is_external(&self) -> bool {
        self.place() == Some(Place::External)
    }

    /// True where it means this port of its service; without a number and a name it means all of them.
    pub(crate) fn is_at(&self, port: &PortSpec) -> bool {
        self.is_at_port(port.port, port.name.as_ref())
    }

    /// The same of a port by its number and its name.
    pub(crate) fn is_at_port(&self, port: u16, name: Option<&String>) -> bool {
        self.port.is_none_or(|number| number == port) && self.section_name.as_ref().is_none_or(|own| name == Some(own))
    }
}

/// The kinds that routes are attached to and lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Service,
    External,
}

impl Place {
    fn of(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("" | "core", "Service") => Some(Self::Service),
            (EXTERNAL_GROUP, "ExternalService") => Some(Self::External),
            _ => None,
        }
    }

    /// Its kind.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Service => Kind::Service,
            Self::External => Kind::ExternalService,
        }
    }
}

/// The group of ExternalServices.
pub(crate) const EXTERNAL_GROUP: &str = "weft.dev";

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway() -> String {
    "Gateway".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleSpec {
    #[serde(deserialize_with = "value::object_name_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<MatchSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MatchSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathSpec>,
    #[serde(deserialize_with = "method", skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamSpec>,
    /// Of a GRPCRoute, which writes it as `method`.
    #[serde(skip)]
    pub rpc: Option<RpcSpec>,
}

impl RuleSpec {
    /// The prefix by which it matches, where that is the one thing that it can match by.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self.matches.as_slice() {
            [] => Some("/"),
            [MatchSpec { path: None, .. }] => Some("/"),
            [MatchSpec { path: Some(path), .. }] if path.path_type == PathType::PathPrefix => Some(&path.value),
            _ => None,
        }
    }

    /// What is wrong about redirects and rewrites, which depend on the rest of the rule.
    fn check_targets(&self) -> impl Iterator<Item = (String, String)> {
        let paths = self.filter_lists().flat_map(move |(at, filters)| {
            filters.iter().enumerate().filter_map(move |(k, filter)| {
                let (field, path) = filter.path()?;
                let needs_prefix = matches!(path, PathModifierSpec::ReplacePrefixMatch { .. });
                let message = match path.check() {
                    Err(message) => message,
                    Ok(()) if needs_prefix && self.prefix().is_none() => {
                        "ReplacePrefixMatch needs a rule with one match, of a PathPrefix".to_owned()
                    }
                    Ok(()) => return None,
                };
                Some((format!("{at}[{k}].{field}"), message))
            })
        });
        let both = self.filter_lists().filter_map(|(at, filters)| {
            let has = |wanted: FilterType| filters.iter().any(|filter| filter.filter_type() == wanted);
            let excluded = has(FilterType::RequestRedirect) && has(FilterType::UrlRewrite);
            excluded.then(|| (at, "RequestRedirect and URLRewrite exclude each other".to_owned()))
        });
        let reaches = self.has(FilterType::RequestRedirect) && !self.backend_refs.is_empty();
        let message = "a rule with RequestRedirect reaches no backend";
        let backends = reaches.then(|| ("backendRefs".to_owned(), message.to_owned()));
        paths.chain(both).chain(backends)
    }

    /// What is wrong about the lists of CORS.
    fn check_cors(&self) -> impl Iterator<Item = (String, String)> {
        self.filter_lists().flat_map(|(at, filters)| {
            let of_cors = filters.iter().enumerate().filter_map(|(k, filter)| Some((k, filter.cors()?)));
            of_cors.flat_map(move |(k, cors)| {
                let at = at.clone();
                cors.check().map(move |(field, message)| (format!("{at}[{k}].cors.{field}"), message))
            })
        })
    }

    /// Everything that it refers to as a place for requests, each with the field that it is in: backends, then mirrors.
    pub(crate) fn referred(&self) -> impl Iterator<Item = (String, Referred<'_>)> {
        let backends = self.backend_refs.iter().enumerate();
        let backends = backends.map(|(j, backend)| (format!("backendRefs[{j}]"), backend.referred()));
        backends.chain(self.mirrored())
    }

    /// A Service and an ExternalService have several ports. Other kinds are nothing here, with a port or without.
    fn check_ports(&self) -> impl Iterator<Item = (String, String)> {
        let without = self.referred().filter(|(_, referred)| referred.place.is_some() && referred.port == 0);
        without.map(|(at, _)| (format!("{at}.port"), "is missing".to_owned()))
    }

    /// Where its mirrors send copies.
    pub(crate) fn mirrored(&self) -> impl Iterator<Item = (String, Referred<'_>)> {
        self.filter_lists().flat_map(|(at, filters)| {
            let mirrors = filters.iter().enumerate().filter_map(|(k, filter)| Some((k, &filter.mirror()?.backend_ref)));
            mirrors.map(move |(k, mirror)| (format!("{at}[{k}].requestMirror.backendRef"), mirror.referred()))
        })
    }

    /// What is wrong about the shares of mirrors.
    fn check_mirrors(&self) -> impl Iterator<Item = (String, String)> {
        self.filter_lists().flat_map(|(at, filters)| {
            let checked = filters.iter().enumerate().filter_map(|(k, filter)| Some((k, filter.mirror()?.check()?)));
            checked.map(move |(k, message)| (format!("{at}[{k}].requestMirror"), message))
        })
    }

    /// True where it has CORS, and no browser's question meets one of its matches.
    fn misses_preflights(&self) -> bool {
        let takes = |matched: &MatchSpec| matched.method.as_deref().is_none_or(|method| method == "OPTIONS");
        self.has(FilterType::Cors) && !self.matches.is_empty() && !self.matches.iter().any(takes)
    }

    pub(crate) fn has(&self, wanted: FilterType) -> bool {
        self.filters.iter().any(|filter| filter.filter_type() == wanted)
    }

    /// The filters of the rule and of its backends, each list with the field that it is in.
    fn filter_lists(&self) -> impl Iterator<Item = (String, &[RouteFilter])> {
        let of_backends = self.backend_refs.iter().enumerate();
        let of_backends = of_backends.map(|(j, backend)| (format!("backendRefs[{j}].filters"), &*backend.filters));
        std::iter::once(("filters".to_owned(), &*self.filters)).chain(of_backends)
    }
}

impl MatchSpec {
    /// Everything that no request can meet, or that is no expression.
    fn check(&self) -> impl Iterator<Item = (String, String)> {
        let path = self.path.iter().map(|path| ("path.value".to_owned(), path.check()));
        let headers = self.headers.iter().enumerate().filter(|(_, it)| !it.header_type.is_exact());
        let headers = headers.map(|(k, it)| (format!("headers[{k}].value"), pattern::check(&it.value)));
        let params = self.query_params.iter().enumerate().filter(|(_, it)| !it.param_type.is_exact());
        let params = params.map(|(k, it)| (format!("queryParams[{k}].value"), pattern::check(&it.value)));
        let checked = path.chain(headers).chain(params).filter_map(|(end, checked)| Some((end, checked.err()?)));
        let of_host = |it: &HeaderSpec| it.header_type.is_exact() && it.name.eq_ignore_ascii_case(HOST);
        let hosts = self.headers.iter().enumerate().filter(move |(_, it)| of_host(it) && !is_plain_host(&it.value));
        let hosts = hosts.map(|(k, it)| {
            let message = format!("{:?} is no host as it is compared: in lower case, without a port", it.value);
            (format!("headers[{k}].value"), message)
        });
        checked
            .chain(hosts)
            .chain(self.rpc.iter().flat_map(RpcSpec::check).map(|(end, wrong)| (format!("method{end}"), wrong)))
    }
}

/// True for a host as requests are compared with it.
fn is_plain_host(text: &str) -> bool {
    let is_one = bare(text).parse::<IpAddr>().is_ok() || is_subdomain(text);
    is_one && plain(text) == text
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    #[serde(default, rename = "type")]
    pub path_type: PathType,
    #[serde(default = "root")]
    pub value: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum PathType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

impl PathSpec {
    /// Refuses a path that no normalised request can have.
    fn check(&self) -> Result<(), String> {
        let text = &self.value;
        if self.path_type == PathType::RegularExpression {
            return pattern::check(text);
        }
        match crate::path::normalize(text) {
            Ok(normal) if normal == *text => Ok(()),
            Ok(normal) => Err(format!("{text:?} never arrives: requests are normalised to {normal:?}")),
            Err(error) => Err(format!("{text:?}: {error}")),
        }
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if METHODS.contains(&text.as_str()) {
        Ok(Some(text))
    } else {
        let meant = crate::text::did_you_mean(&text, METHODS);
        Err(D::Error::custom(format_args!("{text:?} is not one of {}{meant}", METHODS.join(", "))))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderSpec {
    #[serde(default, rename = "type", skip_serializing_if = "HeaderType::is_exact")]
    pub header_type: HeaderType,
    #[serde(deserialize_with = "value::matchable_header_name")]
    pub name: String,
    #[serde(deserialize_with = "value::header_value")]
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum HeaderType {
    #[default]
    Exact,
    RegularExpression,
}

impl HeaderType {
    pub(crate) fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryParamSpec {
    #[serde(default, rename = "type", skip_serializing_if = "HeaderType::is_exact")]
    pub param_type: HeaderType,
    /// As it is after decoding.
    #[serde(deserialize_with = "value::parameter_name")]
    pub name: String,
    #[serde(deserialize_with = "value::parameter_value")]
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default = "service")]
    pub kind: String,
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    #[serde(default, deserialize_with = "value::port", skip_serializing_if = "value::is_default")]
    pub port: u16,
    #[serde(default = "one", deserialize_with = "weight")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
}

impl BackendRef {
    pub(crate) fn referred(&self) -> Referred<'_> {
        Referred {
            group: &self.group,
            kind: &self.kind,
            place: Place::of(&self.group, &self.kind),
            is_mirror: false,
            namespace: self.namespace.as_deref(),
            name: &self.name,
            port: self.port,
        }
    }
}

/// A place for requests, as a backend or a mirror refers to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Referred<'r> {
    group: &'r str,
    pub(crate) kind: &'r str,
    /// `None`: nothing else takes requests.
    pub(crate) place: Option<Place>,
    /// Copies are sent there.
    pub(crate) is_mirror: bool,
    namespace: Option<&'r str>,
    name: &'r str,
    pub(crate) port: u16,
}

impl Referred<'_> {
    /// Why nothing of its kind takes requests.
    pub(crate) fn no_place(&self, own: &str) -> String {
        format!(
            "{} {} of the group {:?} takes no requests: a backend is a Service (group \"\") or an ExternalService (group weft.dev)",
            self.kind,
            self.object_name(own),
            self.group
        )
    }

    /// Its name, for a route of the namespace `own`.
    pub(crate) fn object_name(&self, own: &str) -> ObjectName {
        ObjectName::new(self.namespace.unwrap_or(own), self.name)
    }
}

fn service() -> String {
    "Service".to_owned()
}

fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    match u32::try_from(number) {
        Ok(weight) if weight <= 1_000_000 => Ok(weight),
        _ => Err(D::Error::custom(format_args!("{number} is not a weight: 0 to 1000000"))),
    }
}

impl HttpRouteSpec {
    /// Checks beyond a single field, and limits of the standard.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let mut limit = |key: String, what: &str, count: usize, max: usize| {
            if count > max {
                wrong.push((key, format!("has {count} {what}; at most {max} are allowed")));
            }
        };
        limit("parentRefs".to_owned(), "parents", self.parent_refs.len(), MAX_PARENTS);
        limit("rules".to_owned(), "rules", self.rules.len(), MAX_RULES);
        for (i, rule) in self.rules.iter().enumerate() {
            limit(format!("rules[{i}].matches"), "matches", rule.matches.len(), MAX_MATCHES);
            limit(format!("rules[{i}].backendRefs"), "backends", rule.backend_refs.len(), MAX_BACKENDS);
            for (at, filters) in rule.filter_lists() {
                limit(format!("rules[{i}].{at}"), "filters", filters.len(), MAX_FILTERS);
            }
            for (j, matched) in rule.matches.iter().enumerate() {
                let at = format!("rules[{i}].matches[{j}]");
                limit(format!("{at}.headers"), "headers", matched.headers.len(), MAX_FIELDS);
                limit(format!("{at}.queryParams"), "parameters", matched.query_params.len(), MAX_FIELDS);
            }
        }
        if self.rules.is_empty() {
            wrong.push(("rules".to_owned(), "is empty: no request would match".to_owned()));
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let names_it = |other: &RuleSpec| rule.name.is_some() && other.name == rule.name;
            if self.rules[..i].iter().any(names_it) {
                let name = rule.name.as_deref().unwrap_or_default();
                wrong.push((format!("rules[{i}].name"), format!("{name:?} is the name of several rules")));
            }
            for (j, matched) in rule.matches.iter().enumerate() {
                wrong.extend(matched.check().map(|(end, message)| (format!("rules[{i}].matches[{j}].{end}"), message)));
            }
            for (at, filters) in rule.filter_lists() {
                wrong.extend(filter::check(filters).map(|message| (format!("rules[{i}].{at}"), message)));
            }
            wrong.extend(rule.check_ports().map(|(end, message)| (format!("rules[{i}].{end}"), message)));
            wrong.extend(rule.check_mirrors().map(|(end, message)| (format!("rules[{i}].{end}"), message)));
            wrong.extend(rule.check_cors().map(|(end, message)| (format!("rules[{i}].{end}"), message)));
            wrong.extend(rule.check_targets().map(|(end, message)| (format!("rules[{i}].{end}"), message)));
            let retry = rule.retry.iter().flat_map(RetrySpec::check);
            wrong.extend(retry.map(|(key, message)| (format!("rules[{i}].retry.{key}"), message)));
            let timeouts = rule.timeouts.iter().filter_map(Timeouts::check);
            wrong.extend(timeouts.map(|(key, message)| (format!("rules[{i}].timeouts.{key}"), message)));
            let session = rule.session_persistence.iter().flat_map(SessionSpec::check);
            wrong.extend(session.map(|(key, message)| (format!("rules[{i}].sessionPersistence.{key}"), message)));
        }
        wrong
    }

    /// Every filter that can't be done. A route that has one leads nowhere: to leave it out would make
    /// the rule change less than its author wants.
    pub fn undoable(&self) -> Vec<Unserved> {
        let mut found = Vec::new();
        for (i, rule) in self.rules.iter().enumerate() {
            for (at, filters) in rule.filter_lists() {
                let redirects = filters.iter().any(|filter| filter.filter_type() == FilterType::RequestRedirect);
                for (k, filter) in filters.iter().enumerate() {
                    if let Some(message) = filter.undoable(redirects) {
                        found.push(Unserved { key: format!("rules[{i}].{at}[{k}].type"), message });
                    }
                }
            }
        }
        found
    }

    /// Everything else that nothing here acts on: the route holds without it.
    pub fn unserved(&self) -> Vec<Unserved> {
        let mut found = Vec::new();
        let mut tell = |key: String, message: &str| found.push(Unserved { key, message: message.to_owned() });
        for (i, parent) in self.parent_refs.iter().enumerate().filter(|(_, parent)| parent.place().is_none()) {
            let message = format!(
                "{} of the group {:?} is not served here: a route is attached to a Service (group \"\") or an \
                 ExternalService (group weft.dev)",
                parent.kind, parent.group
            );
            tell(format!("parentRefs[{i}].kind"), &message);
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if rule.has(FilterType::RequestRedirect) && rule.has(FilterType::RequestHeaderModifier) {
                tell(format!("rules[{i}].filters"), "RequestHeaderModifier has no effect on what is redirected");
            }
            if rule.has(FilterType::RequestRedirect) && rule.has(FilterType::RequestMirror) {
                tell(format!("rules[{i}].filters"), "RequestMirror has no effect on what is redirected");
            }
            if rule.misses_preflights() {
                let message = "no preflight meets the rule: its method is OPTIONS, which no match has";
                tell(format!("rules[{i}].matches"), message);
            }
        }
        found
    }
}
