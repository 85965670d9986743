//! `HTTPRoute` of Gateway API v1: GAMMA parentRefs; path, method, header and query matches; weights; header modifiers of
//! requests and answers; redirects and rewrites; request timeouts. The rest of the standard is kept as it was written: a route with a filter that can't be done
//! leads nowhere, and its status says so.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Unserved;
use super::core::PortSpec;
use super::value::{self, Filled};
use crate::bundle::{ObjectName, Scheme};
use crate::route::pattern;

/// Limits of the standard.
pub(crate) const MAX_RULES: usize = 16;
pub(crate) const MAX_MATCHES: usize = 64;
pub(crate) const MAX_BACKENDS: usize = 16;
pub(crate) const MAX_PARENTS: usize = 32;
pub(crate) const MAX_FIELDS: usize = 16;
/// Statuses of redirects.
pub(crate) const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// One that takes every request, where none is written.
    #[serde(default = "every_request")]
    pub rules: Vec<RuleSpec>,
    /// For routes of Gateways: a service has one name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    #[serde(default, skip_serializing)]
    pub use_default_gateways: Filled,
}

impl HttpRouteSpec {
    /// Services that it is attached to, where it is in the namespace `own`.
    pub(crate) fn parents<'r>(&'r self, own: &'r str) -> impl Iterator<Item = ObjectName> + use<'r> {
        let services = self.parent_refs.iter().filter(|parent| parent.is_service());
        services.map(move |parent| ObjectName::new(parent.namespace.as_deref().unwrap_or(own), &parent.name))
    }

    /// Services that it leads to.
    pub(crate) fn backends<'r>(&'r self, own: &'r str) -> impl Iterator<Item = ObjectName> + use<'r> {
        let backends = self.rules.iter().flat_map(|rule| &rule.backend_refs);
        backends.map(move |backend| ObjectName::new(backend.namespace.as_deref().unwrap_or(own), &backend.name))
    }
}

fn every_request() -> Vec<RuleSpec> {
    vec![RuleSpec::default()]
}

/// The service that the route is attached to.
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
    /// Another kind of parent is somebody else's.
    pub(crate) fn is_service(&self) -> bool {
        is_service(&self.group, &self.kind)
    }

    /// True where it means this port of its service; without a number and a name it means all of them.
    pub(crate) fn is_at(&self, port: &PortSpec) -> bool {
        self.port.is_none_or(|number| number == port.port)
            && self.section_name.as_ref().is_none_or(|name| port.name.as_ref() == Some(name))
    }
}

