//! Carries what comes to a port of this machine into the mesh: each connection by CONNECT through the caller's sidecar,
//! which makes requests of it. The bytes are not looked at here.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::output;

/// Connections at a time; one more is closed at once.
const MOST: usize = 1_024;
/// Bytes of the answer to CONNECT.
const MAX_HEAD: usize = 4_096;

/// Serves until the listener fails; gives why. Cancel safe: connections end with it.
pub(super) async fn serve(listener: TcpListener, sidecar: SocketAddr, target: &'static str) -> anyhow::Error {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if open.len() < MOST => {
                    open.spawn(carry(client, sidecar, target));
                }
                Ok(_) => output::complain(&format!("a connection is closed: {MOST} are open")),
                Err(error) => return anyhow::Error::from(error).context("no connection can be accepted"),
            },
            Some(ended) = open.join_next() => {
                if let Ok(Err(error)) = ended {
                    output::complain(&format!("a connection is closed: {error:#}"));
                }
            }
        }
    }
}

async fn carry(mut client: TcpStream, sidecar: SocketAddr, target: &str) -> anyhow::Result<()> {
    let connected = TcpStream::connect(sidecar).await;
    let mut tunnel = connected.with_context(|| format!("cannot reach the caller's sidecar at {sidecar}"))?;
    let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    tunnel.write_all(head.as_bytes()).await.context("cannot ask the caller's sidecar")?;
    opened(&mut tunnel).await?;
    // How a connection ends is between its two ends.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut tunnel).await;
    Ok(())
}

/// Reads the head of the answer and no byte more.
async fn opened(tunnel: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            bail!("the caller's sidecar answers more than {MAX_HEAD} bytes");
        }
        head.push(tunnel.read_u8().await.context("the caller's sidecar does not answer")?);
    }
    if head.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let head = String::from_utf8_lossy(&head);
    bail!("the caller's sidecar answers {}", head.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sidecar that answers the first CONNECT and then echoes.
    async fn sidecar(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"CONNECT app.dev:80 HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        address
    }

    async fn through(answer: &'static str) -> anyhow::Result<String> {
        let sidecar = sidecar(answer).await;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (accepted, _) = listener.accept().await?;
        client.write_all(b"hello").await?;
        client.shutdown().await?;
        carry(accepted, sidecar, "app.dev:80").await?;
        let mut said = String::new();
        client.read_to_string(&mut said).await?;
        Ok(said)
    }

    #[tokio::test]
    async fn bytes_pass_once_the_tunnel_is_open() {
        assert_eq!(through("HTTP/1.1 200 OK\r\n\r\nfirst ").await.unwrap(), "first hello");
        let error = through("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err().to_string();
        assert_eq!(error, "the caller's sidecar answers HTTP/1.1 503 Service Unavailable");
    }
}
