//! The proxy's side of the control plane: joins, renews, holds the control stream, prepares what it is told and swaps it
//! in. Runs on its own runtime; when the control plane is away it tries again and everything else goes on.

mod absent;
mod apply;
mod channel;
mod grants;
mod identity;
mod prepare;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};
use weft_flow::Backoff;
use weft_policy::bundle::ObjectName;
use weft_policy::text::printable;
use weft_policy::wire::{CAPABILITIES, Parts, SCOPE, v1};
use weft_transport::tls::IdentityHandle;

pub use channel::Channel;
use channel::ChannelError;
pub use grants::TokenFile;
pub use identity::{IdentityKeeper, join_or_load};

use crate::config::Holds;
use crate::shared::Shared;
use crate::state::{KeptBundle, State};
use crate::telemetry::names::Metric;
use apply::{Applier, Step};

/// First and longest wait between attempts to reach the control plane.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a proxy reports by itself; a new certificate is reported at once.
const REPORT: Duration = Duration::from_secs(30);

/// The same for a proxy that was told to keep away: another one has its name and identity.
const KEEP_AWAY: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(900));

/// A session that lasted so long was a good one: the next attempt comes soon.
const LASTING: Duration = Duration::from_secs(10);

/// How often it is looked whether peers came into or out of reach, and how often that is told again.
const REACH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Least time between two messages with questions: what comes meanwhile goes with the next. An app that makes names up
/// does not use up the messages that its proxy may send.
const QUESTIONS: Duration = Duration::from_millis(50);

/// A finding about a peer is worth telling for so long.
const REACH_WORD: Duration = Duration::from_secs(60);

/// Peers that one report tells of.
const REACH_PEERS: usize = 1_024;

/// By this a refused proxy learns whether to come back soon.
const RECONNECT: &str = "weft-reconnect";

/// How long a start waits for the control plane before it serves from the kept bundle.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Everything the control side works with.
pub struct Control {
    pub shared: Arc<Shared>,
    pub state: State,
    pub channel: Channel,
    pub identity: IdentityHandle,
    /// Which start of this proxy it is.
    pub incarnation: u64,
}

impl Control {
    /// The last good bundle, if there is one that can be read.
    fn kept_bundle(&self) -> Option<KeptBundle> {
        self.state.bundle().unwrap_or_else(|error| {
            warn!(error = %crate::chain(&error), "the kept bundle cannot be used");
            None
        })
    }

