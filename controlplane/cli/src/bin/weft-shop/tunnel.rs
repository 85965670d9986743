//! A TCP connection through the HTTP proxy that the environment names: what curl does with `ALL_PROXY` and gRPC with
//! `grpc_proxy`. Straight to the target where no proxy is named.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer head longer than this is no proxy's.
const MAX_HEAD: usize = 8192;

/// Connects to `host:port` by CONNECT at the proxy that one of these variables names.
pub(crate) async fn connect(variables: &[&str], target: &str) -> anyhow::Result<TcpStream> {
    let proxy = variables.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let Some(proxy) = proxy else {
        return TcpStream::connect(target).await.with_context(|| format!("cannot connect to {target}"));
    };
    through(&proxy, target).await.with_context(|| format!("CONNECT {target} at {proxy}"))
}

async fn through(proxy: &str, target: &str) -> anyhow::Result<TcpStream> {
    let uri: axum::http::Uri = proxy.parse().context("the proxy's address")?;
    let (host, port) = (uri.host().context("the proxy's address has no host")?, uri.port_u16().unwrap_or(80));
    let mut stream = TcpStream::connect((host, port)).await.context("cannot reach the proxy")?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("the proxy answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(stream)
}

/// Byte by byte to the empty line, so that nothing of the payload is taken.
async fn read_head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            bail!("the proxy's answer has no end");
        }
        head.push(stream.read_u8().await.context("the proxy closed the connection")?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
