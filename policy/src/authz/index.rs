//! The rules that may hold for a request: each rule is found by the callers that it names, their addresses, its hosts or its
//! paths, so that the number of rules for others makes no difference. Invariant: a rule that holds is among those found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::{CompiledRule, CompiledSource, Seen};
use super::pattern::Text;
use super::place::keys_of;

/// Numbers of rules, each list in order. A rule may be in several.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By principals that are named exactly, and by `spiffe://DOMAIN/ns/NAMESPACE/sa/` of namespaces.
    by_name: BTreeMap<String, Vec<usize>>,
    by_block: BTreeMap<IpNet, Vec<usize>>,
    /// The lengths of the prefixes of these blocks: of IPv4, and of IPv6.
    lengths: [BTreeSet<u8>; 2],
    /// All rules that are found by blocks, for an address that is not known.
    placed: Vec<usize>,
    /// By [`super::place::Host::key`].
    by_host: BTreeMap<String, Vec<usize>>,
    /// All rules that are found by hosts, for a request without one.
    hosted: Vec<usize>,
    /// By [`super::pattern::Path::key`].
    by_path: BTreeMap<Vec<u8>, Vec<usize>>,
    /// Bytes of the longest of these.
    longest: usize,
    /// All rules that are found by paths, for a connection.
    pathed: Vec<usize>,
    /// The others.
    general: Vec<usize>,
}

/// What a source is found by.
enum Found<'r> {
    ByNames(Vec<&'r str>),
    ByBlocks(&'r [IpNet]),
}

impl Index {
    pub(super) fn new(rules: &[CompiledRule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            index.add(number, rule);
        }
        index
    }

    fn add(&mut self, number: usize, rule: &CompiledRule) {
        let sources: Option<Vec<Found<'_>>> = rule.from.iter().map(found).collect();
        if let Some(sources) = sources.filter(|sources| !sources.is_empty()) {
            for source in sources {
                self.add_source(number, &source);
            }
        } else if !rule.to.is_empty() && rule.to.iter().all(|to| !to.hosts.is_empty()) {
            for host in rule.to.iter().flat_map(|to| &to.hosts) {
                push(self.by_host.entry(host.key().to_owned()).or_default(), number);
            }
            push(&mut self.hosted, number);
        } else if let Some(keys) = path_keys(rule) {
            for key in keys {
                self.longest = self.longest.max(key.len());
                push(self.by_path.entry(key).or_default(), number);
            }
            push(&mut self.pathed, number);
        } else {
            push(&mut self.general, number);
        }
    }

    fn add_source(&mut self, number: usize, source: &Found<'_>) {
        match source {
            Found::ByNames(names) => {
                for name in names {
                    push(self.by_name.entry((*name).to_owned()).or_default(), number);
                }
            }
            Found::ByBlocks(blocks) => {
                for block in *blocks {
                    self.lengths[usize::from(block.addr().is_ipv6())].insert(block.prefix_len());
                    push(self.by_block.entry(*block).or_default(), number);
                }
                push(&mut self.placed, number);
            }
        }
    }

    /// Shows each list in which a rule may be that holds.
    pub(super) fn near<'i>(&'i self, seen: &Seen<'_>, mut look: impl FnMut(&'i [usize])) {
        look(&self.general);
        if let Some(principal) = seen.request.principal {
            let namespace = principal.rfind('/').map(|end| &principal[..=end]);
            for name in std::iter::once(principal).chain(namespace) {
                look(self.by_name.get(name).map_or(&[][..], Vec::as_slice));
            }
        }
        match seen.address {
            Some(address) => self.blocks_around(address).for_each(&mut look),
            None => look(&self.placed),
        }
        match seen.host {
            _ if self.hosted.is_empty() => {}
            Some(host) => keys_of(host).filter_map(|key| self.by_host.get(key)).for_each(|list| look(list)),
            None => look(&self.hosted),
        }
        if seen.request.l4 {
            look(&self.pathed);
        } else if !self.pathed.is_empty() {
            let keys = beginnings(seen.path).take_while(|key| key.len() <= self.longest);
            keys.filter_map(|key| self.by_path.get(key)).for_each(|list| look(list));
        }
    }

    fn blocks_around(&self, address: IpAddr) -> impl Iterator<Item = &[usize]> {
        let lengths = self.lengths[usize::from(address.is_ipv6())].iter();
        lengths.filter_map(move |length| {
            let block = IpNet::new(address, *length).ok()?.trunc();
            self.by_block.get(&block).map(Vec::as_slice)
        })
    }
}

