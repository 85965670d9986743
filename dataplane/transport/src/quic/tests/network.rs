//! A network in memory, for tests on a clock of their own: a datagram has arrived once it was sent, so that no timer runs out
//! while a kernel still carries one. The path to the callee may fall silent, lead elsewhere, or show the caller under another
//! address.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Where a caller finds the callee, whatever the callee's own address.
pub(super) const FRONT: SocketAddr = at(0, 1, 443);

const fn at(net: u8, host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, net, host)), port)
}

#[derive(Debug, Clone)]
pub(super) struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    inboxes: HashMap<SocketAddr, Inbox>,
    path: Path,
}

#[derive(Debug, Default)]
struct Inbox {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

/// What lies between `FRONT` and the callee.
#[derive(Debug)]
struct Path {
    caller: Option<SocketAddr>,
    /// The address that the callee sees the caller under.
    back: SocketAddr,
    callee: Option<SocketAddr>,
    silent: bool,
    dropped: u64,
}

impl Network {
    pub(super) fn new() -> Network {
        let path = Path { caller: None, back: at(1, 0, 1), callee: None, silent: false, dropped: 0 };
        Network(Arc::new(Mutex::new(State { inboxes: HashMap::new(), path })))
    }

    pub(super) fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        let mut state = self.state();
        let host = u8::try_from(state.inboxes.len() + 1).expect("few hosts");
        let address = at(2, host, 1);
        state.inboxes.insert(address, Inbox::default());
        Arc::new(Socket { network: self.clone(), address })
    }

    /// From now on the callee is `callee`, and sees the caller under a new address.
    pub(super) fn lead_to(&self, callee: SocketAddr) {
        let path = &mut self.state().path;
        path.callee = Some(callee);
        path.back.set_port(path.back.port() + 1);
    }

    /// Drops everything, or nothing.
    pub(super) fn be_silent(&self, silent: bool) {
        self.state().path.silent = silent;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state().path.dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn carry(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let path = &mut self.path;
        let (from, to) = if to == FRONT {
            path.caller = Some(from);
            (path.back, path.callee)
        } else if to == path.back {
            (FRONT, path.caller)
        } else {
            // Nobody is there, or no longer.
            return;
        };
        if path.silent {
            path.dropped += 1;
            return;
        }
        let Some(inbox) = to.and_then(|to| self.inboxes.get_mut(&to)) else { return };
        inbox.datagrams.push_back((from, datagram.to_vec()));
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }
}

#[derive(Debug)]
struct Socket {
    network: Network,
    address: SocketAddr,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let whole = transmit.contents.len().max(1);
        for datagram in transmit.contents.chunks(transmit.segment_size.unwrap_or(whole)) {
            self.network.state().carry(self.address, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.state();
        let inbox = state.inboxes.get_mut(&self.address).expect("a socket has an inbox");
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, datagram)) = inbox.datagrams.pop_front() else { break };
            let length = datagram.len();
            buffer[..length].copy_from_slice(&datagram);
            *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: Some(self.address.ip()) };
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        inbox.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A network in memory takes whatever it is given.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
