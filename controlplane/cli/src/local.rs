//! Plain HTTP to the ports that our own processes open on loopback: readiness, metrics, admin.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A client that goes to the address itself, whatever `http_proxy` says.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("cannot set up the HTTP client")
}

/// GETs `http://address/path`: status and text.
pub(crate) async fn fetch(client: &reqwest::Client, address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("http://{address}{path}");
    let answer = client.get(&url).send().await.with_context(|| format!("GET {url}"))?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.with_context(|| format!("GET {url}"))?))
}
