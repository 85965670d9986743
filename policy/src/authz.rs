//! Authorization: the one engine that the authz filter wraps in the sandbox and that `weft explain` runs natively.
//! Deny rules first; a target with any allow policy denies what none matches; otherwise authenticated peers are allowed.

mod compile;
mod index;
#[cfg(any(feature = "manifest", test))]
mod older;
mod pattern;
mod place;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::path;
use compile::{Rules, Seen};
use pattern::Header;
#[cfg(feature = "manifest")]
pub(crate) use pattern::check_principal;
pub(crate) use pattern::is_token;
pub use pattern::{PathTemplate, is_alike, is_of_mesh};
#[cfg(feature = "manifest")]
pub(crate) use place::block;

/// Configuration of the authz filter: the policies that select one workload, already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Namespaces and service accounts in rules are those of this trust domain.
    #[serde(default = "default_trust_domain")]
    pub trust_domain: String,
    #[serde(default)]
    pub policies: Vec<Policy>,
}

impl Default for Config {
    fn default() -> Self {
        Self { trust_domain: default_trust_domain(), policies: Vec::new() }
    }
}

fn default_trust_domain() -> String {
    crate::identity::TrustDomain::DEFAULT.to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `namespace/name`.
    pub name: String,
    pub action: Action,
    /// Empty = deny everything, with either action.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Allow,
    Deny,
}

/// Holds where one of `from` and one of `to` hold; an empty list always does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Operation>,
}

/// A peer, by its certificate, its address and the claims of its token. All lists that are given must hold; any entry of a list
/// will do, but claims must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// SPIFFE IDs; a trailing `*` makes a prefix, `*` alone is any authenticated peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    /// `namespace/account`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<String>,
    /// Blocks of addresses, as in `10.0.0.0/8`, or single addresses. One that is not known meets a deny rule only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<String>,
    /// Of a token that a filter before has checked. Of a connection they are not known: see [`Conditions::need_http`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ValueCondition>,
}

impl Source {
    /// True where it looks at the peer's address.
    fn is_placed(&self) -> bool {
        !self.ip_blocks.is_empty() || !self.not_ip_blocks.is_empty()
    }

    fn is_claimed(&self) -> bool {
        !self.claims.is_empty()
    }
}

/// Operation that a rule covers. All lists given must hold; any entry of a list will do, but headers must all hold. Methods
/// and names of headers that servers may take for the same (`delete`, `X_Role`) can't pass a deny rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<String>,
    /// `/x` exactly; `/x/*` that and all below it; `/a/{id}/b` one segment for `{id}`; `*` any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueCondition>,
    /// Hosts in lower case, without a port; `*.example` is every name below `example`. A request without a host meets a deny
    /// rule only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<String>,
}

impl Operation {
    /// True where it looks at the host that is asked for.
    fn is_hosted(&self) -> bool {
        !self.hosts.is_empty() || !self.not_hosts.is_empty()
    }
}

/// One of `exact`, `prefix`, `present`, of a header, or of a claim by its name in lower case. A header sent several times meets an
/// allow rule if all its values do, a deny rule if any does, or any member of one that is a list. Of a claim any member will do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueCondition {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// A rule that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{policy}: {key}: {message}")]
pub struct ConfigError {
    pub policy: String,
    /// Place in the policy: `rules[0].to[1].paths[0]`.
    pub key: String,
    pub message: String,
}

/// Request to be judged. For plain TCP `l4` is set, and method, path, authority, headers and claims are not looked at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The peer's verified SPIFFE ID; `None` = not authenticated.
    pub principal: Option<&'a str>,
    /// The address that the peer connected from; `None` = not known.
    pub address: Option<IpAddr>,
    pub l4: bool,
    pub method: &'a str,
    /// One reading of a normalised path.
    pub path: &'a str,
    /// The app's port.
    pub port: u16,
    /// Host and port that it asks for, as it was sent; `None`: it names none.
    pub authority: Option<&'a str>,
    /// At least those of `Engine::needed_headers` and those whose names differ from one of them only by `_` in place of `-`,
    /// names in lower case, each value its own pair.
    pub headers: &'a [(&'a str, &'a str)],
    /// What a checked token says, names in lower case, each member of a list its own pair.
    pub claims: &'a [(&'a str, &'a str)],
}

impl<'a> Request<'a> {
    /// A connection that is not looked into, to the app's port, from an address that is not known.
    pub fn connection(principal: Option<&'a str>, port: u16) -> Self {
        Self {
            principal,
            address: None,
            l4: true,
            method: "",
            path: "",
            port,
            authority: None,
            headers: &[],
            claims: &[],
        }
    }
}

/// The conditions of an operation, wherever they are written down.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(feature = "manifest"),
    allow(dead_code, reason = "ports are asked for by planners, and filters do not plan")
)]
pub(crate) struct Conditions<'a> {
    /// Methods, paths and hosts, each also with `not`.
    pub(crate) lists: [&'a [String]; 6],
    pub(crate) headers: &'a [ValueCondition],
    pub(crate) ports: &'a [u16],
    pub(crate) not_ports: &'a [u16],
}