    /// Runs until draining has been told to the control plane, or for ever.
    pub async fn run(self: Arc<Self>) {
        let mut applier = Applier::new(Arc::clone(&self), self.kept_bundle());
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut keep_away = Backoff::new(KEEP_AWAY.0, KEEP_AWAY.1);
        loop {
            let began = Instant::now();
            let ended = Box::pin(self.session(&mut applier)).await;
            if began.elapsed() >= LASTING {
                backoff.reset();
                keep_away.reset();
            }
            let wait = match End::of(ended) {
                End::Drained => return,
                End::Closed => {
                    info!("control stream closed");
                    self.channel.turn();
                    backoff.wait(rand::random())
                }
                End::Failed(error) => {
                    applier.note_refusal(error.is_refusal().then(|| crate::chain(&error)));
                    warn!(error = %crate::chain(&error), "no control stream");
                    self.channel.turn();
                    backoff.wait(rand::random())
                }
                End::KeptAway(reason) => {
                    self.shared.contact.set_refused(Some(format!("the control plane keeps it away: {reason}")));
                    let wait = keep_away.wait(rand::random());
                    metrics::counter!(Metric::ControlKeptAway.name()).increment(1);
                    warn!(
                        reason,
                        wait_s = wait.as_secs(),
                        "the control plane keeps this proxy away; it serves what it has"
                    );
                    wait
                }
            };
            self.shared.contact.lost();
            applier.forget_pending();
            applier.serve_kept().await;
            let over = tokio::time::sleep(wait);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    // Filters come into force while nobody listens, too: the next Hello tells it.
                    _ = applier.prepared() => {}
                    () = self.shared.drain.draining() => return,
                }
            }
        }
    }

    async fn session(&self, applier: &mut Applier) -> Result<End, ChannelError> {
        let mut client = self.channel.mutual(&self.identity)?;
        let (say, said) = mpsc::channel(64);
        let hello = v1::proxy_message::Message::Hello(self.hello(applier));
        send(&say, hello).await;
        // The kept bundle may be old: the control plane has the first word, if it speaks soon.
        let soon = tokio::time::sleep(FIRST_WORD);
        tokio::pin!(soon);
        let connecting = client.connect(ReceiverStream::new(said));
        tokio::pin!(connecting);
        let connected = loop {
            tokio::select! {
                connected = &mut connecting => break connected,
                () = &mut soon, if applier.has_kept() => if !applier.serve_kept().await { return Ok(End::Closed) },
            }
        };
        let mut told = connected?.into_inner();
        self.shared.contact.connected();
        applier.note_refusal(None);
        info!("control stream up");
        let mut credentials = self.identity.subscribe();
        let mut reports = tokio::time::interval(REPORT);
        let mut looks = tokio::time::interval(REACH.0);
        let mut told_of = (Instant::now(), BTreeMap::new());
        let mut parts = Parts::default();
        let mut next_questions = Instant::now();
        loop {
            let has_kept = applier.has_kept();
            let step = tokio::select! {
                () = &mut soon, if has_kept => match applier.serve_kept().await {
                    true => Step::Nothing,
                    false => Step::Close,
                },
                message = told.message() => match message? {
                    Some(message) => take(applier, &mut parts, message),
                    None => return Ok(End::Closed),
                },
                step = applier.prepared() => step,
                step = self.questions(&mut next_questions) => step,
                _ = credentials.changed() => Step::Say(self.report(applier)),
                _ = reports.tick() => self.look_after(applier),
                _ = looks.tick() => match self.has_news(&mut told_of) {
                    true => Step::Say(self.report(applier)),
                    false => Step::Nothing,
                },
                () = self.shared.drain.draining() => {
                    send(&say, v1::proxy_message::Message::Draining(v1::Draining {})).await;
                    // Held open until the control plane has read it.
                    drop(say);
                    let _ = tokio::time::timeout(Duration::from_secs(1), told.message()).await;
                    return Ok(End::Drained);
                }
            };
            match step {
                Step::Nothing => {}
                Step::Say(message) => send(&say, message).await,
                Step::Acked(message) => {
                    // Whoever waits for the answer is told at once which filters are left out of it.
                    send(&say, self.report(applier)).await;
                    send(&say, message).await;
                }
                Step::NotFollowed(message) => {
                    send(&say, message).await;
                    if !applier.serve_kept().await {
                        return Ok(End::Closed);
                    }
                }
                Step::Close => return Ok(End::Closed),
                Step::KeepAway(reason) => return Ok(End::KeptAway(reason)),
            }
        }
    }

    /// Now and then: what is not used is let go, and the control plane is told how this proxy is.
    fn look_after(&self, applier: &mut Applier) -> Step {
        self.shared.asking.give_up(Instant::now());
        applier.forget_unused(Instant::now());
        Step::Say(self.report(applier))
    }

    /// True where the control plane should hear which peers are reached; `told_of` says what it heard, and when.
    fn has_news(&self, told_of: &mut (Instant, BTreeMap<ObjectName, bool>)) -> bool {
        let found = self.shared.reaches.lately(REACH_WORD);
        let is_news = found != told_of.1 || !found.is_empty() && told_of.0.elapsed() >= REACH.1;
        if is_news {
            *told_of = (Instant::now(), found);
        }
        is_news
    }

    /// What workers want to know and the control plane has not heard, `at` that time or later; then it is the next time's
    /// turn. Cancel safe.
    async fn questions(&self, at: &mut Instant) -> Step {
        tokio::time::sleep_until((*at).into()).await;
        let news = self.shared.asking.news().await;
        *at = Instant::now() + QUESTIONS;
        Step::Say(v1::proxy_message::Message::Asks(v1::Asks {
            wanted: news.wanted.iter().map(Into::into).collect(),
            forgotten: news.forgotten.iter().map(Into::into).collect(),
        }))
    }

    fn hello(&self, applier: &Applier) -> v1::Hello {
        let (config, current) = (&self.shared.config, applier.current());
        let is_asking = config.holds == Holds::Used;
        let open = self.shared.asking.say_all();
        let asked: BTreeSet<_> = current.bundle.answered.iter().cloned().chain(config.uses()).chain(open).collect();
        let told = config.told();
        let ports = config.workload.ports.iter().map(|port| v1::WorkloadPort {
            port: u32::from(port.port),
            protocol: v1::Protocol::from(port.protocol).into(),
        });
        v1::Hello {
            proxy_name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: CAPABILITIES.into_iter().chain(is_asking.then_some(SCOPE)).map(str::to_owned).collect(),
            workloads: vec![v1::WorkloadRegistration {
                name: told.name,
                namespace: told.namespace,
                address: told.address,
                ports: ports.collect(),
                labels: told.labels.into_iter().collect(),
                port_names: told.port_names,
                service: told.service,
                mesh_address: told.mesh_address,
                weight: told.weight,
            }],
            known: applier.known(),
            current_revision: current.bundle.revision.0,
            lineage: current.lineage.as_ref().map(Into::into),
            incarnation: self.incarnation,
            asked: asked.iter().map(Into::into).collect(),
        }
    }

    fn report(&self, applier: &Applier) -> v1::proxy_message::Message {
        let credentials = self.identity.current();
        let found = self.shared.reaches.lately(REACH_WORD).into_iter().take(REACH_PEERS);
        let word =
            |(workload, reached): (ObjectName, bool)| v1::PeerWord { workload: Some((&workload).into()), reached };
        v1::proxy_message::Message::Report(v1::Report {
            filters: applier.filter_states(),
            transport: "quic".to_owned(),
            certificate_not_after_unix: i64::try_from(credentials.identity.not_after().as_secs()).unwrap_or(i64::MAX),
            current_revision: applier.current().bundle.revision.0,
            staleness_ms: self.shared.contact.staleness_ms(),
            peers: found.map(word).collect(),
        })
    }
}

/// Hands a message on once it is whole.
fn take(applier: &mut Applier, parts: &mut Parts, message: v1::ControlMessage) -> Step {
    match parts.take(message) {
        Ok(message) => message.map_or(Step::Nothing, |message| applier.told(message)),
        Err(error) => {
            warn!(%error, "the control plane's delta can't be taken");
            Step::Close
        }
    }
}

enum End {
    /// The control plane knows that we drain.
    Drained,
    Closed,
    Failed(ChannelError),
    /// The control plane says not to come back soon, and why.
    KeptAway(String),
}

impl End {
    /// A refusal may ask for patience as well.
    fn of(ended: Result<Self, ChannelError>) -> Self {
        match ended {
            Ok(end) => end,
            Err(ChannelError::Status(status))
                if status.metadata().get(RECONNECT).is_some_and(|told| told == "false") =>
            {
                Self::KeptAway(printable(status.message()).into_owned())
            }
            Err(error) => Self::Failed(error),
        }
    }
}

async fn send(say: &mpsc::Sender<v1::ProxyMessage>, message: v1::proxy_message::Message) {
    // A closed channel shows as the end of the stream, which the caller reads.
    let _ = say.send(v1::ProxyMessage { message: Some(message) }).await;
}
