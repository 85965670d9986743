//! The identity and trust in force, replaceable at any moment. Handshakes take what is current when they need it;
//! connections that stand are never cut by a new identity, only by trust that no longer holds (`recheck`) and by time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use weft_policy::identity::SpiffeId;

use super::identity::WorkloadIdentity;
use super::trust::Trust;

/// Certificate that one workload presents and trust that it goes by, at one moment.
#[derive(Debug)]
pub struct Credentials {
    pub identity: WorkloadIdentity,
    pub trust: Trust,
    /// Identities that are kept out of the mesh, whatever certificates they have.
    pub denied: Arc<BTreeSet<SpiffeId>>,
    /// Certificates whose standing connections were ended by an operator: by serial number
    /// (hexadecimal, no zeros ahead), the number of the last time.
    pub evicted: Arc<BTreeMap<String, u64>>,
    /// Grows by one with each replacement.
    pub generation: u64,
}

impl Credentials {
    /// The same, one generation later.
    fn followed(&self) -> Credentials {
        Credentials {
            identity: self.identity.clone(),
            trust: self.trust.clone(),
            denied: self.denied.clone(),
            evicted: self.evicted.clone(),
            generation: self.generation + 1,
        }
    }
}

/// One workload's credentials; clones see the same. Shared by every worker.
#[derive(Debug, Clone)]
pub struct IdentityHandle {
    current: Arc<watch::Sender<Arc<Credentials>>>,
}

impl IdentityHandle {
    pub fn new(identity: WorkloadIdentity, trust: Trust) -> IdentityHandle {
        let (denied, evicted) = (Arc::default(), Arc::default());
        let credentials = Credentials { identity, trust, denied, evicted, generation: 0 };
        IdentityHandle { current: Arc::new(watch::Sender::new(Arc::new(credentials))) }
    }

    /// The credentials in force now.
    pub fn current(&self) -> Arc<Credentials> {
        self.current.borrow().clone()
    }

    /// Swaps in a renewed certificate and the trust of the day, for every handshake from now on.
    pub fn replace(&self, identity: WorkloadIdentity, trust: Trust) -> Result<(), ReplaceError> {
        let held = self.current().identity.id().clone();
        if *identity.id() != held {
            return Err(ReplaceError { held: held.to_string(), offered: identity.id().to_string() });
        }
        self.current.send_modify(|credentials| {
            *credentials = Arc::new(Credentials { identity, trust, ..credentials.followed() });
        });
        Ok(())
    }

    /// Swaps in new trust, keeping the certificate.
    pub fn replace_trust(&self, trust: Trust) {
        self.current.send_modify(|credentials| {
            *credentials = Arc::new(Credentials { trust, ..credentials.followed() });
        });
    }

    /// Keeps `denied` out from now on, and nobody else: their handshakes are refused and their connections cut.
    pub fn deny(&self, denied: BTreeSet<SpiffeId>) {
        self.current.send_if_modified(|credentials| {
            if *credentials.denied == denied {
                return false;
            }
            *credentials = Arc::new(Credentials { denied: Arc::new(denied), ..credentials.followed() });
            true
        });
    }

    /// Ends the connections that stand with peers whose certificates are among `evicted` (serial numbers in hexadecimal), each
    /// once for each number. Their next handshakes are taken.
    pub fn evict(&self, evicted: impl IntoIterator<Item = (String, u64)>) {
        let named = |serial: String| serial.trim_start_matches('0').to_ascii_lowercase();
        let evicted: BTreeMap<_, _> = evicted.into_iter().map(|(serial, number)| (named(serial), number)).collect();
        self.current.send_if_modified(|credentials| {
            if *credentials.evicted == evicted {
                return false;
            }
            *credentials = Arc::new(Credentials { evicted: Arc::new(evicted), ..credentials.followed() });
            true
        });
    }

    /// Wakes at each replacement from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.subscribe()
    }

    /// The workload; the same for the handle's whole life.
    pub fn id(&self) -> SpiffeId {
        self.current.borrow().identity.id().clone()
    }
}

/// A handle belongs to one workload for life.
#[derive(Debug, thiserror::Error)]
#[error("the certificate offered is {offered}'s, this workload is {held}")]
pub struct ReplaceError {
    pub held: String,
    pub offered: String,
}

/// The workloads that one proxy dials for: one for a sidecar, many on a node.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    handles: Arc<[(SpiffeId, IdentityHandle)]>,
}

impl Identities {
    pub fn new(handles: impl IntoIterator<Item = IdentityHandle>) -> Identities {
        Identities { handles: handles.into_iter().map(|handle| (handle.id(), handle)).collect() }
    }

    /// The handle of one workload, where this proxy speaks for it.
    pub fn of(&self, id: &SpiffeId) -> Option<&IdentityHandle> {
        self.handles.iter().find(|(held, _)| held == id).map(|(_, handle)| handle)
    }
}

impl From<IdentityHandle> for Identities {
    fn from(handle: IdentityHandle) -> Identities {
        Identities::new([handle])
    }
}