impl Conditions<'_> {
    /// True where it looks at what only HTTP says. Of a connection that is not looked into, an allow rule then never holds,
    /// and a deny rule holds by its other conditions: what can't be seen can't be allowed, and saves nobody from a deny.
    pub(crate) fn need_http(&self) -> bool {
        self.lists.iter().any(|list| !list.is_empty()) || !self.headers.is_empty()
    }

    #[cfg_attr(
        not(feature = "manifest"),
        allow(dead_code, reason = "ports are asked for by planners, and filters do not plan")
    )]
    pub(crate) fn are_for(&self, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port)) && !self.not_ports.contains(&port)
    }
}

impl<'a> From<&'a Operation> for Conditions<'a> {
    fn from(operation: &'a Operation) -> Self {
        let Operation { methods, not_methods, paths, not_paths, ports, not_ports, headers, hosts, not_hosts } =
            operation;
        let lists = [methods, not_methods, paths, not_paths, hosts, not_hosts].map(Vec::as_slice);
        Self { lists, headers, ports, not_ports }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'e> {
    pub allowed: bool,
    /// `namespace/policy#rule`, the rule by name or index. Where no rule of the allow policies matched:
    /// `namespace/policy#no-match`. `None` where no policy had a say.
    pub rule: Option<&'e str>,
    pub reason: &'static str,
}

/// Policies, compiled. Immutable; a decision allocates only for a path with escapes in it, and a host with upper case.
#[derive(Debug)]
pub struct Engine {
    deny: Rules,
    allow: Rules,
    /// Set where any allow policy exists: what a refusal for want of a match points to.
    no_match: Option<String>,
    needed_headers: Vec<String>,
    needs_address: bool,
    needs_authority: bool,
    needed_claims: Vec<String>,
}

impl Engine {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let operations = || config.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to);
        let sources = || config.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.from);
        let names = operations().flat_map(|to| &to.headers).flat_map(|header| Header::spellings(&header.name));
        let mut engine = Self {
            deny: Rules::default(),
            allow: Rules::default(),
            no_match: None,
            needed_headers: names.collect(),
            needs_address: sources().any(Source::is_placed),
            needs_authority: operations().any(Operation::is_hosted),
            needed_claims: sources().flat_map(|from| &from.claims).map(|claim| claim.name.clone()).collect(),
        };
        let mut allowing: Vec<&str> = Vec::new();
        for policy in &config.policies {
            if policy.action == Action::Allow {
                allowing.push(&policy.name);
            }
            let rules = if policy.action == Action::Allow { &mut engine.allow } else { &mut engine.deny };
            rules.add(policy, &config.trust_domain)?;
        }
        engine.needed_headers.sort_unstable();
        engine.needed_headers.dedup();
        engine.needed_claims.sort_unstable();
        engine.needed_claims.dedup();
        engine.no_match = (!allowing.is_empty()).then(|| format!("{}#no-match", allowing.join(",")));
        engine.deny.index();
        engine.allow.index();
        Ok(engine)
    }

    pub fn decide(&self, request: &Request<'_>) -> Decision<'_> {
        let path = path::decode(request.path);
        let host = request.authority.filter(|_| !request.l4).and_then(place::host_of);
        let seen = Seen {
            request,
            path: &path,
            host: host.as_deref(),
            address: request.address.map(|address| address.to_canonical()),
        };
        if let Some(rule) = self.deny.first(&seen) {
            return Decision { allowed: false, rule: Some(rule), reason: "denied by rule" };
        }
        if let Some(rule) = self.allow.first(&seen) {
            return Decision { allowed: true, rule: Some(rule), reason: "allowed by rule" };
        }
        match &self.no_match {
            Some(rule) => Decision { allowed: false, rule: Some(rule), reason: "no allow rule matches" },
            None if request.principal.is_none() => {
                Decision { allowed: false, rule: None, reason: "peer is not authenticated" }
            }
            None => Decision { allowed: true, rule: None, reason: "no policy forbids it" },
        }
    }

    /// How many rules are compared with a request of which none holds.
    #[cfg(test)]
    fn looked_at(&self, request: &Request<'_>) -> usize {
        let host = request.authority.and_then(place::host_of);
        let address = request.address.map(|address| address.to_canonical());
        let seen = Seen { request, path: request.path.as_bytes(), host: host.as_deref(), address };
        self.deny.looked_at(&seen) + self.allow.looked_at(&seen)
    }

    /// Names of headers that rules read, in lower case, sorted. With each that has `-` or `_` in it comes the name with the
    /// other, which stands for all mixtures: see [`Request::headers`].
    pub fn needed_headers(&self) -> &[String] {
        &self.needed_headers
    }

    /// Names of claims that rules read, sorted.
    pub fn needed_claims(&self) -> &[String] {
        &self.needed_claims
    }

    /// True where a rule looks at the peer's address.
    pub fn needs_address(&self) -> bool {
        self.needs_address
    }

    /// True where a rule looks at the host that is asked for.
    pub fn needs_authority(&self) -> bool {
        self.needs_authority
    }
}
