//! One proxy's control stream, from its Hello to its end: tells it what changed, hears what became of it. What to send is
//! `View`'s decision; here are time and bytes. Changes are gathered, endpoint removals go at once.

mod ahead;
mod concern;
mod exposed;
mod hello;
mod older;
mod removals;
mod report;
mod scope;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use weft_policy::bundle::{
    Direction, Egress, FilterAttachment, FilterMode, MeshSettings, ObjectName, OnFailure, Revision, ServedWorkload,
};
use weft_policy::delta::{Key, Object};
use weft_policy::lineage::{Lineage, follow};
use weft_policy::text::printable;
use weft_policy::wire::{self, v1};

use self::exposed::is_exposed;
use self::hello::Greeting;
pub(crate) use self::hello::may_join;
use self::older::with_older_filters;
use self::report::{health, words};
use self::scope::{Places, Scope};
use crate::hub::{Holder, Hub, KeptOut, Published};
use crate::metrics::Throttled;
use crate::rate::Rates;
use crate::registry::{Capabilities, Progress, Seat};
use crate::told::{Shared, Told, ToldSet};
use crate::view::{Answer, Held, Version, View};

/// Messages that may wait for a proxy that reads slowly; one delta is in flight at a time, removals may overtake it.
pub const QUEUE: usize = 16;

/// First and longest wait before what a proxy refused is tried again: the reason may have gone.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Objects that one answer says are skipped.
const MAX_SKIPPED: usize = 4_096;

/// Objects that a proxy may not have, by version and why.
type Withheld = BTreeMap<Key, (Version, String)>;

pub type Outgoing = mpsc::Sender<Result<v1::ControlMessage, Status>>;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The proxy said goodbye: its endpoints go at once.
    Drained,
    /// The stream broke, or the proxy broke its rules: its endpoints are suspect.
    Lost,
    /// A newer stream of the same proxy took over.
    Replaced,
    /// This process ends: nothing is taken away.
    Shutdown,
}

struct Session {
    hub: Arc<Hub>,
    seat: Seat,
    outgoing: Outgoing,
    view: View,
    served: Vec<ObjectName>,
    capabilities: Capabilities,
    /// What it asked for, where it holds only what it uses.
    scope: Option<Scope>,
    /// What the newest world that was looked at says, and what this proxy may be sent of it.
    target: Arc<ToldSet>,
    fitted: Arc<ToldSet>,
    /// The settings of the mesh without which a proxy that holds only what it uses is told everything.
    whole_for: Option<Version>,
    looked_at: Option<Arc<Shared>>,
    /// What was said by the newest world that it heard of.
    noticed: Option<Arc<Shared>>,
    /// First and last change that nobody was told of yet.
    gathering: Option<Gathering>,
    sent_at: Instant,
    knows_nothing: bool,
    /// The store that the proxy follows, and how far.
    follows: Option<(Lineage, Revision)>,
    /// Why it is told nothing: it would be led backwards.
    left_alone: Option<String>,
    /// When what is held back is tried again, and how long the wait before it was.
    retry: Option<(Instant, Duration)>,
    messages: Rates<()>,
    /// Questions that are answered at once, and that there were more of late.
    questions: Rates<()>,
    asks_too_often: bool,
}

#[derive(Clone, Copy)]
struct Gathering {
    first: Instant,
    last: Instant,
}

