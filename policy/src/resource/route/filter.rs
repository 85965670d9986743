//! The filters of rules and backends, as the standard writes them. One that can't be done is kept as it was written.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{CorsSpec, MirrorSpec};
use crate::bundle::Scheme;
use crate::resource::value;

/// A filter of the standard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FilterFields", into = "FilterFields")]
pub enum RouteFilter {
    RequestHeaderModifier(HeaderModifierSpec),
    ResponseHeaderModifier(HeaderModifierSpec),
    RequestRedirect(RedirectSpec),
    UrlRewrite(RewriteSpec),
    Cors(CorsSpec),
    RequestMirror(MirrorSpec),
    /// One that can't be done yet.
    Later(Box<FilterFields>),
}

/// Statuses of redirects.
pub(crate) const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// Characters of a path that is put in the place of another, as the standard limits them.
const MAX_PATH: usize = 1_024;

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
            Self::RequestRedirect(_)
            | Self::UrlRewrite(_)
            | Self::Cors(_)
            | Self::RequestMirror(_)
            | Self::Later(_) => None,
        }
    }

    pub(super) fn cors(&self) -> Option<&CorsSpec> {
        if let Self::Cors(cors) = self { Some(cors) } else { None }
    }

    pub(crate) fn mirror(&self) -> Option<&MirrorSpec> {
        if let Self::RequestMirror(mirror) = self { Some(mirror) } else { None }
    }

    pub(super) fn filter_type(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
            Self::RequestRedirect(_) => FilterType::RequestRedirect,
            Self::UrlRewrite(_) => FilterType::UrlRewrite,
            Self::Cors(_) => FilterType::Cors,
            Self::RequestMirror(_) => FilterType::RequestMirror,
            Self::Later(fields) => fields.filter_type,
        }
    }

    /// Why it can't be done: at all, or beside one of the same list that `redirects`.
    pub(super) fn undoable(&self, redirects: bool) -> Option<String> {
        match self {
            Self::Later(fields) => Some(format!("{} is not supported yet", fields.filter_type.names().0)),
            Self::ResponseHeaderModifier(_) | Self::Cors(_) if redirects => {
                Some(format!("{} of a redirect is not supported yet", self.filter_type().names().0))
            }
            Self::RequestRedirect(_)
            | Self::UrlRewrite(_)
            | Self::Cors(_)
            | Self::RequestMirror(_)
            | Self::RequestHeaderModifier(_)
            | Self::ResponseHeaderModifier(_) => None,
        }
    }

    /// The change of a path that it asks for, and the field that it is in.
    pub(super) fn path(&self) -> Option<(&'static str, &PathModifierSpec)> {
        match self {
            Self::RequestRedirect(redirect) => Some(("requestRedirect.path", redirect.path.as_ref()?)),
            Self::UrlRewrite(rewrite) => Some(("urlRewrite.path", rewrite.path.as_ref()?)),
            Self::RequestHeaderModifier(_)
            | Self::ResponseHeaderModifier(_)
            | Self::Cors(_)
            | Self::RequestMirror(_)
            | Self::Later(_) => None,
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
#[serde(deny_unknown_fields, tag = "type")]
pub enum PathModifierSpec {
    #[serde(rename_all = "camelCase")]
    ReplaceFullPath { replace_full_path: String },
    #[serde(rename_all = "camelCase")]
    ReplacePrefixMatch { replace_prefix_match: String },
}

impl PathModifierSpec {
    /// Refuses what would not be sent as it is written.
    pub(super) fn check(&self) -> Result<(), String> {
        let (text, may_be_empty) = match self {
            Self::ReplaceFullPath { replace_full_path } => (replace_full_path, false),
            Self::ReplacePrefixMatch { replace_prefix_match } => (replace_prefix_match, true),
        };
        match crate::path::normalize(text) {
            _ if text.is_empty() && may_be_empty => Ok(()),
            // `*` is in normal form, and what OPTIONS asks of a whole server.
            _ if !text.starts_with('/') => Err(format!("{text:?} does not begin with a slash")),
            _ if text.len() > MAX_PATH => Err(format!("has {} bytes; at most {MAX_PATH} are allowed", text.len())),
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
    request_mirror: Option<MirrorSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<RedirectSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "urlRewrite")]
    url_rewrite: Option<RewriteSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension_ref: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<CorsSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_auth: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FilterType {
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
    pub(super) fn names(self) -> (&'static str, &'static str) {
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
            FilterFields { cors: Some(cors), .. } => Self::Cors(cors),
            FilterFields { request_mirror: Some(mirror), .. } => Self::RequestMirror(mirror),
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
            RouteFilter::RequestMirror(mirror) => {
                Self { request_mirror: Some(mirror), ..empty(FilterType::RequestMirror) }
            }
            RouteFilter::Cors(cors) => Self { cors: Some(cors), ..empty(FilterType::Cors) },
        }
    }
}

/// Refuses a type that is given again in one list.
pub(super) fn check(filters: &[RouteFilter]) -> Option<String> {
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
