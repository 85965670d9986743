//! What a change of policies themselves opens: whoever may write a policy may loosen it, and is told. Found by asking the
//! engine, before and after, for requests that the rules speak of: an example of each thing that opens, not a proof of the
//! rest.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::World;
use super::assemble::access_config;
use super::protection::restricts;
use crate::authz::{self, Engine, Operation, Request, Source, ValueCondition};
use crate::bundle::ObjectName;
use crate::resource::{Kind, Object, ObjectKey, ROOT_NAMESPACE, Resource, WorkloadSpec};

/// So many callers, operations, blocks of addresses and tokens of a workload's policies are tried.
const CALLERS: usize = 64;
const OPERATIONS: usize = 256;
const ADDRESSES: usize = 8;
const TOKENS: usize = 4;
/// So many requests are judged for one change.
const MOST: usize = 200_000;

/// A workload that takes what it did not take before, because a policy was changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    pub policy: ObjectKey,
    pub workload: ObjectName,
    pub what: String,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workload {} opens: {}", self.workload, self.what)
    }
}

/// The workloads that open by what was done to policies between the two worlds.
pub fn openings(before: &World, after: &World) -> Vec<Opening> {
    let is_policy = |key: &&&ObjectKey| key.kind.is_of_workloads();
    let touched: Vec<ObjectKey> = before.differing(after).iter().filter(is_policy).map(|key| (*key).clone()).collect();
    if touched.is_empty() {
        return Vec::new();
    }
    let namespaces: BTreeSet<&str> = touched.iter().map(|key| key.namespace.as_str()).collect();
    let is_near = |workload: &&Object<WorkloadSpec>| {
        namespaces.contains(ROOT_NAMESPACE) || namespaces.contains(workload.metadata.namespace.as_str())
    };
    let mut found = Vec::new();
    let mut judged = Judged { known: Vec::new(), left: MOST };
    for was in before.workloads().filter(is_near) {
        // Another workload by the same name is judged as what it is.
        let Some(now) = after.workload(&was.name()).filter(|now| now.metadata.labels == was.metadata.labels) else {
            continue;
        };
        let held = |world: &World, workload: &Object<WorkloadSpec>| -> BTreeSet<ObjectKey> {
            world.policies_of(workload).map(Resource::key).collect()
        };
        let near: BTreeSet<ObjectKey> = held(before, was).union(&held(after, now)).cloned().collect();
        let own: Vec<&ObjectKey> = touched.iter().filter(|key| near.contains(*key)).collect();
        for key in own.iter().filter(|key| key.kind.attaches_filters()) {
            if restricts(before, key, was) && !restricts(after, key, now) {
                let what = "its filter is enforced no longer".to_owned();
                found.push(Opening { policy: (*key).clone(), workload: was.name(), what });
            }
        }
        let Some(policy) = own.iter().find(|key| key.kind == Kind::AccessPolicy) else { continue };
        let configs = (access_config(before, was).unwrap_or_default(), access_config(after, now).unwrap_or_default());
        let port = was.spec.ports.first().map_or(0, |port| port.port);
        if let Some(what) = judged.of(configs, port) {
            found.push(Opening { policy: (*policy).clone(), workload: was.name(), what });
        }
    }
    found.sort();
    found
}

/// What was found for pairs of configurations: workloads of one service have the same.
struct Judged {
    known: Vec<((authz::Config, authz::Config), u16, Option<String>)>,
    left: usize,
}

impl Judged {
    fn of(&mut self, configs: (authz::Config, authz::Config), port: u16) -> Option<String> {
        if let Some((_, _, what)) = self.known.iter().find(|(known, of, _)| *of == port && *known == configs) {
            return what.clone();
        }
        let what = self.first(&configs.0, &configs.1, port);
        self.known.push((configs, port, what.clone()));
        what
    }

