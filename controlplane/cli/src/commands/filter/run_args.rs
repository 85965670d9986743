//! Arguments of `weft filter run`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use weft_policy::identity::SpiffeId;

pub(super) const EXAMPLE: &str = "Examples:
  weft filter run --to 127.0.0.1:8080                      # builds the filter of this folder first
  weft filter run mine.wasm --listen 127.0.0.1:8000 --to 127.0.0.1:8080 --config config.yaml
  weft filter run --to 127.0.0.1:8080 --identity spiffe://cluster.local/ns/shop/sa/ada --policy policy.yaml";

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The folder of a filter, which is built, or a component.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    pub(crate) what: PathBuf,
    /// The app, which speaks HTTP on this machine.
    #[arg(long, value_name = "127.0.0.1:PORT", value_parser = app)]
    pub(crate) to: SocketAddr,
    /// Where clients connect to, on loopback; port 0 is a free one, which is said.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", value_parser = loopback)]
    pub(crate) listen: SocketAddr,
    /// The filter's configuration, YAML or JSON, as `spec.config` of a FilterPolicy has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A FilterPolicy whose capabilities, limits, failure mode and configuration hold [default: all capabilities that need
    /// no service, and `onFailure: Deny`].
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The identity that requests come from.
    #[arg(long, value_name = "SPIFFE-ID", default_value = "spiffe://cluster.local/ns/default/sa/caller")]
    pub(crate) identity: SpiffeId,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is no address such as 127.0.0.1:8000"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{address} is not on loopback, and what runs a filter for its author serves this machine alone"))
    }
}

/// The one address at which a sidecar looks for an app that does not listen at the sidecar's own.
fn app(text: &str) -> Result<SocketAddr, String> {
    let address = loopback(text)?;
    if address.ip() == Ipv4Addr::LOCALHOST && address.port() != 0 {
        Ok(address)
    } else {
        Err(format!("{address}: an app at 127.0.0.1 and a port of its own is expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_and_asks_this_machine_alone() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:80").is_ok() && loopback("127.0.0.9:80").is_ok());
        assert!(loopback("0.0.0.0:80").unwrap_err().contains("not on loopback"));
        assert!(loopback("8080").unwrap_err().contains("no address"));
        assert!(app("127.0.0.1:8080").is_ok());
        for wrong in ["127.0.0.2:8080", "[::1]:8080", "127.0.0.1:0", "10.0.0.1:80"] {
            assert!(app(wrong).is_err(), "{wrong}");
        }
    }
}
