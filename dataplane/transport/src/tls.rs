//! Identity of both ends: X.509-SVIDs of this workload, trust in others', and the rustls configurations that demand
//! both on every connection. TLS 1.3 only, no resumption, no early data: a certificate is verified at each handshake.

mod config;
mod failure;
mod handle;
mod identity;
mod outside;
mod served;
mod trust;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use config::{client_config, control_client_config, provider, server_config};
pub use failure::{HandshakeError, HandshakeFailure, RefusedBy};
pub use handle::{Credentials, Identities, IdentityHandle, ReplaceError};
pub use identity::{IdentityError, PeerIdentity, WorkloadIdentity, peer_identity};
pub use outside::{
    ALPN_H1, OutsideStream, OutsideTerms, RootsError, begin, outside_certificate, outside_client_config,
};
pub use served::{Served, ServedIdentity, server_name};
pub use trust::{Trust, TrustError};
pub use verify::recheck;

pub(crate) use config::{client_config_with, server_config_with};
pub(crate) use served::Choice;
pub(crate) use verify::{Verdict, ends_at, evicted, gives_way_at};

/// ALPN of the mesh over QUIC.
pub const ALPN_H3: &[u8] = b"h3";
/// ALPN of HTTP/2: the control stream, and the mesh's TCP side.
pub const ALPN_H2: &[u8] = b"h2";