fn is_service(group: &str, kind: &str) -> bool {
    matches!(group, "" | "core") && kind == "Service"
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway() -> String {
    "Gateway".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleSpec {
    #[serde(deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
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
    pub retry: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// `0s` = none.
    #[serde(
        rename = "request",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_ms: Option<u64>,
    #[serde(
        rename = "backendRequest",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub backend_request_ms: Option<u64>,
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
        let of_backends = self.backend_refs.iter().enumerate();
        let of_backends = of_backends.map(|(j, backend)| (format!("backendRefs[{j}].filters"), &backend.filters));
        let all = std::iter::once(("filters".to_owned(), &self.filters)).chain(of_backends);
        let paths = all.flat_map(move |(at, filters)| {
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
        let has = |wanted: FilterType| self.filters.iter().any(|filter| filter.filter_type() == wanted);
        let redirects = has(FilterType::RequestRedirect);
        let wrong = match () {
            () if redirects && has(FilterType::UrlRewrite) => Some("RequestRedirect and URLRewrite exclude each other"),
            () if redirects && !self.backend_refs.is_empty() => Some("a rule with RequestRedirect has no backendRefs"),
            () => None,
        };
        paths.chain(wrong.map(|message| ("filters".to_owned(), message.to_owned())))
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
        path.chain(headers).chain(params).filter_map(|(end, checked)| Some((end, checked.err()?)))
    }
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
    const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
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

/// A filter of the standard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FilterFields", into = "FilterFields")]
pub enum RouteFilter {
    RequestHeaderModifier(HeaderModifierSpec),
    ResponseHeaderModifier(HeaderModifierSpec),
    RequestRedirect(RedirectSpec),
    UrlRewrite(RewriteSpec),
    /// One that can't be done yet.
    Later(Box<FilterFields>),
}

impl RouteFilter {
    /// The change of a header that it is: the name of its type, the field that it is in, and what it changes.
    pub(crate) fn modifier(&self) -> Option<(&'static str, &'static str, &HeaderModifierSpec)> {
        let of = |kind: FilterType, modifier| {
            let (name, field) = kind.names();
            Some((name, field, modifier))
        };
        match self {
            Self::RequestHeaderModifier(modifier) => of(FilterType::RequestHeaderModifier, modifier),
            Self::ResponseHeaderModifier(modifier) => of(FilterType::ResponseHeaderModifier, modifier),
            Self::RequestRedirect(_) | Self::UrlRewrite(_) | Self::Later(_) => None,
        }
    }

    fn filter_type(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
            Self::RequestRedirect(_) => FilterType::RequestRedirect,
            Self::UrlRewrite(_) => FilterType::UrlRewrite,
            Self::Later(fields) => fields.filter_type,
        }
    }

    /// The change of a path that it asks for, and the field that it is in.
    fn path(&self) -> Option<(&'static str, &PathModifierSpec)> {
        match self {
            Self::RequestRedirect(redirect) => Some(("requestRedirect.path", redirect.path.as_ref()?)),
            Self::UrlRewrite(rewrite) => Some(("urlRewrite.path", rewrite.path.as_ref()?)),
            Self::RequestHeaderModifier(_) | Self::ResponseHeaderModifier(_) | Self::Later(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedirectSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    #[serde(deserialize_with = "value::host_option", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifierSpec>,
    #[serde(deserialize_with = "value::port_option", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(deserialize_with = "redirect_status", skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RewriteSpec {
    #[serde(deserialize_with = "value::host_option", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifierSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "type")]
pub enum PathModifierSpec {
    #[serde(rename_all = "camelCase")]
    ReplaceFullPath { replace_full_path: String },
    #[serde(rename_all = "camelCase")]
    ReplacePrefixMatch { replace_prefix_match: String },
}

impl PathModifierSpec {
    fn check(&self) -> Result<(), String> {
        let (text, may_be_empty) = match self {
            Self::ReplaceFullPath { replace_full_path } => (replace_full_path, false),
            Self::ReplacePrefixMatch { replace_prefix_match } => (replace_prefix_match, true),
        };
        match crate::path::normalize(text) {
            _ if text.is_empty() && may_be_empty => Ok(()),
            Ok(normal) if normal == *text => Ok(()),
            Ok(normal) => Err(format!("{text:?} would arrive as {normal:?}: write that")),
            Err(error) => Err(format!("{text:?}: {error}")),
        }
    }
}

fn redirect_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let status = u16::deserialize(deserializer)?;
    if REDIRECTS.contains(&status) {
        Ok(Some(status))
    } else {
        Err(D::Error::custom(format_args!("{status} is not one of 301, 302, 303, 307, 308")))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderModifierSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderField>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderField>,
    #[serde(deserialize_with = "value::header_names", skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    #[serde(deserialize_with = "value::header_name")]
    pub name: String,
    #[serde(deserialize_with = "value::header_value")]
    pub value: String,
}

/// A filter as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterFields {
    #[serde(rename = "type")]
    filter_type: FilterType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<RedirectSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "urlRewrite")]
    url_rewrite: Option<RewriteSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension_ref: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_auth: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    ExtensionRef,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
}

impl FilterType {
    /// Its name and the field that its body is in.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::RequestHeaderModifier => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaderModifier => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::RequestMirror => ("RequestMirror", "requestMirror"),
            Self::RequestRedirect => ("RequestRedirect", "requestRedirect"),
            Self::UrlRewrite => ("URLRewrite", "urlRewrite"),
            Self::ExtensionRef => ("ExtensionRef", "extensionRef"),
            Self::Cors => ("CORS", "cors"),
            Self::ExternalAuth => ("ExternalAuth", "externalAuth"),
        }
    }
}

impl TryFrom<FilterFields> for RouteFilter {
    type Error = String;

    fn try_from(fields: FilterFields) -> Result<Self, Self::Error> {
        let (_, own) = fields.filter_type.names();
        let given = [
            ("requestHeaderModifier", fields.request_header_modifier.is_some()),
            ("responseHeaderModifier", fields.response_header_modifier.is_some()),
            ("requestMirror", fields.request_mirror.is_some()),
            ("requestRedirect", fields.request_redirect.is_some()),
            ("urlRewrite", fields.url_rewrite.is_some()),
            ("extensionRef", fields.extension_ref.is_some()),
            ("cors", fields.cors.is_some()),
            ("externalAuth", fields.external_auth.is_some()),
        ];
        if let Some((other, _)) = given.iter().find(|(body, is_given)| *is_given && *body != own) {
            return Err(format!("a filter has the body of its own type and no other: {own}, not {other}"));
        }
        if !given.contains(&(own, true)) {
            return Err(format!("{own} is missing"));
        }
        // The one body that it has.
        Ok(match fields {
            FilterFields { request_header_modifier: Some(modifier), .. } => Self::RequestHeaderModifier(modifier),
            FilterFields { response_header_modifier: Some(modifier), .. } => Self::ResponseHeaderModifier(modifier),
            FilterFields { request_redirect: Some(redirect), .. } => Self::RequestRedirect(redirect),
            FilterFields { url_rewrite: Some(rewrite), .. } => Self::UrlRewrite(rewrite),
            later => Self::Later(Box::new(later)),
        })
    }
}

impl From<RouteFilter> for FilterFields {
    fn from(filter: RouteFilter) -> Self {
        let empty = |filter_type| Self {
            filter_type,
            request_header_modifier: None,
            response_header_modifier: None,
            request_mirror: None,
            request_redirect: None,
            url_rewrite: None,
            extension_ref: None,
            cors: None,
            external_auth: None,
        };
        match filter {
            RouteFilter::Later(fields) => *fields,
            RouteFilter::RequestHeaderModifier(modifier) => {
                Self { request_header_modifier: Some(modifier), ..empty(FilterType::RequestHeaderModifier) }
            }
            RouteFilter::ResponseHeaderModifier(modifier) => {
                Self { response_header_modifier: Some(modifier), ..empty(FilterType::ResponseHeaderModifier) }
            }
            RouteFilter::RequestRedirect(redirect) => {
                Self { request_redirect: Some(redirect), ..empty(FilterType::RequestRedirect) }
            }
            RouteFilter::UrlRewrite(rewrite) => Self { url_rewrite: Some(rewrite), ..empty(FilterType::UrlRewrite) },
        }
    }
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
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    #[serde(default = "one", deserialize_with = "weight")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
}

impl BackendRef {
    /// Nothing else takes requests.
    pub(crate) fn is_service(&self) -> bool {
        is_service(&self.group, &self.kind)
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
            wrong.extend(check_filters(&rule.filters).map(|message| (format!("rules[{i}].filters"), message)));
            wrong.extend(rule.check_targets().map(|(end, message)| (format!("rules[{i}].{end}"), message)));
            for (j, backend) in rule.backend_refs.iter().enumerate() {
                let at = |message| (format!("rules[{i}].backendRefs[{j}].filters"), message);
                wrong.extend(check_filters(&backend.filters).map(at));
            }
        }
        wrong
    }

    /// Every filter that can't be done. A route that has one leads nowhere: to leave it out would make
    /// the rule change less than its author wants.
    pub fn undoable(&self) -> Vec<Unserved> {
        let mut found = Vec::new();
        let mut tell = |key: String, message: String| found.push(Unserved { key, message });
        for (i, rule) in self.rules.iter().enumerate() {
            let of_backends = rule.backend_refs.iter().enumerate();
            let of_backends = of_backends.map(|(j, backend)| (format!(".backendRefs[{j}]"), &backend.filters));
            for (place, filters) in std::iter::once((String::new(), &rule.filters)).chain(of_backends) {
                for (k, filter) in filters.iter().enumerate() {
                    let key = || format!("rules[{i}]{place}.filters[{k}].type");
                    match filter {
                        RouteFilter::Later(fields) => {
                            tell(key(), format!("{} is not supported yet", fields.filter_type.names().0));
                        }
                        RouteFilter::RequestRedirect(_) if !place.is_empty() => {
                            tell(key(), "RequestRedirect of a backend is not supported yet".to_owned());
                        }
                        RouteFilter::RequestRedirect(_)
                        | RouteFilter::UrlRewrite(_)
                        | RouteFilter::RequestHeaderModifier(_)
                        | RouteFilter::ResponseHeaderModifier(_) => {}
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
        if !self.hostnames.is_empty() {
            tell("hostnames".to_owned(), "have no effect on the route of a Service, which is reached by its name");
        }
        for (i, parent) in self.parent_refs.iter().enumerate().filter(|(_, parent)| !parent.is_service()) {
            let message = format!("{} is not served here: the route is attached to Services only", parent.kind);
            tell(format!("parentRefs[{i}].kind"), &message);
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if rule.retry.is_some() {
                tell(format!("rules[{i}].retry"), "has no effect: spec.defaults.maxRetries of the Mesh holds");
            }
            if rule.session_persistence.is_some() {
                tell(format!("rules[{i}].sessionPersistence"), "has no effect: each request goes to any endpoint");
            }
            if rule.timeouts.as_ref().is_some_and(|timeouts| timeouts.backend_request_ms.is_some()) {
                tell(format!("rules[{i}].timeouts.backendRequest"), "has no effect: `request` bounds all attempts");
            }
        }
        found
    }
}

fn check_filters(filters: &[RouteFilter]) -> Option<String> {
    let mut seen = Vec::new();
    // The standard lets mirrors and extensions be given several times.
    let once = |kind: &FilterType| !matches!(kind, FilterType::RequestMirror | FilterType::ExtensionRef);
    for kind in filters.iter().map(RouteFilter::filter_type).filter(once) {
        if seen.contains(&kind) {
            return Some(format!("{} may be given once", kind.names().0));
        }
        seen.push(kind);
    }
    None
}