    /// The first request that is taken now and was refused.
    fn first(&mut self, before: &authz::Config, after: &authz::Config, port: u16) -> Option<String> {
        let (was, now) = (Engine::new(before).ok()?, Engine::new(after).ok()?);
        let (callers, addresses, tokens) = (callers(before, after), addresses(before, after), tokens(before, after));
        let near = addresses.iter().flat_map(|address| tokens.iter().map(move |token| (*address, token)));
        let from = callers.iter().flat_map(|caller| near.clone().map(move |(address, token)| (caller, address, token)));
        for probe in probes(before, after, port) {
            let headers: Vec<_> = probe.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for (caller, address, token) in from.clone() {
                self.left = self.left.checked_sub(1)?;
                let claims: Vec<_> = token.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let request = Request {
                    principal: Some(caller),
                    address: Some(address),
                    l4: probe.l4,
                    method: &probe.method,
                    path: &probe.path,
                    port: probe.port,
                    authority: Some(&probe.host),
                    headers: &headers,
                    claims: &claims,
                };
                if now.decide(&request).allowed && !was.decide(&request).allowed {
                    let place = if address == ELSEWHERE { String::new() } else { format!(" from {address}") };
                    let claims = claims
                        .iter()
                        .fold(String::new(), |all, (name, value)| all + " with claim " + name + ": " + value);
                    return Some(format!("{probe} by {caller}{place}{claims} would be let in, and is not now"));
                }
            }
        }
        None
    }
}

/// A request that some rule may speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    l4: bool,
    method: String,
    path: String,
    port: u16,
    host: String,
    headers: Vec<(String, String)>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.l4 {
            return write!(f, "a connection to port {}", self.port);
        }
        write!(f, "{} {} at port {}", self.method, self.path, self.port)?;
        if self.host != ANY {
            write!(f, " of host {}", self.host)?;
        }
        let mut headers = self.headers.iter();
        headers.try_for_each(|(name, value)| write!(f, " with {name}: {value}"))
    }
}

const ANY: &str = "any";

/// An address that rules hardly name: of a network that is for documentation.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// One of each kind of caller that the rules name, and one that none names.
fn callers(before: &authz::Config, after: &authz::Config) -> Vec<String> {
    let domain = &before.trust_domain;
    let named = |source: &Source| {
        let principals = source.principals.iter().chain(&source.not_principals).map(|text| match text.as_str() {
            "*" => format!("spiffe://{domain}/ns/{ANY}/sa/{ANY}"),
            text => text.replace('*', ANY),
        });
        let namespaces = source.namespaces.iter().chain(&source.not_namespaces);
        let namespaces = namespaces.map(|name| format!("spiffe://{domain}/ns/{}/sa/{ANY}", name.replace('*', ANY)));
        let accounts = source.service_accounts.iter().chain(&source.not_service_accounts);
        let accounts = accounts.filter_map(|account| {
            let (namespace, name) = account.split_once('/')?;
            Some(format!("spiffe://{domain}/ns/{}/sa/{}", namespace.replace('*', ANY), name.replace('*', ANY)))
        });
        principals.chain(namespaces).chain(accounts).collect::<Vec<_>>()
    };
    let sources = rules(before, after).flat_map(|rule| &rule.from).flat_map(named);
    let mut seen = BTreeSet::new();
    let unnamed = format!("spiffe://{domain}/ns/{ANY}/sa/{ANY}");
    std::iter::once(unnamed).chain(sources).filter(|caller| seen.insert(caller.clone())).take(CALLERS).collect()
}

/// An address in each block that the rules name, and one that hardly lies in any.
fn addresses(before: &authz::Config, after: &authz::Config) -> Vec<IpAddr> {
    let sources = rules(before, after).flat_map(|rule| &rule.from);
    let blocks = sources.flat_map(|source| source.ip_blocks.iter().chain(&source.not_ip_blocks));
    let named = blocks.filter_map(|text| Some(authz::block(text).ok()?.addr()));
    let mut seen = BTreeSet::new();
    std::iter::once(ELSEWHERE).chain(named).filter(|address| seen.insert(*address)).take(ADDRESSES).collect()
}

