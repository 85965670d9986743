//! The halves of a TCP stream against raw sockets.
