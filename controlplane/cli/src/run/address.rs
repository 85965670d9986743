//! The address of one workload. A name in the kernel's abstract socket space is the lock: it belongs to the network
//! namespace as the address does, works across users, and goes with the process however that ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};

/// The port at which a sidecar says whether it is ready.
pub(crate) const HEALTH_PORT: u16 = 15021;
/// TCP ports that a sidecar binds on its address, and the UDP one.
const TCP_PORTS: [u16; 2] = [15020, HEALTH_PORT];
/// The same, on loopback only.
const ADMIN_PORT: u16 = 15000;
pub(crate) const EXPLICIT_PORT: u16 = 15080;
/// Pairs of these that are tried where an address of loopback is shared, and how far they are apart.
const LOCAL_PAIRS: u16 = 100;
const LOCAL_STEP: u16 = 100;
const MESH_PORT: u16 = 15008;
const FIRST: u8 = 11;
const LAST: u8 = 254;

/// An address that no other `weft run` of this network namespace takes while this value lives.
#[derive(Debug)]
pub(crate) struct Reserved {
    ip: IpAddr,
    local: LocalPorts,
    _lock: UnixListener,
}

impl Reserved {
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    pub(super) fn local(&self) -> &LocalPorts {
        &self.local
    }
}

/// The ports for this machine's applications and operators. Sidecars of addresses that are not loopback share one
/// loopback address for them: the second has others.
#[derive(Debug)]
pub(super) struct LocalPorts {
    pub(super) admin: u16,
    pub(super) explicit: u16,
    /// Held where they are shared.
    _lock: Option<UnixListener>,
}

impl LocalPorts {
    pub(super) fn usual() -> Self {
        Self { admin: ADMIN_PORT, explicit: EXPLICIT_PORT, _lock: None }
    }

    pub(super) fn is_usual(&self) -> bool {
        (self.admin, self.explicit) == (ADMIN_PORT, EXPLICIT_PORT)
    }

    /// The first pair that is free at `loopback`, and that no other `weft run` has.
    fn take(loopback: IpAddr) -> anyhow::Result<Self> {
        for step in (0..LOCAL_PAIRS).map(|pair| pair * LOCAL_STEP) {
            let (admin, explicit) = (ADMIN_PORT + step, EXPLICIT_PORT + step);
            let Ok(lock) = lock(&format!("local/{loopback}/{admin}")) else { continue };
            if [admin, explicit].iter().all(|port| TcpListener::bind((loopback, *port)).is_ok()) {
                return Ok(Self { admin, explicit, _lock: Some(lock) });
            }
        }
        let last = ADMIN_PORT + (LOCAL_PAIRS - 1) * LOCAL_STEP;
        bail!(
            "no admin port of {loopback} is free, of {ADMIN_PORT}, {} ... {last}, with one for applications 80 above it",
            ADMIN_PORT + LOCAL_STEP
        )
    }
}

/// The given address, or the next free one of loopback: 127.0.0.x from 127.0.0.11 on, or ::1 on a machine without IPv4.
pub(crate) fn reserve(wanted: Option<IpAddr>) -> anyhow::Result<Reserved> {
    if let Some(ip) = wanted {
        let lock = lock_address(ip).with_context(|| format!("--ip {ip}: another `weft run` has this address"))?;
        let local = ports_free(ip).with_context(|| format!("--ip {ip}"))?;
        return Ok(Reserved { ip, local, _lock: lock });
    }
    let candidates = candidates(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok());
    let range = match candidates.as_slice() {
        [first, .., last] => format!("address from {first} to {last}"),
        only => only.iter().map(ToString::to_string).collect(),
    };
    let mut last_reason = None;
    for ip in candidates {
        let Ok(lock) = lock_address(ip) else { continue };
        match ports_free(ip) {
            Ok(local) => return Ok(Reserved { ip, local, _lock: lock }),
            Err(reason) => last_reason = Some(reason),
        }
    }
    match last_reason {
        Some(reason) => Err(reason.context(format!("no {range} is free: name another by --ip"))),
        None => bail!("each {range} has a `weft run`: name another by --ip"),
    }
}

