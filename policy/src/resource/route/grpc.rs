//! `GRPCRoute` of Gateway API v1, as the standard writes it. Inside it is a route as any other, whose matches look at the
//! service and the method of a call.

use serde::{Deserialize, Serialize};

use super::filter::FilterType;
use super::{
    BackendRef, HeaderSpec, HeaderType, HttpRouteSpec, MatchSpec, ParentRef, RouteFilter, RuleSpec, SessionSpec,
    default_rules,
};
use crate::resource::value::{self, Filled};
use crate::route::pattern;

/// Characters of the name of a service or a method.
const MAX_CHARS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub struct GrpcRouteSpec(pub HttpRouteSpec);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    #[serde(default = "default_rules")]
    rules: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hostnames: Vec<String>,
    #[serde(default, skip_serializing)]
    use_default_gateways: Filled,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    #[serde(deserialize_with = "value::object_name_option", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    matches: Vec<Match>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<RouteFilter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backend_refs: Vec<BackendRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_persistence: Option<SessionSpec>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<RpcSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderSpec>,
}

/// The calls that a match means. What is absent or empty may be any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcSpec {
    #[serde(default, rename = "type", skip_serializing_if = "HeaderType::is_exact")]
    pub rpc_type: HeaderType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl RpcSpec {
    /// The service and the method, each where one is asked for.
    pub(crate) fn parts(&self) -> [Option<&String>; 2] {
        [&self.service, &self.method].map(|text| text.as_ref().filter(|text| !text.is_empty()))
    }

    /// Everything that is no name, or no expression: the end of its key, and why.
    pub(super) fn check(&self) -> impl Iterator<Item = (String, String)> {
        let [service, method] = self.parts();
        let is_nothing = service.is_none() && method.is_none();
        let nothing = is_nothing.then(|| (String::new(), "needs a service, a method, or both".to_owned()));
        let parts = [("service", service, is_service as fn(&str) -> bool), ("method", method, is_identifier)];
        let checked = parts.into_iter().filter_map(|(part, text, is_one)| {
            let text = text?;
            let wrong = if text.chars().count() > MAX_CHARS {
                format!("is longer than {MAX_CHARS} characters")
            } else if !self.rpc_type.is_exact() {
                pattern::check(text).err()?
            } else if !is_one(text) {
                format!("{text:?} is not the name of a {part}: {}", allowed(part))
            } else {
                return None;
            };
            Some((format!(".{part}"), wrong))
        });
        nothing.into_iter().chain(checked)
    }
}

fn allowed(part: &str) -> &'static str {
    match part {
        "service" => "letters, digits and '_', none of them first a digit, in parts with '.' between them",
        _ => "letters, digits and '_', the first no digit",
    }
}

/// `package.Service`; the standard lets it begin with a dot.
fn is_service(text: &str) -> bool {
    text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_word) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

impl GrpcRouteSpec {
    /// Checks beyond a single field: those of every route, and that its filters are a GRPCRoute's.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = self.0.check();
        for (i, rule) in self.0.rules.iter().enumerate() {
            for (at, filters) in rule.filter_lists() {
                let foreign = filters.iter().enumerate().filter(|(_, filter)| !is_for_grpc(filter.filter_type()));
                wrong.extend(foreign.map(|(k, filter)| {
                    let key = format!("rules[{i}].{at}[{k}].type");
                    (key, format!("{} is no filter of a GRPCRoute", filter.filter_type().names().0))
                }));
            }
        }
        wrong
    }
}

fn is_for_grpc(filter: FilterType) -> bool {
    match filter {
        FilterType::RequestHeaderModifier
        | FilterType::ResponseHeaderModifier
        | FilterType::RequestMirror
        | FilterType::ExtensionRef => true,
        FilterType::RequestRedirect | FilterType::UrlRewrite | FilterType::Cors | FilterType::ExternalAuth => false,
    }
}

impl From<Fields> for GrpcRouteSpec {
    fn from(Fields { parent_refs, rules, hostnames, use_default_gateways }: Fields) -> Self {
        let matching = |Match { method, headers }: Match| MatchSpec { rpc: method, headers, ..MatchSpec::default() };
        let rule = |Rule { name, matches, filters, backend_refs, session_persistence }: Rule| RuleSpec {
            name,
            matches: matches.into_iter().map(matching).collect(),
            filters,
            backend_refs,
            session_persistence,
            ..RuleSpec::default()
        };
        let rules = rules.into_iter().map(rule).collect();
        Self(HttpRouteSpec { parent_refs, rules, hostnames, use_default_gateways })
    }
}

impl From<GrpcRouteSpec> for Fields {
    fn from(GrpcRouteSpec(spec): GrpcRouteSpec) -> Self {
        let HttpRouteSpec { parent_refs, rules, hostnames, use_default_gateways } = spec;
        let matching = |matching: MatchSpec| Match { method: matching.rpc, headers: matching.headers };
        let rule = |rule: RuleSpec| Rule {
            name: rule.name,
            matches: rule.matches.into_iter().map(matching).collect(),
            filters: rule.filters,
            backend_refs: rule.backend_refs,
            session_persistence: rule.session_persistence,
        };
        Self { parent_refs, rules: rules.into_iter().map(rule).collect(), hostnames, use_default_gateways }
    }
}
