//! `HTTPRoute` of Gateway API v1, as much of it as works: GAMMA parentRefs; path, method and header matches; weights;
//! request header modifiers; request timeouts. The rest of the standard is refused by name.

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use super::value::{self, NotYet};

/// Limits of the standard.
pub(crate) const MAX_RULES: usize = 16;
pub(crate) const MAX_MATCHES: usize = 64;
pub(crate) const MAX_BACKENDS: usize = 16;
pub(crate) const MAX_PARENTS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    pub parent_refs: Vec<ParentRef>,
    pub rules: Vec<RuleSpec>,
    #[serde(default, skip_serializing)]
    pub hostnames: NotYet,
    #[serde(default, skip_serializing)]
    pub use_default_gateways: NotYet,
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
    #[serde(default, skip_serializing)]
    pub section_name: NotYet,
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
    #[serde(skip_serializing)]
    pub retry: NotYet,
    #[serde(skip_serializing)]
    pub session_persistence: NotYet,
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
    #[serde(skip_serializing)]
    pub backend_request: NotYet,
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
    #[serde(skip_serializing)]
    pub query_params: NotYet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    #[serde(default, rename = "type")]
    pub path_type: PathType,
    #[serde(default = "root", deserialize_with = "path")]
    pub value: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum PathType {
    Exact,
    #[default]
    PathPrefix,
}

impl<'de> Deserialize<'de> for PathType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "Exact" => Ok(Self::Exact),
            "PathPrefix" => Ok(Self::PathPrefix),
            "RegularExpression" => Err(D::Error::custom("path match RegularExpression is not supported yet")),
            other => Err(D::Error::custom(format_args!("{other:?} is not one of Exact, PathPrefix"))),
        }
    }
}

/// A path that a normalised request can have.
fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match crate::path::normalize(&text) {
        Ok(normal) if normal == text => Ok(text),
        Ok(normal) => {
            Err(D::Error::custom(format_args!("{text:?} never arrives: requests are normalised to {normal:?}")))
        }
        Err(error) => Err(D::Error::custom(format_args!("{text:?}: {error}"))),
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let text = String::deserialize(deserializer)?;
    if METHODS.contains(&text.as_str()) {
        Ok(Some(text))
    } else {
        Err(D::Error::custom(format_args!("{text:?} is not one of {}", METHODS.join(", "))))
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum HeaderType {
    #[default]
    Exact,
}

impl HeaderType {
    fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

impl<'de> Deserialize<'de> for HeaderType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "Exact" => Ok(Self::Exact),
            "RegularExpression" => Err(D::Error::custom("header match RegularExpression is not supported yet")),
            other => Err(D::Error::custom(format_args!("{other:?} is not one of Exact"))),
        }
    }
}

/// A filter of the standard; one kind so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FilterFields", into = "FilterFields")]
pub enum RouteFilter {
    RequestHeaderModifier(HeaderModifierSpec),
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

/// As written. The bodies of the other filters are read past, so that the error is the one about `type`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilterFields {
    #[serde(rename = "type")]
    filter_type: FilterType,
    #[serde(default)]
    request_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default, skip_serializing)]
    response_header_modifier: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    request_mirror: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    request_redirect: Option<IgnoredAny>,
    #[serde(default, skip_serializing, rename = "urlRewrite")]
    url_rewrite: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    extension_ref: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    cors: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    external_auth: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, Serialize)]
enum FilterType {
    RequestHeaderModifier,
}

impl<'de> Deserialize<'de> for FilterType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const LATER: [&str; 7] = [
            "ResponseHeaderModifier",
            "RequestMirror",
            "RequestRedirect",
            "URLRewrite",
            "ExtensionRef",
            "CORS",
            "ExternalAuth",
        ];
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "RequestHeaderModifier" => Ok(Self::RequestHeaderModifier),
            known if LATER.contains(&known) => {
                Err(D::Error::custom(format_args!("HTTPRoute filter {known} is not supported yet")))
            }
            other => Err(D::Error::custom(format_args!("{other:?} is not an HTTPRoute filter"))),
        }
    }
}

