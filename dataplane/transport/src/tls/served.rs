//! The workloads that one proxy serves, and which of them a connection is for: by the address that it came to, else by the
//! name that the caller gave (SNI). Decided once per connection, while the certificate is chosen.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use weft_policy::identity::SpiffeId;

use super::handle::{Credentials, IdentityHandle};

/// The workloads that one proxy serves: one for a sidecar, many on a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Served(Arc<[ServedIdentity]>);

/// One served workload.
#[derive(Debug, Clone)]
pub struct ServedIdentity {
    pub handle: IdentityHandle,
    /// Addresses of this proxy that belong to this workload alone.
    pub addresses: Vec<IpAddr>,
}

impl Served {
    pub fn new(identities: impl IntoIterator<Item = ServedIdentity>) -> Served {
        Served(identities.into_iter().collect())
    }

    /// The handles of all.
    pub fn handles(&self) -> impl Iterator<Item = &IdentityHandle> {
        self.0.iter().map(|served| &served.handle)
    }

    fn choose(&self, local: Option<IpAddr>, name: Option<&str>) -> Option<&IdentityHandle> {
        let by_address = local.and_then(|local| {
            let local = local.to_canonical();
            self.0.iter().find(|served| served.addresses.iter().any(|address| address.to_canonical() == local))
        });
        let by_name = || name.and_then(|name| self.0.iter().find(|served| server_name(&served.handle.id()) == name));
        let chosen = match &*self.0 {
            // A caller that means another one finds out by the certificate, and can say who answered.
            [only] => Some(only),
            _ => by_address.or_else(by_name),
        };
        chosen.map(|served| &served.handle)
    }
}

impl From<&IdentityHandle> for Served {
    fn from(handle: &IdentityHandle) -> Served {
        Served::new([ServedIdentity { handle: handle.clone(), addresses: Vec::new() }])
    }
}

/// The name by which a caller asks for a workload: a hash, since SPIFFE IDs are longer than host names may be and are not
/// shown to the network.
pub fn server_name(id: &SpiffeId) -> String {
    let hash = digest::digest(&digest::SHA256, id.as_str().as_bytes());
    let mut name = String::with_capacity(64);
    for byte in &hash.as_ref()[..16] {
        for nibble in [byte >> 4, byte & 15] {
            name.extend(char::from_digit(nibble.into(), 16));
        }
    }
    name + ".weft.invalid"
}

/// Which served workload one connection is for; clones see the same.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    served: Served,
    local: Option<IpAddr>,
    made: Arc<OnceLock<(IdentityHandle, Arc<Credentials>)>>,
}

impl Choice {
    /// `local`: the address that the connection came to.
    pub(crate) fn new(served: Served, local: Option<IpAddr>) -> Choice {
        Choice { served, local, made: Arc::default() }
    }

    /// The chosen identity, with the credentials that the handshake began with.
    pub(crate) fn made(&self) -> Option<&(IdentityHandle, Arc<Credentials>)> {
        self.made.get()
    }

    fn make(&self, name: Option<&str>) -> Option<&Arc<Credentials>> {
        let handle = self.served.choose(self.local, name)?;
        Some(&self.made.get_or_init(|| (handle.clone(), handle.current())).1)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.make(client_hello.server_name())?.identity.certified_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Ca, id};

    #[test]
    fn names_are_host_names_and_differ() {
        let (cart, shop) = (server_name(&id("cart")), server_name(&id("shop")));
        assert_ne!(cart, shop);
        assert!(rustls_pki_types::ServerName::try_from(cart.as_str()).is_ok(), "{cart}");
        assert_eq!(cart.len(), 32 + ".weft.invalid".len());
    }

    #[test]
    fn the_address_decides_then_the_name() {
        let ca = Ca::new();
        let of = |name: &str, addresses: &[&str]| ServedIdentity {
            handle: ca.handle(name),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let check = |served: &Served, local: Option<&str>, name: Option<&str>, expect: Option<&str>| {
            let name = name.map(|name| server_name(&id(name)));
            let chosen = served.choose(local.map(|local| local.parse().unwrap()), name.as_deref());
            assert_eq!(chosen.map(IdentityHandle::id), expect.map(id), "{local:?} {name:?}");
        };
        let many = Served::new([of("cart", &["10.0.0.1", "fd00::1"]), of("shop", &["10.0.0.2"]), of("mail", &[])]);
        check(&many, Some("10.0.0.2"), None, Some("shop"));
        check(&many, Some("::ffff:10.0.0.2"), Some("cart"), Some("shop"));
        check(&many, Some("fd00::1"), None, Some("cart"));
        check(&many, Some("10.0.0.9"), Some("mail"), Some("mail"));
        check(&many, None, Some("shop"), Some("shop"));
        check(&many, None, Some("nobody"), None);
        check(&many, None, None, None);
        let one = Served::from(&ca.handle("cart"));
        check(&one, Some("10.0.0.9"), Some("shop"), Some("cart"));
        check(&one, None, None, Some("cart"));
    }
}
