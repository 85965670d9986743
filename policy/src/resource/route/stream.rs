//! `TLSRoute` and `TCPRoute` of Gateway API: where a connection is sent whose bytes are not looked into, by the server name
//! that its ClientHello asks for or by nothing at all. Inside they are routes as any other, of rules without matches.

use serde::{Deserialize, Serialize};

use super::{BackendRef, HttpRouteSpec, ParentRef, RuleSpec, one, service, weight};
use crate::identity::is_subdomain;
use crate::resource::value::{self, Filled};

/// Limit of the standard.
const MAX_HOSTNAMES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "TlsFields", into = "TlsFields")]
pub struct TlsRouteSpec(pub HttpRouteSpec);

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "TcpFields", into = "TcpFields")]
pub struct TcpRouteSpec(pub HttpRouteSpec);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TlsFields {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    /// Without any it is for every ClientHello.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hostnames: Vec<String>,
    rules: Vec<Rule>,
    #[serde(default, skip_serializing)]
    use_default_gateways: Filled,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TcpFields {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    rules: Vec<Rule>,
    #[serde(default, skip_serializing)]
    use_default_gateways: Filled,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    #[serde(deserialize_with = "value::object_name_option", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backend_refs: Vec<Backend>,
}

/// A backend as routes of bytes write it: nothing of it changes what is sent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Backend {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(default = "service")]
    kind: String,
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(deserialize_with = "value::object_name")]
    name: String,
    #[serde(default, deserialize_with = "value::port", skip_serializing_if = "value::is_default")]
    port: u16,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: u32,
}

impl TlsRouteSpec {
    /// Checks beyond a single field: those of every route of bytes, and that its names are those of servers.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let hostnames = &self.0.hostnames;
        let mut wrong = check(&self.0);
        if hostnames.len() > MAX_HOSTNAMES {
            let message = format!("has {} names; at most {MAX_HOSTNAMES} are allowed", hostnames.len());
            wrong.push(("hostnames".to_owned(), message));
        }
        for (index, name) in hostnames.iter().enumerate() {
            if !is_hostname(name) {
                let message =
                    format!("{name:?} is no name of a server: a.example.com, or *.example.com for all below it");
                wrong.push((format!("hostnames[{index}]"), message));
            } else if hostnames[..index].contains(name) {
                wrong.push((format!("hostnames[{index}]"), format!("{name:?} is given twice")));
            }
        }
        wrong
    }
}

impl TcpRouteSpec {
    /// Checks beyond a single field.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        check(&self.0)
    }
}

fn check(spec: &HttpRouteSpec) -> Vec<(String, String)> {
    let mut wrong = spec.check();
    let without = spec.rules.iter().enumerate().filter(|(_, rule)| rule.backend_refs.is_empty());
    wrong.extend(without.map(|(index, _)| {
        (format!("rules[{index}].backendRefs"), "is empty: every connection would be refused".to_owned())
    }));
    wrong
}

/// A name in lower case, or `*.` and one; an address is none, since no ClientHello asks for it.
//= rfc6066#section-3
fn is_hostname(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    is_subdomain(name) && name.parse::<std::net::IpAddr>().is_err()
}

fn rules_of(rules: Vec<Rule>) -> Vec<RuleSpec> {
    let backend = |Backend { group, kind, namespace, name, port, weight }: Backend| BackendRef {
        group,
        kind,
        namespace,
        name,
        port,
        weight,
        filters: Vec::new(),
    };
    let rule = |Rule { name, backend_refs }: Rule| RuleSpec {
        name,
        backend_refs: backend_refs.into_iter().map(backend).collect(),
        ..RuleSpec::default()
    };
    rules.into_iter().map(rule).collect()
}

fn written(rules: Vec<RuleSpec>) -> Vec<Rule> {
    let backend = |backend: BackendRef| Backend {
        group: backend.group,
        kind: backend.kind,
        namespace: backend.namespace,
        name: backend.name,
        port: backend.port,
        weight: backend.weight,
    };
    let rule =
        |rule: RuleSpec| Rule { name: rule.name, backend_refs: rule.backend_refs.into_iter().map(backend).collect() };
    rules.into_iter().map(rule).collect()
}

impl From<TlsFields> for TlsRouteSpec {
    fn from(TlsFields { parent_refs, hostnames, rules, use_default_gateways }: TlsFields) -> Self {
        Self(HttpRouteSpec { parent_refs, rules: rules_of(rules), hostnames, use_default_gateways })
    }
}

impl From<TlsRouteSpec> for TlsFields {
    fn from(TlsRouteSpec(spec): TlsRouteSpec) -> Self {
        let HttpRouteSpec { parent_refs, rules, hostnames, use_default_gateways } = spec;
        Self { parent_refs, hostnames, rules: written(rules), use_default_gateways }
    }
}

impl From<TcpFields> for TcpRouteSpec {
    fn from(TcpFields { parent_refs, rules, use_default_gateways }: TcpFields) -> Self {
        Self(HttpRouteSpec { parent_refs, rules: rules_of(rules), hostnames: Vec::new(), use_default_gateways })
    }
}

impl From<TcpRouteSpec> for TcpFields {
    fn from(TcpRouteSpec(spec): TcpRouteSpec) -> Self {
        let HttpRouteSpec { parent_refs, rules, hostnames: _, use_default_gateways } = spec;
        Self { parent_refs, rules: written(rules), use_default_gateways }
    }
}
