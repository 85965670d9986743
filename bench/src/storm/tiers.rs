//! The applications of a storm, inside this process: `b` calls `c` for each request, and the two of `c` answer as the weather says.
//! Each arrival is noted. Clients and servers speak as much HTTP/1.1 as a GET needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The time that an application gives one of its calls.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries of a client that tries again by itself.
const PAUSE: Duration = Duration::from_millis(25);
const PORT: u16 = 19_080;

/// Who was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    B,
    /// The first or the second of `c`.
    C(usize),
}

/// Where an application sends its calls.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// Of the proxy.
    pub(super) address: String,
    pub(super) target: String,
    pub(super) host: String,
    /// How often it tries by itself.
    pub(super) tries: u32,
}

/// What all applications share.
#[derive(Debug, Default)]
pub(super) struct World {
    /// How long each of `c` takes.
    delay_ms: AtomicU64,
    /// Which of `c` fail, a bit for each.
    failing: AtomicU64,
    arrivals: Mutex<Vec<(Instant, Tier)>>,
    /// From `b` to `c`.
    way: Mutex<Option<Way>>,
}

impl World {
    /// `failing`: a bit for each of `c`.
    pub(super) fn weather(&self, delay: Duration, failing: u64) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub(super) fn lead(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
    }

    pub(super) fn arrivals(&self) -> Vec<(Instant, Tier)> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, tier: Tier) {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), tier));
    }

    async fn answer(&self, tier: Tier) -> u16 {
        self.note(tier);
        match tier {
            Tier::B => {
                let way = self.way.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match way {
                    Some(way) if call(&way).await == 200 => 200,
                    Some(_) | None => 503,
                }
            }
            Tier::C(number) => {
                tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))).await;
                if self.failing.load(Ordering::SeqCst) & (1 << number) == 0 { 200 } else { 503 }
            }
        }
    }
}

/// Serves one application at an address.
pub(super) async fn serve(world: &Arc<World>, tier: Tier, address: &str) -> Result<()> {
    let listener = TcpListener::bind((address, PORT)).await.with_context(|| format!("cannot bind {address}:{PORT}"))?;
    let world = Arc::clone(world);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let world = Arc::clone(&world);
            tokio::spawn(async move { connection(&world, tier, stream).await });
        }
    });
    Ok(())
}

/// Requests without bodies, one after the other.
async fn connection(world: &World, tier: Tier, mut stream: TcpStream) -> Option<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.drain(..end + 4);
            let reason = match world.answer(tier).await {
                200 => "200 OK",
                _ => "503 Service Unavailable",
            };
            let answer = format!("HTTP/1.1 {reason}\r\ncontent-length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&buffer[..read]);
    }
}

/// The status of a call, 0 where there is no answer in time; tried as often as the way says.
pub(super) async fn call(way: &Way) -> u16 {
    let all = async {
        let mut status = 0;
        for number in 0..way.tries.max(1) {
            if number > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            status = exchange(way).await.unwrap_or(0);
            if (200..500).contains(&status) {
                break;
            }
        }
        status
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or(0)
}

async fn exchange(way: &Way) -> Option<u16> {
    let Way { address, target, host, .. } = way;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 512]);
    while answer.len() < 12 {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&buffer[..read]);
    }
    std::str::from_utf8(&answer[9..12]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str, tries: u32) -> Way {
        let address = format!("{address}:{PORT}");
        Way { host: address.clone(), address, target: "/".to_owned(), tries }
    }

    #[tokio::test]
    async fn tiers_answer_as_the_weather_says_and_note_who_came() {
        let world = Arc::new(World::default());
        serve(&world, Tier::B, "127.91.0.71").await.unwrap();
        serve(&world, Tier::C(1), "127.91.0.72").await.unwrap();
        let way = to("127.91.0.71", 1);
        assert_eq!(call(&way).await, 503, "it leads nowhere yet");
        world.lead(to("127.91.0.72", 3));
        assert_eq!(call(&way).await, 200);
        world.weather(Duration::ZERO, 2);
        assert_eq!(call(&way).await, 503);
        let tiers: Vec<Tier> = world.arrivals().into_iter().map(|(_, tier)| tier).collect();
        assert_eq!(tiers, [Tier::B, Tier::B, Tier::C(1), Tier::B, Tier::C(1), Tier::C(1), Tier::C(1)]);
        world.weather(Duration::ZERO, 1);
        assert_eq!(call(&way).await, 200, "the other one fails");
    }
}
