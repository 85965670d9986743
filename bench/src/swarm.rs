//! The proxies of `bench control`: each joins with a token and connects with its certificate over TLS, takes what it is told
//! and acknowledges it. Of objects it keeps names and versions only.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weft_policy::wire::{CAPABILITIES, SCOPE};

use crate::weft::NAMESPACE;
use weft_policy::wire::v1::mesh_control_client::MeshControlClient;
use weft_policy::wire::v1::{self, control_message, proxy_message};

/// Joins and handshakes that are under way at a time.
const AT_A_TIME: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// The control plane that they belong to.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) ca_pem: String,
}

/// A message as one of the proxies had it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) proxy: usize,
    pub(crate) at: Instant,
    /// The revision that it has with this message; removals that go ahead have none.
    pub(crate) revision: Option<u64>,
    /// Workloads that are no longer behind a service.
    pub(crate) left: Vec<String>,
    /// It says who is kept out.
    pub(crate) denies: bool,
}

/// Kind, name and the workload of an endpoint.
type Name = (i32, String, String);

/// What one keeps between its connections.
struct Simulated {
    index: usize,
    service: String,
    /// Services that it asks for; `None`: it can't ask, and is told of all.
    uses: Option<Vec<String>>,
    certificate_pem: String,
    key_pem: String,
    holds: HashMap<Name, u64>,
    revision: u64,
    lineage: Option<v1::Lineage>,
    /// Upserts of a delta whose last message has not come.
    parts: Vec<v1::Object>,
}

/// All of them, on a runtime of their own.
pub(crate) struct Swarm {
    runtime: Runtime,
    place: Arc<Place>,
    tell: mpsc::UnboundedSender<Told>,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    away: Vec<Simulated>,
    connected: Vec<Option<Connected>>,
    /// Services that each of them uses, and how many services have proxies behind them.
    uses: usize,
    services: usize,
}

struct Connected {
    outgoing: mpsc::Sender<v1::ProxyMessage>,
    task: JoinHandle<Result<Simulated>>,
    stop: tokio_util::sync::CancellationToken,
}

impl Swarm {
    pub(crate) fn new(place: Place, uses: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (tell, told) = mpsc::unbounded_channel();
        let (away, connected) = (Vec::new(), Vec::new());
        Ok(Self { runtime, place: Arc::new(place), tell, told, away, connected, uses, services: 0 })
    }

    /// Further proxies, each with a service of `tokens` in turn, whose token admits it.
    pub(crate) fn join(&mut self, count: usize, tokens: &[(String, String)]) -> Result<()> {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let first = self.away.len() + self.connected.len();
        self.services = tokens.len();
        let used = |index: usize| (0..self.uses).map(|next| tokens[(index + next) % tokens.len()].0.clone()).collect();
        let channel =
            self.runtime.block_on(async { endpoint(&self.place, None).map(|endpoint| endpoint.connect_lazy()) })?;
        let joining: Vec<_> = (first..first + count)
            .map(|index| {
                let (service, token) = tokens[index % tokens.len()].clone();
                let (places, channel) = (places.clone(), channel.clone());
                let uses = (self.uses > 0).then(|| used(index));
                self.runtime.spawn(async move {
                    let _place = places.acquire_owned().await?;
                    joined(index, (service, uses), token, channel).await
                })
            })
            .collect();
        for task in joining {
            self.away.push(self.runtime.block_on(task)?.context("a proxy joins")?);
        }
        Ok(())
    }

    /// Everybody who is away connects, at once.
    pub(crate) fn connect(&mut self) {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        for simulated in self.away.drain(..) {
            let (place, places, tell) = (self.place.clone(), places.clone(), self.tell.clone());
            let (outgoing, messages) = mpsc::channel(16);
            let stop = tokio_util::sync::CancellationToken::new();
            let (index, said, stopped) = (simulated.index, outgoing.clone(), stop.clone());
            let task = self.runtime.spawn(live(simulated, place, places, (said, messages), tell, stopped));
            self.connected.resize_with(self.connected.len().max(index + 1), || None);
            self.connected[index] = Some(Connected { outgoing, task, stop });
        }
    }

