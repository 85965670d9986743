//! The replicas of the control plane, as their addresses: calls go to the one that answered last, and to the next where it
//! doesn't answer.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;
use weft_transport::capture;

use super::channel::ChannelError;
use crate::config::Addresses;
use crate::staggered;

/// How long one replica of several is tried alone.
const ALONE: Duration = Duration::from_millis(500);

/// How long one address of a replica is tried before its next.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the kernel of a replica's host may leave bytes unacknowledged, where there is another to go to. With the pings
/// between, a host that is cut off is left within 2 s, while one that is only busy acknowledges and is kept.
const UNACKNOWLEDGED: Duration = Duration::from_millis(1_200);

/// Where the control plane is.
#[derive(Debug)]
pub(super) struct Replicas {
    all: Vec<Replica>,
    /// The one to ask first.
    first: AtomicUsize,
    /// Lets our connections pass the capture rules, which are there before the first of them.
    mark: Option<u32>,
}

#[derive(Debug)]
struct Replica {
    host: String,
    port: u16,
}

impl Replicas {
    /// And the authority of the first, by which requests name the control plane. Which one is asked first is chosen by
    /// chance, so that many proxies spread.
    pub(super) fn new(addresses: &Addresses, mark: Option<u32>) -> Result<(Self, String), ChannelError> {
        let mut authority = None;
        let mut all = Vec::new();
        for address in addresses.iter() {
            let wrong = || ChannelError::Address(address.to_owned());
            let uri: Uri = address.parse().map_err(|_| wrong())?;
            let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
            all.push(Replica { host, port: uri.port_u16().unwrap_or(15_012) });
            authority.get_or_insert(uri.authority().ok_or_else(wrong)?.to_string());
        }
        let authority = authority.ok_or_else(|| ChannelError::Address(String::new()))?;
        let first = AtomicUsize::new(rand::random_range(0..all.len()));
        Ok((Self { all, first, mark }, authority))
    }

    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Another one becomes the first, by chance: those that leave one spread over all others.
    pub(super) fn turn(&self) {
        if self.are_several() {
            let step = rand::random_range(1..self.all.len());
            self.first.store((self.first.load(Ordering::Relaxed) + step) % self.all.len(), Ordering::Relaxed);
        }
    }

    /// Connects to the first replica that answers, which is asked first from now on.
    pub(super) async fn connect(&self, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
        let first = self.first.load(Ordering::Relaxed);
        let attempts = (0..self.all.len()).map(|turn| self.connect_to((first + turn) % self.all.len(), tls));
        match staggered::first_of(attempts, ALONE).await {
            Ok((index, stream)) => {
                self.first.store(index, Ordering::Relaxed);
                Ok(stream)
            }
            Err(failures) => Err(all_failed(failures)),
        }
    }

    async fn connect_to(&self, index: usize, tls: &TlsConnector) -> io::Result<(usize, TlsStream<TcpStream>)> {
        let replica = &self.all[index];
        let named = |error: io::Error| match self.are_several() {
            true => io::Error::new(error.kind(), format!("{}:{}: {error}", replica.host, replica.port)),
            false => error,
        };
        let name = ServerName::try_from(replica.host.clone()).map_err(|error| named(io::Error::other(error)))?;
        let stream = self.dial(replica).await.map_err(named)?;
        Ok((index, tls.connect(name, stream).await.map_err(named)?))
    }

    /// The first of the host's addresses that answers.
    async fn dial(&self, replica: &Replica) -> io::Result<TcpStream> {
        let found = tokio::net::lookup_host((replica.host.as_str(), replica.port)).await?;
        let found: Vec<SocketAddr> = found.collect();
        let attempts = found.iter().map(|address| capture::connect_tcp(*address, None, self.mark, CONNECT));
        let stream = staggered::first_of(attempts, ALONE).await.map_err(all_failed)?;
        if self.are_several() {
            SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        }
        Ok(stream)
    }
}

/// One failure for all.
fn all_failed(failures: Vec<io::Error>) -> io::Error {
    let kind = failures.first().map_or(io::ErrorKind::NotFound, io::Error::kind);
    match <[io::Error; 1]>::try_from(failures) {
        Ok([alone]) => alone,
        Err(several) => {
            let words: Vec<String> = several.iter().map(ToString::to_string).collect();
            io::Error::new(kind, words.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_leave_one_spread_over_the_others() {
        let addresses: Addresses =
            serde_json::from_value(serde_json::json!(["https://a:1", "https://b:1", "https://c:1"])).unwrap();
        let mut at = [0; 3];
        for _ in 0..300 {
            let (replicas, authority) = Replicas::new(&addresses, None).unwrap();
            assert_eq!(authority, "a:1");
            replicas.first.store(0, Ordering::Relaxed);
            replicas.turn();
            at[replicas.first.load(Ordering::Relaxed)] += 1;
        }
        assert!(at[0] == 0 && at[1] > 75 && at[2] > 75, "{at:?}");
        let one = serde_json::from_value(serde_json::json!("https://a:1")).unwrap();
        let (alone, _) = Replicas::new(&one, None).unwrap();
        alone.turn();
        assert!(!alone.are_several() && alone.first.load(Ordering::Relaxed) == 0);
    }
}
