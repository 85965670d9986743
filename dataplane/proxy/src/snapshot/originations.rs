//! How this proxy begins TLS to servers that ExternalServices name. Each is made once, when a request first needs it, and kept
//! from one snapshot to the next while it stays the same.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use weft_policy::bundle::{Bundle, ExternalTls, ObjectName};
use weft_transport::tls::{ALPN_H1, ALPN_H2, OutsideTerms, outside_client_config};

use crate::outside_certificates::OutsideCertificates;

/// Of one snapshot, by ExternalService.
#[derive(Debug, Default)]
pub struct Originations(BTreeMap<ObjectName, Arc<Origination>>);

#[derive(Debug)]
struct Origination {
    tls: ExternalTls,
    made: OnceLock<Result<Made, String>>,
}

/// What flows below TLS, which is all that a server is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    Http1,
    Http2,
    /// Nobody says: no protocol is offered.
    Bytes,
}

/// One for each.
#[derive(Debug)]
struct Made {
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl Originations {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let of = |(name, tls): (&ObjectName, &ExternalTls)| {
            (name.clone(), Arc::new(Origination { tls: tls.clone(), made: OnceLock::new() }))
        };
        let with_tls = bundle.externals.iter().filter_map(|(name, external)| Some((name, external.tls.as_ref()?)));
        Self(with_tls.map(of).collect())
    }

    /// Takes over what the snapshot before has made: connections that were made with it go on being used.
    pub(super) fn follow(&mut self, before: &Self) {
        for (name, own) in &mut self.0 {
            if let Some(known) = before.0.get(name).filter(|known| known.tls == own.tls) {
                *own = Arc::clone(known);
            }
        }
    }

    /// The configuration of an ExternalService. `certificates`: of this proxy, the same at each call.
    ///
    /// # Errors
    /// No root that it believes can be used, or there is no certificate of the name that it says, in words.
    pub fn config(
        &self,
        external: &ObjectName,
        below: Below,
        certificates: &OutsideCertificates,
    ) -> Result<Arc<ClientConfig>, String> {
        let Some(origination) = self.0.get(external) else { return Err("it begins no TLS".to_owned()) };
        match origination.made.get_or_init(|| origination.make(&external.namespace, certificates)) {
            Ok(made) => Ok(Arc::clone(match below {
                Below::Http1 => &made.h1,
                Below::Http2 => &made.h2,
                Below::Bytes => &made.bytes,
            })),
            Err(reason) => Err(reason.clone()),
        }
    }
}

impl Origination {
    fn make(&self, namespace: &str, certificates: &OutsideCertificates) -> Result<Made, String> {
        let named = self.tls.certificate.as_deref();
        let certificate = named.map(|name| certificates.of(name, namespace)).transpose()?;
        let config = |alpn| {
            let (roots_pem, takes_tls12) = (self.tls.roots_pem.as_deref(), self.tls.takes_tls12);
            let terms = OutsideTerms { roots_pem, alpn, takes_tls12, certificate: certificate.clone() };
            outside_client_config(terms).map(Arc::new).map_err(|error| crate::chain(&error))
        };
        Ok(Made { h1: config(Some(ALPN_H1))?, h2: config(Some(ALPN_H2))?, bytes: config(None)? })
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::{External, Revision};

    use super::*;

    fn of(roots: &str, certificate: Option<&str>) -> Originations {
        let name = ObjectName::new("shop", "api");
        let external = External {
            name: name.clone(),
            mesh_wide: false,
            created: Revision(1),
            hosts: vec!["api.test".to_owned()],
            ports: Vec::new(),
            endpoints: Vec::new(),
            tls: Some(ExternalTls {
                roots_pem: Some(roots.to_owned()),
                certificate: certificate.map(str::to_owned),
                ..ExternalTls::default()
            }),
            traffic: None,
        };
        Originations::of(&Bundle { externals: [(name, external)].into(), ..Bundle::default() })
    }

    #[test]
    fn what_stays_the_same_is_made_once() {
        let root = || rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap().cert.pem();
        let (pem, name, none) = (root(), ObjectName::new("shop", "api"), OutsideCertificates::default());
        let first = of(&pem, None);
        let made = first.config(&name, Below::Http1, &none).unwrap();
        assert_eq!(made.alpn_protocols, [ALPN_H1]);
        assert_eq!(first.config(&name, Below::Http2, &none).unwrap().alpn_protocols, [ALPN_H2]);
        assert!(first.config(&name, Below::Bytes, &none).unwrap().alpn_protocols.is_empty());
        for (roots, is_same) in [(&pem, true), (&root(), false)] {
            let mut next = of(roots, None);
            next.follow(&first);
            assert_eq!(Arc::ptr_eq(&next.config(&name, Below::Http1, &none).unwrap(), &made), is_same);
        }
        let unusable = of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None);
        let reason = unusable.config(&name, Below::Http1, &none).unwrap_err();
        assert!(reason.starts_with("the roots can't be used: "), "{reason}");
        assert!(unusable.config(&ObjectName::new("shop", "other"), Below::Http1, &none).is_err());
        // One that is asked for and not there is not gone without.
        let mut named = of(&pem, Some("bank"));
        named.follow(&first);
        let reason = named.config(&name, Below::Http1, &none).unwrap_err();
        assert_eq!(reason, "this proxy has no certificate \"bank\" for namespace shop");
    }
}
