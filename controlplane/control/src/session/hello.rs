//! The first message of a control stream: who the proxy is, which workloads it serves, what it holds. Invariant: a proxy
//! speaks only for its own identity: the namespace of its workloads is its certificate's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Status, Streaming};
use weft_policy::bundle::{ObjectName, Revision, RouteName};
use weft_policy::delta::Key;
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::Lineage;
use weft_policy::plan::{AUDIT_ATTACHMENT, AUTHZ_ATTACHMENT, World};
use weft_policy::registration::{self, Registration, Told};
use weft_policy::resource::{Kind, ObjectKey, policy_of_attachment};
use weft_policy::text::printable;
use weft_policy::wire::{self, v1};

use crate::host;
use crate::hub::{Holder, Hub, Origin, Presence, RegisterError};
use crate::metrics::Refusal;
use crate::registry::{Capabilities, Entered, Introduction, ProxyKey, Seat, SeatTaken};
use crate::view::Versions;

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Objects that a proxy may say that it holds though they are not there.
const MAX_STRANGERS: usize = 512;
/// Bytes of a name that count as one of them.
const LONG: usize = 512;
/// Longer names and further capabilities are not read: nothing asks for them.
const CAPABILITIES: (usize, usize) = (64, 256);

/// Characters of a version that are shown.
const VERSION: usize = 32;

/// By this a proxy that is refused learns whether to come back soon.
const RECONNECT: &str = "weft-reconnect";

/// A proxy that is let in.
pub(super) struct Greeting {
    pub(super) seat: Seat,
    pub(super) served: Vec<ObjectName>,
    pub(super) known: Versions,
    /// The store that it follows, and how far.
    pub(super) held: Option<(Lineage, Revision)>,
    pub(super) capabilities: Capabilities,
    /// What it asked for before.
    pub(super) asked: Vec<v1::Ask>,
}

impl Greeting {
    pub(super) async fn receive(
        hub: &Arc<Hub>,
        Holder { identity, serial, .. }: Holder,
        peer: IpAddr,
        incoming: &mut Streaming<v1::ProxyMessage>,
    ) -> Result<Self, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
        let Some(v1::proxy_message::Message::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::failed_precondition("the first message must be Hello"));
        };
        let invalid = |error: String| refused(hub, &identity, error);
        registration::proxy_name(&hello.proxy_name).map_err(|fault| invalid(fault.to_string()))?;
        let capabilities = capabilities(&hello.capabilities);
        if !capabilities.contains(wire::ENVELOPES) {
            return Err(not_soon(invalid(too_old(&hello.version))));
        }
        let key = ProxyKey { name: hello.proxy_name.clone(), identity: identity.clone() };
        let registrations = registrations(hub, &key, &hello.workloads)?;
        let known = known(&hello.known, &hub.published().world);
        // Whose place a store takes is that store's word, not a proxy's.
        let held = hello.lineage.map(|told| Lineage { supersedes: Vec::new(), ..told.into() }).filter(is_lineage);
        let origin = Origin { address: peer, is_local: host::has_address(peer) };
        let introduction = Introduction {
            version: printable(&hello.version).chars().take(VERSION).collect(),
            address: Some(peer),
            certificate: serial,
            is_remote: !origin.is_local,
            incarnation: hello.incarnation,
            lineage: held.clone(),
            capabilities: capabilities.clone(),
        };
        let held = held.map(|lineage| (lineage, Revision(hello.current_revision)));
        let served: Vec<_> = registrations.iter().map(Registration::name).collect();
        // The seat comes first: from here on nothing of this proxy's is taken away behind its back.
        let entered = hub.registry().enter(key.clone(), introduction, time::OffsetDateTime::now_utc());
        let Entered { seat, replaced } = entered.map_err(|taken| keep_away(hub, &key, peer, &taken))?;
        if let Some(old) = replaced.filter(|old| (old.incarnation, old.address) != (hello.incarnation, Some(peer))) {
            let replaced = old.address.map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(proxy = %key, holder = %peer, %replaced, "two proxies have one name and identity: the later start stays");
            hub.metrics().name_conflicts.increment(1);
        }
        // What holds nothing has nothing to serve by: callers would be refused.
        let presence = if hello.known.is_empty() { Presence::Starting } else { Presence::Serving };
        let registered = hub.register_as(&key, presence, origin, registrations.clone()).await;
        if let Err(RegisterError::Store(error)) = &registered
            && hub.has_registered(&key, &served)
        {
            let error = crate::chain(error);
            tracing::warn!(proxy = %key, error, "the store takes no change: what the proxy registered before holds until it does");
            hub.register_later(seat.clone(), origin, registrations);
        } else if let Err(error) = registered {
            let has_workloads = hub.published().world.registered_of(&key).next().is_some();
            hub.registry().leave(&seat, !has_workloads);
            return Err(error.into());
        }
        Ok(Self { seat, served, known, held, capabilities, asked: hello.asked })
    }
}

/// A store's id is 32 hex digits; what is none was never ours.
fn is_lineage(told: &Lineage) -> bool {
    let is_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id(&told.store)
}

fn capabilities(told: &[String]) -> Capabilities {
    told.iter().filter(|name| name.len() <= CAPABILITIES.0).take(CAPABILITIES.1).cloned().collect()
}

fn too_old(version: &str) -> String {
    format!(
        "this proxy (version {:?}) can't read what this control plane sends: it lacks the capability {:?}; update the \
         proxy, which goes on with what it has until then",
        printable(version),
        wire::ENVELOPES
    )
}