    /// Everybody's connection breaks; they keep what they hold.
    pub(crate) fn disconnect(&mut self) -> Result<()> {
        let all: Vec<_> = self.connected.iter_mut().filter_map(Option::take).collect();
        all.iter().for_each(|connected| connected.stop.cancel());
        for connected in all {
            self.away.push(self.runtime.block_on(connected.task)?.context("a proxy was connected")?);
        }
        Ok(())
    }

    /// One says goodbye, and stays away.
    pub(crate) fn drain(&mut self, index: usize) -> Result<()> {
        let connected = self.connected.get_mut(index).and_then(Option::take).context("it is connected")?;
        let goodbye = v1::ProxyMessage { message: Some(proxy_message::Message::Draining(v1::Draining {})) };
        self.runtime.block_on(connected.outgoing.send(goodbye)).context("it says goodbye")?;
        Ok(())
    }

    /// An error where one of those that should be connected is not.
    pub(crate) fn check(&mut self) -> Result<()> {
        for connected in self.connected.iter_mut().filter(|one| one.as_ref().is_some_and(|it| it.task.is_finished())) {
            let Some(ended) = connected.take() else { continue };
            self.runtime.block_on(ended.task)?.context("a proxy is connected")?;
            bail!("a proxy's connection has ended");
        }
        Ok(())
    }

    /// Connected proxies that are told of a service, by its number.
    pub(crate) fn users(&self, service: usize) -> usize {
        self.who_uses(service).count()
    }

    /// Which these are.
    pub(crate) fn who_uses(&self, service: usize) -> impl Iterator<Item = usize> {
        let uses = move |index: usize| (service + self.services - index % self.services) % self.services < self.uses;
        let connected = self.connected.iter().enumerate().filter(|(_, one)| one.is_some());
        connected.map(|(index, _)| index).filter(move |index| self.uses == 0 || uses(*index))
    }

    pub(crate) fn connected(&self) -> usize {
        self.connected.iter().flatten().count()
    }

    /// The next message, unless nobody hears anything for so long.
    pub(crate) fn next(&mut self, wait: Duration) -> Option<Told> {
        let told = &mut self.told;
        self.runtime.block_on(async { tokio::time::timeout(wait, told.recv()).await.ok().flatten() })
    }
}

fn endpoint(place: &Place, identity: Option<(&str, &str)>) -> Result<Endpoint> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&place.ca_pem)).domain_name("weft-control");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(Endpoint::from_shared(place.address.clone())?.connect_timeout(PATIENCE).tls_config(tls)?)
}

async fn joined(
    index: usize,
    (service, uses): (String, Option<Vec<String>>),
    token: String,
    channel: Channel,
) -> Result<Simulated> {
    let key = KeyPair::generate().context("a key")?;
    let csr_der = CertificateParams::default().serialize_request(&key).context("a request")?.der().to_vec();
    let request = v1::JoinRequest { token, csr_der, ..Default::default() };
    let response = MeshControlClient::new(channel).join(request).await?.into_inner();
    let pem = |der: &Vec<u8>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    Ok(Simulated {
        index,
        service,
        uses,
        certificate_pem: response.certificate_chain_der.iter().map(pem).collect(),
        key_pem: key.serialize_pem(),
        holds: HashMap::new(),
        revision: 0,
        lineage: None,
        parts: Vec::new(),
    })
}

fn asked(service: &str) -> v1::Ask {
    let name = v1::ObjectName { namespace: NAMESPACE.to_owned(), name: service.to_owned() };
    v1::Ask { what: Some(v1::ask::What::Service(name)) }
}

