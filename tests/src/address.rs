//! Loopback addresses that no other test uses, nor another run at the same time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The next free address of this test process, within 127.64.0.0/10.
///
/// # Panics
/// When the process has used up its 1022 addresses.
pub fn next() -> IpAddr {
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(index < 1022, "a test process has 1022 addresses");
    let process = std::process::id() % 4096;
    let host = (process << 10) | (index + 1);
    let [_, high, middle, low] = ((127 << 24) | (1 << 22) | host).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high, middle, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_and_differ() {
        let (a, b) = (next(), next());
        assert!(a.is_loopback() && b.is_loopback() && a != b);
    }
}
