//! Rules as they are matched: patterns parsed, and an index so that a rule for somebody else costs nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use super::index::Index;
use super::pattern::{Claim, Header, Path, Text, is_token};
use super::place::{self, Host};
use super::{Action, Conditions, ConfigError, Operation, Policy, Request, Source};
use crate::identity::TrustDomain;

/// A request, its path decoded, and the address and host that rules compare.
pub(super) struct Seen<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) path: &'a [u8],
    pub(super) host: Option<&'a str>,
    pub(super) address: Option<IpAddr>,
}

/// All rules of one action, in the order written.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<CompiledRule>,
    index: Index,
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    id: String,
    allow: bool,
    pub(super) from: Vec<CompiledSource>,
    pub(super) to: Vec<CompiledOperation>,
}

/// Every list of `all` must have a match, `none` must have none.
#[derive(Debug)]
pub(super) struct CompiledSource {
    pub(super) all: Vec<Vec<Text>>,
    none: Vec<Text>,
    pub(super) blocks: Vec<IpNet>,
    not_blocks: Vec<IpNet>,
    claims: Vec<Claim>,
}

#[derive(Debug)]
pub(super) struct CompiledOperation {
    methods: Vec<String>,
    not_methods: Vec<String>,
    pub(super) paths: Vec<Path>,
    not_paths: Vec<Path>,
    ports: Vec<u16>,
    not_ports: Vec<u16>,
    headers: Vec<Header>,
    pub(super) hosts: Vec<Host>,
    not_hosts: Vec<Host>,
    needs_http: bool,
}

impl Rules {
    pub(super) fn add(&mut self, policy: &Policy, trust_domain: &str) -> Result<(), ConfigError> {
        let domain: TrustDomain = trust_domain.parse().map_err(|error: crate::identity::IdentityError| {
            ConfigError { policy: policy.name.clone(), key: "trust_domain".to_owned(), message: error.to_string() }
        })?;
        let allow = policy.action == Action::Allow;
        if !allow && policy.rules.is_empty() {
            let id = format!("{}#all", policy.name);
            self.rules.push(CompiledRule { id, allow, from: vec![], to: vec![] });
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let at = |key: String, message: String| ConfigError { policy: policy.name.clone(), key, message };
            let label = match &rule.name {
                Some(name)
                    if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#') =>
                {
                    let message = "a rule's name has no blanks and no `#`".to_owned();
                    return Err(at(format!("rules[{index}].name"), message));
                }
                Some(name) => name.clone(),
                None => index.to_string(),
            };
            let mut compiled = CompiledRule { id: format!("{}#{label}", policy.name), allow, from: vec![], to: vec![] };
            for (i, source) in rule.from.iter().enumerate() {
                let source = CompiledSource::new(source, &domain);
                compiled.from.push(source.map_err(|(key, m)| at(format!("rules[{index}].from[{i}]{key}"), m))?);
            }
            for (i, operation) in rule.to.iter().enumerate() {
                let operation = CompiledOperation::new(operation);
                compiled.to.push(operation.map_err(|(key, m)| at(format!("rules[{index}].to[{i}]{key}"), m))?);
            }
            self.rules.push(compiled);
        }
        Ok(())
    }

    pub(super) fn index(&mut self) {
        self.index = Index::new(&self.rules);
    }

    /// The first rule, in the order written, that holds.
    pub(super) fn first(&self, seen: &Seen<'_>) -> Option<&str> {
        let mut first = None::<usize>;
        self.index.near(seen, |list| {
            let bound = first.unwrap_or(usize::MAX);
            let mut before = list.iter().copied().take_while(|index| *index < bound);
            first = before.find(|index| self.rules[*index].holds(seen)).or(first);
        });
        first.map(|index| self.rules[index].id.as_str())
    }

    /// How many rules may hold for a request.
    #[cfg(test)]
    pub(super) fn looked_at(&self, seen: &Seen<'_>) -> usize {
        let mut count = 0;
        self.index.near(seen, |list| count += list.len());
        count
    }
}

impl CompiledRule {
    fn holds(&self, seen: &Seen<'_>) -> bool {
        let from = |source: &CompiledSource| source.holds(seen, self.allow);
        let to = |operation: &CompiledOperation| operation.holds(seen, self.allow);
        (self.from.is_empty() || self.from.iter().any(from)) && (self.to.is_empty() || self.to.iter().any(to))
    }
}

type Wrong = (String, String);

/// Parses each entry of a list; an error carries the entry's key.
fn each<T, P>(key: &str, list: &[T], parse: impl Fn(&T) -> Result<P, String>) -> Result<Vec<P>, Wrong> {
    let parsed = list.iter().enumerate().map(|(i, entry)| parse(entry).map_err(|m| (format!(".{key}[{i}]"), m)));
    parsed.collect()
}

/// The same of a list whose entries all may have to be compared.
fn few<P>(key: &str, list: &[String], parse: impl Fn(&str) -> Result<P, String>) -> Result<Vec<P>, Wrong> {
    if list.len() > place::MOST {
        return Err((format!(".{key}"), format!("it has {} entries; at most {} are taken", list.len(), place::MOST)));
    }
    each(key, list, |text| parse(text))
}

