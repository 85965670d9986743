//! One immutable view of everything a request is decided by: routes, endpoints, filter chains, settings. A request
//! takes it once; updates swap the whole.

mod originations;
mod rules;
mod stages;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use weft_filter_host::{Chain, Prepared};
use weft_policy::bundle::{Bundle, Direction, MeshSettings, ObjectName, Revision, ServedWorkload, WorkloadPort};
use weft_policy::identity::SpiffeId;
use weft_policy::route::RouteTable;

pub use self::originations::{Below, Originations};
use self::rules::Earlier;
pub use self::rules::{RuleChain, RuleChains};
pub use self::stages::{Awaited, Loaded, Readiness, closes_rules, is_required, may_be_absent};
use self::stages::{Guard, Guards, Stage};
use crate::mesh;
use crate::telemetry::series::Peer;

/// A bundle in the form that workers read.
#[derive(Debug)]
pub struct Snapshot {
    /// Differs between any two snapshots of this process: per-worker caches compare it.
    pub generation: u64,
    /// Snapshots in an unbroken row that admit exactly the same share this number, the generation of the first. What one of
    /// them let pass needs no judgement by another.
    pub admits: u64,
    pub revision: Revision,
    pub bundle: Arc<Bundle>,
    pub mesh: MeshSettings,
    pub routes: RouteTable,
    pub originations: Originations,
    served: Vec<Arc<Served>>,
    guards: Guards,
    _live: Live,
}

/// A snapshot as one worker holds it: counted on its thread, so that workers share no reference count. A request holds it
/// until it knows where it goes, and from then on what it needs of it: a stream that stands for days keeps no snapshot.
pub type Current = Rc<Local>;

/// A workload of this proxy, held beyond its snapshot.
pub type HeldWorkload = Rc<Arc<Served>>;

/// What [`Current`] counts.
#[derive(Debug)]
pub struct Local {
    snapshot: Arc<Snapshot>,
    served: Vec<HeldWorkload>,
}

impl Local {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let served = snapshot.served.iter().map(|served| Rc::new(Arc::clone(served))).collect();
        Self { snapshot, served }
    }

    /// A workload of this snapshot, to be held on its own.
    ///
    /// # Panics
    /// When it is of another snapshot.
    pub fn hold(&self, served: &Served) -> HeldWorkload {
        let held = self.served.iter().find(|held| std::ptr::eq(Arc::as_ptr(held), served));
        Rc::clone(held.expect("a workload is held of the snapshot that it was found in"))
    }
}