/// Refuses a proxy that could not be served, before its token is used up. One that names no capabilities is judged by its
/// Hello.
pub(crate) fn may_join(request: &v1::JoinRequest) -> Result<(), Status> {
    let told = capabilities(&request.capabilities);
    match told.is_empty() || told.contains(wire::ENVELOPES) {
        true => Ok(()),
        false => Err(Status::invalid_argument(too_old(&request.version))),
    }
}

/// Two proxies have one name and identity, as cloned machines do: this one hears that the other stays.
fn keep_away(hub: &Hub, key: &ProxyKey, peer: IpAddr, taken: &SeatTaken) -> Status {
    let holder = taken.holder.address.map(|address| address.to_string()).unwrap_or_default();
    let why = if taken.is_newer { "started later" } else { "is connected, and the two replace each other" };
    tracing::warn!(proxy = %key, refused = %peer, %holder, "two proxies have one name and identity: one is kept away");
    hub.metrics().name_conflicts.increment(1);
    not_soon(Status::already_exists(format!(
        "another proxy named {} of {} at {holder} {why}: each proxy needs a name of its own (`name` in its \
         configuration, and a state_dir that is not a copy)",
        key.name, key.identity
    )))
}

/// A refusal after which the proxy does not come back soon.
fn not_soon(mut status: Status) -> Status {
    status.metadata_mut().insert(RECONNECT, tonic::metadata::MetadataValue::from_static("false"));
    status
}

/// Refuses a registration that can't be true: the refusal is logged, counted and returned to the proxy.
fn refused(hub: &Hub, identity: &SpiffeId, reason: String) -> Status {
    tracing::warn!(%identity, reason, "registration refused");
    hub.metrics().registration_refused(Refusal::Invalid);
    Status::invalid_argument(reason)
}

fn registrations(
    hub: &Hub,
    proxy: &ProxyKey,
    workloads: &[v1::WorkloadRegistration],
) -> Result<Vec<Registration>, Status> {
    let limits = &hub.config().limits;
    let refuse = |reason| Err(refused(hub, &proxy.identity, reason));
    if workloads.len() > limits.max_workloads_per_proxy {
        let most = limits.max_workloads_per_proxy;
        return refuse(format!("{} workloads; at most {most} are taken", workloads.len()));
    }
    let mut registrations: Vec<Registration> = Vec::with_capacity(workloads.len());
    for workload in workloads {
        let name = printable(&workload.name);
        let size = wire::size(workload);
        if size > limits.max_registration_bytes {
            let most = limits.max_registration_bytes;
            return refuse(format!("workload {name:?}: {size} bytes; at most {most} are taken"));
        }
        if workload.namespace != proxy.identity.namespace() {
            let status = Status::permission_denied(format!(
                "workload {}/{name}: the certificate is for namespace {}",
                printable(&workload.namespace),
                proxy.identity.namespace()
            ));
            hub.metrics().registration_refused(Refusal::NotGranted);
            return Err(status);
        }
        let told = Told::try_from(workload).map_err(|fault| vec![fault]);
        let registration = match told.and_then(|told| Registration::new(told, &proxy.identity)) {
            Ok(registration) => registration,
            Err(faults) => {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                return refuse(format!("workload {name:?}: {}", faults.join("; ")));
            }
        };
        if registrations.iter().any(|other| other.name() == registration.name()) {
            return refuse(format!("workload {name:?}: name: it is registered twice"));
        }
        registrations.push(registration);
    }
    Ok(registrations)
}

/// The versions of what the proxy says that it holds. Of objects that are not in the world a few are believed: they went
/// while it was away. One that says more is told everything anew, which needs no memory of what it said.
fn known(known: &[v1::ObjectVersion], world: &World) -> Versions {
    let is_there = |key: &Key| match key {
        Key::Mesh => true,
        Key::Workload(name) => world.workload(name).is_some(),
        Key::Service(name) => world.service(name).is_some(),
        Key::Route(name) => {
            let name = RouteName::of(name);
            let ObjectName { namespace, name: own } = name.object();
            world.get(&ObjectKey::new(name.kind.resource(), &namespace, &own)).is_some()
        }
        Key::External(name) => {
            let key = ObjectKey::new(Kind::ExternalService, &name.namespace, &name.name);
            world.get(&key).is_some()
        }
        Key::Endpoint { service, workload } => world.service(service).is_some() && world.workload(workload).is_some(),
        Key::Filter(name) if name == AUTHZ_ATTACHMENT || name == AUDIT_ATTACHMENT => true,
        Key::Filter(name) => policy_of_attachment(name).is_some_and(|policy| world.get(&policy).is_some()),
    };
    let mut versions = Versions::new();
    let mut strangers = 0;
    for object in known {
        // A kind of a newer proxy that this server does not know is left alone.
        let Some(told) = object.key.clone() else { continue };
        let bytes = told.name.len() + told.workload.len();
        let Ok(key) = Key::try_from(told) else { continue };
        if !is_there(&key) {
            // Long names count as several.
            strangers += 1 + bytes / LONG;
        }
        if strangers > MAX_STRANGERS {
            return Versions::new();
        }
        versions.insert(key, object.version);
    }
    versions
}

#[cfg(test)]
mod tests {
    use weft_policy::identity::TrustDomain;

    use super::*;

    #[test]
    fn a_proxy_is_believed_to_hold_what_there_is_and_little_else() {
        let world = World::new(TrustDomain::default());
        let held = |count: usize| -> Vec<_> {
            let key = |number: usize| v1::Key::from(&Key::Filter(format!("made-up-{number}")));
            (0..count).map(|number| v1::ObjectVersion { key: Some(key(number)), version: 1 }).collect()
        };
        assert_eq!(known(&held(MAX_STRANGERS), &world).len(), MAX_STRANGERS, "they may have gone meanwhile");
        assert!(known(&held(MAX_STRANGERS + 1), &world).is_empty(), "it is told everything anew");
    }
}
