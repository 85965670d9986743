//! A way to a server that a test opens, hushes and ends: a relay of TCP bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::eventually;

/// One way to a server. When it is dropped, it and all connections through it end.
#[derive(Debug)]
pub struct Way {
    pub address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    carried: Arc<AtomicUsize>,
    answers: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Way {
    /// A way from `address` on this host.
    ///
    /// # Panics
    /// When the address stays taken.
    pub async fn to(server: SocketAddr, address: SocketAddr) -> Self {
        // The task of one that was dropped just now may still hold it.
        let listener = eventually("the address is free", || async { TcpListener::bind(address).await.ok() }).await;
        Self::over(listener, server)
    }

    /// A way that begins at a listener, which may be another namespace's.
    ///
    /// # Panics
    /// When the listener is none.
    pub fn over(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().expect("it listens");
        let open = Arc::new(watch::Sender::new(true));
        let carried = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let (told, counter, delay) = (Arc::clone(&open), Arc::clone(&carried), Arc::clone(&answers));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (told, counter, delay) = (told.subscribe(), Arc::clone(&counter), Arc::clone(&delay));
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    relay(client, server, told, delay).await;
                    counter.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, carried, answers, _tasks: tasks }
    }

    /// How many connections are open through it.
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::SeqCst)
    }

    /// From now on each piece of an answer is so long on its way.
    pub fn delay_answers(&self, delay: Duration) {
        self.answers.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// From now on nothing comes through, or it goes on. What is open stays open.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn relay(client: TcpStream, server: TcpStream, open: watch::Receiver<bool>, delay: Arc<AtomicU64>) {
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let at_once = Arc::default();
    tokio::join!(carry(from_client, to_server, open.clone(), at_once), carry(from_server, to_client, open, delay));
}

/// Carries bytes, and the end, while the way is open, each piece after a delay.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut open: watch::Receiver<bool>,
    delay: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        match read {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => {
                _ = to.shutdown().await;
                return;
            }
        }
    }
}