/// The addresses of loopback, in the order in which they are taken. Of IPv6 there is one.
fn candidates(has_ipv4: bool) -> Vec<IpAddr> {
    match has_ipv4 {
        true => (FIRST..=LAST).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect(),
        false => vec![Ipv6Addr::LOCALHOST.into()],
    }
}

/// The app's port on loopback, which all workloads of a machine share.
#[derive(Debug)]
pub(super) struct LoopbackPort {
    _lock: UnixListener,
}

impl LoopbackPort {
    /// What listens at `port` of loopback is this run's app; `None`: another run has the same port.
    pub(super) fn take(port: u16) -> Option<Self> {
        Some(Self { _lock: lock(&format!("loopback/{port}")).ok()? })
    }
}

/// Takes a name that one `weft run` of this machine may have at a time, for as long as it holds what this gives.
fn lock(name: &str) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(format!("weft/{name}"))?)
}

fn lock_address(ip: IpAddr) -> std::io::Result<UnixListener> {
    lock(&format!("address/{ip}"))
}

/// Tries what the sidecar will bind. Ports that only sidecars on loopback share are tried there.
fn ports_free(ip: IpAddr) -> anyhow::Result<LocalPorts> {
    let own = if ip.is_loopback() { &[ADMIN_PORT, EXPLICIT_PORT][..] } else { &[] };
    for port in TCP_PORTS.iter().chain(own) {
        TcpListener::bind(SocketAddr::new(ip, *port)).with_context(|| format!("TCP port {port} of {ip}"))?;
    }
    UdpSocket::bind(SocketAddr::new(ip, MESH_PORT)).with_context(|| format!("UDP port {MESH_PORT} of {ip}"))?;
    if ip.is_loopback() { Ok(LocalPorts::usual()) } else { LocalPorts::take(super::sidecar::loopback_for(ip)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_collide_and_come_back() {
        let first = reserve(None).unwrap();
        let second = reserve(None).unwrap();
        assert_ne!(first.ip(), second.ip());
        let ip = first.ip();
        let error = format!("{:#}", reserve(Some(ip)).unwrap_err());
        assert!(error.contains(&ip.to_string()) && error.contains("another `weft run`"), "{error}");
        drop(first);
        assert_eq!(reserve(Some(ip)).unwrap().ip(), ip);
    }

    #[test]
    fn without_ipv4_there_is_one_address() {
        let (usual, other) = (candidates(true), candidates(false));
        assert_eq!((usual[0].to_string().as_str(), usual.len()), ("127.0.0.11", 244));
        assert_eq!(other, [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert!(
            reserve(Some(other[0])).is_ok_and(|reserved| reserved.ip() == other[0]),
            "a sidecar's ports are free there"
        );
    }

    #[test]
    fn a_port_of_loopback_is_one_runs() {
        let first = LoopbackPort::take(64_999).unwrap();
        assert!(LoopbackPort::take(64_999).is_none() && LoopbackPort::take(64_998).is_some());
        drop(first);
        assert!(LoopbackPort::take(64_999).is_some());
    }

    #[test]
    fn runs_that_share_a_loopback_address_have_ports_of_their_own() {
        // Not of this machine's sidecars: 127.9.9.8 is nobody's.
        let shared: IpAddr = "127.9.9.8".parse().unwrap();
        let first = LocalPorts::take(shared).unwrap();
        assert!(first.is_usual());
        let second = LocalPorts::take(shared).unwrap();
        assert_eq!((second.admin, second.explicit, second.is_usual()), (15100, 15180, false));
        let _taken = TcpListener::bind((shared, 15280)).unwrap();
        assert_eq!(LocalPorts::take(shared).unwrap().admin, 15300, "a pair is free as a whole or not taken");
        drop(first);
        assert!(LocalPorts::take(shared).unwrap().is_usual());
    }

    #[test]
    fn a_taken_port_is_named() {
        let ip: IpAddr = "127.9.9.9".parse().unwrap();
        let _taken = TcpListener::bind((ip, 15080)).unwrap();
        let error = format!("{:#}", reserve(Some(ip)).unwrap_err());
        assert!(error.contains("15080") && error.contains("127.9.9.9"), "{error}");
    }
}
