//! How this proxy begins TLS to servers that ExternalServices name. Each is made once, when a request first needs it, and kept
//! from one snapshot to the next while it stays the same.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use weft_policy::bundle::{Bundle, ExternalTls, ObjectName};
use weft_transport::tls::{ALPN_H1, ALPN_H2, outside_client_config};

/// Of one snapshot, by ExternalService.
#[derive(Debug, Default)]
pub struct Originations(BTreeMap<ObjectName, Arc<Origination>>);

#[derive(Debug)]
struct Origination {
    tls: ExternalTls,
    made: OnceLock<Result<Made, String>>,
}

/// One for each version of HTTP, which is all that a server is offered.
#[derive(Debug)]
struct Made {
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
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

    /// The configuration of an ExternalService for one version of HTTP.
    ///
    /// # Errors
    /// No root that it believes can be used, in words.
    pub fn config(&self, external: &ObjectName, http2: bool) -> Result<Arc<ClientConfig>, String> {
        let Some(origination) = self.0.get(external) else { return Err("it begins no TLS".to_owned()) };
        match origination.made.get_or_init(|| origination.make()) {
            Ok(made) => Ok(Arc::clone(if http2 { &made.h2 } else { &made.h1 })),
            Err(reason) => Err(reason.clone()),
        }
    }
}

impl Origination {
    fn make(&self) -> Result<Made, String> {
        let config = |alpn| outside_client_config(self.tls.roots_pem.as_deref(), alpn).map(Arc::new);
        let made = config(ALPN_H1).and_then(|h1| Ok(Made { h1, h2: config(ALPN_H2)? }));
        made.map_err(|error| crate::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::{External, Revision};

    use super::*;

    fn of(roots: &str) -> Originations {
        let name = ObjectName::new("shop", "api");
        let external = External {
            name: name.clone(),
            mesh_wide: false,
            created: Revision(1),
            hosts: vec!["api.test".to_owned()],
            ports: Vec::new(),
            endpoints: Vec::new(),
            tls: Some(ExternalTls { server_name: None, roots_pem: Some(roots.to_owned()) }),
            traffic: None,
        };
        Originations::of(&Bundle { externals: [(name, external)].into(), ..Bundle::default() })
    }

    #[test]
    fn what_stays_the_same_is_made_once() {
        let root = || rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap().cert.pem();
        let (pem, name) = (root(), ObjectName::new("shop", "api"));
        let first = of(&pem);
        let made = first.config(&name, false).unwrap();
        assert_eq!(made.alpn_protocols, [ALPN_H1]);
        assert_eq!(first.config(&name, true).unwrap().alpn_protocols, [ALPN_H2]);
        for (roots, is_same) in [(pem, true), (root(), false)] {
            let mut next = of(&roots);
            next.follow(&first);
            assert_eq!(Arc::ptr_eq(&next.config(&name, false).unwrap(), &made), is_same);
        }
        let unusable = of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let reason = unusable.config(&name, false).unwrap_err();
        assert!(reason.starts_with("the roots can't be used: "), "{reason}");
        assert!(unusable.config(&ObjectName::new("shop", "other"), false).is_err());
    }
}
