//! How many control streams are open with each certificate, and how often it opens one.

use std::time::Instant;

use sha2::{Digest as _, Sha256};

use crate::config::Limits;
use crate::metrics::Throttled;
use crate::rate::{Place, Places, Rates};

/// sha256 of a client certificate.
type Certificate = [u8; 32];

/// The streams of all certificates.
pub(crate) struct Streams {
    open: Places<Certificate>,
    opened: Rates<Certificate>,
}

/// One open stream; it counts until it is dropped.
pub(crate) type OpenStream = Place<Certificate>;

impl Streams {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            open: Places::new(limits.max_streams_per_certificate),
            opened: Rates::per_minute(limits.max_hellos_per_minute),
        }
    }

    /// One more, unless there are too many or they come too often.
    pub(crate) fn open(&self, certificate_der: &[u8]) -> Result<OpenStream, Throttled> {
        let certificate: Certificate = Sha256::digest(certificate_der).into();
        self.opened.take(&certificate, Instant::now()).map_err(|_| Throttled::Hellos)?;
        self.open.take(&certificate).ok_or(Throttled::Streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_while_they_are_open() {
        let limits = Limits { max_streams_per_certificate: 2, max_hellos_per_minute: 4, ..Limits::default() };
        let streams = Streams::new(&limits);
        let (first, second) = (streams.open(b"a").unwrap(), streams.open(b"a").unwrap());
        assert_eq!(streams.open(b"a").err(), Some(Throttled::Streams));
        streams.open(b"b").unwrap();
        drop(first);
        let third = streams.open(b"a").unwrap();
        drop((second, third));
        assert_eq!(streams.open(b"a").err(), Some(Throttled::Hellos), "the fifth within a minute");
    }
}
