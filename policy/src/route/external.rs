//! Which ExternalService a name or an address outside the mesh meets. Those of the caller's own namespace come before those
//! of the whole mesh; among them an exact name before patterns, a longer pattern before a shorter one, and the older of two
//! that claim the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::Hello;
use crate::bundle::{
    Bundle, External, ExternalPort, ExternalProtocol, ExternalTls, ObjectName, RequestRefusal, TunnelRefusal,
    WorkloadPort,
};
use crate::host::{bare, is_below, plain};

/// Names and addresses, each with those that claim it, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Externals {
    exact: BTreeMap<String, Vec<ObjectName>>,
    /// By what follows the `*`, the dot included.
    below: BTreeMap<String, Vec<ObjectName>>,
    addresses: BTreeMap<IpAddr, Vec<ObjectName>>,
}

/// The way to somewhere outside the mesh that an ExternalService is for one request or connection.
#[derive(Debug, Clone)]
pub struct WayOut<'t> {
    pub external: &'t External,
    pub port: &'t ExternalPort,
    met: Met,
}

#[derive(Debug, Clone)]
enum Met {
    /// In lower case, without a dot at its end.
    Host(String),
    Address(IpAddr),
}

impl Externals {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let mut externals = Self::default();
        let mut all: Vec<&External> = bundle.externals.values().collect();
        all.sort_by_key(|external| (external.created, &external.name));
        for external in all {
            let claim = |claims: &mut Vec<ObjectName>| claims.push(external.name.clone());
            for host in &external.hosts {
                match host.strip_prefix('*') {
                    Some(end) => claim(externals.below.entry(end.to_owned()).or_default()),
                    None => claim(externals.exact.entry(host.clone()).or_default()),
                }
            }
            for address in external.endpoints.iter().filter_map(|endpoint| endpoint.address.parse::<IpAddr>().ok()) {
                claim(externals.addresses.entry(address.to_canonical()).or_default());
            }
        }
        externals
    }

    /// By a name, in any case, with or without the trailing dot.
    pub(super) fn by_host<'t>(&self, bundle: &'t Bundle, host: &str, port: u16, from: &str) -> Option<WayOut<'t>> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        let host = plain(host);
        // The longest first: at the first dot that has something before it.
        let ends = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..]);
        let below = ends.filter_map(|end| self.below.get(end)).flatten();
        let claims: Vec<&ObjectName> = self.exact.get(&host).into_iter().flatten().chain(below).collect();
        let (external, port) = first(bundle, &claims, port, from)?;
        Some(WayOut { external, port, met: Met::Host(host) })
    }

    /// By an address that is one of its endpoints.
    pub(super) fn by_address<'t>(&self, bundle: &'t Bundle, address: SocketAddr, from: &str) -> Option<WayOut<'t>> {
        let ip = address.ip().to_canonical();
        let claims: Vec<&ObjectName> = self.addresses.get(&ip)?.iter().collect();
        let (external, port) = first(bundle, &claims, address.port(), from)?;
        Some(WayOut { external, port, met: Met::Address(ip) })
    }
}

/// Of those that claim something, in their order, the first that has this port and that callers of `from` see: their own
/// namespace's before others.
fn first<'t>(
    bundle: &'t Bundle,
    claims: &[&ObjectName],
    port: u16,
    from: &str,
) -> Option<(&'t External, &'t ExternalPort)> {
    let of = |own: bool| {
        let seen = claims.iter().filter_map(|name| bundle.externals.get(*name));
        let mut seen = seen.filter(|external| (external.name.namespace == from) == own && external.is_seen_in(from));
        seen.find_map(|external| Some((external, external.port(port)?)))
    };
    of(true).or_else(|| of(false))
}

