//! UDP sockets: the group of a proxy's workers on the mesh port, and callers' sockets with the mark that capture skips.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Worker, steering};

/// Asked for each socket; the kernel grants at most `net.core.{r,w}mem_max`.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Binds one socket per worker on the same address and steers each connection to its worker for life. Port 0 takes a
/// free one. The result's order is the workers' order.
pub fn bind_workers(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let worker = Worker::new(0, count).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{count} workers: there can be 1 to 256"))
    })?;
    let mut sockets: Vec<UdpSocket> = Vec::with_capacity(count);
    for _ in 0..count {
        let address = match sockets.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        let socket = new_socket(address)?;
        if count > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        if count > 1 && sockets.is_empty() {
            steering::attach(&socket, worker)?;
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Binds a caller's socket on a free port. `workload` is the address of the workload that calls: packets leave from it
/// where it is a loopback address, since that is what tells workloads on one machine apart. Otherwise they leave from
/// whatever the routing table says at the time, for destinations of both families, so that a host may change its address.
/// `mark` needs CAP_NET_ADMIN, as the capture that looks at it does; without the capability the socket goes unmarked.
pub fn bind_client(workload: IpAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    if workload.is_loopback() {
        return bind_marked(workload, mark);
    }
    // A host may have no IPv6 at all.
    bind_marked(Ipv6Addr::UNSPECIFIED.into(), mark).or_else(|_| bind_marked(Ipv4Addr::UNSPECIFIED.into(), mark))
}

fn bind_marked(ip: IpAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = new_socket(address)?;
    if let Some(mark) = mark
        && let Err(error) = socket.set_mark(mark)
    {
        tracing::debug!(%error, "the mesh socket stays unmarked");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    for result in [socket.set_recv_buffer_size(BUFFER_BYTES), socket.set_send_buffer_size(BUFFER_BYTES)] {
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel's default socket buffer stays");
        }
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workload of one family calls workloads of both; one on loopback, where addresses tell workloads apart, of its own.
    #[test]
    fn callers_reach_callees_of_the_other_family() {
        let callee = |address: &str| UdpSocket::bind(address).unwrap();
        let (four, six) = (callee("127.0.0.1:0"), callee("[::1]:0"));
        for workload in ["192.0.2.1", "2001:db8::1"] {
            let caller = bind_client(workload.parse().unwrap(), None).unwrap();
            assert!(caller.local_addr().unwrap().is_ipv6(), "the wider of the two");
            for callee in [&four, &six] {
                let mapped = match callee.local_addr().unwrap() {
                    SocketAddr::V4(address) => SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port()),
                    six => six,
                };
                caller.send_to(b"hello", mapped).unwrap();
                let mut bytes = [0; 8];
                callee.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
                assert_eq!(callee.recv_from(&mut bytes).unwrap().0, 5, "{workload}");
            }
        }
    }
}