/// What tokens say that meet the sources of rules as far as one can, and none.
fn tokens(before: &authz::Config, after: &authz::Config) -> Vec<Vec<(String, String)>> {
    let token = |source: &Source| {
        let claims = source.claims.iter().filter_map(|claim| Some((claim.name.clone(), sample_value(claim)?)));
        claims.collect::<Vec<_>>()
    };
    let sources = rules(before, after).flat_map(|rule| &rule.from).map(token);
    let mut seen = BTreeSet::new();
    std::iter::once(Vec::new()).chain(sources).filter(|token| seen.insert(token.clone())).take(TOKENS).collect()
}

/// A value that meets a condition. `None`: it must be absent.
fn sample_value(ValueCondition { name: _, exact, prefix, present }: &ValueCondition) -> Option<String> {
    let value = exact.clone().or_else(|| prefix.as_ref().map(|prefix| format!("{prefix}x")));
    value.or_else(|| present.filter(|present| *present).map(|_| ANY.to_owned()))
}

fn rules<'c>(before: &'c authz::Config, after: &'c authz::Config) -> impl Iterator<Item = &'c authz::Rule> {
    before.policies.iter().chain(&after.policies).flat_map(|policy| &policy.rules)
}

/// Requests in which each entry of each operation comes at least once, and a plain one.
fn probes(before: &authz::Config, after: &authz::Config, port: u16) -> Vec<Probe> {
    let plain = probe(&Operation::default(), 0, port);
    let mut all = vec![Probe { l4: true, ..plain.clone() }, plain];
    for operation in rules(before, after).flat_map(|rule| &rule.to) {
        let Operation { methods, not_methods, paths, not_paths, ports, not_ports, hosts, not_hosts, headers: _ } =
            operation;
        let texts = [methods, not_methods, paths, not_paths, hosts, not_hosts].map(Vec::len);
        let longest = texts.into_iter().chain([ports.len(), not_ports.len()]).max().unwrap_or(0);
        for turn in 0..longest.max(1) {
            if all.len() >= OPERATIONS {
                return all;
            }
            // What an operation excludes may be what opens.
            let excluded = Operation {
                methods: not_methods.clone(),
                paths: not_paths.clone(),
                ports: not_ports.clone(),
                hosts: not_hosts.clone(),
                ..Operation::default()
            };
            for probe in [probe(operation, turn, port), probe(&excluded, turn, port)] {
                if !all.contains(&probe) {
                    all.push(probe);
                }
            }
        }
    }
    all
}

/// A request that meets an operation as far as one can, by the entries of its lists that are `turn`'s.
fn probe(operation: &Operation, turn: usize, port: u16) -> Probe {
    fn of<T>(list: &[T], turn: usize) -> Option<&T> {
        list.get(turn % list.len().max(1))
    }
    let mut free = ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter();
    let free = free.find(|method| !operation.not_methods.iter().any(|not| not == method)).unwrap_or("TRACE");
    let headers = operation.headers.iter().filter_map(|header| {
        let value = sample_value(header)?;
        Some((header.name.to_ascii_lowercase(), value))
    });
    Probe {
        l4: false,
        method: of(&operation.methods, turn).map_or(free, String::as_str).to_owned(),
        path: of(&operation.paths, turn).map_or_else(|| format!("/{ANY}"), |path| sample(path)),
        port: of(&operation.ports, turn).copied().unwrap_or(port),
        host: of(&operation.hosts, turn).map_or(ANY, String::as_str).replace('*', ANY),
        headers: headers.collect(),
    }
}

/// A path that a pattern matches.
fn sample(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| match segment {
        "*" => ANY,
        segment if segment.starts_with('{') => ANY,
        segment => segment,
    });
    let path = segments.collect::<Vec<_>>().join("/");
    if path.starts_with('/') { path } else { format!("/{path}") }
}
