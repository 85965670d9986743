//! Workloads that live with their proxy's session. Invariant: they are in the store like everything else, so that a
//! restarted control plane knows them; they leave with a goodbye, or when a grace is over and the proxy isn't back.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tonic::Status;
use weft_policy::bundle::{ObjectName, WorkloadPort};
use weft_policy::identity::SpiffeId;

use super::{Draft, Hub, apply};
use crate::registry::ProxyKey;
use crate::store::StoreError;

/// How often it is looked whether most proxies are back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A workload as its proxy registers it; already checked against the proxy's certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    pub name: ObjectName,
    pub identity: SpiffeId,
    pub address: IpAddr,
    pub mesh_address: SocketAddr,
    pub ports: Vec<WorkloadPort>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub weight: u32,
    /// Service to stand behind; made where it is missing.
    pub service: Option<String>,
}

/// Why a registration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("workload {name} is registered by the connected proxy {owner}")]
    Taken { name: ObjectName, owner: Box<ProxyKey> },
    #[error("workload {name} is an applied resource of another identity: {identity}")]
    OtherIdentity { name: ObjectName, identity: String },
    #[error("workload {name}: {reason}")]
    Invalid { name: ObjectName, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RegisterError> for Status {
    fn from(error: RegisterError) -> Self {
        match &error {
            RegisterError::Taken { .. } => Self::already_exists(error.to_string()),
            RegisterError::OtherIdentity { .. } => Self::permission_denied(error.to_string()),
            RegisterError::Invalid { .. } => Self::invalid_argument(error.to_string()),
            RegisterError::Store(source) => {
                tracing::error!(error = %crate::chain(source), "workload could not be registered");
                Self::unavailable("the control plane's store failed; its log says why")
            }
        }
    }
}

impl Hub {
    /// Makes the world have exactly `registrations` of this proxy. Nothing is written where it has them already.
    pub(crate) async fn register(
        self: &Arc<Self>,
        proxy: &ProxyKey,
        registrations: Vec<Registration>,
    ) -> Result<(), RegisterError> {
        let hub = self.clone();
        self.change(move |draft| draft.register(&hub, proxy, &registrations)).await
    }

    /// Takes the proxy's workloads out of the world, at once.
    pub(crate) async fn release(self: &Arc<Self>, proxy: &ProxyKey, why: &'static str) {
        let hub = self.clone();
        let release = move |draft: &mut Draft| {
            // Under the writer's lock: a proxy takes its seat before it registers, so one that is back keeps its workloads.
            if hub.registry().is_connected(proxy) { Ok(()) } else { draft.release(proxy, why) }
        };
        let result = self.change(release).await;
        if let Err(error) = result {
            tracing::error!(%proxy, error = %crate::chain(&error), "workloads could not be released");
        }
        self.registry().give_up(proxy);
    }

    /// Does so after `grace`, unless the proxy is back by then or this process ends. Where most proxies are lost at once
    /// the fault is more likely on this side: they get the restart grace to come back before any endpoint leaves.
    pub(crate) fn release_later(self: &Arc<Self>, proxy: ProxyKey, grace: Duration) {
        let hub = self.clone();
        self.spawn(async move {
            let last = Instant::now() + grace.max(hub.config().restart_grace());
            let mut wait = grace;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = hub.stopping() => return,
                }
                if !hub.registry().has_lost_most() || Instant::now() >= last {
                    return hub.release(&proxy, "proxy did not come back").await;
                }
                wait = LOOK_AGAIN.min(last.saturating_duration_since(Instant::now()));
            }
        });
    }

    /// After a start: what the store knows stays until its proxy is back or the restart grace is over.
    pub(super) fn expect_known_proxies(self: &Arc<Self>) {
        let owners: BTreeSet<_> = self.published().owners.values().cloned().collect();
        for proxy in owners {
            self.registry().expect(proxy.clone(), OffsetDateTime::now_utc());
            self.release_later(proxy, self.config().restart_grace());
        }
    }
}

impl Draft {
    fn register(&mut self, hub: &Hub, proxy: &ProxyKey, registrations: &[Registration]) -> Result<(), RegisterError> {
        let wanted: BTreeSet<_> = registrations.iter().map(|registration| &registration.name).collect();
        let gone = self.owners.iter().filter(|(name, owner)| *owner == proxy && !wanted.contains(name));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            apply::remove_registered(self, &name)?;
        }
        for registration in registrations {
            let name = &registration.name;
            match self.owners.get(name) {
                Some(owner) if owner != proxy && hub.registry().is_connected(owner) => {
                    return Err(RegisterError::Taken { name: name.clone(), owner: Box::new(owner.clone()) });
                }
                Some(_) => {}
                // An applied Workload of this identity: the proxy serves it, and it stays when the proxy goes.
                None => match apply::workload_identity(&self.world, name) {
                    Some(identity) if identity == registration.identity => continue,
                    Some(identity) => {
                        let identity = identity.to_string();
                        return Err(RegisterError::OtherIdentity { name: name.clone(), identity });
                    }
                    None => {}
                },
            }
            apply::put_registered(self, proxy, registration)?;
        }
        if self.changed {
            let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            self.audit(&format!("proxy:{proxy}"), "workload.register", names.join(" "), String::new());
        }
        Ok(())
    }

    fn release(&mut self, proxy: &ProxyKey, why: &str) -> Result<(), StoreError> {
        let names: Vec<_> =
            self.owners.iter().filter(|(_, owner)| *owner == proxy).map(|(name, _)| name.clone()).collect();
        for name in &names {
            apply::remove_registered(self, name)?;
        }
        if self.changed {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            self.audit(&format!("proxy:{proxy}"), "workload.release", names.join(" "), why.to_owned());
        }
        Ok(())
    }
}