/// A path up to each of its slashes, and the whole of it; the shortest first.
fn beginnings(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(move |(at, _)| &path[..at]).chain(std::iter::once(path))
}

/// What a rule is found by whose operations all name paths. `None`: not all do, or one of them is every path.
fn path_keys(rule: &CompiledRule) -> Option<Vec<Vec<u8>>> {
    if rule.to.is_empty() || rule.to.iter().any(|to| to.paths.is_empty()) {
        return None;
    }
    rule.to.iter().flat_map(|to| &to.paths).map(|path| path.key()).collect()
}

/// Adds a rule to a list, once; rules come in order.
fn push(list: &mut Vec<usize>, number: usize) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

/// `None`: it can be met in other ways, too.
fn found(source: &CompiledSource) -> Option<Found<'_>> {
    let names = source.all.iter().find_map(|list| list.iter().map(name).collect::<Option<Vec<_>>>());
    let blocks = || (!source.blocks.is_empty()).then(|| Found::ByBlocks(&source.blocks));
    names.map(Found::ByNames).or_else(blocks)
}

/// What a principal is looked up by that meets a pattern: itself, or all of it up to the account.
fn name(text: &Text) -> Option<&str> {
    /// Of `spiffe://DOMAIN/ns/NAMESPACE/sa/`: no part of a SPIFFE ID of the mesh has one in it.
    const SLASHES: usize = 6;
    match text {
        Text::Exact(principal) => Some(principal),
        Text::Prefix(prefix) => {
            let is_namespace = prefix.ends_with('/') && prefix.matches('/').count() == SLASHES;
            is_namespace.then_some(prefix.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::{Action, Config, Engine, Operation, Policy, Request, Rule, Source};

    /// Rules for others are not looked at, however many they are, whatever they are told apart by.
    #[test]
    fn rules_for_others_are_not_looked_at() {
        let from = |source: Source| Rule { from: vec![source], ..Rule::default() };
        let kinds: [fn(usize) -> Source; 3] = [
            |n| Source { service_accounts: vec![format!("shop/web-{n}")], ..Source::default() },
            |n| Source { namespaces: vec![format!("shop-{n}")], ..Source::default() },
            |n| Source { ip_blocks: vec![format!("10.{}.{}.0/24", n / 256, n % 256)], ..Source::default() },
        ];
        let by_host = |n: usize| {
            let hosts = vec![format!("shop-{n}.example"), format!("*.shop-{n}.example")];
            Rule { to: vec![Operation { hosts, ..Operation::default() }], ..Rule::default() }
        };
        let mut sets: Vec<Vec<Rule>> = kinds.iter().map(|of| (0..10_000).map(|n| from(of(n))).collect()).collect();
        sets.push((0..10_000).map(by_host).collect());
        let by_path = |n: usize| {
            let paths = vec![format!("/shop-{n}/*"), format!("/x/shop-{n}"), format!("/y/shop-{n}/{{id}}")];
            Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() }
        };
        sets.push((0..10_000).map(by_path).collect());
        for rules in sets {
            let example = format!("{:?}", rules[7]);
            let policies = vec![Policy { name: "a/b".to_owned(), action: Action::Allow, rules }];
            let engine = Engine::new(&Config { policies, ..Config::default() }).unwrap();
            for (principal, place, host, path, meets) in [
                ("spiffe://cluster.local/ns/shop-7/sa/web", [10, 0, 7, 1], "x.shop-7.example", "/shop-7/x", true),
                ("spiffe://cluster.local/ns/shop/sa/web-7", [10, 0, 7, 1], "shop-7.example", "/y/shop-7/1", true),
                ("spiffe://cluster.local/ns/other/sa/web", [11, 0, 0, 1], "other.example", "/x/other", false),
            ] {
                let request = Request {
                    address: Some(IpAddr::from(place)),
                    l4: false,
                    path,
                    authority: Some(host),
                    ..Request::connection(Some(principal), 80)
                };
                let looked = engine.looked_at(&request);
                assert!(looked <= usize::from(meets), "{looked} rules: {example} {request:?}");
                assert_eq!(engine.decide(&request).allowed, looked == 1, "{example} {request:?}");
            }
        }
    }
}
