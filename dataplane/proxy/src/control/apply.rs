//! From a delta to the current snapshot: prepare beside the traffic, swap once, answer ACK; or answer NACK and keep what
//! is. Removals of endpoints skip the queue. One delta is in preparation at a time; filters that take long are loaded behind
//! it, where the control plane can be told so.

mod loading;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};
use tracing::{debug, info, warn};
use weft_policy::bundle::{Bundle, Revision};
use weft_policy::delta::Key;
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::{Lineage, follow};
use weft_policy::scope::Ask;
use weft_policy::text::printable;
use weft_policy::wire::v1::proxy_message::Message;
use weft_policy::wire::{Received, Refused, v1};
use weft_transport::tls::Trust;

use self::loading::{Lanes, ended};
use super::Control;
use super::absent::Absent;
use super::prepare::{NotReady, Preparer, Ready, Staging};
use crate::snapshot::{Loaded, Snapshot, SnapshotError};
use crate::state::KeptBundle;
use crate::telemetry::names::Metric;
use crate::usage::LastUses;

/// So many identities are kept out at the most.
const MAX_DENIED: usize = 100_000;

/// Next step of the session.
pub(super) enum Step {
    Nothing,
    Say(Message),
    /// An ACK, or what became of filters that one called pending; a report follows.
    Acked(Message),
    /// The offer is not followed: the kept bundle comes into force, if it is not yet.
    NotFollowed(Message),
    Close,
    /// The control plane wants this proxy not to come back soon.
    KeepAway(String),
}

/// The bundle in force and the one on its way.
pub(super) struct Applier {
    control: Arc<Control>,
    preparer: Preparer,
    current: KeptBundle,
    /// `current` is what an earlier start kept, and nothing is in force yet.
    kept: bool,
    /// Who is kept out could not be read: what was kept waits for the control plane's word.
    waits_for_denials: bool,
    ready: Ready,
    pending: Option<Pending>,
    /// Filters of `current` that are being made ready behind it.
    loading: Lanes,
    absent: Absent,
    last_uses: LastUses,
    /// The disk has `current`.
    is_written: bool,
}

