//! Workloads that live with their proxy's session. Invariant: they are in the store like everything else, so that a
//! restarted control plane knows them; they leave with a goodbye, by an operator, or when `lease` says so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::lint;
use weft_policy::plan::{Owned, World, losses_of_workloads};
use weft_policy::registration::{Field, Registration};
use weft_policy::resource::core::STARTING;
use weft_policy::resource::{Kind, Object, ObjectKey, ServiceSpec, Spec, WorkloadSpec};

use super::apply::PutError;
use super::{Draft, Hub, apply};
use crate::claims::ClaimChange;
use crate::host;
use crate::lease::{Removals, Suspect, Word};
use crate::metrics::{Refusal, Throttled};
use crate::registry::{ProxyKey, Seat};
use crate::store::{StoreError, Write};

/// How often a registration is tried again that the store could not take.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });

/// The longest and shortest time between two looks at silent proxies.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));

/// Addresses that one proxy goes on holding though it speaks from another.
const MAX_HELD: usize = 8;

/// The address that a proxy speaks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub address: IpAddr,
    /// This machine, on whatever of its addresses.
    pub is_local: bool,
}

/// Whether a proxy that registers workloads can serve them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has a configuration.
    Serving,
    /// It has none yet: its workloads are in no discovery before its first ACK.
    Starting,
}

/// Why a registration is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("workload {name} is registered by the connected proxy {owner}")]
    Taken { name: ObjectName, owner: Box<ProxyKey> },
    #[error("workload {name} is an applied resource of another identity: {identity}")]
    OtherIdentity { name: ObjectName, identity: String },
    #[error("workload {name}: name: it is {identity}'s and stays so {until}; `weft delete workload` frees it")]
    Held { name: ObjectName, identity: String, until: &'static str },
    #[error("workload {name}: {field}: {reason}")]
    Invalid { name: ObjectName, field: Field, reason: String },
    #[error("workload {name}: {field}: {reason}")]
    NotGranted { name: ObjectName, field: Field, reason: String },
    #[error("the workloads of {identity} would have {bytes} bytes; at most {most} (limits.max_account_bytes)")]
    TooMuch { identity: String, bytes: usize, most: usize },
    #[error("the proxies of {identity} change what they register too often: again in {seconds} s")]
    TooOften { identity: String, seconds: u64 },
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegisterError {
    /// As a label of a metric.
    fn kind(&self) -> Refusal {
        match self {
            Self::Taken { .. } | Self::OtherIdentity { .. } | Self::Held { .. } | Self::Owned(_) => Refusal::Name,
            Self::Invalid { .. } | Self::TooMuch { .. } | Self::TooOften { .. } => Refusal::Invalid,
            Self::NotGranted { .. } => Refusal::NotGranted,
            Self::Store(_) => Refusal::Store,
        }
    }
}

impl From<PutError> for RegisterError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Owned(owned) => owned.into(),
            PutError::Store(error) => error.into(),
        }
    }
}

impl Hub {
    /// Makes the world have exactly `registrations` of this proxy, which speaks from `origin`. Nothing is written where it
    /// has them already; a refusal is logged, counted and audited.
    pub(crate) async fn register(
        self: &Arc<Self>,
        proxy: &ProxyKey,
        origin: Origin,
        registrations: Vec<Registration>,
    ) -> Result<(), RegisterError> {
        self.register_as(proxy, Presence::Serving, origin, registrations).await
    }

    /// The same of a proxy that may not be able to serve yet.
    pub(crate) async fn register_as(
        self: &Arc<Self>,
        proxy: &ProxyKey,
        presence: Presence,
        origin: Origin,
        registrations: Vec<Registration>,
    ) -> Result<(), RegisterError> {
        let hub = self.clone();
        let names: Vec<_> = registrations.iter().map(Registration::name).collect();
        let key = proxy.clone();
        let result =
            self.change_together(move |draft| draft.register(&hub, (&key, presence), origin, &registrations)).await;
        match &result {
            Ok(()) => self.tell_unserved(proxy, &names),
            Err(error) => self.refused(proxy, origin, error).await,
        }
        result
    }

