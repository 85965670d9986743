//! The other control planes of the same store, as this one asks them: each has a session in the store that says where it is
//! reached. Asked over mutual TLS, by a certificate that no proxy can have. Invariant: one that does not answer in time is
//! named with its reason, never taken for one that knows of nothing.

mod told;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weft_policy::bundle::Revision;

use self::pb::replicas_client::ReplicasClient;
use crate::ca::{Authority, ServerIdentity};
use crate::metrics::Metrics;
use crate::registry::{ProxyKey, ProxyStatus, Voices};

pub(crate) use self::told::{parts, voices_message};

/// Messages, client and server, generated from `proto/replica.proto`.
#[allow(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]
pub(crate) mod pb {
    tonic::include_proto!("weft.replica.v1");
}

/// The name by which every control plane's certificate is checked.
const SERVER: &str = "weft-control";
/// So long one that did not answer is taken to be silent, where somebody only looks.
const SILENT: Duration = Duration::from_secs(1);
/// Proxies that one answer tells of.
const MAX_PROXIES: usize = 100_000;
/// Serial numbers that one message tells of: it has to fit into `limits.max_request_bytes`.
const SERIALS: usize = 256;
/// Silent proxies that one question is about.
pub(crate) const MOST_SILENT: usize = 500;
/// The longest that one who is asked waits for its proxies.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(500);

pub(crate) struct Peers {
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    /// How long an answer may take.
    patience: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By session.
    peers: BTreeMap<String, Peer>,
    shown: Option<Shown>,
}

/// What this control plane shows of itself, and the roots by which it checks others.
struct Shown {
    /// None where no root that is trusted vouches for it.
    identity: Option<ServerIdentity>,
    roots: Vec<CertificateDer<'static>>,
    /// The root that vouched for it.
    below: String,
}

#[derive(Clone)]
struct Peer {
    address: String,
    since: Instant,
    channel: Option<Channel>,
    /// Its last answer to who only looks, and its number.
    seen: Option<(u64, AsOf)>,
    silent: Option<(Instant, String)>,
}

/// Proxies as they were when they were told of.
#[derive(Debug, Clone)]
pub(crate) struct AsOf {
    pub(crate) at: Instant,
    pub(crate) proxies: Arc<Vec<ProxyStatus>>,
}

/// What is asked of others' proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// How far each is is judged against this revision.
    pub(crate) wanted: Revision,
    /// Refusals count from here on.
    pub(crate) since: Revision,
    /// Who is asked waits so long for its proxies to settle.
    pub(crate) wait: Duration,
}

impl Question {
    /// How far each is, with all that was refused.
    pub(crate) const LOOK: Self = Self { wanted: Revision(0), since: Revision(u64::MAX), wait: Duration::ZERO };
}

/// What one control plane said.
#[derive(Debug, Clone)]
pub(crate) struct Answer<T> {
    pub(crate) session: String,
    pub(crate) address: String,
    /// Or why it said nothing.
    pub(crate) said: Result<T, String>,
}

/// What another control plane is to sign.
#[derive(Debug, Clone)]
pub(crate) struct Signing {
    pub(crate) csr_der: Vec<u8>,
    pub(crate) is_root: bool,
    pub(crate) proof_der: Vec<Vec<u8>>,
}

/// An eviction, as all are told of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evicting {
    pub(crate) proxies: Vec<ProxyKey>,
    pub(crate) serials: Vec<String>,
    pub(crate) number: u64,
}

impl Peers {
    pub(crate) fn new(authority: Arc<Authority>, metrics: Arc<Metrics>, patience: Duration) -> Self {
        Self { authority, metrics, patience, known: Mutex::default() }
    }

    /// A control plane tells where it is reached.
    pub(crate) fn put(&self, session: &str, address: String) {
        let mut known = self.lock();
        if known.peers.get(session).is_none_or(|peer| peer.address != address) {
            tracing::info!(address, "another control plane of this store is there");
            let peer = Peer { address, since: Instant::now(), channel: None, seen: None, silent: None };
            known.peers.insert(session.to_owned(), peer);
        }
        self.count(&known);
    }

