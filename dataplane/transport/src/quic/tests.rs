//! QUIC endpoints and the pool on loopback.
