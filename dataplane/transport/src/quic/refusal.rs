//! Errors that the network reports about a UDP address while a handshake with it is under way: nobody listens there, or
//! the path is too narrow for QUIC. A connected socket is told what the shared one is not. Silence is no answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::{HandshakeError, HandshakeFailure, RefusedBy};

//= rfc9000#section-14
//# QUIC MUST NOT be used if the network path cannot support a maximum datagram size of at least 1200 bytes.
const LEAST_DATAGRAM: u32 = 1200;
const IPV4_AND_UDP: u32 = 28;
const IPV6_AND_UDP: u32 = 48;

/// A datagram that no QUIC endpoint answers: the bit that each packet has set is not (RFC 9000 section 17).
const NOTHING: [u8; LEAST_DATAGRAM as usize] = [0; LEAST_DATAGRAM as usize];
/// One refusal may be a firewall that reloads, or an answer to something else.
const REFUSALS: u32 = 2;
const BETWEEN: Duration = Duration::from_millis(20);
/// After the first few there is nothing new to hear for a while.
const PAUSE: Duration = Duration::from_millis(500);

/// Local address of a dialler's socket, and the mark of its packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub(super) ip: IpAddr,
    pub(super) mark: u32,
}

/// Refusals of the network so far.
#[derive(Debug, Default)]
pub(super) struct Refusals(AtomicU32);

impl Refusals {
    /// The end of a handshake that nobody answered within `timeout`. Hosts send few refusals a second to one peer, and the
    /// packets of the handshake itself use them up: one of them and silence say the same as two.
    pub(super) fn and_silence(&self, address: SocketAddr, timeout: Duration) -> HandshakeError {
        match self.0.load(Ordering::Relaxed) {
            0 => HandshakeError::timeout(format!("no answer within {timeout:?}")),
            _ => nobody_listens(address),
        }
    }
}

fn nobody_listens(address: SocketAddr) -> HandshakeError {
    let detail = format!("nobody listens on UDP {address}");
    HandshakeError::new(HandshakeFailure::PortClosed, RefusedBy::Nobody, detail)
}

/// Resolves when the network refuses `address`; goes on for ever while it doesn't, or with nowhere to ask from.
pub(super) async fn of(address: SocketAddr, from: Option<From>, refusals: &Refusals) -> HandshakeError {
    let Some(from) = from else { return std::future::pending().await };
    match heard(address, from, refusals).await {
        Ok(error) => error,
        // Only a hint is lost; the handshake itself is still under way.
        Err(error) => {
            tracing::debug!(%address, %error, "the network can't be asked");
            std::future::pending().await
        }
    }
}

async fn heard(address: SocketAddr, from: From, refusals: &Refusals) -> io::Result<HandshakeError> {
    let socket = tokio::net::UdpSocket::from_std(connected(address, from)?)?;
    let mut sent = 0;
    loop {
        let answer = match socket.send(&NOTHING).await {
            Ok(_) => {
                sent += 1;
                let pause = if sent < 4 { BETWEEN } else { PAUSE };
                tokio::time::timeout(pause, socket.recv(&mut [0; 16])).await.unwrap_or(Ok(0)).err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = too_narrow(&socket, address) {
            return Ok(error);
        }
        let Some(error) = answer else { continue };
        if error.kind() != io::ErrorKind::ConnectionRefused {
            tokio::time::sleep(PAUSE).await;
        } else if refusals.0.fetch_add(1, Ordering::Relaxed) + 1 == REFUSALS {
            return Ok(nobody_listens(address));
        }
    }
}

fn connected(address: SocketAddr, from: From) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if from.mark != 0 {
        socket.set_mark(from.mark)?;
    }
    // Datagrams that don't fit are refused by the kernel instead of being cut into fragments.
    if address.is_ipv6() {
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?;
    } else {
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?;
    }
    let ip = match (from.ip, address) {
        (ip, address) if ip.is_ipv4() == address.is_ipv4() => ip,
        (_, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (_, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(ip, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

fn too_narrow(socket: &tokio::net::UdpSocket, address: SocketAddr) -> Option<HandshakeError> {
    let (mtu, overhead) = if address.is_ipv6() {
        (sockopt::ipv6_mtu(socket).ok()?, IPV6_AND_UDP)
    } else {
        (sockopt::ip_mtu(socket).ok()?, IPV4_AND_UDP)
    };
    let least = LEAST_DATAGRAM + overhead;
    (mtu < least).then(|| {
        let detail = format!("path MTU {mtu} to {address} is below QUIC's minimum of {least}");
        HandshakeError::new(HandshakeFailure::PathMtu, RefusedBy::Nobody, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: From = From { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), mark: 0 };

    #[tokio::test]
    async fn a_closed_port_is_told() {
        let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refusals = Refusals::default();
        let error = tokio::time::timeout(Duration::from_secs(10), of(address, Some(FROM), &refusals)).await.unwrap();
        assert_eq!((error.reason, error.refused_by), (HandshakeFailure::PortClosed, RefusedBy::Nobody));
    }

    #[tokio::test]
    async fn silence_is_no_answer() {
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, refusals) = (deaf.local_addr().unwrap(), Refusals::default());
        let waiting = of(address, Some(FROM), &refusals);
        assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
        assert_eq!(refusals.and_silence(address, Duration::from_secs(2)).reason, HandshakeFailure::Timeout);
        refusals.0.store(1, Ordering::Relaxed);
        assert_eq!(refusals.and_silence(address, Duration::from_secs(2)).reason, HandshakeFailure::PortClosed);
    }
}