/// Serves one control stream until its end.
pub async fn serve(
    hub: Arc<Hub>,
    holder: Holder,
    peer: IpAddr,
    mut incoming: Streaming<v1::ProxyMessage>,
    outgoing: Outgoing,
    stop: CancellationToken,
) {
    let greeted = Greeting::receive(&hub, holder, peer, &mut incoming).await;
    let greeting = match greeted {
        Ok(greeting) => greeting,
        Err(status) => {
            tracing::info!(reason = %status.message(), "control stream refused");
            let _ = outgoing.send(Err(status)).await;
            return;
        }
    };
    let seat = greeting.seat.clone();
    tracing::info!(proxy = %seat.key, workloads = greeting.served.len(), "proxy connected");
    let mut session = Session::new(hub.clone(), greeting, outgoing);
    let end = session.run(&mut incoming, &stop).await;
    tracing::info!(proxy = %seat.key, ?end, "proxy disconnected");
    drop(session);
    match end {
        End::Drained => {
            if hub.registry().leave(&seat, true) {
                hub.release(&seat.key, "proxy drained").await;
            }
        }
        End::Replaced => {}
        // Its endpoints are suspect: whether they leave is for the lease and the peers to say.
        End::Lost | End::Shutdown => {
            hub.registry().leave(&seat, false);
        }
    }
}

impl Session {
    fn new(hub: Arc<Hub>, greeting: Greeting, outgoing: Outgoing) -> Self {
        let limits = &hub.config().limits;
        let messages = Rates::per_minute(limits.max_messages_per_minute);
        let questions = Rates::per_minute(limits.max_questions_per_minute);
        let scope = greeting.capabilities.contains(wire::SCOPE).then(|| {
            let of_account = hub.absent_asks(&greeting.seat.key.identity);
            let places = Places { most: limits.max_absent_asks_per_proxy, of_account };
            let (scope, left) = Scope::new(greeting.asked, &hub.published().told, places);
            note_unanswered(&hub, &greeting.seat, left);
            scope
        });
        Self {
            messages,
            questions,
            asks_too_often: false,
            hub,
            seat: greeting.seat,
            outgoing,
            knows_nothing: greeting.known.is_empty(),
            view: View::new(greeting.known),
            served: greeting.served,
            scope,
            capabilities: greeting.capabilities,
            follows: greeting.held,
            left_alone: None,
            target: Arc::default(),
            fitted: Arc::default(),
            whole_for: None,
            looked_at: None,
            noticed: None,
            gathering: None,
            sent_at: Instant::now(),
            retry: None,
        }
    }

