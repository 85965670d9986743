//! The proxies of all control planes of the store: each tells of those that it has a stream to. Invariant: a proxy of one
//! that does not answer is there with that reason, and is never in step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_policy::bundle::{ObjectName, Revision};

use super::Hub;
use crate::peers::{Answer, AsOf, Evicting, MAX_WAIT, MOST_SILENT, Question, pb};
use crate::registry::{ProxyKey, ProxyStatus, SyncState, Voices};

/// An answer in which nobody is waited for is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Whoever waits for proxies looks at all of them, and so not at each of their steps.
const STEPS: Duration = Duration::from_millis(20);

/// How far proxies are with a revision, asked of all until they have it.
pub(crate) struct Everywhere<'a> {
    hub: &'a Hub,
    question: Question,
    heard: BTreeMap<String, Heard>,
}

struct Heard {
    at: Instant,
    answer: Answer<AsOf>,
}

impl Heard {
    fn waits(&self) -> bool {
        self.answer.said.as_ref().is_ok_and(|told| !told.proxies.iter().all(ProxyStatus::is_settled))
    }
}

/// Waits until something of a proxy's status changed, and gathers what changes with it.
pub(crate) async fn gathered(changes: &mut watch::Receiver<u64>) {
    _ = changes.changed().await;
    tokio::time::sleep(STEPS).await;
}

/// A control plane that did not say what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Where it is reached, or how it is called in the store.
    pub replica: String,
    pub reason: String,
    /// The proxies that it holds.
    pub proxies: BTreeSet<ProxyKey>,
}

impl Hub {
    /// To ask all control planes how far their proxies are.
    pub(crate) fn everywhere(&self, wanted: Revision, since: Revision) -> Everywhere<'_> {
        Everywhere { hub: self, question: Question { wanted, since, wait: Duration::ZERO }, heard: BTreeMap::new() }
    }

    /// The same for who looks at all that they refused: what is known of others is asked for once, and is cheap while
    /// nothing changes.
    pub(crate) async fn look(&self) -> Everywhere<'_> {
        let mut all = self.everywhere(Question::LOOK.wanted, Question::LOOK.since);
        all.ask(Duration::ZERO).await;
        all
    }

    /// How far the proxies of all control planes are, with all that they refused.
    pub(crate) async fn look_everywhere(&self) -> Vec<ProxyStatus> {
        self.look().await.proxies().0
    }

    /// Answers another control plane: the proxies with a stream here, once they have settled or after a while.
    pub(crate) async fn tell_proxies(&self, asked: &pb::ProxiesRequest) -> (u64, Option<Vec<ProxyStatus>>) {
        let wait = Duration::from_millis(asked.wait_ms.into()).min(MAX_WAIT);
        let deadline = tokio::time::Instant::now() + wait;
        let mut changes = self.registry().watch();
        loop {
            let number = *changes.borrow_and_update();
            if asked.known == Some(number) {
                return (number, None);
            }
            let mut proxies = self.registry().list(Revision(asked.wanted), Revision(asked.since));
            proxies.retain(|proxy| proxy.connected_since.is_some());
            if proxies.iter().all(ProxyStatus::is_settled) || tokio::time::Instant::now() >= deadline {
                return (number, Some(proxies));
            }
            tokio::select! {
                () = gathered(&mut changes) => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.stopping() => return (number, Some(proxies)),
            }
        }
    }

    /// What the proxies of all control planes say of endpoints whose proxies fell silent, in the order asked. Those of one that
    /// does not answer may reach every one of them.
    pub(super) async fn voices(&self, silent: &[(ProxyKey, Vec<ObjectName>)]) -> Vec<Voices> {
        let mut all: Vec<_> = silent.iter().map(|(_, owned)| self.registry().voices(owned)).collect();
        // Who holds no proxy has nobody to ask.
        let holders: BTreeSet<_> = self.registry().holders().into_values().collect();
        let holders: Vec<_> = holders.into_iter().collect();
        let asked = silent.iter().map(|(proxy, owned)| pb::SilentProxy {
            account: proxy.identity.to_string(),
            workloads: owned.iter().map(Into::into).collect(),
        });
        let asked: Vec<_> = asked.collect();
        for (asked, all) in asked.chunks(MOST_SILENT).zip(all.chunks_mut(MOST_SILENT)) {
            for answer in self.replica.peers().words(&holders, asked).await {
                match answer.said {
                    Ok(told) => all.iter_mut().zip(told).for_each(|(voices, told)| voices.add(told)),
                    Err(_) => all.iter_mut().for_each(|voices| voices.is_reached = true),
                }
            }
        }
        all
    }

    /// What others said last to who looks, as something that differs when that does.
    pub(crate) fn heard_of_others(&self) -> Vec<(String, Option<u64>, bool)> {
        self.replica.peers().heard()
    }

    /// The sessions of the others: of those that tell where they are reached, and of those that only hold proxies.
    fn others(&self) -> Vec<String> {
        let mut sessions: BTreeSet<_> = self.replica.peers().sessions().into_iter().collect();
        sessions.extend(self.registry().holders().into_values());
        sessions.into_iter().collect()
    }

    /// True for the session by which others know this control plane.
    pub(crate) fn is_session(&self, session: &str) -> bool {
        !session.is_empty() && self.replica.session() == session
    }

    /// Tells the others of an eviction; gives those that did not take it.
    pub(super) async fn tell_eviction(&self, evicting: &Evicting) -> Vec<Silent> {
        let told = self.replica.peers().evict(&self.others(), evicting).await.into_iter();
        let silent = |Answer { session, address, said }: Answer<()>| {
            let proxies = self.registry().holders().into_iter().filter(|(_, holder)| *holder == session);
            let proxies = proxies.map(|(proxy, _)| proxy).collect();
            Some(Silent { replica: address, reason: said.err()?, proxies })
        };
        told.filter_map(silent).collect()
    }
}

