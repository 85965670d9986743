//! How connections get here and how ours leave: original destinations, sockets that are marked so that the proxy's own
//! traffic is never captured, and (in `rules`) the nftables rules that capture everybody else's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

mod rules;
#[cfg(test)]
mod tests;
mod watch;

pub use rules::{CaptureError, Cidr, CidrError, Rules};
pub use watch::Changes;

/// Set on every socket that the proxy opens: the loop guard of the capture rules ("weft").
pub const MARK: u32 = 0x7765_6674;

const BACKLOG: i32 = 4096;

/// Original destination of a redirected connection. `None` when it was not redirected: it was made to this very
/// address, and forwarding it there would be a loop.
pub fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    let over_ipv4 = match local.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
    };
    let original = if over_ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let original = original.ok()?.as_socket()?;
    (original != unmapped(local)).then_some(original)
}

/// An IPv4-mapped IPv6 address as IPv4; others as they are, without scope.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Listens. `reuseport` lets each worker have its own listener on one address; `mark` needs CAP_NET_ADMIN. Accepted
/// connections inherit TCP_NODELAY and the mark. An IPv6 wildcard takes IPv4 too.
pub fn listen_tcp(address: SocketAddr, reuseport: bool, mark: Option<u32>) -> io::Result<TcpListener> {
    TcpListener::from_std(bind_tcp(address, reuseport, mark)?)
}

/// As [`listen_tcp`], for a runtime that does not run yet.
pub fn bind_tcp(address: SocketAddr, reuseport: bool, mark: Option<u32>) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuseport)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sockets that we dial stop at this descriptor: the kernel gives the lowest that is free, so that a socket beyond it means
/// that as many are open. 0: no such bound.
static DIAL_CEILING: AtomicU64 = AtomicU64::new(0);

static NOT_DIALLED: AtomicU64 = AtomicU64::new(0);

/// Leaves the descriptors from `ceiling` on to others than [`connect_tcp`], for the whole process.
pub fn stop_dialling_at(ceiling: u64) {
    DIAL_CEILING.store(ceiling, Ordering::Relaxed);
}

/// How often [`connect_tcp`] failed at that bound.
pub fn not_dialled() -> u64 {
    NOT_DIALLED.load(Ordering::Relaxed)
}

fn has_room(socket: &TcpSocket) -> io::Result<()> {
    let ceiling = DIAL_CEILING.load(Ordering::Relaxed);
    if ceiling == 0 || u64::try_from(socket.as_raw_fd()).unwrap_or(0) < ceiling {
        return Ok(());
    }
    NOT_DIALLED.fetch_add(1, Ordering::Relaxed);
    Err(io::Error::other("too many connections are open: no file descriptor is left for another"))
}

/// Connects, from `source` if given, within `timeout` (`TimedOut`). `mark` needs CAP_NET_ADMIN.
pub async fn connect_tcp(
    address: SocketAddr,
    source: Option<IpAddr>,
    mark: Option<u32>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    has_room(&socket)?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    tokio::time::timeout(timeout, socket.connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)?
}