impl CompiledSource {
    fn new(source: &Source, domain: &TrustDomain) -> Result<Self, Wrong> {
        if *source == Source::default() {
            return Err((String::new(), "names nobody; leave `from` out to mean everybody".to_owned()));
        }
        let principal = |text: &String| Text::principal(text);
        let namespace = |text: &String| Text::namespace(text, domain.as_str());
        let account = |text: &String| Text::service_account(text, domain);
        let mut all = vec![
            each("principals", &source.principals, principal)?,
            each("namespaces", &source.namespaces, namespace)?,
            each("serviceAccounts", &source.service_accounts, account)?,
        ];
        all.retain(|list| !list.is_empty());
        let mut none = each("notPrincipals", &source.not_principals, principal)?;
        none.extend(each("notNamespaces", &source.not_namespaces, namespace)?);
        none.extend(each("notServiceAccounts", &source.not_service_accounts, account)?);
        let blocks = few("ipBlocks", &source.ip_blocks, place::block)?;
        let not_blocks = few("notIpBlocks", &source.not_ip_blocks, place::block)?;
        let claims = each("claims", &source.claims, Claim::parse)?;
        Ok(Self { all, none, blocks, not_blocks, claims })
    }

    /// A caller without identity is nobody: no allow rule with a source holds for it, every "not" of a deny rule does.
    fn holds(&self, seen: &Seen<'_>, allow: bool) -> bool {
        let is_meant = match seen.request.principal {
            None => !allow && self.all.is_empty(),
            Some(principal) => {
                self.all.iter().all(|list| list.iter().any(|text| text.matches(principal)))
                    && !self.none.iter().any(|text| text.matches(principal))
            }
        };
        is_meant && self.is_at(seen.address, allow) && self.is_claimed(seen.request, allow)
    }

    /// What a connection that is not looked into claims can't be seen.
    fn is_claimed(&self, request: &Request<'_>, allow: bool) -> bool {
        if request.l4 {
            return self.claims.is_empty() || !allow;
        }
        self.claims.iter().all(|claim| claim.matches(request.claims))
    }

    /// An address that is not known is allowed by no rule that asks for it, and escapes none that denies.
    fn is_at(&self, address: Option<IpAddr>, allow: bool) -> bool {
        if self.blocks.is_empty() && self.not_blocks.is_empty() {
            return true;
        }
        let Some(address) = address else { return !allow };
        let is_in = |blocks: &[IpNet]| blocks.iter().any(|block| block.contains(&address));
        (self.blocks.is_empty() || is_in(&self.blocks)) && !is_in(&self.not_blocks)
    }
}

impl CompiledOperation {
    fn new(operation: &Operation) -> Result<Self, Wrong> {
        if *operation == Operation::default() {
            return Err((String::new(), "names nothing; leave `to` out to mean everything".to_owned()));
        }
        let method = |text: &String| {
            let fine = is_token(text) && !text.bytes().any(|b| b.is_ascii_lowercase());
            if fine { Ok(text.clone()) } else { Err(format!("{text:?} is not a method; methods are in upper case")) }
        };
        let path = |text: &String| Path::parse(text);
        let port = |port: &u16| if *port == 0 { Err("0 is not a port".to_owned()) } else { Ok(*port) };
        Ok(Self {
            methods: each("methods", &operation.methods, method)?,
            not_methods: each("notMethods", &operation.not_methods, method)?,
            paths: each("paths", &operation.paths, path)?,
            not_paths: each("notPaths", &operation.not_paths, path)?,
            ports: each("ports", &operation.ports, port)?,
            not_ports: each("notPorts", &operation.not_ports, port)?,
            headers: each("headers", &operation.headers, Header::parse)?,
            hosts: few("hosts", &operation.hosts, Host::parse)?,
            not_hosts: few("notHosts", &operation.not_hosts, Host::parse)?,
            needs_http: Conditions::from(operation).need_http(),
        })
    }

    fn holds(&self, seen: &Seen<'_>, allow: bool) -> bool {
        let Seen { request, path, host, .. } = seen;
        let port =
            (self.ports.is_empty() || self.ports.contains(&request.port)) && !self.not_ports.contains(&request.port);
        if !port {
            return false;
        }
        if request.l4 {
            return !(allow && self.needs_http);
        }
        // Some servers take `delete` for DELETE. Neither reading may pass a deny rule, and both must meet an allow rule.
        let is_sent = |method: &String| method == request.method;
        let may_be_read = |method: &String| method.eq_ignore_ascii_case(request.method);
        let (named, excluded) = if allow {
            (self.methods.iter().any(is_sent), self.not_methods.iter().any(may_be_read))
        } else {
            (self.methods.iter().any(may_be_read), self.not_methods.iter().any(is_sent))
        };
        (self.methods.is_empty() || named)
            && !excluded
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches(path)))
            && !self.not_paths.iter().any(|p| p.matches(path))
            && self.headers.iter().all(|header| header.matches(request.headers, allow))
            && self.is_for(*host, allow)
    }

    /// A request that names no host may be for any of the app's: no allow rule holds that asks for one, every deny rule does.
    fn is_for(&self, host: Option<&str>, allow: bool) -> bool {
        if self.hosts.is_empty() && self.not_hosts.is_empty() {
            return true;
        }
        let Some(host) = host else { return !allow };
        let is_of = |hosts: &[Host]| hosts.iter().any(|pattern| pattern.matches(host));
        (self.hosts.is_empty() || is_of(&self.hosts)) && !is_of(&self.not_hosts)
    }
}
