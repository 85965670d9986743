//! The kinds of socket that the proxy dials, which can't be mixed: an app that it serves, an address outside the mesh, and
//! (in `weft_transport::quic`) a peer. The guard looks at the very address that is dialled, after every name was resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::Listen;
use crate::reply::{Failure, NotOutside};
use crate::snapshot::ServedSocket;
use crate::terms::TermsId;

/// A socket outside the mesh that the guard let pass. Only [`Guard::outside`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OutsideSocket(SocketAddr);

impl OutsideSocket {
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// A socket that is dialled by TCP. Only [`Tls`](PlainSocket::Tls) is not spoken to in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlainSocket {
    /// An app of a workload that this proxy serves.
    Served(ServedSocket),
    Outside(OutsideSocket),
    /// Outside, where the proxy begins TLS on these terms.
    Tls(OutsideSocket, TermsId),
}

impl PlainSocket {
    pub fn address(self) -> SocketAddr {
        match self {
            PlainSocket::Served(served) => served.address(),
            PlainSocket::Outside(outside) | PlainSocket::Tls(outside, _) => outside.address(),
        }
    }
}

/// Where clouds answer each of their machines as that machine, which may be with its credentials; link-local addresses
/// come on top. Of AWS, Google, Alibaba, Azure, Oracle and Scaleway.
const METADATA: [IpAddr; 6] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

/// Knows the addresses that nobody may reach through this proxy.
#[derive(Debug, Clone)]
pub struct Guard {
    own: Vec<SocketAddr>,
    app_on_loopback: bool,
}

impl Guard {
    /// `app_on_loopback`: what listens there at a served workload's port is its app.
    pub fn new(listen: &Listen, app_on_loopback: bool) -> Self {
        let own = [
            listen.explicit,
            listen.outbound,
            listen.inbound,
            Some(listen.mesh),
            Some(listen.admin),
            Some(listen.metrics),
            Some(listen.health),
        ];
        Self { own: own.into_iter().flatten().map(canonical).collect(), app_on_loopback }
    }

    /// Lets an address outside the mesh pass for a client at `client`, or says why not: a listener of this proxy (which
    /// would be a loop, or its admin interface), addresses that mean something else at each host.
    ///
    /// # Errors
    /// [`Failure::Loop`] and [`Failure::NotOutside`].
    pub fn outside(&self, address: SocketAddr, client: IpAddr) -> Result<OutsideSocket, Failure> {
        if METADATA.contains(&address.ip().to_canonical()) {
            return Err(Failure::NotOutside { address, why: NotOutside::Metadata });
        }
        self.named(address, client)
    }

    /// The same of an address that an ExternalService names itself: not one to which a name led.
    ///
    /// # Errors
    /// As [`Guard::outside`].
    pub fn named(&self, address: SocketAddr, client: IpAddr) -> Result<OutsideSocket, Failure> {
        let address = canonical(address);
        let refuse = |why| Err(Failure::NotOutside { address, why });
        let ip = address.ip();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if ip.is_unspecified() {
            return refuse(NotOutside::Unspecified);
        }
        if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return refuse(NotOutside::Multicast);
        }
        if link_local {
            return refuse(NotOutside::LinkLocal);
        }
        // Loopback means the client's own host, so it has to be this one.
        if ip.is_loopback() && !is_own_host(client.to_canonical()) {
            return refuse(NotOutside::ForeignLoopback);
        }
        if self.is_own_listener(address) { Err(Failure::Loop) } else { Ok(OutsideSocket(address)) }
    }

    /// The address on loopback at which an app may be found that does not listen at its workload's.
    pub fn loopback_of(&self, served: ServedSocket) -> Option<SocketAddr> {
        let own = served.address();
        let loopback = match own.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let loopback = SocketAddr::new(loopback, own.port());
        (self.app_on_loopback && loopback != own && !self.is_own_listener(loopback)).then_some(loopback)
    }

    /// True for the address of a listener of this proxy.
    pub fn is_own_listener(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        self.own.iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() && is_own_host(address.ip()))
        })
    }
}