    /// The proxy can serve: its workloads are in discovery from now on, or once the store can be written again.
    pub(crate) fn enter_discovery(self: &Arc<Self>, seat: &Seat) {
        let is_starting = |hub: &Hub| {
            let world = &hub.published().world;
            let mut own = world.registered_of(&seat.key).filter_map(|name| world.workload(name));
            own.any(|workload| workload.metadata.annotations.contains_key(STARTING))
        };
        if !is_starting(self) {
            return;
        }
        let (hub, stop, seat) = (self.clone(), self.stop.clone(), seat.clone());
        self.spawn(async move {
            while hub.registry().holds(&seat) {
                let key = seat.key.clone();
                match hub.change_together(move |draft| apply::put_in_discovery(draft, &key)).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(proxy = %seat.key, error = %crate::chain(&error), "it can serve, and is not in discovery");
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = seat.replaced.cancelled() => return,
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    /// True where the world has each of these workloads as the proxy's.
    pub(crate) fn has_registered(&self, proxy: &ProxyKey, names: &[ObjectName]) -> bool {
        let world = &self.published().world;
        names.iter().all(|name| world.registered_by(name) == Some(proxy))
    }

    /// Registers once the store can be written again, as long as the proxy has its seat. What it registered before holds
    /// until then: a full disk keeps no proxy out that is known.
    pub(crate) fn register_later(self: &Arc<Self>, seat: Seat, origin: Origin, registrations: Vec<Registration>) {
        let (hub, stop) = (self.clone(), self.stop.clone());
        self.spawn(async move {
            while hub.registry().holds(&seat) {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = seat.replaced.cancelled() => return,
                    () = stop.cancelled() => return,
                }
                if hub.store_fault().is_some() {
                    continue;
                }
                match hub.register(&seat.key, origin, registrations.clone()).await {
                    Err(RegisterError::Store(_) | RegisterError::TooOften { .. }) => {}
                    Ok(()) => return,
                    Err(error) => {
                        // Its next stream hears of it.
                        tracing::warn!(proxy = %seat.key, %error, "what a proxy changed while the store failed is refused");
                        return hub.registry().dismiss(&seat.key, &error.to_string());
                    }
                }
            }
        });
    }

    /// Tells of workloads that stand behind a service and serve none of the ports that it leads to.
    fn tell_unserved(&self, proxy: &ProxyKey, names: &[ObjectName]) {
        let published = self.published();
        let workloads = names.iter().filter_map(|name| published.world.workload(name));
        for finding in workloads.flat_map(|workload| lint::of_workload(&published.world, workload)) {
            let (code, workload, reason) = (finding.code, finding.object, finding.message);
            tracing::warn!(%proxy, %workload, %code, reason, "a workload joined that its service can't use");
        }
    }

    /// Tells of a refused registration where operators look.
    async fn refused(self: &Arc<Self>, proxy: &ProxyKey, origin: Origin, error: &RegisterError) {
        let reason = error.to_string();
        tracing::warn!(%proxy, origin = %origin.address, %reason, "registration refused");
        self.metrics().registration_refused(error.kind());
        // A line of the audit log for each would cost more than what is bounded.
        if matches!(error, RegisterError::Store(_) | RegisterError::TooOften { .. }) {
            return;
        }
        let (key, kind) = (proxy.clone(), error.kind().as_str());
        let audit = move |draft: &mut Draft| {
            draft
                .audit(format!("proxy:{key}"), "workload.refused", key.name.clone(), reason.clone())
                .within([key.identity.namespace().to_owned()])
                .refused(kind);
            Ok::<_, StoreError>(())
        };
        if let Err(error) = self.change_together(audit).await {
            tracing::error!(error = %crate::chain(&error), "a refusal could not be audited");
        }
    }

    /// Takes the proxy's workloads out of the world, at once.
    pub(crate) async fn release(self: &Arc<Self>, proxy: &ProxyKey, why: &'static str) {
        let owned = owned_by(&self.published().world, proxy);
        self.release_some(proxy, owned, why).await;
        self.registry().give_up(proxy);
    }

    /// Takes these of the proxy's workloads out of the world.
    async fn release_some(self: &Arc<Self>, proxy: &ProxyKey, workloads: Vec<ObjectName>, why: &'static str) {
        let (hub, key) = (self.clone(), proxy.clone());
        let release = move |draft: &mut Draft| {
            // Under the writer's lock: a proxy takes its seat before it registers, so one that is back keeps its workloads.
            if hub.registry().is_connected(&key) { Ok(()) } else { draft.release(&hub, &key, &workloads, why) }
        };
        let result = self.change_together(release).await;
        if let Err(error) = result {
            tracing::error!(%proxy, error = %crate::chain(&error), "workloads could not be released");
        }
    }

    /// Ends claims to names that were not used for long.
    pub(crate) async fn sweep_names(self: &Arc<Self>) -> Result<(), StoreError> {
        let before = self.age().saturating_sub(self.config().name_grace_seconds);
        if self.published().claims.over(before).is_empty() {
            return Ok(());
        }
        self.change(move |draft| {
            for (key, record) in draft.claims.sweep(before) {
                draft.writes.push(Write::Claim { key, record });
            }
            Ok(())
        })
        .await
    }

    /// Looks after silent proxies until this process ends.
    pub(super) fn tend_suspects(self: &Arc<Self>) {
        let look = (self.config().disconnect_grace() / 4).clamp(LOOK.1, LOOK.0);
        let (hub, stop) = (Arc::downgrade(self), self.stop.clone());
        self.spawn(async move {
            let mut removals = Removals::default();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(look) => {}
                    () = stop.cancelled() => return,
                }
                let Some(hub) = hub.upgrade() else { return };
                hub.let_go(&mut removals).await;
            }
        });
    }

    /// Takes silent proxies' workloads out of the world where their lease, the peers and their services allow it.
    async fn let_go(self: &Arc<Self>, removals: &mut Removals) {
        let suspects = self.registry().suspects();
        if suspects.is_empty() {
            return;
        }
        let config = self.config();
        let world = self.published().world.clone();
        let owners: BTreeSet<_> = world.registered().map(|(_, owner)| owner).collect();
        let outlook = self.registry().outlook(|proxy| owners.contains(proxy));
        let mut over = Vec::new();
        for (proxy, silent, was_heard) in suspects {
            let lease = if was_heard { config.disconnect_grace() } else { config.restart_grace() };
            if silent < lease {
                continue;
            }
            let published = self.published();
            let owned = owned_by(&published.world, &proxy);
            if owned.is_empty() {
                self.registry().give_up(&proxy);
                continue;
            }
            // Only the leader of several control planes decides.
            if self.leads() {
                over.push((Suspect { silent, lease, word: Word::None }, (proxy, owned)));
            }
        }
        let (suspects, silent): (Vec<_>, Vec<_>) = over.into_iter().unzip();
        let voices = self.voices(&silent).await;
        for ((suspect, (proxy, _)), voices) in suspects.into_iter().zip(silent).zip(voices) {
            // It may have come back while others were asked.
            if self.registry().is_connected(&proxy) {
                continue;
            }
            let published = self.published();
            let owned = owned_by(&published.world, &proxy);
            let suspect = Suspect { word: voices.word(&proxy.identity), ..suspect };
            let Some(why) = suspect.ended(outlook, config.unheard_grace()) else { continue };
            let leaving = may_leave(&published.world, &owned, removals, config.endpoint_loss_percent);
            if leaving.is_empty() {
                continue;
            }
            let (silent_s, stay) = (suspect.silent.as_secs(), owned.len() - leaving.len());
            tracing::warn!(%proxy, silent_s, why, leave = leaving.len(), stay, "a silent proxy's workloads leave");
            self.release_some(&proxy, leaving, why).await;
            if stay == 0 {
                self.registry().give_up(&proxy);
            }
        }
    }

    /// After a start: what the store knows is expected back.
    pub(super) fn expect_known_proxies(self: &Arc<Self>) {
        let owners: BTreeSet<_> = self.published().world.registered().map(|(_, owner)| owner.clone()).collect();
        for proxy in owners {
            self.registry().expect(proxy, OffsetDateTime::now_utc());
        }
    }
}

/// Registered workloads of one proxy.
fn owned_by(world: &World, proxy: &ProxyKey) -> Vec<ObjectName> {
    world.registered_of(proxy).cloned().collect()
}

/// Which of a silent proxy's workloads may leave now. Each is asked for by itself, and counted, so that a service which
/// has all its endpoints at one proxy keeps its share of them.
fn may_leave(world: &World, owned: &[ObjectName], removals: &mut Removals, percent: usize) -> Vec<ObjectName> {
    let mut left = BTreeMap::<ObjectName, usize>::new();
    let mut leaving = Vec::new();
    for name in owned {
        let services = world.workload(name).into_iter().flat_map(|workload| world.selecting(workload));
        let services: BTreeMap<_, _> = services
            .map(|service| {
                let gone = left.get(&service.name()).copied().unwrap_or_default();
                (service.name(), world.standing_behind(service).count().saturating_sub(gone))
            })
            .collect();
        if removals.allow(&services, percent, Instant::now()) {
            services.keys().for_each(|service| *left.entry(service.clone()).or_default() += 1);
            removals.add(services.into_keys(), Instant::now());
            leaving.push(name.clone());
        }
    }
    leaving
}

impl Draft {
    fn register(
        &mut self,
        hub: &Hub,
        (proxy, presence): (&ProxyKey, Presence),
        origin: Origin,
        registrations: &[Registration],
    ) -> Result<(), RegisterError> {
        let wanted: BTreeSet<_> = registrations.iter().map(Registration::name).collect();
        let registered_bytes = self.world.registered_bytes(&proxy.identity);
        let was_known = wanted.iter().any(|name| self.world.registered_by(name).is_some());
        let before = was_known.then(|| self.world.clone());
        for name in owned_by(&self.world, proxy).iter().filter(|name| !wanted.contains(*name)) {
            apply::remove_registered(self, name, hub.age())?;
        }
        for registration in registrations {
            let name = registration.name();
            let is_applied = self.named(hub, proxy, &name)?;
            if is_applied {
                continue;
            }
            self.placed(hub, proxy, origin, registration)?;
            apply::put_registered(self, proxy, (registration, presence))?;
            self.claim(|draft| draft.claims.take(&name, &proxy.identity));
        }
        self.within_account(&proxy.identity, registered_bytes)?;
        if self.changed {
            hub.within(&hub.registrations, &proxy.identity, Throttled::Registrations)
                .map_err(|seconds| RegisterError::TooOften { identity: proxy.identity.to_string(), seconds })?;
            let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            // A proxy may leave what protected its workload as it may stop it, and somebody hears of it.
            let lost: Vec<_> =
                before.iter().flat_map(|before| losses_of_workloads(before, &self.world, &wanted)).collect();
            for loss in &lost {
                tracing::warn!(%proxy, %loss, "a workload was registered otherwise");
            }
            let detail = apply::forced_detail(&lost);
            let entry = self.audit(format!("proxy:{proxy}"), "workload.register", names.join(" "), detail);
            entry.within([proxy.identity.namespace().to_owned()]);
        }
        Ok(())
    }