    async fn run(&mut self, incoming: &mut Streaming<v1::ProxyMessage>, stop: &CancellationToken) -> End {
        let mut published = self.hub.subscribe();
        let mut last_removal = published.borrow_and_update().last_removal;
        let (mut kept_out, mut lead) = (self.hub.watch_kept_out(), self.hub.watch_lead());
        self.note_concern(&self.hub.published());
        if !self.send_denials(&mut kept_out).await {
            return End::Lost;
        }
        if !self.send_delta().await || !self.confirm().await {
            return End::Lost;
        }
        loop {
            let due = self.gathering.filter(|_| !self.view.is_in_flight()).map(|g| self.due(g));
            let ahead = self.ahead_due();
            tokio::select! {
                message = incoming.next() => match message {
                    Some(Ok(message)) => if let Some(end) = self.handle_message(message).await { return end },
                    Some(Err(_)) | None => return End::Lost,
                },
                changed = published.changed() => {
                    if changed.is_err() { return End::Shutdown }
                    let world = published.borrow_and_update().clone();
                    let is_removal = world.last_removal > last_removal;
                    last_removal = world.last_removal;
                    if self.note_concern(&world) {
                        self.note_change();
                        if is_removal && !self.send_removals(&world).await { return End::Lost }
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    if !self.send_delta().await { return End::Lost }
                }
                () = sleep_until(ahead.unwrap_or_else(Instant::now).into()), if ahead.is_some() => {
                    if !self.send_ahead().await { return End::Lost }
                }
                () = sleep_until(self.retry.map_or_else(Instant::now, |(at, _)| at).into()), if self.retry.is_some() => {
                    if !self.try_again().await { return End::Lost }
                }
                () = kept_out.changed() => if let Some(end) = self.handle_kept_out(&mut kept_out).await { return end },
                _ = lead.changed() => {
                    self.view.begin_anew();
                    let is_open = self.send_denials(&mut kept_out).await && self.send_delta().await;
                    if !is_open || !self.confirm().await { return End::Lost }
                }
                () = self.seat.replaced.cancelled() => {
                    match self.hub.registry().is_connected(&self.seat.key) {
                        true => self.notify_end("replaced by a newer stream of this proxy", false).await,
                        false => {
                            let ban = self.hub.banned(&self.seat.key.identity);
                            let why = ban.as_deref().or(self.seat.why()).unwrap_or("evicted by an operator");
                            self.notify_end(why, true).await;
                        }
                    }
                    return End::Replaced;
                }
                () = stop.cancelled() => {
                    self.notify_end("the control plane shuts down", true).await;
                    return End::Shutdown;
                }
            }
        }
    }

    /// Tells who is kept out, ahead of everything else. One that is kept out itself is told so, and nothing more.
    async fn handle_kept_out(&mut self, kept_out: &mut KeptOut) -> Option<End> {
        if let Some(reason) = self.hub.banned(&self.seat.key.identity) {
            self.notify_end(&reason, true).await;
            return Some(End::Drained);
        }
        if self.send_denials(kept_out).await { None } else { Some(End::Lost) }
    }

    /// Tells who is kept out. The list of a store that does not lead is nobody's: it may have lost those that another had.
    async fn send_denials(&self, kept_out: &mut KeptOut) -> bool {
        let denials = kept_out.message();
        self.hub.may_lead(self.follows.as_ref()).is_err() || self.send(denials).await
    }

    /// Decides whether the proxy may be told anything of the world. If not, it is told once which store speaks, so that
    /// it can report that itself.
    async fn may_lead(&mut self) -> Result<(), bool> {
        let Err(reason) = self.hub.may_lead(self.follows.as_ref()) else {
            self.left_alone = None;
            return Ok(());
        };
        self.gathering = None;
        let is_news = self.left_alone.as_ref() != Some(&reason);
        self.left_alone = Some(reason.clone());
        self.record();
        if !is_news {
            return Err(true);
        }
        tracing::warn!(proxy = %self.seat.key, reason, "the proxy is left alone");
        let (lead, revision) = (self.hub.lead(), self.hub.published().revision);
        let follows = self.follows.as_ref().map(|(lineage, revision)| (lineage, *revision));
        if follow(follows, Some((&lead.lineage, revision))).is_ok() {
            // Only this side doubts: there is nothing that the proxy could find out.
            return Err(true);
        }
        Err(self.send_nothing(revision).await)
    }

    /// Quiet for long enough, or waited for long enough.
    fn due(&self, gathering: Gathering) -> Instant {
        let coalesce = self.hub.config().coalesce();
        (gathering.last + coalesce.quiet).min(gathering.first + coalesce.at_most)
    }

    fn note_change(&mut self) {
        let now = Instant::now();
        let first = self.gathering.map_or(now, |gathering| gathering.first);
        self.gathering = Some(Gathering { first, last: now });
        self.record();
    }

    /// Looks at the newest world and sends what differs, if the proxy is ready for it. False when the stream is closed.
    async fn send_delta(&mut self) -> bool {
        if let Err(is_open) = self.may_lead().await {
            return is_open;
        }
        let world = self.hub.published();
        self.look_at(&world);
        let changes = self.view.poll_delta(world.revision, self.fitted.as_ref());
        let is_certain = self.hub.knows_absences();
        let answers = self.scope.as_ref().map(|scope| scope.answers(&world.told, &self.view, is_certain));
        let answers = answers.unwrap_or_default();
        if !is_certain && self.retry.is_none() && self.scope.as_ref().is_some_and(Scope::has_questions) {
            self.retry = Some((Instant::now() + RETRY.0, RETRY.0));
        }
        let is_empty = changes.is_none();
        let empty = || (!answers.is_empty()).then_some(());
        let Some(plan) = changes.or_else(|| empty().and_then(|()| self.view.poll_empty(world.revision))) else {
            if !self.view.is_in_flight() {
                self.gathering = None;
            }
            self.record();
            return true;
        };
        let answered = answers.iter().map(Into::into).collect();
        self.scope.iter_mut().for_each(|scope| scope.sent(answers.clone(), is_empty));
        let envelope = |key| self.fitted.get(key).map(|told| told.envelope.clone());
        let upserts = plan.upserts.iter().filter_map(envelope).collect();
        let full = std::mem::take(&mut self.knows_nothing);
        let removals = plan.removals.iter().map(Into::into).collect();
        let delta = v1::Delta { revision: plan.revision.0, upserts, removals, full, answered, ..self.delta() };
        tracing::debug!(
            proxy = %self.seat.key, revision = delta.revision,
            upserts = delta.upserts.len(), removals = delta.removals.len(), "delta sent"
        );
        let waited = self.gathering.take().map(|gathering| gathering.first.elapsed()).unwrap_or_default();
        self.hub.metrics().pushed(waited);
        self.sent_at = Instant::now();
        self.record();
        self.send_one(delta).await
    }

    /// A proxy that has everything already is told so: until it hears, it does not trust what it kept.
    async fn confirm(&mut self) -> bool {
        if self.view.is_in_flight() || self.view.waits() || self.left_alone.is_some() {
            return true;
        }
        self.send_nothing(self.hub.published().revision).await
    }

    /// Tells which store speaks, and how far it is.
    async fn send_nothing(&self, revision: Revision) -> bool {
        self.send_one(v1::Delta { revision: revision.0, ..self.delta() }).await
    }

    fn look_at(&mut self, world: &Published) {
        let seen = self.looked_at.as_deref();
        let is_same = match &self.scope {
            Some(scope) => {
                let is_newest = seen.is_some_and(|seen| std::ptr::eq(seen, &*world.told)) && !scope.is_changed();
                is_newest || !scope.is_concerned(&world.told, seen, &self.served)
            }
            None => seen.is_some_and(|seen| std::ptr::eq(seen, &*world.told)),
        };
        // What is kept from a proxy follows from its answers, too.
        if is_same && self.whole_for.is_none() && !self.view.holds_back() && self.view.withheld().is_empty() {
            self.looked_at = Some(world.told.clone());
            return;
        }
        let told = match &mut self.scope {
            Some(scope) => {
                let told = scope.look_at(&world.told, &self.served);
                self.hub.registry().record_scope(&self.seat, scope.services().clone(), scope.subscriptions());
                told
            }
            None => world.told.of_proxy(&self.served),
        };
        self.looked_at = Some(world.told.clone());
        self.target = with_older_filters(told.into_iter().collect(), &world.world, &self.capabilities);
        let (mut fitted, mut withheld) = fitting(&self.target, &self.capabilities, &self.view);
        // A proxy learns from the mesh's settings what it has to ask for. One with older settings can't know, and is told
        // everything until there are others.
        let settings = self.target.get(&Key::Mesh).map(|told| told.version());
        let is_refused = self.view.held().get(&Key::Mesh).is_some_and(|held| held.version == settings);
        let has_older = withheld.contains_key(&Key::Mesh) || is_refused || self.whole_for == settings;
        self.whole_for = settings.filter(|_| self.scope.is_some() && has_older);
        if self.whole_for.is_some() {
            let told = world.told.of_proxy(&self.served).into_iter().collect();
            self.target = with_older_filters(told, &world.world, &self.capabilities);
            (fitted, withheld) = fitting(&self.target, &self.capabilities, &self.view);
        }
        self.fitted = fitted;
        self.view.withhold(world.revision, withheld);
    }

    /// Takes what the proxy asks for and answers it ahead of what is gathered, unless it asks too often.
    async fn handle_asks(&mut self, asks: v1::Asks) -> Option<End> {
        let scope = self.scope.as_mut()?;
        self.hub.metrics().asks.increment(asks.wanted.len() as u64);
        let left = scope.take((asks.wanted, asks.forgotten), &self.hub.published().told);
        note_unanswered(&self.hub, &self.seat, left);
        self.asks_too_often = self.questions.take(&(), Instant::now()).is_err();
        if self.asks_too_often {
            self.hub.metrics().throttled(Throttled::Asks);
            self.note_change();
            return None;
        }
        // With a delta under way the answer follows its own.
        if self.view.is_in_flight() || self.send_delta().await { None } else { Some(End::Lost) }
    }

    /// True where an answer is to the delta in flight, and not to an earlier one of the same revision.
    fn is_of_this_view(&self, view: u64) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.sent_number() == view)
    }

    async fn handle_message(&mut self, message: v1::ProxyMessage) -> Option<End> {
        use v1::proxy_message::Message;
        if self.messages.take(&(), Instant::now()).is_err() {
            self.hub.metrics().throttled(Throttled::Messages);
            tracing::warn!(proxy = %self.seat.key, "it sends more messages than it may");
            let _ = self.outgoing.send(Err(Status::resource_exhausted("too many messages"))).await;
            return Some(End::Lost);
        }
        self.hub.registry().hear(&self.seat);
        match message.message {
            Some(Message::Ack(ack)) if !self.is_of_this_view(ack.view) => None,
            Some(Message::Nack(nack)) if !self.is_of_this_view(nack.view) => None,
            Some(Message::Asks(asks)) => self.handle_asks(asks).await,
            Some(Message::Ack(ack)) => self.handle_ack(ack).await,
            Some(Message::Settled(settled)) => self.handle_settled(settled).await,
            Some(Message::Nack(nack)) => {
                let key = nack.key.and_then(|key| Key::try_from(key).ok());
                let reason = printable(&nack.reason);
                tracing::warn!(
                    proxy = %self.seat.key, revision = nack.revision, %reason,
                    object = key.as_ref().map(ToString::to_string), "proxy refused a delta"
                );
                if let Some((key, closed)) = key.clone().and_then(|key| Some((key.clone(), self.closed_form(&key)?))) {
                    self.view.note_closed(key, closed);
                }
                let answer = self.view.handle_nack(Revision(nack.revision), key.as_ref(), &reason);
                self.answered(answer, false).await
            }
            Some(Message::Report(report)) => {
                self.hub.registry().record_words(&self.seat, words(&report));
                self.hub.registry().record_health(&self.seat, health(report));
                None
            }
            Some(Message::Draining(_)) => Some(End::Drained),
            Some(Message::Hello(_)) => {
                let _ = self.outgoing.send(Err(Status::failed_precondition("Hello comes once"))).await;
                Some(End::Lost)
            }
            // A message of a newer proxy: it is told our version at connect and can do without.
            None => None,
        }
    }

    /// The version of the closed form of a route or an ExternalService.
    fn closed_form(&self, key: &Key) -> Option<Version> {
        let has_one = |object: &Object| matches!(object, Object::Route(_) | Object::External(_));
        let told = self.target.get(key).filter(|told| has_one(&told.object))?;
        Some(wire::encode(&told.object.closed()?).version)
    }

    /// Sends what was held back once more; the waits grow while it is refused.
    async fn try_again(&mut self) -> bool {
        if self.view.is_in_flight() {
            self.retry = Some((Instant::now() + RETRY.0, RETRY.0));
            return true;
        }
        self.retry = self.retry.map(|(_, waited)| {
            let next = (waited * 2).min(RETRY.1);
            (Instant::now() + next, next)
        });
        self.view.release_held();
        // The settings of the mesh as well.
        (self.whole_for, self.looked_at) = (None, None);
        self.scope.iter_mut().for_each(Scope::resume);
        self.send_delta().await
    }

    async fn answered(&mut self, answer: Answer, accepted: bool) -> Option<End> {
        if answer == Answer::Stray {
            tracing::debug!(proxy = %self.seat.key, "answer to nothing in flight");
            return None;
        }
        self.hub.metrics().answered(accepted, self.sent_at.elapsed());
        self.scope.iter_mut().for_each(|scope| scope.handle_answer(accepted));
        let is_paused = self.scope.as_ref().is_some_and(Scope::is_paused);
        if !self.view.holds_back() && !is_paused && self.hub.knows_absences() {
            self.retry = None;
        } else if self.retry.is_none() {
            self.retry = Some((Instant::now() + RETRY.0, RETRY.0));
        }
        // Changes that came meanwhile wait for quiet; without any, objects held back or cut are sent again now.
        let is_asked = !self.asks_too_often && self.scope.as_ref().is_some_and(Scope::has_questions);
        if self.gathering.is_some() && !is_asked {
            self.record();
            return None;
        }
        if self.send_delta().await { None } else { Some(End::Lost) }
    }

    fn record(&self) {
        let refused = self.view.held().iter().chain(self.view.withheld());
        // A proxy that can't go on without these objects lacks them at each later revision too.
        let newest = self.view.waits().then(|| self.hub.published().revision);
        let told = |held: &Held| newest.unwrap_or(held.revision);
        let mut refused: Vec<_> = refused.map(|(key, held)| (told(held), format!("{key}: {}", held.reason))).collect();
        refused.extend(self.left_alone.iter().map(|reason| (self.hub.published().revision, reason.clone())));
        let progress = Progress {
            synced: self.view.synced(),
            refused,
            in_flight: self.view.is_in_flight(),
            pending: self.pending(),
            is_left_alone: self.left_alone.is_some(),
        };
        self.hub.registry().record_progress(&self.seat, progress, self.hub.published().revision);
    }

    async fn notify_end(&self, reason: &str, reconnect: bool) {
        let notice = v1::Notice { reason: reason.to_owned(), reconnect };
        let message = v1::ControlMessage { message: Some(v1::control_message::Message::Notice(notice)) };
        let _ = tokio::time::timeout(Duration::from_millis(200), self.outgoing.send(Ok(message))).await;
    }

    /// An empty delta of the store that speaks.
    fn delta(&self) -> v1::Delta {
        let view = self.scope.as_ref().map_or(0, Scope::number);
        let lineage = Some(v1::Lineage::from(&self.hub.lead().lineage));
        let svid_ttl_seconds = self.hub.config().svid_ttl_seconds;
        v1::Delta { lineage, view, svid_ttl_seconds, stages: true, ..v1::Delta::default() }
    }

    async fn send_one(&self, delta: v1::Delta) -> bool {
        let messages = if self.capabilities.contains(wire::PARTS) { wire::split(delta) } else { vec![delta] };
        for delta in messages {
            if !self.send(v1::ControlMessage { message: Some(v1::control_message::Message::Delta(delta)) }).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, message: v1::ControlMessage) -> bool {
        self.outgoing.send(Ok(message)).await.is_ok()
    }
}

