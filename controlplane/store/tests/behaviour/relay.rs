//! A relay in front of a member that loses answers: what was asked is passed on, and the connection ends before the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

/// How long a member has to do what it was asked.
const DONE: Duration = Duration::from_millis(300);

pub(crate) struct Relay {
    pub(crate) address: String,
    loses: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) async fn to(member: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (loses, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let of = (loses.clone(), lost.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&member).await.unwrap();
                tokio::spawn(pass(stream, upstream, of.clone()));
            }
        });
        Self { address, loses, lost }
    }

    pub(crate) fn lose_the_next_answer(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, member: TcpStream, (loses, lost): (Arc<AtomicBool>, Arc<AtomicU64>)) {
    let (mut asks, mut answered) = client.into_split();
    let (mut answers, mut asked) = member.into_split();
    let asking = tokio::spawn(async move { drop(copy(&mut asks, &mut asked).await) });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = answers.read(&mut buffer).await {
        if loses.load(Ordering::SeqCst) {
            tokio::time::sleep(DONE).await;
            loses.store(false, Ordering::SeqCst);
            lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if answered.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