impl TryFrom<FilterFields> for RouteFilter {
    type Error = &'static str;

    fn try_from(fields: FilterFields) -> Result<Self, Self::Error> {
        let FilterFields { request_header_modifier, response_header_modifier, request_mirror, .. } = &fields;
        let others = [response_header_modifier, request_mirror, &fields.request_redirect, &fields.url_rewrite];
        let more = [&fields.extension_ref, &fields.cors, &fields.external_auth];
        if others.iter().chain(&more).any(|other| other.is_some()) {
            return Err("a filter has the body of its own type and no other");
        }
        let modifier = request_header_modifier.clone().ok_or("requestHeaderModifier is missing")?;
        Ok(Self::RequestHeaderModifier(modifier))
    }
}

impl From<RouteFilter> for FilterFields {
    fn from(filter: RouteFilter) -> Self {
        let RouteFilter::RequestHeaderModifier(modifier) = filter;
        Self {
            filter_type: FilterType::RequestHeaderModifier,
            request_header_modifier: Some(modifier),
            response_header_modifier: None,
            request_mirror: None,
            request_redirect: None,
            url_rewrite: None,
            extension_ref: None,
            cors: None,
            external_auth: None,
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
    /// Checks beyond a single field: limits of the standard and kinds that don't work yet.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let limit = |key: String, what: &str, count: usize, max: usize| {
            if count > max { Err((key, format!("has {count} {what}; at most {max} are allowed"))) } else { Ok(()) }
        };
        limit("parentRefs".to_owned(), "parents", self.parent_refs.len(), MAX_PARENTS)?;
        limit("rules".to_owned(), "rules", self.rules.len(), MAX_RULES)?;
        if self.parent_refs.is_empty() {
            return Err(("parentRefs".to_owned(), "is empty: the route is attached to nothing".to_owned()));
        }
        if self.rules.is_empty() {
            return Err(("rules".to_owned(), "is empty: no request would match".to_owned()));
        }
        for (i, parent) in self.parent_refs.iter().enumerate() {
            if (parent.group.as_str(), parent.kind.as_str()) != ("", "Service") {
                let message = format!(
                    "a parent of kind {} (group {:?}) is not supported yet; give kind: Service and group: \"\"",
                    parent.kind, parent.group
                );
                return Err((format!("parentRefs[{i}]"), message));
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            limit(format!("rules[{i}].matches"), "matches", rule.matches.len(), MAX_MATCHES)?;
            limit(format!("rules[{i}].backendRefs"), "backends", rule.backend_refs.len(), MAX_BACKENDS)?;
            check_filters(&rule.filters).map_err(|message| (format!("rules[{i}].filters"), message))?;
            for (j, backend) in rule.backend_refs.iter().enumerate() {
                let key = |end: &str| format!("rules[{i}].backendRefs[{j}]{end}");
                if (backend.group.as_str(), backend.kind.as_str()) != ("", "Service") {
                    return Err((key(""), format!("a backend of kind {} is not supported yet", backend.kind)));
                }
                check_filters(&backend.filters).map_err(|message| (key(".filters"), message))?;
            }
        }
        let named: Vec<&String> = self.rules.iter().filter_map(|rule| rule.name.as_ref()).collect();
        for (i, rule) in self.rules.iter().enumerate() {
            if let Some(name) = &rule.name
                && named.iter().filter(|other| **other == name).count() > 1
            {
                return Err((format!("rules[{i}].name"), format!("{name:?} is the name of several rules")));
            }
        }
        Ok(())
    }
}

fn check_filters(filters: &[RouteFilter]) -> Result<(), String> {
    if filters.len() > 1 { Err("RequestHeaderModifier may be given once".to_owned()) } else { Ok(()) }
}
