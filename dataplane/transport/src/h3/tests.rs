//! Unit and loopback tests of the HTTP/3 layer.
