//! The first message of a control stream: who the proxy is, which workloads it serves, what it holds. Invariant: a proxy
//! speaks only for its own identity: the namespace of its workloads is its certificate's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Status, Streaming};
use weft_policy::bundle::ObjectName;
use weft_policy::delta::Key;
use weft_policy::identity::SpiffeId;
use weft_policy::text::printable;
use weft_policy::wire::v1;

use crate::hub::{Hub, Registration};
use crate::registry::{Introduction, ProxyKey, Seat};
use crate::view::Versions;

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_KNOWN: usize = 1_000_000;

/// A proxy that is let in.
pub(super) struct Greeting {
    pub(super) seat: Seat,
    pub(super) served: Vec<ObjectName>,
    pub(super) known: Versions,
}

impl Greeting {
    pub(super) async fn receive(
        hub: &Arc<Hub>,
        identity: SpiffeId,
        peer: String,
        incoming: &mut Streaming<v1::ProxyMessage>,
    ) -> Result<Self, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
        let Some(v1::proxy_message::Message::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::failed_precondition("the first message must be Hello"));
        };
        let name = valid_name("proxy_name", &hello.proxy_name)?;
        let key = ProxyKey { name, identity };
        let registrations = registrations(hub, &key, &hello.workloads)?;
        let known = known(&hello.known)?;
        let introduction = Introduction { version: printable(&hello.version).into_owned(), address: peer };
        let served = registrations.iter().map(|registration| registration.name.clone()).collect();
        // The seat comes first: from here on nothing of this proxy's is taken away behind its back.
        let seat = hub.registry().enter(key.clone(), introduction, time::OffsetDateTime::now_utc());
        if let Err(error) = hub.register(&key, registrations).await {
            hub.registry().leave(&seat, false);
            hub.release_later(key, hub.config().disconnect_grace());
            return Err(error.into());
        }
        Ok(Self { seat, served, known })
    }
}

fn registrations(
    hub: &Hub,
    proxy: &ProxyKey,
    workloads: &[v1::WorkloadRegistration],
) -> Result<Vec<Registration>, Status> {
    let limit = hub.config().limits.max_workloads_per_proxy;
    if workloads.len() > limit {
        return Err(Status::invalid_argument(format!("{} workloads; at most {limit} are taken", workloads.len())));
    }
    workloads.iter().map(|workload| registration(proxy, workload)).collect()
}

fn registration(proxy: &ProxyKey, workload: &v1::WorkloadRegistration) -> Result<Registration, Status> {
    let invalid =
        |what: &str, why: String| Status::invalid_argument(format!("workload {:?}: {what}: {why}", workload.name));
    let name = valid_name("workload name", &workload.name)?;
    if workload.namespace != proxy.identity.namespace() {
        return Err(Status::permission_denied(format!(
            "workload {}/{name}: the certificate is for namespace {}",
            workload.namespace,
            proxy.identity.namespace()
        )));
    }
    let address: IpAddr = workload.address.parse().map_err(|_| invalid("address", workload.address.clone()))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(invalid("address", format!("{address} is no host's")));
    }
    let mesh_address: SocketAddr =
        workload.mesh_address.parse().map_err(|_| invalid("mesh_address", workload.mesh_address.clone()))?;
    let mut ports = Vec::new();
    for port in &workload.ports {
        let port = port.clone().try_into().map_err(|e| invalid("port", format!("{e}")))?;
        ports.push(port);
    }
    let service = workload.service.as_deref().map(|name| valid_name("service", name)).transpose()?;
    Ok(Registration {
        name: ObjectName::new(workload.namespace.clone(), name),
        identity: proxy.identity.clone(),
        address,
        mesh_address,
        ports,
        labels: workload.labels.clone().into_iter().collect(),
        weight: workload.weight.max(1),
        service,
    })
}

fn known(known: &[v1::ObjectVersion]) -> Result<Versions, Status> {
    if known.len() > MAX_KNOWN {
        return Err(Status::invalid_argument("too many known objects"));
    }
    let mut versions = Versions::new();
    for object in known {
        // A kind of a newer proxy that this server does not know is left alone.
        if let Some(key) = object.key.clone().and_then(|key| Key::try_from(key).ok()) {
            versions.insert(key, object.version);
        }
    }
    Ok(versions)
}

//= rfc1123#section-2.1
/// Lower-case letters, digits, `-` and `.`, at most 253: as Kubernetes names objects.
pub(crate) fn valid_name(what: &str, name: &str) -> Result<String, Status> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edges = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 253 || !name.chars().all(is_allowed) || !name.starts_with(edges) {
        return Err(Status::invalid_argument(format!(
            "{what} {name:?}: lower-case letters, digits, '-' and '.', at most 253"
        )));
    }
    Ok(name.to_owned())
}