impl Everywhere<'_> {
    /// Asks those that have not settled yet, or not of late. They take so long until their proxies settle.
    pub(crate) async fn ask(&mut self, wait: Duration) {
        let sessions = self.hub.others();
        self.heard.retain(|session, _| sessions.contains(session));
        let is_known = |session: &String| {
            self.heard.get(session).is_some_and(|heard| !heard.waits() && heard.at.elapsed() < FRESH)
        };
        let asked: Vec<_> = sessions.into_iter().filter(|session| !is_known(session)).collect();
        let question = Question { wait: wait.min(MAX_WAIT), ..self.question };
        for answer in self.hub.replica.peers().proxies(&asked, question).await {
            self.heard.insert(answer.session.clone(), Heard { at: Instant::now(), answer });
        }
    }

    /// True where others' proxies may settle at any moment.
    pub(crate) fn waits(&self) -> bool {
        self.heard.values().any(Heard::waits)
    }

    /// What is known by now, and who did not say what he knows.
    pub(crate) fn proxies(&self) -> (Vec<ProxyStatus>, Vec<Silent>) {
        let own = self.hub.registry().list(self.question.wanted, self.question.since);
        let mut all: BTreeMap<_, _> = own.into_iter().map(|status| (status.key.clone(), status)).collect();
        for told in self.heard.values().filter_map(|heard| heard.answer.said.as_ref().ok()) {
            let age = told.at.elapsed();
            for status in told.proxies.iter() {
                // One that moves may be told of twice: its newest stream counts.
                let known = all.get(&status.key).and_then(|known| known.connected_since);
                if known < status.connected_since {
                    all.insert(status.key.clone(), status.clone().later(age));
                }
            }
        }
        let mut silent: BTreeMap<&String, Silent> = self.heard.iter().filter_map(silent).collect();
        let holders = self.hub.registry().holders();
        for status in all.values_mut().filter(|status| status.state == SyncState::Elsewhere) {
            let Some(silent) = holders.get(&status.key).and_then(|holder| silent.get_mut(holder)) else {
                status.reason = "it is moving from one control plane to another".to_owned();
                continue;
            };
            let Silent { replica, reason, .. } = &*silent;
            status.reason = format!("connected to control plane {replica}, which does not tell of it: {reason}");
            silent.proxies.insert(status.key.clone());
        }
        (all.into_values().collect(), silent.into_values().collect())
    }
}

fn silent<'a>((session, heard): (&'a String, &Heard)) -> Option<(&'a String, Silent)> {
    let reason = heard.answer.said.as_ref().err()?.clone();
    Some((session, Silent { replica: heard.answer.address.clone(), reason, proxies: BTreeSet::new() }))
}
