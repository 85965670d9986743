//! How many control streams are open with each certificate and for each account, and how often they are opened.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use weft_policy::identity::SpiffeId;

use crate::config::Limits;
use crate::metrics::Throttled;
use crate::rate::{Place, Places, Rates};

/// sha256 of a client certificate.
type Certificate = [u8; 32];

/// The streams of all certificates.
pub(crate) struct Streams {
    open: Places<Certificate>,
    opened: Rates<Certificate>,
    /// Certificates are renewed, an account stays one.
    opened_of_account: Rates<SpiffeId>,
    of_account: Places<SpiffeId>,
}

/// One open stream; it counts until it is dropped.
pub(crate) struct OpenStream {
    _of_certificate: Place<Certificate>,
    _of_account: Place<SpiffeId>,
}

impl Streams {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            open: Places::new(limits.max_streams_per_certificate),
            opened: Rates::per_minute(limits.max_hellos_per_minute),
            opened_of_account: Rates::per_minute(limits.max_account_hellos_per_minute),
            of_account: Places::new(limits.max_streams_per_account),
        }
    }

    /// One more, unless there are too many or they come too often.
    pub(crate) fn open(&self, account: &SpiffeId, certificate_der: &[u8]) -> Result<OpenStream, Throttled> {
        let certificate: Certificate = Sha256::digest(certificate_der).into();
        self.opened.take(&certificate, Instant::now()).map_err(|_| Throttled::Hellos)?;
        self.opened_of_account.take(account, Instant::now()).map_err(|_| Throttled::Hellos)?;
        let of_account = self.of_account.take(account).ok_or(Throttled::Streams)?;
        let of_certificate = self.open.take(&certificate).ok_or(Throttled::Streams)?;
        Ok(OpenStream { _of_certificate: of_certificate, _of_account: of_account })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_while_they_are_open() {
        let limits = Limits {
            max_streams_per_certificate: 2,
            max_hellos_per_minute: 4,
            max_streams_per_account: 3,
            max_account_hellos_per_minute: 7,
            ..Limits::default()
        };
        let streams = Streams::new(&limits);
        let account: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let open = |certificate: &[u8]| streams.open(&account, certificate);
        let (first, second) = (open(b"a").unwrap(), open(b"a").unwrap());
        assert_eq!(open(b"a").err(), Some(Throttled::Streams));
        let renewed = open(b"b").unwrap();
        assert_eq!(open(b"c").err(), Some(Throttled::Streams), "a fourth of the account, by whatever certificate");
        drop((first, renewed));
        let third = open(b"a").unwrap();
        drop((second, third));
        assert_eq!(open(b"a").err(), Some(Throttled::Hellos), "the fifth within a minute");
        drop(open(b"d").unwrap());
        assert_eq!(open(b"e").err(), Some(Throttled::Hellos), "too many of the account, by whatever certificate");
    }
}