/// So much that a proxy asks for stays unanswered.
fn note_unanswered(hub: &Hub, seat: &Seat, left: usize) {
    if left > 0 {
        hub.metrics().throttled(Throttled::Asks);
        tracing::warn!(proxy = %seat.key, left, "it asks for more names and addresses that are not there than it may");
    }
}

/// The objects as a proxy with these capabilities may have them, and those that it may not have, by version and why. What
/// depends on one of the latter is closed: a service's routes where one of them is withheld or can't be read (where that is one of
/// bytes, the service; of an ExternalService, that), and the workloads of a filter that the proxy has no version of, on
/// the side that the filter judges.
fn fitting(target: &Arc<ToldSet>, has: &Capabilities, view: &View) -> (Arc<ToldSet>, Withheld) {
    let target = &if has.contains(wire::FILTER_STATEMENT) { target.clone() } else { target.without_statements() };
    let target = &if has.contains(wire::FILTER_SHIPPED) { target.clone() } else { target.without_origins() };
    let (mut withheld, mut plain) = (Withheld::new(), BTreeMap::new());
    for told in target.iter() {
        let lacking = lacks(&told.envelope, has);
        let form = lacking.as_ref().and_then(|_| without_preferences(&told.object, has));
        let version = form.as_ref().map_or(told.version(), |form| wire::encode(form).version);
        let reason = match (view.unread(&told.key, version), lacking, form) {
            (Some(reason), ..) => format!("closed: {reason}"),
            (None, Some(lacks), Some(form)) => {
                plain.insert(&told.key, form);
                format!("as by default: its settings require {lacks}, which this proxy can't do until it is updated")
            }
            (None, Some(lacks), None) => format!("withheld: it requires {lacks}, which this proxy can't do"),
            (None, None, _) => continue,
        };
        withheld.insert(told.key.clone(), (told.version(), reason));
    }
    if withheld.is_empty() {
        return (target.clone(), withheld);
    }
    let mut fitted = ToldSet::clone(target);
    withheld.keys().for_each(|key| fitted.remove(key));
    let missing = withheld.keys().filter(|key| !plain.contains_key(key)).filter_map(|key| target.get(key));
    let missing: Vec<&Object> = missing.map(|told| &told.object).collect();
    for Told { key, object, .. } in target.iter().map(Arc::as_ref) {
        let is_missing = withheld.contains_key(key) && !plain.contains_key(key);
        let is_closed = is_missing || is_exposed(object, &missing, view);
        let closed = match is_closed {
            // Who does not know even that form goes without.
            true => object.closed().filter(|closed| lacks(&wire::encode(closed), has).is_none()),
            false => plain.get(key).cloned(),
        };
        if let Some(form) = silenced(closed.as_ref().unwrap_or(object), target, &withheld, (has, view)).or(closed) {
            fitted.put(Arc::new(Told::of(form)));
        }
    }
    (Arc::new(fitted), withheld)
}