impl Deref for Local {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Snapshots of this process that somebody holds.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts one of them.
#[derive(Debug)]
struct Live;

impl Live {
    fn begin() -> Self {
        LIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many snapshots are held: the current one, the one being prepared, and those that requests or workers still hold.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// A workload of this proxy with what belongs to it.
#[derive(Debug)]
pub struct Served {
    pub workload: ServedWorkload,
    pub inbound: Chain,
    pub outbound: Chain,
    /// What runs behind that for requests which take certain rules.
    pub rules: RuleChains,
    /// `weft-source` of its requests.
    pub source: HeaderValue,
}

impl Served {
    /// As metrics name it.
    pub fn peer(&self) -> Peer {
        let label = |name: &str| self.workload.labels.get(name).cloned().unwrap_or_default();
        Peer {
            workload: self.workload.name.name.clone(),
            namespace: self.workload.name.namespace.clone(),
            principal: self.workload.identity.to_string(),
            app: label("app"),
            version: label("version"),
        }
    }
}

/// The socket of an app of a workload that this proxy serves. Only [`Snapshot::served_socket`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServedSocket(SocketAddr);

impl ServedSocket {
    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self(address)
    }

    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the bundle has no mesh settings")]
    NoMesh,
    #[error("the bundle serves no workload")]
    NoWorkload,
    #[error("filter {name} with onFailure Deny is not ready")]
    FilterNotReady { name: String },
    #[error("the trust bundle cannot be used: {0}")]
    Trust(String),
}

static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Snapshot {
    /// Builds the snapshot of `bundle`. `prepared` holds the filters that are ready, by attachment name.
    ///
    /// # Errors
    /// Something that a request cannot do without is missing; the snapshot before stays.
    pub fn build(bundle: Arc<Bundle>, prepared: &HashMap<String, Arc<Prepared>>) -> Result<Snapshot, SnapshotError> {
        Self::after(None, bundle, prepared)
    }

    /// The same in the place of another snapshot: what is compiled of routes that are the same stays so.
    ///
    /// # Errors
    /// Something that a request cannot do without is missing; the snapshot before stays.
    pub fn after(
        before: Option<&Snapshot>,
        bundle: Arc<Bundle>,
        prepared: &HashMap<String, Arc<Prepared>>,
    ) -> Result<Snapshot, SnapshotError> {
        Self::staged(before, bundle, prepared, &Awaited::new())
    }

    /// The same while the attachments `awaited` are not what runs: `loaded` has of each the configuration that ran before,
    /// where there was one. A chain that lacks one that it needs is guarded by what ran in it when the wait began.
    ///
    /// # Errors
    /// Something that a request cannot do without is missing, and no chain before can stand in; the snapshot before stays.
    pub fn staged(
        before: Option<&Snapshot>,
        bundle: Arc<Bundle>,
        loaded: &Loaded,
        awaited: &Awaited,
    ) -> Result<Snapshot, SnapshotError> {
        let mesh = bundle.mesh.clone().ok_or(SnapshotError::NoMesh)?;
        let mut served = Vec::with_capacity(bundle.workloads.len());
        let mut guards = Guards::new();
        let stage = Stage { bundle: &bundle, loaded, awaited };
        for workload in bundle.workloads.values() {
            let mut chain = |direction| -> Result<Chain, SnapshotError> {
                let earlier = before.and_then(|before| before.chain_of(&workload.name, direction));
                let (chain, guard) = stage.chain(workload, direction, earlier)?;
                guards.extend(guard.map(|guard| ((workload.name.clone(), direction), guard)));
                Ok(chain)
            };
            let earlier = before.and_then(|before| before.rules_of(&workload.name));
            served.push(Arc::new(Served {
                inbound: chain(Direction::Inbound)?,
                outbound: chain(Direction::Outbound)?,
                rules: RuleChains::of(&stage, workload, earlier.as_ref())?,
                source: mesh::source_value(workload),
                workload: workload.clone(),
            }));
        }
        if served.is_empty() {
            return Err(SnapshotError::NoWorkload);
        }
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        Ok(Snapshot {
            generation,
            admits: generation,
            revision: bundle.revision,
            routes: RouteTable::following(&bundle, before.map(|before| &before.routes)),
            originations: Originations::of(&bundle),
            mesh,
            served,
            guards,
            bundle,
            _live: Live::begin(),
        })
    }

    /// Takes the place of `before`: where the two let pass the same, so it is told.
    pub fn follow(&mut self, before: &Snapshot) {
        self.originations.follow(&before.originations);
        let same = |(now, then): (&Arc<Served>, &Arc<Served>)| {
            let (now_at, then_at) = (&now.workload, &then.workload);
            (&now_at.name, &now_at.identity, &now_at.ports) == (&then_at.name, &then_at.identity, &then_at.ports)
                && (now_at.address, &now_at.addresses) == (then_at.address, &then_at.addresses)
                && now.inbound.authorizes_as(&then.inbound)
        };
        if self.served.len() == before.served.len() && self.served.iter().zip(&before.served).all(same) {
            self.admits = before.admits;
        }
    }

    /// The served workload and its port behind `address`, and the socket to dial. `None`: nobody whom this proxy serves.
    pub fn served_socket(&self, address: SocketAddr) -> Option<(&Served, &WorkloadPort, ServedSocket)> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let served = &**self.served.iter().find(|served| served.workload.is_at(address.ip()))?;
        let port = served.workload.port(address.port())?;
        Some((served, port, ServedSocket(address)))
    }

    /// How long a connection to a peer, an app or an address outside may take to be made.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.mesh.connect_timeout_ms.max(1))
    }

