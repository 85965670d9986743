//! Notices that somebody changed the firewall of this namespace, by the kernel's own announcements. It says that, not what:
//! the rules are then listed anew.

use std::io;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixDatagram;

/// The multicast group `NFNLGRP_NFTABLES` (7), as a bit of the address.
const NFTABLES: u32 = 1 << 6;

/// A subscription to changes of nftables rules.
#[derive(Debug)]
pub struct Changes {
    /// A netlink socket. The runtime knows no such kind; it is received from like any socket of datagrams.
    socket: UnixDatagram,
}

impl Changes {
    /// Subscribes for the current network namespace. Needs CAP_NET_ADMIN and a runtime.
    pub fn subscribe() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, NFTABLES))?;
        Ok(Self { socket: UnixDatagram::from_std(socket.into())? })
    }

    /// Resolves when rules have changed since the last call, ours included. Cancel safe.
    pub async fn changed(&self) -> io::Result<()> {
        self.socket.readable().await?;
        let mut scratch = [0_u8; 4_096];
        loop {
            // Messages are thrown away, cut off or not: that there were some is all that counts.
            match self.socket.try_recv(&mut scratch) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Some were lost: something changed.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