/// The form of an object without those of its preferences that the proxy can't do, where they are all that it can't do.
fn without_preferences(object: &Object, has: &Capabilities) -> Option<Object> {
    let mut forms = std::iter::successors(object.without_preferences(), Object::without_preferences);
    forms.find(|plain| lacks(&wire::encode(plain), has).is_none())
}

/// The form of an object in which the apps of those workloads send nothing whose outbound filters are withheld: what such a
/// filter would have refused must not pass. A proxy that can't keep one app from sending reaches nobody.
fn silenced(
    object: &Object,
    target: &ToldSet,
    withheld: &Withheld,
    (has, view): (&Capabilities, &View),
) -> Option<Object> {
    let mut restricting = withheld.iter().filter_map(|(key, (_, why))| {
        let Object::Filter(filter) = &target.get(key)?.object else { return None };
        (restricts_calls(filter) && view.is_without(key)).then_some((key, filter, why))
    });
    let keeps_silent = has.contains(wire::OUTBOUND_CLOSED);
    match object {
        Object::Workload(workload) if keeps_silent => {
            let (key, _, why) = restricting
                .find(|(_, filter, _)| filter.workloads.is_empty() || filter.workloads.contains(&workload.name))?;
            let outbound_closed = Some(format!("{key}: {why}"));
            Some(Object::Workload(ServedWorkload { outbound_closed, ..workload.clone() }))
        }
        Object::Service(_) if !keeps_silent => restricting.next().and_then(|_| object.closed()),
        Object::Mesh(mesh) if !keeps_silent => {
            restricting.next()?;
            Some(Object::Mesh(MeshSettings { egress: Egress::RegistryOnly, ..mesh.clone() }))
        }
        Object::Mesh(_)
        | Object::Workload(_)
        | Object::Service(_)
        | Object::Route(_)
        | Object::External(_)
        | Object::Filter(_) => None,
    }
}

/// Without this filter its workloads' apps would send more than they may.
fn restricts_calls(filter: &FilterAttachment) -> bool {
    let enforced = filter.mode == FilterMode::Enforce && filter.on_failure == OnFailure::Deny;
    filter.direction == Direction::Outbound && enforced
}

/// Capabilities that an object requires and the proxy lacks.
fn lacks(envelope: &v1::Object, has: &Capabilities) -> Option<String> {
    let lacking = envelope.requires.iter().filter(|capability| !has.contains(*capability));
    let lacking: Vec<_> = lacking.map(String::as_str).collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}
