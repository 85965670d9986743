//! The kernel's view of TCP sockets in this network namespace, by NETLINK_SOCK_DIAG: whether a peer's socket still has
//! an owner, and how many bytes wait to be acknowledged. Needs no privilege; if it can't be asked, nothing is claimed.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use crate::capture;

#[cfg(test)]
mod tests;

/// Presence of the process at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Its socket is open.
    Present,
    /// Its socket was closed.
    Gone,
    /// There is no such socket. It may be in another namespace, or under another port: a redirection takes one for itself
    /// where the client's is used towards another destination.
    Absent,
    /// The kernel doesn't say.
    Unknown,
}

impl Owner {
    /// True when the owner has left since the last look, which found `before`. A socket that was never found proves
    /// nothing.
    pub(crate) fn has_left(self, before: Self) -> bool {
        self == Owner::Gone || self == Owner::Absent && before == Owner::Present
    }
}

/// A TCP socket as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Described {
    /// 0 without an owner.
    inode: u32,
    /// Bytes written and not acknowledged.
    unacknowledged: u32,
}

/// Looks for the socket at the other end of `stream`.
pub(crate) fn peer(stream: &TcpStream) -> Owner {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return Owner::Gone };
    // If capture redirected the peer's connection here, the peer's socket knows another destination.
    for destination in std::iter::once(local).chain(capture::original_dst(stream)) {
        match describe(peer, destination) {
            Ok(Some(Described { inode: 0, .. })) => return Owner::Gone,
            Ok(Some(_)) => return Owner::Present,
            Ok(None) => {}
            Err(_) => return Owner::Unknown,
        }
    }
    Owner::Absent
}

/// Bytes written to `stream` that its peer has not acknowledged.
pub(crate) fn unacknowledged(stream: &TcpStream) -> Option<u32> {
    let found = describe(stream.local_addr().ok()?, stream.peer_addr().ok()?).ok()??;
    Some(found.unacknowledged)
}

const NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NO_ENTRY: i32 = -2;
const LISTEN: u8 = 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// The socket bound to `local` and connected to `remote`.
fn describe(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Described>> {
    let mut socket = Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.set_nonblocking(true)?;
    let request = request(local, remote);
    socket.send(&request)?;
    let mut answer = [0; 512];
    // The kernel has answered before `send` returned.
    let length = socket.read(&mut answer)?;
    parse(&answer[..length], &request)
}

fn request(local: SocketAddr, remote: SocketAddr) -> [u8; HEADER + REQUEST] {
    let (local, remote) = (capture::unmapped(local), capture::unmapped(remote));
    let mut bytes = [0; HEADER + REQUEST];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    put(0, &length.to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    put(HEADER, &[u8::try_from(family).unwrap_or_default(), 6]);
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &local.port().to_be_bytes());
    put(HEADER + 10, &remote.port().to_be_bytes());
    for (at, address) in [(HEADER + 12, local.ip()), (HEADER + 28, remote.ip())] {
        match address {
            IpAddr::V4(address) => put(at, &address.octets()),
            IpAddr::V6(address) => put(at, &address.octets()),
        }
    }
    put(HEADER + 48, &[0xff; 8]);
    bytes
}

/// A listener that happens to have the address is not what was asked for.
fn parse(answer: &[u8], request: &[u8; HEADER + REQUEST]) -> io::Result<Option<Described>> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let word = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    match kind {
        Some(SOCK_DIAG_BY_FAMILY) if answer.len() >= HEADER + MESSAGE => {
            let asked_for = answer[HEADER + 4..HEADER + 8] == request[HEADER + 8..HEADER + 12];
            if answer[HEADER + 1] == LISTEN || !asked_for {
                return Ok(None);
            }
            let (unacknowledged, inode) = (word(HEADER + 60), word(HEADER + 68));
            let found = inode.zip(unacknowledged).map(|(inode, unacknowledged)| Described { inode, unacknowledged });
            found.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Some(NLMSG_ERROR) if word(HEADER).is_some_and(|code| code.cast_signed() == NO_ENTRY) => Ok(None),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}
