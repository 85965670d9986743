//! A network between a caller and a callee on loopback: it may fall silent, lead elsewhere, or show the caller under
//! another address.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::LOOPBACK;

/// Carries one caller's datagrams to a callee and back.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    shared: Rc<Shared>,
    front: Rc<UdpSocket>,
    back: RefCell<Back>,
}

struct Shared {
    silent: Cell<bool>,
    dropped: Cell<u64>,
    caller: Cell<Option<SocketAddr>>,
}

/// The side that the callee sees.
struct Back {
    _tasks: [Task; 2],
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    pub(super) async fn to(callee: SocketAddr) -> Relay {
        let front = Rc::new(UdpSocket::bind((LOOPBACK, 0)).await.unwrap());
        let shared = Rc::new(Shared { silent: Cell::new(false), dropped: Cell::new(0), caller: Cell::new(None) });
        let back = RefCell::new(Back::to(callee, &front, &shared).await);
        Relay { address: front.local_addr().unwrap(), shared, front, back }
    }

    /// From now on the callee is `callee`, and sees the caller under a new address.
    pub(super) async fn lead_to(&self, callee: SocketAddr) {
        let back = Back::to(callee, &self.front, &self.shared).await;
        self.back.replace(back);
    }

    /// Drops everything, or nothing.
    pub(super) fn be_silent(&self, silent: bool) {
        self.shared.silent.set(silent);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }
}

impl Shared {
    fn passes(&self) -> bool {
        if self.silent.get() {
            self.dropped.set(self.dropped.get() + 1);
        }
        !self.silent.get()
    }
}

impl Back {
    async fn to(callee: SocketAddr, front: &Rc<UdpSocket>, shared: &Rc<Shared>) -> Back {
        let socket = Rc::new(UdpSocket::bind((LOOPBACK, 0)).await.unwrap());
        socket.connect(callee).await.unwrap();
        let (towards, from) = (Rc::clone(&socket), socket);
        let (front, shared) = (Rc::clone(front), Rc::clone(shared));
        let (front_too, shared_too) = (Rc::clone(&front), Rc::clone(&shared));
        let there = tokio::task::spawn_local(async move {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, caller)) = front.recv_from(&mut datagram).await {
                // A datagram that asks whether anybody listens (`refusal`) has its own address, and QUIC's bit unset.
                if datagram[0] & 0x40 == 0 {
                    continue;
                }
                shared.caller.set(Some(caller));
                if shared.passes() {
                    let _ = towards.send(&datagram[..length]).await;
                }
            }
        });
        let back = tokio::task::spawn_local(async move {
            let mut datagram = vec![0; 65_536];
            loop {
                let Ok(length) = from.recv(&mut datagram).await else { continue };
                if let (true, Some(caller)) = (shared_too.passes(), shared_too.caller.get()) {
                    let _ = front_too.send_to(&datagram[..length], caller).await;
                }
            }
        });
        Back { _tasks: [Task(there), Task(back)] }
    }
}
