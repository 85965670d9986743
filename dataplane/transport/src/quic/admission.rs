//! Admission of callers to handshakes and connections: slots in all, for one source address and for one identity. A
//! caller that has not proved its address gets a slot only while few are taken, so that forged packets keep nobody out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_policy::identity::SpiffeId;

use super::TransportLimits;
use crate::tls::{HandshakeError, HandshakeFailure, RefusedBy};

/// Counts of callers that one worker's mesh port turned away.
#[derive(Debug, Default)]
pub struct AdmissionStats {
    retries: AtomicU64,
    refused: AtomicU64,
}

impl AdmissionStats {
    /// Callers that were asked to prove their address first.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Handshakes and connections refused because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The places of one worker.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handshakes: usize,
    unproven: usize,
    connections: usize,
    per_source: usize,
    per_identity: usize,
    held: Mutex<Held>,
    stats: Arc<AdmissionStats>,
}

#[derive(Debug, Default)]
struct Held {
    handshakes: usize,
    connections: usize,
    /// Handshakes and connections by where they come from.
    sources: HashMap<Source, usize>,
    identities: HashMap<SpiffeId, usize>,
}

/// Addresses that one host may be taken to own: an IPv4 address, or a /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Source(Ipv6Addr::from(network).into())
            }
            address @ IpAddr::V4(_) => Source(address),
        }
    }
}

/// Judgement on an attempt to connect.
#[derive(Debug)]
pub(super) enum Judgement {
    Admitted(HandshakePlace),
    /// To be answered with Retry (RFC 9000 section 8.1.2).
    ProveAddress,
    Refused,
}

impl Admission {
    pub(super) fn new(limits: &TransportLimits) -> Admission {
        Admission(Arc::new(Shared {
            handshakes: limits.concurrent_handshakes,
            unproven: limits.unproven_handshakes.min(limits.concurrent_handshakes / 2),
            connections: limits.peer_connections,
            per_source: limits.connections_per_source,
            per_identity: limits.connections_per_identity,
            held: Mutex::default(),
            stats: Arc::default(),
        }))
    }

    pub(super) fn stats(&self) -> &Arc<AdmissionStats> {
        &self.0.stats
    }

    /// Judges an attempt from `source`; `proved`: it has shown that it receives what is sent there.
    pub(super) fn judge(&self, source: IpAddr, proved: bool) -> Judgement {
        let source = Source::of(source);
        let mut held = self.0.held();
        let room = held.handshakes < self.0.handshakes && held.connections < self.0.connections;
        // A source that is at its limit may be forged: only one that proved itself is told so.
        let crowded = held.sources.get(&source).is_some_and(|count| *count >= self.0.per_source);
        if !proved && self.0.handshakes > 0 && (held.handshakes >= self.0.unproven || crowded) {
            self.0.stats.retries.fetch_add(1, Ordering::Relaxed);
            return Judgement::ProveAddress;
        }
        if !room || crowded {
            self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Judgement::Refused;
        }
        held.handshakes += 1;
        *held.sources.entry(source).or_default() += 1;
        drop(held);
        Judgement::Admitted(HandshakePlace { admission: self.clone(), source, over: false })
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot for one handshake; given back when dropped.
#[derive(Debug)]
pub(super) struct HandshakePlace {
    admission: Admission,
    source: Source,
    over: bool,
}

impl HandshakePlace {
    /// Makes it the place of a connection of `peer`.
    pub(super) fn establish(mut self, peer: &SpiffeId) -> Result<ConnectionPlace, HandshakeError> {
        let shared = Arc::clone(&self.admission.0);
        let mut held = shared.held();
        let of_peer = held.identities.get(peer).copied().unwrap_or_default();
        if of_peer >= shared.per_identity || held.connections >= shared.connections {
            shared.stats.refused.fetch_add(1, Ordering::Relaxed);
            let detail = format!("{of_peer} connections of {peer} are held, {} in all", held.connections);
            return Err(HandshakeError::new(HandshakeFailure::Limit, RefusedBy::Us, detail));
        }
        held.handshakes -= 1;
        held.connections += 1;
        *held.identities.entry(peer.clone()).or_default() += 1;
        drop(held);
        self.over = true;
        Ok(ConnectionPlace { admission: self.admission.clone(), source: self.source, peer: peer.clone() })
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        if !self.over {
            let mut held = self.admission.0.held();
            held.handshakes -= 1;
            take(&mut held.sources, &self.source);
        }
    }
}

/// The place of one connection among those of its peer; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    admission: Admission,
    source: Source,
    peer: SpiffeId,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut held = self.admission.0.held();
        held.connections -= 1;
        take(&mut held.sources, &self.source);
        take(&mut held.identities, &self.peer);
    }
}

fn take<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::id;

    fn admission(limits: &TransportLimits) -> Admission {
        Admission::new(limits)
    }

    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn admitted(admission: &Admission, last: u8, proved: bool) -> HandshakePlace {
        match admission.judge(source(last), proved) {
            Judgement::Admitted(place) => place,
            other @ (Judgement::ProveAddress | Judgement::Refused) => panic!("{other:?}"),
        }
    }

    #[test]
    fn half_of_the_slots_are_for_proven_addresses() {
        let limits = TransportLimits { concurrent_handshakes: 4, unproven_handshakes: 3, ..TransportLimits::default() };
        let admission = admission(&limits);
        let mut places: Vec<_> = (0..2).map(|last| admitted(&admission, last, false)).collect();
        assert!(matches!(admission.judge(source(9), false), Judgement::ProveAddress));
        places.extend((2..4).map(|last| admitted(&admission, last, true)));
        assert!(matches!(admission.judge(source(9), true), Judgement::Refused));
        drop(places);
        let _place = admitted(&admission, 9, false);
        assert_eq!((admission.stats().retries(), admission.stats().refused()), (1, 1));
        assert_eq!(admission.0.held().sources.len(), 1);
    }

    #[test]
    fn one_source_does_not_take_the_places_of_others() {
        let limits = TransportLimits { connections_per_source: 2, ..TransportLimits::default() };
        let admission = admission(&limits);
        let _first = admitted(&admission, 1, true);
        let _second = admitted(&admission, 1, true).establish(&id("cart")).unwrap();
        assert!(matches!(admission.judge(source(1), false), Judgement::ProveAddress), "it may be forged");
        assert!(matches!(admission.judge(source(1), true), Judgement::Refused));
        let _other = admitted(&admission, 2, true);
    }

    #[test]
    fn one_identity_and_all_together_have_a_limit() {
        let limits = TransportLimits { connections_per_identity: 2, peer_connections: 3, ..TransportLimits::default() };
        let admission = admission(&limits);
        let mut held: Vec<_> =
            (1..3).map(|last| admitted(&admission, last, true).establish(&id("cart")).unwrap()).collect();
        let error = admitted(&admission, 3, true).establish(&id("cart")).unwrap_err();
        assert_eq!((error.reason, error.refused_by), (HandshakeFailure::Limit, RefusedBy::Us));
        held.push(admitted(&admission, 3, true).establish(&id("user")).unwrap());
        assert!(matches!(admission.judge(source(4), true), Judgement::Refused));
        held.clear();
        let held = admission.0.held();
        assert_eq!((held.handshakes, held.connections, held.sources.len(), held.identities.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_host_owns_its_network_prefix() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("fd00:1:2:3::1"), source("fd00:1:2:3:ffff::9"));
        assert_ne!(source("fd00:1:2:3::1"), source("fd00:1:2:4::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