/// True where the first bytes of a connection to this port may tell that an ExternalService is meant: by the host of a
/// request, or by the name in a TLS greeting.
pub(super) fn is_told_by_bytes(bundle: &Bundle, port: u16, from: &str) -> bool {
    let mut seen = bundle.externals.values().filter(|external| external.is_seen_in(from));
    seen.any(|external| external.port(port).is_some_and(|port| port.protocol != ExternalProtocol::Tcp))
}

impl WayOut<'_> {
    /// Hosts and ports to dial, in the order of the resource: each an address, or a name to look up.
    pub fn places(&self) -> Vec<(String, u16)> {
        let target = self.port.target_port;
        let endpoints = self.external.endpoints.iter();
        let told = endpoints.map(|endpoint| (endpoint.address.clone(), endpoint.port.unwrap_or(target)));
        match &self.met {
            Met::Host(host) if self.external.endpoints.is_empty() => vec![(host.clone(), target)],
            Met::Host(_) => told.collect(),
            Met::Address(ip) => {
                let is_meant = |(address, _): &(String, u16)| {
                    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == *ip)
                };
                told.filter(is_meant).collect()
            }
        }
    }

    /// How the proxy begins TLS, where it does.
    pub fn tls(&self) -> Option<&ExternalTls> {
        self.external.tls.as_ref().filter(|_| self.port.protocol.is_http())
    }

    /// The name that a server of TLS has to prove: the one that the resource says, or that was asked for. `None`: nobody named
    /// one.
    pub fn server_name(&self) -> Option<&str> {
        let said = self.tls()?.server_name.as_deref();
        said.or(match &self.met {
            Met::Host(host) => Some(host),
            Met::Address(_) => self.external.exact_host(),
        })
    }

    /// True where the resource is for this host: by one of its names, or by the address that was dialled.
    pub(super) fn is_for(&self, host: &str) -> bool {
        if let Ok(address) = bare(host).parse::<IpAddr>() {
            return matches!(self.met, Met::Address(dialled) if dialled == address.to_canonical());
        }
        let host = plain(host);
        self.external.hosts.iter().any(|own| match own.strip_prefix('*') {
            Some(end) => is_below(&host, end),
            None => *own == host,
        })
    }

    /// # Errors
    /// The port carries no HTTP.
    pub fn takes_requests(&self) -> Result<(), RequestRefusal> {
        self.port.protocol.declared().takes_requests(self.port.port)
    }

    /// # Errors
    /// The port carries HTTP: its bytes come through the codec and the filters.
    pub fn takes_tunnels(&self) -> Result<(), TunnelRefusal> {
        WorkloadPort::new(self.port.port, self.port.protocol.declared()).takes_tunnels()
    }

    /// # Errors
    /// The port carries HTTP, or TLS and this is none, or none to a host of the resource. Who dialled an address may name
    /// nobody.
    pub fn takes_connection(&self, hello: Hello<'_>) -> Result<(), TunnelRefusal> {
        self.takes_tunnels()?;
        let is_fit = match (self.port.protocol, hello) {
            (ExternalProtocol::Tls, Hello::Other) => false,
            (ExternalProtocol::Tls, Hello::Tls(None)) => matches!(self.met, Met::Address(_)),
            (ExternalProtocol::Tls, Hello::Tls(Some(name))) => self.is_for(name),
            (ExternalProtocol::Http | ExternalProtocol::Grpc | ExternalProtocol::Tcp, _) => true,
        };
        if is_fit { Ok(()) } else { Err(TunnelRefusal::OtherHello { port: self.port.port }) }
    }

    /// How it is dialled, in words.
    pub fn in_words(&self) -> String {
        let places: Vec<_> = self.places().into_iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let places = places.join(", ");
        let Some(tls) = self.tls() else {
            return format!("dialled: {places}, {} as the app sends it", self.port.protocol);
        };
        let roots = if tls.roots_pem.is_some() { "its caBundle" } else { "the roots of the proxy's machine" };
        let name = self.server_name().unwrap_or("nobody: it has no exact host, and no sni");
        format!("dialled: {places} with TLS, which has to be {name} by {roots}")
    }
}