    /// Only these are there.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut known = self.lock();
        known.peers.retain(|session, peer| {
            let stays = is_there(session);
            if !stays {
                tracing::info!(address = peer.address, "another control plane of this store is gone");
            }
            stays
        });
        self.count(&known);
    }

    fn count(&self, known: &Known) {
        self.metrics.replicas.set(u32::try_from(known.peers.len()).map_or(f64::from(u32::MAX), f64::from));
    }

    /// The sessions that are known.
    pub(crate) fn sessions(&self) -> Vec<String> {
        self.lock().peers.keys().cloned().collect()
    }

    /// The sessions that are known, each with where it is reached.
    pub(crate) fn addresses(&self) -> Vec<(String, String)> {
        self.lock().peers.iter().map(|(session, peer)| (session.clone(), peer.address.clone())).collect()
    }

    /// The sessions of those that have been there for so long and answer.
    pub(crate) fn settled(&self, least: Duration) -> Vec<String> {
        let known = self.lock();
        let answers = |peer: &Peer| peer.seen.is_some() && peer.silent.is_none() && peer.since.elapsed() >= least;
        known.peers.iter().filter(|(_, peer)| answers(peer)).map(|(session, _)| session.clone()).collect()
    }

    /// The number of what each said last to who looks, and whether it is silent since.
    pub(crate) fn heard(&self) -> Vec<(String, Option<u64>, bool)> {
        let known = self.lock();
        let number = |peer: &Peer| peer.seen.as_ref().map(|(number, _)| *number);
        known.peers.iter().map(|(session, peer)| (session.clone(), number(peer), peer.silent.is_some())).collect()
    }

    /// How far the proxies of each of these are, asked all at once.
    pub(crate) async fn proxies(&self, of: &[String], question: Question) -> Vec<Answer<AsOf>> {
        join_all(of.iter().map(|session| self.proxies_of(session, question))).await
    }

    async fn proxies_of(&self, session: &str, question: Question) -> Answer<AsOf> {
        let looks = question == Question::LOOK;
        let peer = self.lock().peers.get(session).cloned();
        let lately = peer.as_ref().and_then(|peer| peer.silent.as_ref()).filter(|(at, _)| at.elapsed() < SILENT);
        if let (true, Some((_, reason)), Some(peer)) = (looks, lately, &peer) {
            return Answer { session: session.to_owned(), address: peer.address.clone(), said: Err(reason.clone()) };
        }
        let seen = peer.and_then(|peer| peer.seen).filter(|_| looks);
        let known = seen.as_ref().map(|(number, _)| *number);
        let asked = async |mut client: ReplicasClient<Channel>| {
            let request = pb::ProxiesRequest {
                session: session.to_owned(),
                wanted: question.wanted.0,
                since: question.since.0,
                wait_ms: u32::try_from(question.wait.as_millis()).unwrap_or(u32::MAX),
                known,
            };
            let mut parts = client.proxies(request).await?.into_inner();
            let (mut number, mut all) = (0, Vec::new());
            while let Some(part) = parts.message().await? {
                number = part.number;
                if let (true, Some((_, seen))) = (part.unchanged, &seen) {
                    return Ok((number, seen.clone()));
                }
                all.extend(part.proxies.into_iter().filter_map(told::status));
                if all.len() > MAX_PROXIES {
                    return Err(Status::resource_exhausted(format!("it tells of more than {MAX_PROXIES} proxies")));
                }
            }
            Ok((number, AsOf { at: Instant::now(), proxies: Arc::new(all) }))
        };
        let answer = self.ask(session, question.wait + self.patience, asked).await;
        if let (true, Ok(said)) = (looks, &answer.said)
            && let Some(peer) = self.lock().peers.get_mut(session)
        {
            peer.seen = Some(said.clone());
        }
        let Answer { session, address, said } = answer;
        Answer { session, address, said: said.map(|(_, told)| told) }
    }

    /// What the proxies of these say of silent ones, asked all at once.
    pub(crate) async fn words(&self, of: &[String], silent: &[pb::SilentProxy]) -> Vec<Answer<Vec<Voices>>> {
        let asked = of.iter().map(|session| {
            self.ask(session, self.patience, async |mut client: ReplicasClient<Channel>| {
                let request = pb::WordsRequest { session: session.clone(), silent: silent.to_vec() };
                let told = client.words(request).await?.into_inner().voices;
                if told.len() != silent.len() {
                    return Err(Status::internal("it says nothing of some"));
                }
                Ok(told.into_iter().map(told::voices).collect())
            })
        });
        join_all(asked).await
    }

    /// Tells these of an eviction.
    pub(crate) async fn evict(&self, sessions: &[String], evicting: &Evicting) -> Vec<Answer<()>> {
        let name = |key: &ProxyKey| pb::ProxyName { name: key.name.clone(), identity: key.identity.to_string() };
        let told = sessions.iter().map(|session| {
            self.ask(session, self.patience, async |mut client: ReplicasClient<Channel>| {
                let request = |serials: &[String], proxies| pb::EvictRequest {
                    session: session.clone(),
                    proxies,
                    serials: serials.to_vec(),
                    number: evicting.number,
                };
                for serials in evicting.serials.chunks(SERIALS) {
                    client.evict(request(serials, Vec::new())).await?;
                }
                // Last, and once: one that is back by then has its new stream.
                let proxies = evicting.proxies.iter().map(name).collect();
                client.evict(request(&[], proxies)).await.map(drop)
            })
        });
        join_all(told).await
    }

    /// Has one sign something.
    pub(crate) async fn sign(&self, session: &str, signing: &Signing) -> Answer<Vec<u8>> {
        let Signing { csr_der: csr, is_root, proof_der: proof } = signing.clone();
        let request = pb::SignRequest { session: session.to_owned(), csr, is_root, proof };
        self.ask(session, self.patience, async |mut client: ReplicasClient<Channel>| {
            Ok(client.sign(request).await?.into_inner().certificate)
        })
        .await
    }

    /// Asks one, and notes whether it answers.
    async fn ask<T>(
        &self,
        session: &str,
        patience: Duration,
        call: impl AsyncFnOnce(ReplicasClient<Channel>) -> Result<T, Status>,
    ) -> Answer<T> {
        let (address, channel) = match self.channel(session) {
            Ok(found) => found,
            Err((address, reason)) => return Answer { session: session.to_owned(), address, said: Err(reason) },
        };
        let said = match timeout(patience, call(ReplicasClient::new(channel))).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(status)) => Err(reason_of(&status)),
            Err(_) => Err(format!("it did not answer within {} ms", patience.as_millis())),
        };
        if let Err(reason) = &said {
            self.metrics.replicas_silent.increment(1);
            tracing::debug!(address, reason, "another control plane did not answer");
        }
        if let Some(peer) = self.lock().peers.get_mut(session) {
            // Where a network is cut, the connection goes on for long after it heals, without a word: the next try has its own.
            peer.channel = peer.channel.take().filter(|_| said.is_ok());
            peer.silent = said.as_ref().err().map(|reason| (Instant::now(), reason.clone()));
        }
        Answer { session: session.to_owned(), address, said }
    }

    /// The way to one, and where that leads.
    fn channel(&self, session: &str) -> Result<(String, Channel), (String, String)> {
        let mut known = self.lock();
        let known = &mut *known;
        let Some(address) = known.peers.get(session).map(|peer| peer.address.clone()) else {
            return Err((session.to_owned(), "it does not tell where it is reached".to_owned()));
        };
        self.show(known).map_err(|error| (address.clone(), crate::chain(&error)))?;
        let (Some(peer), Some(shown)) = (known.peers.get_mut(session), &known.shown) else {
            return Err((address, "it is gone".to_owned()));
        };
        let channel = match &peer.channel {
            Some(channel) => channel.clone(),
            None => self.connect(&address, shown).map_err(|error| (address.clone(), crate::chain(&error)))?,
        };
        peer.channel = Some(channel.clone());
        Ok((address, channel))
    }

    /// Makes what this one shows, where that is due or others are trusted by now.
    fn show(&self, known: &mut Known) -> Result<(), rcgen::Error> {
        let (now, roots, below) =
            (OffsetDateTime::now_utc(), self.authority.roots_der(), self.authority.issues_below());
        let is_good = |shown: &Shown| {
            let is_due = shown.identity.as_ref().is_some_and(|identity| identity.is_due(now));
            shown.roots == roots && shown.below == below && !is_due
        };
        if known.shown.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        let identity = self.authority.is_vouched().then(|| self.authority.issue_replica(now)).transpose()?;
        known.shown = Some(Shown { identity, roots, below });
        known.peers.values_mut().for_each(|peer| peer.channel = None);
        Ok(())
    }

    fn connect(&self, address: &str, shown: &Shown) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.trust_bundle_pem()))
            .domain_name(SERVER);
        if let Some((chain, key)) = shown.identity.as_ref().map(ServerIdentity::pem) {
            tls = tls.identity(Identity::from_pem(chain, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        Ok(endpoint.connect_timeout(self.patience).connect_lazy())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a question was not answered, as people are told.
fn reason_of(status: &Status) -> String {
    if status.code() == tonic::Code::Unimplemented {
        return "it is of an earlier version, which can't be asked".to_owned();
    }
    told_by(status)
}

/// A status with its causes, each once.
fn told_by(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
