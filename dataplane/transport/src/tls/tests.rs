//! TLS identity, both sides.