    /// The workload whose app speaks at `address`: the one that has it, or the only one that this proxy serves.
    pub fn app_at(&self, address: IpAddr) -> Option<&Served> {
        let sole = || self.served.first().filter(|_| self.served.len() == 1);
        self.served.iter().find(|served| served.workload.is_at(address)).or_else(sole).map(|served| &**served)
    }

    /// Workloads whose apps may send nothing, and why.
    pub fn outbound_closed(&self) -> impl Iterator<Item = (&ServedWorkload, &str)> {
        self.served.iter().filter_map(|served| Some((&served.workload, served.workload.outbound_closed.as_deref()?)))
    }

    /// The workload that stands for this proxy where none is known.
    pub fn first(&self) -> &Served {
        &self.served[0]
    }

    /// True while some endpoint with this identity takes mesh traffic there.
    pub fn has_peer(&self, identity: &SpiffeId, address: SocketAddr) -> bool {
        let endpoints = self.bundle.services.values().flat_map(|service| service.endpoints.values());
        endpoints.into_iter().any(|e| e.mesh_address == address && e.identity.as_ref() == Some(identity))
    }

    fn named(&self, name: &ObjectName) -> Option<&Served> {
        self.served.iter().find(|served| served.workload.name == *name).map(|served| &**served)
    }

    /// The chain of a workload, and what guards it while it lacks a filter.
    fn chain_of(&self, name: &ObjectName, direction: Direction) -> Option<(&Chain, Option<&Guard>)> {
        let served = self.named(name)?;
        let chain = match direction {
            Direction::Inbound => &served.inbound,
            Direction::Outbound => &served.outbound,
        };
        Some((chain, self.guards.get(&(name.clone(), direction))))
    }

    /// What runs for rules of routes in the proxy of a workload.
    fn rules_of(&self, name: &ObjectName) -> Option<Earlier<'_>> {
        let served = self.named(name)?;
        Some(Earlier { chains: &served.rules, bundle: &self.bundle })
    }

    /// True where this workload is served.
    pub fn serves(&self, name: &ObjectName) -> bool {
        self.named(name).is_some()
    }

    /// True where the attachment runs in some chain of this proxy.
    pub fn has_filter(&self, name: &str) -> bool {
        let chains = self
            .served
            .iter()
            .flat_map(|served| [&served.inbound, &served.outbound].into_iter().chain(served.rules.all()));
        chains.into_iter().any(|chain| chain.filters().iter().any(|filter| filter.spec().name == name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn built(workload: serde_json::Value, endpoints: u64) -> Snapshot {
        let mesh = json!({
            "trust_domain": "cluster.local", "trust_bundle_pem": "", "access_log": false, "connect_timeout_ms": endpoints,
            "max_retries": 1, "egress": "Allow",
        });
        let workload = serde_json::from_value(workload).unwrap();
        let bundle = Bundle {
            mesh: Some(serde_json::from_value(mesh).unwrap()),
            workloads: [("shop/web".to_owned(), workload)].into(),
            ..Bundle::default()
        };
        Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap()
    }

    #[test]
    fn what_stands_is_judged_again_only_where_another_would_be_let_in() {
        let workload = |address: &str, protocol: &str| {
            json!({
                "name": {"namespace": "shop", "name": "web"}, "identity": "spiffe://cluster.local/ns/shop/sa/web",
                "address": address, "ports": [{"port": 8080, "protocol": protocol}],
            })
        };
        let first = built(workload("10.0.0.1", "http"), 1);
        let follow = |workload, before: &Snapshot| {
            let mut next = built(workload, 2);
            next.follow(before);
            next
        };
        let same = follow(workload("10.0.0.1", "http"), &first);
        assert!(same.generation != first.generation && same.admits == first.admits);
        assert_eq!(follow(workload("10.0.0.1", "http"), &same).admits, first.admits);
        for other in [workload("10.0.0.2", "http"), workload("10.0.0.1", "tcp")] {
            let other = follow(other, &same);
            assert_eq!(other.admits, other.generation);
        }
    }
}