impl Simulated {
    /// The workload stands behind its service at an address of its own.
    fn hello(&self) -> v1::Hello {
        let last = u32::try_from(self.index).unwrap_or_default() + 1;
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + last);
        let name = format!("{}-{}", self.service, self.index);
        let known = |((kind, name, workload), version): (&Name, &u64)| v1::ObjectVersion {
            key: Some(v1::Key { kind: *kind, name: name.clone(), workload: workload.clone() }),
            version: *version,
        };
        v1::Hello {
            proxy_name: name.clone(),
            version: "simulated".to_owned(),
            capabilities: CAPABILITIES
                .into_iter()
                .chain(self.uses.as_ref().map(|_| SCOPE))
                .map(str::to_owned)
                .collect(),
            asked: self.uses.iter().flatten().map(|service| asked(service)).collect(),
            workloads: vec![v1::WorkloadRegistration {
                name,
                namespace: NAMESPACE.to_owned(),
                address: address.to_string(),
                ports: vec![v1::WorkloadPort { port: 8080, protocol: v1::Protocol::Http.into() }],
                service: Some(self.service.clone()),
                mesh_address: format!("{address}:15008"),
                weight: 1,
                ..Default::default()
            }],
            known: self.holds.iter().map(known).collect(),
            current_revision: self.revision,
            lineage: self.lineage.clone(),
            ..Default::default()
        }
    }

    /// Takes a delta; what is to be told of it.
    fn take(&mut self, delta: v1::Delta) -> Told {
        let name = |key: v1::Key| (key.kind, key.name, key.workload);
        let mut left = Vec::new();
        self.parts.extend(delta.upserts);
        if delta.more {
            return Told { proxy: self.index, at: Instant::now(), revision: None, left, denies: false };
        }
        if delta.full {
            self.holds.clear();
        }
        for key in delta.removals {
            if key.kind == i32::from(v1::Kind::Endpoint) {
                left.push(key.workload);
            } else {
                self.holds.remove(&name(key));
            }
        }
        for object in std::mem::take(&mut self.parts) {
            let Some(key) = object.key else { continue };
            self.holds.insert(name(key), object.version);
        }
        self.lineage = delta.lineage.or_else(|| self.lineage.take());
        let revision = (!delta.subtractive && !delta.ahead).then_some(delta.revision);
        self.revision = revision.unwrap_or(self.revision);
        Told { proxy: self.index, at: Instant::now(), revision, left, denies: false }
    }
}

/// A connection until it is stopped, or said goodbye.
async fn live(
    mut simulated: Simulated,
    place: Arc<Place>,
    places: Arc<Semaphore>,
    (outgoing, messages): (mpsc::Sender<v1::ProxyMessage>, mpsc::Receiver<v1::ProxyMessage>),
    tell: mpsc::UnboundedSender<Told>,
    stop: tokio_util::sync::CancellationToken,
) -> Result<Simulated> {
    let say = |message| v1::ProxyMessage { message: Some(message) };
    let opening = places.acquire_owned().await?;
    let endpoint = endpoint(&place, Some((&simulated.certificate_pem, &simulated.key_pem)))?;
    let channel = endpoint.connect().await.context("the control plane takes the connection")?;
    outgoing.send(say(proxy_message::Message::Hello(simulated.hello()))).await?;
    let mut client = MeshControlClient::new(channel).max_decoding_message_size(32 << 20);
    let mut incoming: Streaming<v1::ControlMessage> = client.connect(ReceiverStream::new(messages)).await?.into_inner();
    drop(opening);
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = stop.cancelled() => return Ok(simulated),
        };
        let Some(message) = message.context("the control stream")? else { return Ok(simulated) };
        match message.message {
            Some(control_message::Message::Delta(delta)) => {
                let view = delta.view;
                let told = simulated.take(delta);
                if let Some(revision) = told.revision {
                    let ack = v1::Ack { revision, view, ..v1::Ack::default() };
                    outgoing.send(say(proxy_message::Message::Ack(ack))).await?;
                }
                drop(tell.send(told));
            }
            Some(control_message::Message::Notice(notice)) => bail!("it is told: {}", notice.reason),
            Some(control_message::Message::Denials(denials)) if !denials.identities.is_empty() => {
                let (proxy, at) = (simulated.index, Instant::now());
                drop(tell.send(Told { proxy, at, revision: None, left: Vec::new(), denies: true }));
            }
            Some(control_message::Message::Denials(_)) | None => {}
        }
    }
}
