//! Which ExternalService a name or an address outside the mesh meets. Those of the caller's own namespace come before those
//! of the whole mesh; among them an exact name before patterns, a longer pattern before a shorter one, and the older of two
//! that claim the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Hello, Resolved};
use crate::bundle::{
    AppVersion, Bundle, External, ExternalPort, ExternalProtocol, ExternalTls, ObjectName, Service, ServicePort,
    TunnelRefusal, WorkloadPort,
};
use crate::host::{bare, is_below, plain};
use crate::path::PathReading;

/// Names and addresses, each with those that claim it, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Externals {
    exact: BTreeMap<String, Vec<ObjectName>>,
    /// By what follows the `*`, the dot included.
    below: BTreeMap<String, Vec<ObjectName>>,
    addresses: BTreeMap<IpAddr, Vec<ObjectName>>,
    /// Each as routes see it.
    services: BTreeMap<ObjectName, Service>,
}

/// The way to somewhere outside the mesh that an ExternalService is for one request or connection.
#[derive(Debug, Clone)]
pub struct WayOut<'t> {
    pub external: &'t External,
    pub port: &'t ExternalPort,
    service: &'t Service,
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
        let services = bundle.externals.iter().map(|(name, external)| (name.clone(), as_service(external)));
        let mut externals = Self { services: services.collect(), ..Self::default() };
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
    pub(super) fn by_host<'t>(&'t self, bundle: &'t Bundle, host: &str, port: u16, from: &str) -> Option<WayOut<'t>> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        let host = plain(host);
        // The longest first: at the first dot that has something before it.
        let ends = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..]);
        let below = ends.filter_map(|end| self.below.get(end)).flatten();
        let claims: Vec<&ObjectName> = self.exact.get(&host).into_iter().flatten().chain(below).collect();
        let (external, port) = first(bundle, &claims, port, from)?;
        Some(WayOut { external, port, service: self.services.get(&external.name)?, met: Met::Host(host) })
    }

    /// By an address that is one of its endpoints.
    pub(super) fn by_address<'t>(&'t self, bundle: &'t Bundle, address: SocketAddr, from: &str) -> Option<WayOut<'t>> {
        let ip = address.ip().to_canonical();
        let claims: Vec<&ObjectName> = self.addresses.get(&ip)?.iter().collect();
        let (external, port) = first(bundle, &claims, address.port(), from)?;
        Some(WayOut { external, port, service: self.services.get(&external.name)?, met: Met::Address(ip) })
    }

    /// For a request for the host `asked` that a route leads to an ExternalService. It goes to that host where it is
    /// one of the ExternalService's, else to the first of those that is no pattern. `None`: there is no such port, or
    /// no host.
    pub(super) fn by_route<'t>(
        &'t self,
        bundle: &'t Bundle,
        name: &ObjectName,
        port: u16,
        asked: Option<&str>,
    ) -> Option<WayOut<'t>> {
        let (external, service) = (bundle.externals.get(name)?, self.services.get(name)?);
        let port = external.port(port)?;
        let asked = asked.map(plain).filter(|host| has_host(external, host));
        let host = asked.or_else(|| external.exact_host().map(str::to_owned))?;
        Some(WayOut { external, port, service, met: Met::Host(host) })
    }
}

/// An ExternalService as routes and their settings see a service: one without endpoints in the mesh. How its servers
/// read a path nobody says.
fn as_service(external: &External) -> Service {
    let port = |port: &ExternalPort| ServicePort {
        name: None,
        port: port.port,
        target_port: port.target_port,
        protocol: port.protocol.declared(),
        app_version: AppVersion::AsCaller,
        opaque_refused: false,
        other_targets: BTreeMap::new(),
    };
    Service {
        name: external.name.clone(),
        ports: external.ports.iter().map(port).collect(),
        vip: None,
        path_reading: PathReading::default(),
        traffic: external.traffic.clone(),
        spread: None,
        endpoints: BTreeMap::new(),
    }
}

/// True where one of its names is this host, in lower case and without a dot at its end, or a pattern for it.
fn has_host(external: &External, host: &str) -> bool {
    external.hosts.iter().any(|own| match own.strip_prefix('*') {
        Some(end) => is_below(host, end),
        None => own == host,
    })
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

impl<'t> WayOut<'t> {
    /// What routes are asked about.
    pub fn resolved(&self) -> Resolved<'t> {
        Resolved { service: self.service, port: self.port.port, endpoint: None, outside: true }
    }

    /// The host that is sent in the place of the one that a request asks for, where that is none of the resource's.
    pub(super) fn host_instead(&self, asked: Option<&str>) -> Option<&'t str> {
        let is_own = asked.is_some_and(|host| has_host(self.external, &plain(host)));
        self.external.exact_host().filter(|_| !is_own)
    }
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
        let protocol = self.port.protocol;
        let is_under = |tls: &&ExternalTls| protocol.is_http() || tls.under_tcp && protocol == ExternalProtocol::Tcp;
        self.external.tls.as_ref().filter(is_under)
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
        has_host(self.external, &plain(host))
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
        let older = if tls.takes_tls12 { " (1.2 or 1.3)" } else { "" };
        let own = tls.certificate.as_ref().map(|name| format!(", with its proxy's certificate {name:?}"));
        format!("dialled: {places} with TLS{older}, which has to be {name} by {roots}{}", own.unwrap_or_default())
    }
}
