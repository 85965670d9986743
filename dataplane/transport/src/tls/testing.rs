//! A certificate authority for tests, and certificates of every bad kind.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_policy::identity::SpiffeId;

use super::{IdentityHandle, Trust, WorkloadIdentity};

pub(crate) const DOMAIN: &str = "cluster.local";

/// A workload of the test mesh: `spiffe://cluster.local/ns/default/sa/<account>`.
pub(crate) fn id(account: &str) -> SpiffeId {
    uri(account).parse().unwrap()
}

pub(crate) fn uri(account: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/sa/{account}")
}

/// A root with an intermediate that signs workloads.
pub(crate) struct Ca {
    pub(crate) root_pem: String,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_der: CertificateDer<'static>,
}

/// Contents of a certificate; a good one unless changed.
pub(crate) struct Leaf {
    pub(crate) sans: Vec<SanType>,
    pub(crate) from: (i32, u8, u8),
    pub(crate) until: (i32, u8, u8),
    /// Ends so long from now instead.
    pub(crate) lasts: Option<Duration>,
}

impl Leaf {
    pub(crate) fn uris(uris: &[&str]) -> Leaf {
        let sans = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        Leaf { sans, from: (2020, 1, 1), until: (2090, 1, 1), lasts: None }
    }
}

pub(crate) type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Ca {
    pub(crate) fn new() -> Ca {
        let root_key = KeyPair::generate().unwrap();
        let root = ca_params("weft test root");
        let root_cert = root.self_signed(&root_key).unwrap();
        let root = Issuer::new(root, root_key);
        let key = KeyPair::generate().unwrap();
        let params = ca_params("weft test intermediate");
        let intermediate_der = params.signed_by(&key, &root).unwrap().der().clone();
        Ca { root_pem: root_cert.pem(), intermediate: Issuer::new(params, key), intermediate_der }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::from_pem(DOMAIN, &self.root_pem).unwrap()
    }

    pub(crate) fn chain(&self, leaf: &Leaf) -> Chain {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.clone_from(&leaf.sans);
        params.not_before = date_time_ymd(leaf.from.0, leaf.from.1, leaf.from.2);
        params.not_after = match leaf.lasts {
            Some(lasts) => (SystemTime::now() + lasts).into(),
            None => date_time_ymd(leaf.until.0, leaf.until.1, leaf.until.2),
        };
        let cert = params.signed_by(&key, &self.intermediate).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![cert.der().clone(), self.intermediate_der.clone()], key)
    }

    pub(crate) fn identity(&self, account: &str) -> WorkloadIdentity {
        let (chain, key) = self.chain(&Leaf::uris(&[&uri(account)]));
        WorkloadIdentity::new(chain, key).unwrap()
    }

    /// An identity that ends so long from now.
    pub(crate) fn ending(&self, account: &str, lasts: Duration) -> IdentityHandle {
        let leaf = Leaf { lasts: Some(lasts), ..Leaf::uris(&[&uri(account)]) };
        let (chain, key) = self.chain(&leaf);
        IdentityHandle::new(WorkloadIdentity::new(chain, key).unwrap(), self.trust())
    }

    pub(crate) fn handle(&self, account: &str) -> IdentityHandle {
        IdentityHandle::new(self.identity(account), self.trust())
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}
