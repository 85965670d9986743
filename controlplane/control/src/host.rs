//! This machine: the addresses that its interfaces have, and how many files this process may have open.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// An address that was not found is looked for again after this.
const FRESH: Duration = Duration::from_secs(1);

/// Files that are neither connections of proxies nor of operators: store, keys, listeners, libraries.
const OTHER_FILES: u64 = 128;
/// Listeners whose connections are counted apart.
const LISTENERS: u64 = 2;

/// The addresses of the interfaces, as they were read last.
struct Addresses {
    read: Option<(Instant, BTreeSet<IpAddr>)>,
}

impl Addresses {
    /// Whether an interface has the address. Where the interfaces can't be read (no file descriptor is left), those that
    /// were read last count: a lack of means is no answer.
    fn have(&mut self, address: IpAddr, now: Instant, read: impl FnOnce() -> io::Result<BTreeSet<IpAddr>>) -> bool {
        let has = |known: &BTreeSet<IpAddr>| known.contains(&address);
        if let Some((at, known)) = &self.read
            && (has(known) || now.duration_since(*at) < FRESH)
        {
            return has(known);
        }
        match read() {
            Ok(found) => self.read = Some((now, found)),
            Err(error) => {
                tracing::warn!(%error, "the addresses of this machine can't be read; the last known ones count")
            }
        }
        self.read.as_ref().is_some_and(|(_, known)| has(known))
    }
}

/// True for an address of this machine's interfaces. What can be bound is not asked: with `ip_nonlocal_bind` that is
/// every address.
pub(crate) fn has_address(address: IpAddr) -> bool {
    static ADDRESSES: Mutex<Addresses> = Mutex::new(Addresses { read: None });
    let address = address.to_canonical();
    if address.is_loopback() {
        return true;
    }
    let mut known = ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
    known.have(address, Instant::now(), || {
        Ok(if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip().to_canonical()).collect())
    })
}

/// Lets this process open as many files as it may ever; gives that number, `None` where there is no bound.
pub(crate) fn raise_open_files() -> Option<u64> {
    let found = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: found.maximum, maximum: found.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => found.maximum,
        Err(error) => {
            tracing::warn!(%error, soft = found.current, "the bound of open files can't be raised");
            found.current
        }
    }
}

/// Connections that each of two listeners can have with so many open files, at most as many as are configured.
pub(crate) fn connections(configured: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return configured };
    let room = files.saturating_sub(OTHER_FILES) / LISTENERS;
    configured.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_this_machine_if_an_interface_has_it() {
        let (own, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let mut addresses = Addresses { read: None };
        let unreadable = || Err(io::Error::other("too many open files"));
        assert!(!addresses.have(own, start, unreadable), "nothing is known yet");
        assert!(addresses.have(own, start, || Ok([own].into())));
        assert!(!addresses.have(other, start, || panic!("it was read just now")));
        let later = start + FRESH;
        assert!(addresses.have(own, later, unreadable), "no descriptor left is no no");
        assert!(!addresses.have(other, later, unreadable));
        assert!(addresses.have(other, later, || Ok([own, other].into())), "an interface got it meanwhile");
        assert!(has_address("127.0.0.9".parse().unwrap()) && has_address("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!has_address("203.0.113.77".parse().unwrap()), "documentation's, and nobody's");
    }

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(connections(16_384, None), 16_384);
        assert_eq!(connections(16_384, Some(1_048_576)), 16_384);
        assert_eq!(connections(16_384, Some(1_024)), 448);
        assert_eq!(connections(100, Some(1_024)), 100);
        assert_eq!(connections(100, Some(64)), 1);
    }
}