struct Pending {
    target: KeptBundle,
    /// Of what was asked for, as the delta says it.
    view: u64,
    /// Objects of unknown kinds among what was told.
    skipped: Vec<v1::Key>,
    /// Filters that were awaited before it, and are not told anew.
    waiting: HashSet<String>,
    task: JoinHandle<Result<Ready, NotReady>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Applier {
    /// `kept`: the bundle of an earlier start, in force once [`Applier::serve_kept`] or the first delta puts it there.
    pub(super) fn new(control: Arc<Control>, kept: Option<KeptBundle>) -> Self {
        let preparer = Preparer {
            host: control.shared.filter_host.clone(),
            state: control.state.clone(),
            channel: control.channel.clone(),
            identity: control.identity.clone(),
            failures: Arc::default(),
        };
        let (ready, pending) = (Ready::default(), None);
        let absent = Absent::new(control.shared.config.limits.names_asked);
        let (current, is_kept) = (KeptBundle::default(), kept.is_some());
        let mut applier = Self {
            control,
            preparer,
            current,
            kept: is_kept,
            waits_for_denials: false,
            ready,
            pending,
            loading: Lanes::default(),
            absent,
            last_uses: LastUses::default(),
            is_written: is_kept,
        };
        applier.deny_kept();
        if let Some(kept) = kept {
            match applier.new_trust(&kept.bundle) {
                Ok(Some(trust)) => applier.control.identity.replace_trust(trust),
                Ok(None) => {}
                Err(error) => warn!(%error, "of the kept bundle; the roots beside the identity stay"),
            }
            applier.current = kept;
        }
        applier
    }

    /// True while there is a kept bundle that can be served and nothing is in force.
    pub(super) fn has_kept(&self) -> bool {
        self.kept && !self.waits_for_denials
    }

    /// Notes why the control plane serves no stream, or that it does. While what was kept waits to hear who is banned, that
    /// stays the reason.
    pub(super) fn note_refusal(&self, reason: Option<String>) {
        if reason.is_some() || !self.waits_for_denials {
            self.control.shared.contact.set_refused(reason);
        }
    }

    /// What is held, with its versions and the store that it came from.
    pub(super) fn current(&self) -> &KeptBundle {
        &self.current
    }

    /// Puts the kept bundle into force, where nothing is. False: it can't be served and is forgotten, so that the next
    /// session has to ask for everything.
    pub(super) async fn serve_kept(&mut self) -> bool {
        if self.waits_for_denials || !std::mem::take(&mut self.kept) {
            return true;
        }
        let kept = self.current.clone();
        let revision = kept.bundle.revision.0;
        // Nothing is in force that could stand in for a filter.
        let staging = Staging { closes_rules: true, ..Staging::default() };
        let prepared = self.preparer.prepare(&kept.bundle, &Loaded::new(), &staging).await;
        let prepared = prepared.map_err(|error| format!("filter {}: {}", error.filter, error.reason));
        match prepared.and_then(|ready| self.swap(kept, ready).map_err(|error| error.to_string())) {
            Ok(()) => {
                info!(revision, "serving from the kept bundle");
                true
            }
            Err(reason) => {
                warn!(revision, reason, "the kept bundle cannot be served");
                self.current = KeptBundle::default();
                false
            }
        }
    }

    /// Drops what was being prepared for a session that is gone.
    pub(super) fn forget_pending(&mut self) {
        self.pending = None;
        self.control.shared.asking.expect_nothing();
    }

    /// Takes a message of the control plane.
    pub(super) fn told(&mut self, message: v1::ControlMessage) -> Step {
        let mut delta = match message.message {
            Some(v1::control_message::Message::Delta(delta)) => delta,
            Some(v1::control_message::Message::Denials(denials)) => {
                self.deny(denials.identities, true);
                let evicted = denials.evicted.into_iter().map(|it| (it.serial, it.number));
                self.control.identity.evict(evicted);
                if std::mem::take(&mut self.waits_for_denials) {
                    self.control.shared.contact.set_refused(None);
                }
                return Step::Nothing;
            }
            Some(v1::control_message::Message::Notice(notice)) => {
                let reason = printable(&notice.reason);
                info!(%reason, reconnect = notice.reconnect, "the control plane ends the session");
                return if notice.reconnect { Step::Close } else { Step::KeepAway(reason.into_owned()) };
            }
            None => return Step::Nothing,
        };
        let (revision, view) = (Revision(delta.revision), delta.view);
        let offered = delta.lineage.take().map(Lineage::from);
        let held = self.current.lineage.as_ref().map(|lineage| (lineage, self.current.bundle.revision));
        if let Err(backwards) = follow(held, offered.as_ref().map(|lineage| (lineage, revision))) {
            return self.not_followed((revision, view), backwards.to_string());
        }
        if self.control.shared.contact.set_not_followed(None) {
            info!("the control plane is followed again");
        }
        if delta.svid_ttl_seconds > 0 {
            self.control.shared.contact.set_svid_ttl(delta.svid_ttl_seconds);
        }
        let (is_ahead, stages) = (delta.ahead, delta.stages);
        let received = match Received::try_from(delta) {
            Ok(received) => received,
            Err(Refused { reason, .. }) if is_ahead => {
                debug!(revision = revision.0, reason, "answers ahead can't be taken; they come again");
                return Step::Nothing;
            }
            Err(Refused { key, reason }) => return refuse((revision, view), key, reason),
        };
        let received = self.asked_for(received);
        if received.delta.subtractive {
            self.subtract(&received);
            return Step::Nothing;
        }
        if received.delta.ahead {
            self.take_ahead(&received);
            return Step::Nothing;
        }
        self.prepare(received, (view, stages), offered);
        Step::Nothing
    }

    fn not_followed(&self, (revision, view): (Revision, u64), reason: String) -> Step {
        if self.control.shared.contact.set_not_followed(Some(reason.clone())) {
            warn!(revision = revision.0, reason, "the control plane is not followed");
        }
        Step::NotFollowed(Message::Nack(v1::Nack { revision: revision.0, key: None, reason, view }))
    }

    /// Keeps these identities out from now on, and nobody else.
    fn deny(&self, identities: Vec<String>, is_news: bool) {
        let known = identities.iter().take(MAX_DENIED).filter_map(|identity| match identity.parse::<SpiffeId>() {
            Ok(identity) => Some(identity),
            Err(error) => {
                warn!(identity = %printable(identity), %error, "an identity that shall be kept out can't be read");
                None
            }
        });
        let denied: BTreeSet<_> = known.collect();
        let is_other = *self.control.identity.current().denied != denied;
        if is_news && (is_other || !matches!(self.control.state.denied(), Ok(Some(_)))) {
            info!(identities = denied.len(), "identities are kept out of the mesh");
            if let Err(error) = self.control.state.keep_denied(&identities) {
                warn!(error = %crate::chain(&error), "who is kept out could not be kept on disk");
            }
        }
        self.control.identity.deny(denied);
    }

    /// Keeps out whom an earlier start kept out. Where that can't be told, nobody is let in on the strength of what else was
    /// kept: it is served once the control plane has said who stays out.
    fn deny_kept(&mut self) {
        let reason = match self.control.state.denied() {
            Ok(Some(identities)) => return self.deny(identities, false),
            Ok(None) => "it is not there".to_owned(),
            Err(error) => crate::chain(&error),
        };
        if self.kept {
            let reason = format!("the list of banned identities can't be read: {reason}");
            warn!(reason, "what was kept is served once the control plane says who is kept out");
            self.control.shared.contact.set_refused(Some(reason));
            self.waits_for_denials = true;
        }
    }

    /// Applies removals at once, to what is in force and to what is on its way.
    fn subtract(&mut self, removals: &Received) {
        if let Some(pending) = &mut self.pending {
            pending.target.take(removals);
        }
        if self.kept {
            return self.current.take(removals);
        }
        let mut target = self.current.clone();
        target.take(removals);
        debug!(removed = removals.delta.removals.len(), "removals applied");
        let ready = self.ready.clone();
        if let Err(error) = self.swap(target, ready) {
            warn!(%error, "removals could not be applied");
        }
        metrics::counter!(Metric::ConfigApplied.name(), "kind" => "subtractive").increment(1);
    }

    /// Without the answers to what is asked no longer: nobody would be told when they are no longer true.
    fn asked_for(&self, mut received: Received) -> Received {
        let shared = &self.control.shared;
        let uses: BTreeSet<_> = shared.config.uses().collect();
        let known = &self.current.bundle.answered;
        let open = shared.asking.expect(received.delta.answered.iter());
        let is_asked = |ask: &Ask| known.contains(ask) || uses.contains(ask) || open.contains(ask);
        received.delta.answered.retain(is_asked);
        received
    }

    /// Applies answers at once, to what is in force and to what is on its way: no first call waits for filters that don't judge
    /// it. They come again with a delta that is answered.
    fn take_ahead(&mut self, answers: &Received) {
        if self.kept || self.current.bundle.mesh.is_none() {
            return;
        }
        if let Some(pending) = &mut self.pending {
            pending.target.take(answers);
        }
        let mut target = self.current.clone();
        target.take(answers);
        debug!(answered = answers.delta.answered.len(), "answers applied ahead");
        let ready = self.ready.clone();
        match self.swap(target, ready) {
            Ok(()) => metrics::counter!(Metric::ConfigApplied.name(), "kind" => "ahead").increment(1),
            Err(error) => warn!(%error, "answers could not be applied ahead"),
        }
    }

    fn prepare(&mut self, received: Received, (view, stages): (u64, bool), lineage: Option<Lineage>) {
        let mut target = self.current.clone();
        target.take(&received);
        target.lineage = lineage;
        let staging = self.staging(&received, &target.bundle, stages);
        let (preparer, bundle, known) = (self.preparer.clone(), target.bundle.clone(), self.ready.filters.clone());
        let waiting = staging.waiting.clone();
        let task = tokio::spawn(async move { preparer.prepare(&bundle, &known, &staging).await });
        self.pending = Some(Pending { target, view, skipped: received.skipped, waiting, task });
    }

    /// Resolves when what was being prepared, or loaded behind what is in force, came into force or was refused; never, where
    /// nothing is. Cancel safe.
    pub(super) async fn prepared(&mut self) -> Step {
        let mut result = tokio::select! {
            result = ended(self.pending.as_mut().map(|pending| &mut pending.task)) => result,
            (attachment, result) = self.loading.ended() => return self.loaded(&attachment, result),
        };
        let Some(mut pending) = self.pending.take() else { return Step::Nothing };
        let (target, skipped) = (std::mem::take(&mut pending.target), std::mem::take(&mut pending.skipped));
        let of = (target.bundle.revision, pending.view);
        if let Ok(Ok(ready)) = &mut result {
            self.catch_up(ready, &pending.waiting);
        }
        let step = self.end_of(result, target, (of, skipped));
        self.control.shared.asking.expect_nothing();
        step
    }

    /// Puts what was prepared into force, or refuses it.
    fn end_of(
        &mut self,
        result: Result<Result<Ready, NotReady>, JoinError>,
        target: KeptBundle,
        (of, skipped): ((Revision, u64), Vec<v1::Key>),
    ) -> Step {
        match result {
            Ok(Ok(ready)) => match self.swap(target, ready) {
                Ok(()) => {
                    metrics::counter!(Metric::ConfigApplied.name(), "kind" => "full").increment(1);
                    if !skipped.is_empty() {
                        info!(objects = skipped.len(), "objects of kinds that this version does not know are skipped");
                    }
                    let pending = self.awaited_keys();
                    self.load_next();
                    Step::Acked(Message::Ack(v1::Ack { revision: of.0.0, skipped, view: of.1, pending }))
                }
                Err(error) => refuse(of, fault(&error).as_ref().map(Into::into), error.to_string()),
            },
            Ok(Err(NotReady { filter, reason })) => refuse(of, Some((&Key::Filter(filter)).into()), reason),
            Err(error) => refuse(of, None, format!("preparing stopped: {error}")),
        }
    }

    /// Makes `target` what is in force.
    fn swap(&mut self, mut target: KeptBundle, ready: Ready) -> Result<(), SnapshotError> {
        let trust = self.new_trust(&target.bundle)?;
        let before = self.control.shared.snapshot.load_full();
        if let Some(before) = &before {
            self.absent.used(before.routes.take_used());
        }
        let surplus = self.absent.surplus(&target.bundle);
        metrics::counter!(Metric::AnswersForgotten.name()).increment(surplus.len() as u64);
        for kept in [Some(&mut target), self.pending.as_mut().map(|pending| &mut pending.target)].into_iter().flatten()
        {
            kept.bundle.answered.retain(|ask| !surplus.contains(ask));
        }
        let bundle = Arc::new(std::mem::take(&mut target.bundle));
        let built = Snapshot::staged(before.as_deref(), Arc::clone(&bundle), &ready.filters, &ready.awaited());
        drop(before);
        target.bundle = Arc::unwrap_or_clone(bundle);
        let snapshot = built?;
        for (workload, reason) in snapshot.outbound_closed() {
            warn!(workload = %workload.name, reason, "its app may send nothing");
        }
        self.control.shared.swap(snapshot);
        let shared = &self.control.shared;
        shared.asking.close(&target.bundle.answered, shared.generation());
        shared.asking.forget(surplus.into_iter().collect());
        if !self.is_on_disk(&target) || !ready.refused().eq(self.ready.refused()) {
            // What can't be made ready is read again by no start.
            let lasting = loading::lasting(&target, &ready);
            let written = self.control.state.keep_bundle(lasting.as_ref().unwrap_or(&target));
            self.is_written = written.is_ok();
            if let Err(error) = written {
                metrics::counter!(Metric::StateWriteFailures.name()).increment(1);
                warn!(error = %crate::chain(&error), "the bundle could not be kept on disk");
            }
        }
        let state = self.control.state.clone();
        let mut wanted = wanted(&target.bundle, self.pending.as_ref().map(|pending| &pending.target.bundle));
        wanted.extend(ready.awaited.values().filter_map(|wait| Some(wait.earlier.as_ref()?.digest.as_str())));
        state.sweep_filters(|digest| wanted.contains(digest));
        if let Some(trust) = trust {
            self.control.identity.replace_trust(trust);
        }
        let bundle = &target.bundle;
        metrics::gauge!(Metric::ConfigRevision.name()).set(as_float(bundle.revision.0));
        info!(revision = bundle.revision.0, services = bundle.services.len(), "configuration in force");
        self.kept = false;
        self.current = target;
        self.ready = ready;
        self.count_filters();
        Ok(())
    }

    /// Asks no longer for what no app has used for long: the control plane takes it away, and the next call asks anew. `now`:
    /// while the control plane answers, since nobody else could bring it back.
    pub(super) fn forget_unused(&mut self, now: Instant) {
        let shared = Arc::clone(&self.control.shared);
        let idle = Duration::from_secs(shared.config.limits.unused_after_s);
        let mut unused = self.last_uses.unused(&self.current.bundle, &shared.uses.take(), (now, idle));
        shared.config.uses().for_each(|ask| _ = unused.remove(&ask));
        // With something under way it is looked again soon.
        if unused.is_empty() || self.kept || self.pending.is_some() {
            return;
        }
        let mut target = self.current.clone();
        target.bundle.answered.retain(|ask| !unused.contains(ask));
        info!(forgotten = unused.len(), "what has not been used for long is held no longer");
        match self.swap(target, self.ready.clone()) {
            Ok(()) => shared.asking.forget(unused.into_iter().collect()),
            Err(error) => warn!(%error, "what is not used could not be forgotten"),
        }
    }

    /// True where the disk has all of it that is read again, whatever it was told of what is not there.
    fn is_on_disk(&self, target: &KeptBundle) -> bool {
        let there = |kept: &KeptBundle| {
            let there = kept.bundle.answered.iter().filter(|ask| kept.bundle.has(ask));
            there.cloned().collect::<Vec<_>>()
        };
        let (new, old) = (target, &self.current);
        self.is_written
            && (new.bundle.revision, &new.versions, &new.lineage) == (old.bundle.revision, &old.versions, &old.lineage)
            && there(new) == there(old)
    }

    /// The roots to trust from now on, where they change. Some that can't be read are refused with the bundle.
    fn new_trust(&self, bundle: &Bundle) -> Result<Option<Trust>, SnapshotError> {
        let Some(mesh) = &bundle.mesh else { return Ok(None) };
        let pem = &mesh.trust_bundle_pem;
        let known = self.current.bundle.mesh.as_ref().is_some_and(|mesh| mesh.trust_bundle_pem == *pem);
        if known || pem.is_empty() {
            return Ok(None);
        }
        let trust = Trust::from_pem(mesh.trust_domain.as_str(), pem);
        trust.map(Some).map_err(|error| SnapshotError::Trust(crate::chain(&error)))
    }
}

/// Digests of the filters to keep on disk beside those of `bundle`: the binaries of one that is being prepared are there
/// already, and nobody fetches them twice.
fn wanted<'b>(bundle: &'b Bundle, coming: Option<&'b Bundle>) -> HashSet<&'b str> {
    let filters = coming.into_iter().chain([bundle]).flat_map(|bundle| bundle.filters.values());
    filters.map(|filter| filter.digest.as_str()).collect()
}

fn fault(error: &SnapshotError) -> Option<Key> {
    match error {
        SnapshotError::NoMesh | SnapshotError::Trust(_) => Some(Key::Mesh),
        SnapshotError::NoWorkload => None,
        SnapshotError::FilterNotReady { name } => Some(Key::Filter(name.clone())),
    }
}

/// Of a revision, and a view of it.
fn refuse((revision, view): (Revision, u64), key: Option<v1::Key>, reason: String) -> Step {
    warn!(revision = revision.0, reason, "configuration refused");
    metrics::counter!(Metric::ConfigRefused.name()).increment(1);
    Step::Say(Message::Nack(v1::Nack { revision: revision.0, key, reason, view }))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of revisions needs no more than 53 bits")]
fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
