//! How bytes travel: capture, detection, TLS identity, QUIC, HTTP/3, HTTP/2, HTTP/1. Knows no rule: which request may go
//! where is decided by `weft-policy` and carried out by `weft-proxy`.

pub mod between;
mod block;
mod cancels;
pub mod capture;
pub mod detect;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod http;
pub mod mesh;
pub mod qpack;
pub mod quic;
pub mod tcp;
pub mod tls;
mod upgrade;