    /// Refuses more of one account than every other proxy is to be told.
    fn within_account(&self, account: &SpiffeId, before: usize) -> Result<(), RegisterError> {
        let (bytes, most) = (self.world.registered_bytes(account), self.limits.max_account_bytes);
        if bytes > most && bytes > before {
            return Err(RegisterError::TooMuch { identity: account.to_string(), bytes, most });
        }
        Ok(())
    }

    /// Refuses a name that is somebody else's. True where it is an applied Workload of this identity: the proxy serves it,
    /// and it stays when the proxy goes.
    fn named(&self, hub: &Hub, proxy: &ProxyKey, name: &ObjectName) -> Result<bool, RegisterError> {
        let held = |identity: String, until| Err(RegisterError::Held { name: name.clone(), identity, until });
        match self.world.registered_by(name) {
            Some(owner) if owner != proxy && hub.registry().is_connected(owner) => {
                return Err(RegisterError::Taken { name: name.clone(), owner: Box::new(owner.clone()) });
            }
            Some(owner) if owner.identity != proxy.identity => {
                return held(owner.identity.to_string(), "while its proxy is expected back");
            }
            Some(_) => return Ok(false),
            None => {}
        }
        if let Some(identity) = apply::workload_identity(&self.world, name) {
            if identity == proxy.identity {
                return Ok(true);
            }
            return Err(RegisterError::OtherIdentity { name: name.clone(), identity: identity.to_string() });
        }
        match self.claims.holder(name) {
            Some(claim) if claim.identity != proxy.identity => {
                held(claim.identity.to_string(), "for a day after its workload left")
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Refuses an address that is not the workload's own.
    fn placed(
        &self,
        hub: &Hub,
        proxy: &ProxyKey,
        origin: Origin,
        registration: &Registration,
    ) -> Result<(), RegisterError> {
        let workload = registration.workload();
        let grants = self.claims.grants(&proxy.identity);
        let refuse = |field, reason| Err(RegisterError::NotGranted { name: registration.name(), field, reason });
        // A host may change its address: what its proxy holds it goes on holding.
        let is_held = self.world.registered_by(&registration.name()) == Some(proxy)
            && self.world.workload(&registration.name()).is_some_and(|held| {
                let (held, asked) = (&held.spec, &workload.spec);
                (held.address, held.mesh_address()) == (asked.address, asked.mesh_address())
            });
        for (field, address) in own_addresses(&workload.spec) {
            if let Some(reason) = misplaced(address, origin, || hub.registry().any_remote())
                && !(is_held || !address.is_loopback() && grants.has_address(address))
            {
                return refuse(field, reason);
            }
        }
        if is_held && !is_placed(&workload.spec, origin) {
            self.within_held(proxy, origin, registration)?;
        }
        if let Some(other) = self.same_place(hub, proxy, origin, workload) {
            // The refusal is read by the proxy and by whoever may read its namespace.
            let named = match other.namespace == workload.metadata.namespace {
                true => other.to_string(),
                false => {
                    tracing::info!(%proxy, %other, "an address is taken by an object of another namespace");
                    format!("a {} of another namespace", other.kind)
                }
            };
            return refuse(Field::Address, format!("{} is the address of {named}", workload.spec.address));
        }
        Ok(())
    }

    /// Refuses to hold on to many addresses that the proxy does not speak from: one host has had few.
    fn within_held(&self, proxy: &ProxyKey, origin: Origin, registration: &Registration) -> Result<(), RegisterError> {
        let own = owned_by(&self.world, proxy);
        let specs = own.iter().filter_map(|name| self.world.workload(name)).map(|held| &held.spec);
        let elsewhere = specs.filter(|spec| !is_placed(spec, origin));
        let addresses: BTreeSet<_> = elsewhere.flat_map(own_addresses).map(|(_, address)| address).collect();
        let grants = self.claims.grants(&proxy.identity);
        let held = addresses.iter().filter(|address| !grants.has_address(**address)).count();
        if held <= MAX_HELD {
            return Ok(());
        }
        let reason = format!(
            "its proxy speaks from {} now and holds {held} other addresses; at most {MAX_HELD} are held: register it where \
             it is, or grant its address by a join token",
            origin.address
        );
        Err(RegisterError::NotGranted { name: registration.name(), field: Field::Address, reason })
    }

    /// What is reached where this workload wants to be: another account's workload, or a service by its virtual address.
    fn same_place(
        &self,
        hub: &Hub,
        proxy: &ProxyKey,
        origin: Origin,
        workload: &Object<WorkloadSpec>,
    ) -> Option<ObjectKey> {
        let (own, spec) = (workload.name(), &workload.spec);
        let ports = |spec: &WorkloadSpec| -> BTreeSet<u16> { spec.ports.iter().map(|port| port.port).collect() };
        let addresses = |spec: &WorkloadSpec| -> BTreeSet<IpAddr> {
            std::iter::once(&spec.address).chain(&spec.addresses).map(IpAddr::to_canonical).collect()
        };
        let meets = |other: &WorkloadSpec| {
            other.mesh_address() == spec.mesh_address()
                || !addresses(other).is_disjoint(&addresses(spec)) && !ports(other).is_disjoint(&ports(spec))
        };
        // Whoever speaks from an address has it, whatever a proxy had before that is silent or speaks from elsewhere now. On
        // one machine all speak from all.
        let has_it = !origin.is_local && origin.address == spec.address;
        let speaks = |owner: &ProxyKey| match hub.registry().place(owner) {
            Some((from, _)) => from == spec.address || self.claims.grants(&owner.identity).has_address(spec.address),
            None => false,
        };
        let stays = |name: &ObjectName| match self.world.registered_by(name) {
            Some(owner) => owner.identity != proxy.identity && (!has_it || speaks(owner)),
            None => apply::workload_identity(&self.world, name).as_ref() != Some(&proxy.identity),
        };
        let near = self.world.sharing_place(spec);
        let mut others = near.iter().filter_map(|resource| <WorkloadSpec as Spec>::of(resource));
        let taken = others.find(|other| other.name() != own && meets(&other.spec) && stays(&other.name()));
        let taken = taken.map(|other| ObjectKey::new(Kind::Workload, &other.metadata.namespace, &other.metadata.name));
        taken.or_else(|| {
            let mut services = near.iter().filter_map(|resource| <ServiceSpec as Spec>::of(resource));
            let is_virtual = |address: IpAddr| address == spec.address || address == spec.mesh_address().ip();
            let found = services.find(|service| service.spec.cluster_ip.is_some_and(is_virtual))?;
            Some(ObjectKey::new(Kind::Service, &found.metadata.namespace, &found.metadata.name))
        })
    }

    /// Changes the claims and writes what changed.
    pub(super) fn claim(&mut self, change: impl FnOnce(&mut Self) -> Option<ClaimChange>) -> bool {
        let Some((key, record)) = change(self) else { return false };
        self.writes.push(Write::Claim { key, record });
        true
    }

    fn release(&mut self, hub: &Hub, proxy: &ProxyKey, workloads: &[ObjectName], why: &str) -> Result<(), StoreError> {
        let is_own = |name: &&ObjectName| self.world.registered_by(name) == Some(proxy);
        let names: Vec<_> = workloads.iter().filter(is_own).cloned().collect();
        for name in &names {
            apply::remove_registered(self, name, hub.age())?;
        }
        if self.changed {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let entry = self.audit(format!("proxy:{proxy}"), "workload.release", names.join(" "), why.to_owned());
            entry.within([proxy.identity.namespace().to_owned()]);
        }
        Ok(())
    }
}

/// The addresses at which a workload is reached.
fn own_addresses(spec: &WorkloadSpec) -> [(Field, IpAddr); 2] {
    [(Field::Address, spec.address), (Field::MeshAddress, spec.mesh_address().ip())]
}

/// The workload is where its proxy speaks from.
fn is_placed(spec: &WorkloadSpec, origin: Origin) -> bool {
    let is_here = |address: IpAddr| address == origin.address || origin.is_local && host::has_address(address);
    own_addresses(spec).into_iter().all(|(_, address)| is_here(address))
}

/// The cure for a loopback address in a mesh of several hosts.
fn give_another(speaks_from: IpAddr) -> String {
    let example = if speaks_from.is_loopback() { String::new() } else { format!(", such as {speaks_from}") };
    format!("give the workload an address that other hosts reach{example} (`workload.address`, `weft run --ip`)")
}

/// Why a proxy that speaks from `origin` can't have a workload at `address` by itself.
pub(super) fn misplaced(
    address: IpAddr,
    origin: Origin,
    remote: impl FnOnce() -> Option<(ProxyKey, IpAddr)>,
) -> Option<String> {
    if address.is_loopback() {
        if !origin.is_local {
            return Some(format!(
                "{address} is of one machine only, and its proxy speaks from {}, another one than the control plane's: {}",
                origin.address,
                give_another(origin.address)
            ));
        }
        return remote().map(|(proxy, other)| {
            format!(
                "{address} is of one machine only, and this mesh has others: proxy {proxy} speaks from {other}: {}",
                give_another(origin.address)
            )
        });
    }
    if address == origin.address || origin.is_local && host::has_address(address) {
        return None;
    }
    Some(format!(
        "{address} is not where its proxy speaks from, which is {}: grant it by a join token, \
         weft token create --address {address}",
        origin.address
    ))
}
