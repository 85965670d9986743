//! The address of one workload. A name in the kernel's abstract socket space is the lock: it belongs to the network
//! namespace as the address does, works across users, and goes with the process however that ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};

/// TCP ports that a sidecar binds on its address, and the UDP one.
const TCP_PORTS: [u16; 4] = [15000, 15020, 15021, 15080];
const MESH_PORT: u16 = 15008;
const FIRST: u8 = 11;
const LAST: u8 = 254;

/// An address that no other `weft run` of this network namespace takes while this value lives.
#[derive(Debug)]
pub(crate) struct Reserved {
    ip: IpAddr,
    _lock: UnixListener,
}

impl Reserved {
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// The given address, or the next free one of loopback: 127.0.0.x from 127.0.0.11 on, or ::1 on a machine without IPv4.
pub(crate) fn reserve(wanted: Option<IpAddr>) -> anyhow::Result<Reserved> {
    if let Some(ip) = wanted {
        let lock = lock(ip).with_context(|| format!("--ip {ip}: another `weft run` has this address"))?;
        ports_free(ip).with_context(|| format!("--ip {ip}"))?;
        return Ok(Reserved { ip, _lock: lock });
    }
    let candidates = candidates(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok());
    let range = match candidates.as_slice() {
        [first, .., last] => format!("address from {first} to {last}"),
        only => only.iter().map(ToString::to_string).collect(),
    };
    let mut last_reason = None;
    for ip in candidates {
        let Ok(lock) = lock(ip) else { continue };
        match ports_free(ip) {
            Ok(()) => return Ok(Reserved { ip, _lock: lock }),
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
        let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("weft/loopback/{port}")).ok()?;
        Some(Self { _lock: UnixListener::bind_addr(&name).ok()? })
    }
}

fn lock(ip: IpAddr) -> std::io::Result<UnixListener> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("weft/address/{ip}"))?;
    UnixListener::bind_addr(&name)
}

/// Tries what the sidecar will bind. Ports that only sidecars on loopback share are tried there.
fn ports_free(ip: IpAddr) -> anyhow::Result<()> {
    for port in TCP_PORTS {
        let at = if ip.is_loopback() { ip } else { super::sidecar::loopback_for(ip, port) };
        TcpListener::bind(SocketAddr::new(at, port)).with_context(|| format!("TCP port {port} of {at}"))?;
    }
    UdpSocket::bind(SocketAddr::new(ip, MESH_PORT)).with_context(|| format!("UDP port {MESH_PORT} of {ip}"))?;
    Ok(())
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
    fn a_taken_port_is_named() {
        let ip: IpAddr = "127.9.9.9".parse().unwrap();
        let _taken = TcpListener::bind((ip, 15080)).unwrap();
        let error = format!("{:#}", reserve(Some(ip)).unwrap_err());
        assert!(error.contains("15080") && error.contains("127.9.9.9"), "{error}");
    }
}