/// One address, one form: IPv4-mapped IPv6 is IPv4, and a scope or flow label does not make it another.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True where the kernel would deliver to this host. Connecting a UDP socket sends nothing; the kernel then names the
/// address that it would send from, which is the destination itself only for an address of this host.
fn is_own_host(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let any: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let routed = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    routed().is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen_mesh: &str, address: &str, client: &str, expect: &str) {
        let listen: Listen = serde_saphyr::from_str(&format!(
            "{{mesh: '{listen_mesh}', explicit: '127.0.0.11:15080', admin: '127.0.0.11:15000'}}"
        ))
        .unwrap();
        let seen = match Guard::new(&listen, true).outside(address.parse().unwrap(), client.parse().unwrap()) {
            Ok(socket) => socket.address().to_string(),
            Err(failure) => failure.verdict().reason.to_owned(),
        };
        assert_eq!(seen, expect, "{address} for {client}");
    }

    #[test]
    fn what_is_dialled_is_what_was_checked() {
        let here = "127.0.0.11";
        check("127.0.0.11:15008", "127.0.0.98:9102", here, "127.0.0.98:9102");
        check("127.0.0.11:15008", "127.0.0.1:15000", here, "127.0.0.1:15000");
        check("127.0.0.11:15008", "192.0.2.1:80", here, "192.0.2.1:80");
        check("127.0.0.11:15008", "[::ffff:192.0.2.1]:80", here, "192.0.2.1:80");
        check("127.0.0.11:15008", "127.0.0.11:15000", here, "loop");
        check("127.0.0.11:15008", "127.0.0.11:15080", here, "loop");
        check("127.0.0.11:15008", "[::ffff:127.0.0.11]:15080", here, "loop");
        check("0.0.0.0:15008", "127.0.0.77:15008", here, "loop");
        check("[::]:15008", "[::1]:15008", here, "loop");
        check("127.0.0.11:15008", "0.0.0.0:15000", here, "not_outside");
        check("127.0.0.11:15008", "[::]:80", here, "not_outside");
        check("127.0.0.11:15008", "169.254.169.254:80", here, "not_outside");
        check("127.0.0.11:15008", "[::ffff:169.254.169.254]:80", here, "not_outside");
        check("127.0.0.11:15008", "[fe80::1]:80", here, "not_outside");
        check("127.0.0.11:15008", "224.0.0.1:80", here, "not_outside");
        check("127.0.0.11:15008", "255.255.255.255:80", here, "not_outside");
        check("127.0.0.11:15008", "127.0.0.1:80", "192.0.2.9", "not_outside");
        check("127.0.0.11:15008", "[::1]:80", "192.0.2.9", "not_outside");
        for metadata in ["100.100.100.200:80", "[::ffff:168.63.129.16]:80", "[fd00:ec2::254]:80", "[fd20:ce::254]:80"] {
            check("127.0.0.11:15008", metadata, here, "not_outside");
        }
    }

    #[test]
    fn where_clouds_tell_secrets_is_reached_where_that_is_said() {
        let listen: Listen = serde_saphyr::from_str("{mesh: '127.0.0.11:15008', admin: '127.0.0.1:15000'}").unwrap();
        let guard = Guard::new(&listen, true);
        let named = |address: &str| guard.named(address.parse().unwrap(), "127.0.0.11".parse().unwrap()).is_ok();
        assert!(named("100.100.100.200:80") && named("[fd00:ec2::254]:80"));
        assert!(!named("169.254.169.254:80") && !named("127.0.0.1:15000"), "the rest of the guard stays");
    }

    #[test]
    fn loopback_is_the_apps_only_where_that_is_said() {
        let listen: Listen = serde_saphyr::from_str("{mesh: '127.0.0.11:15008', admin: '127.0.0.1:15000'}").unwrap();
        let check = |app_on_loopback: bool, own: &str, expect: Option<&str>| {
            let found = Guard::new(&listen, app_on_loopback).loopback_of(ServedSocket::at(own.parse().unwrap()));
            assert_eq!(found, expect.map(|address| address.parse().unwrap()), "{own}");
        };
        check(true, "127.0.0.11:8080", Some("127.0.0.1:8080"));
        check(true, "[2001:db8::1]:8080", Some("[::1]:8080"));
        check(true, "127.0.0.1:8080", None);
        check(true, "127.0.0.11:15000", None);
        check(false, "127.0.0.11:8080", None);
    }
}
