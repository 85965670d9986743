//! The secrets that all workers of one proxy share, and that a restarted proxy finds again: with them it can tell a peer
//! at once that a connection is no more (stateless reset), instead of letting it wait.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac, rand};
use quinn::EndpointConfig;
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};

use super::Worker;
use super::cid::WorkerCidGenerator;

/// Keys for stateless resets and address-validation tokens; cheap to clone.
#[derive(Clone)]
pub struct SharedKeys {
    reset: Arc<dyn HmacKey>,
    token: Arc<dyn HandshakeTokenKey>,
    /// Start of the count that spreads this process's outgoing connections over the callee's workers.
    pub(super) spread: u8,
}

impl SharedKeys {
    /// Derives the keys from a secret that the proxy keeps (32 bytes or more of randomness).
    pub fn from_secret(secret: &[u8]) -> SharedKeys {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weft quic").extract(secret);
        let mut reset = [0; 64];
        expand(&root, b"reset", &mut reset);
        let mut token = [0; 32];
        expand(&root, b"token", &mut token);
        let mut spread = [0; 1];
        expand(&root, b"spread", &mut spread);
        SharedKeys {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)),
            token: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token)),
            spread: spread[0],
        }
    }

    /// Fresh keys: peers of an earlier life have to time out.
    pub fn generate() -> SharedKeys {
        let mut secret = [0; 32];
        rand::fill(&mut secret).expect("the system's random source works");
        SharedKeys::from_secret(&secret)
    }

    pub(super) fn endpoint_config(&self, worker: Worker) -> EndpointConfig {
        let mut config = EndpointConfig::new(self.reset.clone());
        config.cid_generator(move || Box::new(WorkerCidGenerator::new(worker)));
        config
    }

    pub(super) fn token(&self) -> Arc<dyn HandshakeTokenKey> {
        self.token.clone()
    }
}

impl std::fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedKeys").finish_non_exhaustive()
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(root: &hkdf::Prk, label: &[u8], out: &mut [u8]) {
    root.expand(&[label], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 255 hashes, this asks for two");
}
