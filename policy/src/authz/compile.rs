//! Rules as they are matched: patterns parsed, and an index by principal so that a rule for somebody else costs nothing.

use std::collections::BTreeMap;

use super::pattern::{Header, Path, Text, is_token};
use super::{Action, Conditions, ConfigError, Operation, Policy, Request, Source};
use crate::identity::TrustDomain;

/// A request and its path decoded.
pub(super) struct Seen<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) path: &'a [u8],
}

/// All rules of one action, in the order written.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<CompiledRule>,
    /// Rules whose sources are all exact principals, by principal.
    by_principal: BTreeMap<String, Vec<usize>>,
    /// The others.
    general: Vec<usize>,
}

#[derive(Debug)]
struct CompiledRule {
    id: String,
    allow: bool,
    from: Vec<CompiledSource>,
    to: Vec<CompiledOperation>,
}

/// Every list of `all` must have a match, `none` must have none.
#[derive(Debug)]
struct CompiledSource {
    all: Vec<Vec<Text>>,
    none: Vec<Text>,
}

#[derive(Debug)]
struct CompiledOperation {
    methods: Vec<String>,
    not_methods: Vec<String>,
    paths: Vec<Path>,
    not_paths: Vec<Path>,
    ports: Vec<u16>,
    not_ports: Vec<u16>,
    headers: Vec<Header>,
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
        for (index, rule) in self.rules.iter().enumerate() {
            match rule.exact_principals() {
                Some(principals) => {
                    for principal in principals {
                        let rules = self.by_principal.entry(principal.to_owned()).or_default();
                        if rules.last() != Some(&index) {
                            rules.push(index);
                        }
                    }
                }
                None => self.general.push(index),
            }
        }
    }

    /// The first rule, in the order written, that holds.
    pub(super) fn first(&self, seen: &Seen<'_>) -> Option<&str> {
        let principal = seen.request.principal;
        let own = principal.and_then(|p| self.by_principal.get(p)).map_or(&[][..], Vec::as_slice);
        let (mut own, mut general) = (own.iter().peekable(), self.general.iter().peekable());
        loop {
            let index = match (own.peek(), general.peek()) {
                (Some(a), Some(b)) if a < b => own.next(),
                (Some(_), None) => own.next(),
                (_, Some(_)) => general.next(),
                (None, None) => return None,
            }?;
            let rule = &self.rules[*index];
            if rule.holds(seen) {
                return Some(&rule.id);
            }
        }
    }
}

impl CompiledRule {
    fn holds(&self, seen: &Seen<'_>) -> bool {
        let from = |source: &CompiledSource| source.holds(seen.request.principal, self.allow);
        let to = |operation: &CompiledOperation| operation.holds(seen, self.allow);
        (self.from.is_empty() || self.from.iter().any(from)) && (self.to.is_empty() || self.to.iter().any(to))
    }

    /// All the principals that this rule can hold for, if each of its sources names them exactly.
    fn exact_principals(&self) -> Option<Vec<&str>> {
        if self.from.is_empty() {
            return None;
        }
        let mut principals = Vec::new();
        for source in &self.from {
            let exact = |list: &Vec<Text>| list.iter().all(|text| matches!(text, Text::Exact(_)));
            for text in source.all.iter().find(|list| exact(list))? {
                if let Text::Exact(principal) = text {
                    principals.push(principal.as_str());
                }
            }
        }
        Some(principals)
    }
}

type Wrong = (String, String);

/// Parses each entry of a list; an error carries the entry's key.
fn each<T, P>(key: &str, list: &[T], parse: impl Fn(&T) -> Result<P, String>) -> Result<Vec<P>, Wrong> {
    let parsed = list.iter().enumerate().map(|(i, entry)| parse(entry).map_err(|m| (format!(".{key}[{i}]"), m)));
    parsed.collect()
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
        Ok(Self { all, none })
    }

    /// A caller without identity is nobody: no allow rule with a source holds for it, every "not" of a deny rule does.
    fn holds(&self, principal: Option<&str>, allow: bool) -> bool {
        let Some(principal) = principal else { return !allow && self.all.is_empty() };
        self.all.iter().all(|list| list.iter().any(|text| text.matches(principal)))
            && !self.none.iter().any(|text| text.matches(principal))
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
            needs_http: Conditions::from(operation).need_http(),
        })
    }

    fn holds(&self, seen: &Seen<'_>, allow: bool) -> bool {
        let Seen { request, path } = seen;
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
    }
}
