//! One immutable view of everything a request is decided by: routes, endpoints, filter chains, settings. A request
//! takes it once; updates swap the whole.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use weft_filter_host::{Chain, Prepared};
use weft_policy::bundle::{Bundle, Direction, MeshSettings, Revision, ServedWorkload};
use weft_policy::identity::SpiffeId;
use weft_policy::route::RouteTable;

use crate::mesh;

/// What workers read.
#[derive(Debug)]
pub struct Snapshot {
    /// Differs between any two snapshots of this process: per-worker caches compare it.
    pub generation: u64,
    pub revision: Revision,
    pub bundle: Arc<Bundle>,
    pub mesh: MeshSettings,
    pub routes: RouteTable,
    served: Vec<Served>,
}

/// A workload of this proxy with what belongs to it.
#[derive(Debug)]
pub struct Served {
    pub workload: ServedWorkload,
    pub inbound: Chain,
    pub outbound: Chain,
    /// `weft-source` of its requests.
    pub source: HeaderValue,
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
}

static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Snapshot {
    /// Builds the snapshot of `bundle`. `prepared` holds the filters that are ready, by attachment name.
    ///
    /// # Errors
    /// Something that a request cannot do without is missing; the snapshot before stays.
    pub fn build(bundle: Arc<Bundle>, prepared: &HashMap<String, Arc<Prepared>>) -> Result<Snapshot, SnapshotError> {
        let mesh = bundle.mesh.clone().ok_or(SnapshotError::NoMesh)?;
        let mut served = Vec::with_capacity(bundle.workloads.len());
        for workload in bundle.workloads.values() {
            served.push(Served {
                inbound: chain(&bundle, prepared, workload, Direction::Inbound)?,
                outbound: chain(&bundle, prepared, workload, Direction::Outbound)?,
                source: mesh::source_value(workload),
                workload: workload.clone(),
            });
        }
        if served.is_empty() {
            return Err(SnapshotError::NoWorkload);
        }
        Ok(Snapshot {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            revision: bundle.revision,
            routes: RouteTable::new(&bundle),
            mesh,
            served,
            bundle,
        })
    }

    /// The served workload at `address`; the only one where there is one.
    pub fn served_at(&self, address: IpAddr) -> Option<&Served> {
        self.served.iter().find(|served| served.workload.address == address)
    }

    /// The workload whose apps use this proxy's outbound side.
    pub fn local(&self) -> &Served {
        &self.served[0]
    }

    /// True while some endpoint with this identity takes mesh traffic there.
    pub fn has_peer(&self, identity: &SpiffeId, address: SocketAddr) -> bool {
        let endpoints = self.bundle.services.values().flat_map(|service| service.endpoints.values());
        endpoints.into_iter().any(|e| e.mesh_address == address && e.identity.as_ref() == Some(identity))
    }

    /// True where the attachment runs in some chain of this proxy.
    pub fn has_filter(&self, name: &str) -> bool {
        let chains = self.served.iter().flat_map(|served| [&served.inbound, &served.outbound]);
        chains.into_iter().any(|chain| chain.filters().iter().any(|filter| filter.spec().name == name))
    }
}

fn chain(
    bundle: &Bundle,
    prepared: &HashMap<String, Arc<Prepared>>,
    workload: &ServedWorkload,
    direction: Direction,
) -> Result<Chain, SnapshotError> {
    let mut attachments: Vec<_> = bundle
        .filters
        .values()
        .filter(|filter| filter.direction == direction)
        .filter(|filter| filter.workloads.is_empty() || filter.workloads.contains(&workload.name))
        .collect();
    attachments.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    let mut filters = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        match prepared.get(&attachment.name) {
            Some(filter) => filters.push(Arc::clone(filter)),
            None if attachment.on_failure == weft_policy::bundle::OnFailure::Allow => {}
            None => return Err(SnapshotError::FilterNotReady { name: attachment.name.clone() }),
        }
    }
    Ok(Chain::new(filters))
}
