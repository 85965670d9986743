//! Changes that wait at the same time are one commit. Each is computed on what those before it made; one that is refused, or
//! panics, leaves nothing and takes no other with it. Invariant: nobody hears that a change was made before it is durable, with
//! everything that it was computed on.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, oneshot};
use weft_policy::bundle::Revision;

use super::{Draft, Hub, Published, StoreError, apart, to_the_end};
use crate::store::{Store, Table, Version, Write};
use crate::token::{TokenHash, TokenRecord};

/// Changes of one commit.
const MOST_CHANGES: usize = 100;
/// Bytes that the changes of one commit write, where they are several.
const MOST_BYTES: usize = 1 << 20;
/// Records that they write in a store of several processes, which takes so many with what belongs to them in one step.
const MOST_SHARED: usize = 64;

/// So often changes are computed at the most, where others commit first each time: of two that write as fast as they can, one
/// may lose most turns for seconds, and has lost 100 in a row.
const MOST_TRIES: usize = 500;

/// Changes of one commit are computed for about so long: what waits behind them, such as a ban, waits no longer. No machine
/// is slow enough for the time of tests.
const LONGEST: Duration = if cfg!(test) { Duration::MAX } else { Duration::from_millis(100) };

/// How a change waits for the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It shares its commit with others.
    Together,
    /// It shares its commit with no other.
    Alone,
    /// The same, and it is made before all others that wait.
    First,
}

/// Changes that wait for the writer.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    first: VecDeque<Box<dyn Job>>,
    others: VecDeque<Box<dyn Job>>,
}

impl Queues {
    fn of(&mut self, job: &dyn Job) -> &mut VecDeque<Box<dyn Job>> {
        if job.manner() == Manner::First { &mut self.first } else { &mut self.others }
    }
}

impl Waiting {
    fn push(&self, job: Box<dyn Job>) {
        self.lock().of(&*job).push_back(job);
    }

    fn take(&self) -> Vec<Box<dyn Job>> {
        let mut waiting = self.lock();
        let mut taken: Vec<_> = waiting.first.drain(..).collect();
        let first = waiting.others.len().min(MOST_CHANGES.saturating_sub(taken.len()));
        taken.extend(waiting.others.drain(..first));
        taken
    }

    /// They are the first again.
    fn put_back(&self, jobs: Vec<Box<dyn Job>>) {
        let mut waiting = self.lock();
        jobs.into_iter().rev().for_each(|job| waiting.of(&*job).push_front(job));
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.first.len() + waiting.others.len()
    }
}

/// A change and whoever waits for it.
trait Job: Send {
    /// Somebody still waits for it.
    fn is_wanted(&self) -> bool;

    fn manner(&self) -> Manner;

    /// Computes the change; false where it is refused.
    fn make(&mut self, draft: &mut Draft) -> bool;

    /// Tells what became of it.
    fn end(self: Box<Self>, landed: Result<(), StoreError>);
}

/// A value, a refusal, or a panic of whoever computed it.
type Made<T, E> = Result<Result<T, E>, Box<dyn Any + Send>>;

struct Change<F, T, E> {
    change: F,
    manner: Manner,
    made: Option<Made<T, E>>,
    /// There until it is told.
    done: Option<oneshot::Sender<Made<T, E>>>,
}

impl<F, T, E> Drop for Change<F, T, E> {
    /// Whoever waits for a change that is dropped by a panic, in its commit or in another's, hears of that.
    fn drop(&mut self) {
        if let Some(done) = self.done.take().filter(|_| std::thread::panicking()) {
            drop(done.send(Err(Box::new("the commit of this change panicked"))));
        }
    }
}

impl<F, T, E> Job for Change<F, T, E>
where
    F: FnMut(&mut Draft) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn is_wanted(&self) -> bool {
        self.done.as_ref().is_some_and(|done| !done.is_closed())
    }

    fn manner(&self) -> Manner {
        self.manner
    }

    fn make(&mut self, draft: &mut Draft) -> bool {
        // Its draft is thrown away with it.
        let made = catch_unwind(AssertUnwindSafe(|| (self.change)(draft)));
        let is_made = matches!(made, Ok(Ok(_)));
        self.made = Some(made);
        is_made
    }

    fn end(mut self: Box<Self>, landed: Result<(), StoreError>) {
        let told = match (self.made.take(), landed) {
            (Some(made), Ok(())) => made,
            (Some(Err(panic)), Err(_)) => Err(panic),
            // A refusal is as good as what it was computed on.
            (Some(Ok(_)) | None, Err(error)) => Ok(Err(E::from(error))),
            (None, Ok(())) => return,
        };
        if let Some(done) = self.done.take() {
            drop(done.send(told));
        }
    }
}

impl Hub {
    /// Computes a change on a copy of the world, commits it and publishes it. Whatever `change` refuses leaves everything as
    /// it was. Where another control plane commits first, `change` is run again on what there is then; it may block and take
    /// long. Cancel safe: once committed it is published, whether or not the caller still waits.
    pub(crate) async fn change<T, E>(
        self: &Arc<Self>,
        change: impl FnMut(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.have_made(change, Manner::Alone).await
    }

    /// The same before all that wait: for what must not wait for others' work.
    pub(super) async fn change_first<T, E>(
        self: &Arc<Self>,
        change: impl FnMut(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.have_made(change, Manner::First).await
    }

    /// The same, in one commit with others that wait. Such a change reads by its draft, which knows what those before it
    /// write, and never from the store.
    pub(crate) async fn change_together<T, E>(
        self: &Arc<Self>,
        change: impl FnMut(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.have_made(change, Manner::Together).await
    }

    async fn have_made<T, E>(
        self: &Arc<Self>,
        change: impl FnMut(&mut Draft) -> Result<T, E> + Send + 'static,
        manner: Manner,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (done, mut ended) = oneshot::channel();
        self.waiting.push(Box::new(Change { change, manner, made: None, done: Some(done) }));
        // Whoever gets the writer makes what waits, his own or not.
        loop {
            let guard = tokio::select! {
                biased;
                ended = &mut ended => match ended {
                    Ok(Ok(result)) => return result,
                    Ok(Err(panic)) => resume_unwind(panic),
                    // The runtime is going down: nobody will see the answer either.
                    Err(_) => return std::future::pending().await,
                },
                guard = self.writer.clone().lock_owned() => guard,
            };
            let hub = self.clone();
            to_the_end(async move { hub.make_waiting(guard).await }).await;
        }
    }

    /// Makes the first of the changes that wait, as many as fit into one commit.
    async fn make_waiting(self: &Arc<Self>, _writing: OwnedMutexGuard<()>) {
        let mut jobs = self.waiting.take();
        let most = if self.store.is_shared() { MOST_SHARED } else { usize::MAX };
        let mut tries = 0;
        loop {
            let (published, version) = match self.newest().await {
                Ok(newest) => newest,
                Err(error) => return end(jobs, Err(error)),
            };
            let computed = apart(move || Batch::compute(jobs, &published, version, most, LONGEST)).await;
            let Batch { made, left, draft, count, .. } = computed;
            self.waiting.put_back(left);
            let landed = match draft.filter(|draft| !draft.writes.is_empty()) {
                Some(draft) => self.commit(draft, count).await,
                None => Ok(()),
            };
            tries += 1;
            match landed {
                Err(error) if error.is_conflict() && tries < MOST_TRIES => {
                    self.metrics.conflicts.increment(1);
                    if let Err(error) = self.catch_up().await {
                        return end(made, Err(error));
                    }
                    jobs = made;
                }
                landed => return end(made, landed),
            }
        }
    }

    /// What the next commit is made on.
    pub(super) async fn newest(&self) -> Result<(Arc<Published>, Version), StoreError> {
        self.may_be_written()?;
        self.read_again().await?;
        let _turn = self.turn.lock().await;
        Ok((self.published(), self.store.seen()))
    }

    /// Commits so many changes and publishes them.
    pub(super) async fn commit(&self, draft: Draft, count: u64) -> Result<(), StoreError> {
        let Draft { world, claims, unreadable, revision, version, writes, changed, removal, limits, .. } = draft;
        let is_told = writes.iter().any(|write| matches!(write, Write::Audit(_)));
        let roots = Self::roots_in(&writes);
        let started = Instant::now();
        let _turn = self.turn.lock().await;
        let commit =
            move |store: &Store| store.commit_behind(Some(version), changed.then_some(revision), writes).map(drop);
        let committed = self.blocking(commit).await;
        self.metrics.store_fault(self.store.fault().is_some());
        committed?;
        self.metrics.committed(started.elapsed(), count);
        if let Some(record) = roots {
            self.follow_roots(record).await;
        }
        if is_told {
            self.told.send_modify(|number| *number += 1);
        }
        if changed {
            let last_removal = if removal { revision } else { self.published().last_removal };
            let (world, claims) = (Arc::new(world), Arc::new(claims));
            let told = Arc::new(self.published().told.next(world.clone(), &self.authority.trust_bundle_pem()));
            let published = Published { revision, world, told, claims, unreadable, last_removal, limits };
            self.published.send_replace(Arc::new(published));
            self.measure();
        } else {
            // Claims and what is set aside concern no session: nobody is woken for them.
            self.published.send_if_modified(|published| {
                let Published { revision, world, told, last_removal, .. } = &**published;
                let (revision, last_removal) = (*revision, *last_removal);
                let (world, told, claims) = (world.clone(), told.clone(), Arc::new(claims));
                *published = Arc::new(Published { revision, world, told, claims, unreadable, last_removal, limits });
                false
            });
        }
        Ok(())
    }
}

fn end(jobs: Vec<Box<dyn Job>>, landed: Result<(), StoreError>) {
    let landed = landed.map_err(Arc::new);
    for job in jobs {
        job.end(landed.clone().map_err(StoreError::OfSeveral));
    }
}

/// Changes in the making that are to land together.
#[derive(Default)]
struct Batch {
    /// Those that were computed, in their order, and not told yet.
    made: Vec<Box<dyn Job>>,
    /// Those that wait for another commit.
    left: Vec<Box<dyn Job>>,
    /// What they come to; `None`: nothing was made.
    draft: Option<Draft>,
    writes: Arc<Vec<Write>>,
    bytes: usize,
    /// So many of them write something.
    count: u64,
}

impl Batch {
    /// Computes changes one after the other, at most `most` records of them, and begins none after `longest`.
    fn compute(
        jobs: Vec<Box<dyn Job>>,
        published: &Published,
        version: Version,
        most: usize,
        longest: Duration,
    ) -> Self {
        let mut batch = Self::default();
        let mut jobs = jobs.into_iter().filter(|job| job.is_wanted());
        let began = Instant::now();
        for mut job in jobs.by_ref() {
            let is_alone = job.manner() != Manner::Together;
            if !batch.made.is_empty() && (is_alone || began.elapsed() >= longest) {
                batch.left.push(job);
                break;
            }
            let mut draft = batch.next(published, version);
            if !job.make(&mut draft) {
                match &batch.draft {
                    Some(_) => batch.made.push(job),
                    // It was refused for what everybody sees.
                    None => job.end(Ok(())),
                }
            } else if batch.takes(draft, most) {
                batch.made.push(job);
            } else {
                batch.left.push(job);
                break;
            }
            if is_alone {
                break;
            }
        }
        batch.left.extend(jobs);
        if let Some(draft) = &mut batch.draft {
            draft.writes = Arc::unwrap_or_clone(std::mem::take(&mut batch.writes));
        }
        batch
    }

    /// A draft on what is made already.
    fn next(&self, published: &Published, version: Version) -> Draft {
        let Some(last) = &self.draft else { return Draft { version, ..Draft::of(published) } };
        Draft {
            world: last.world.clone(),
            unreadable: last.unreadable.clone(),
            claims: last.claims.clone(),
            revision: Revision(last.revision.0 + u64::from(last.changed)),
            version,
            writes: Vec::new(),
            earlier: self.writes.clone(),
            changed: false,
            removal: false,
            limits: last.limits,
        }
    }

    /// Takes a draft as what the changes come to, if there is room for what it writes.
    fn takes(&mut self, mut draft: Draft, most: usize) -> bool {
        draft.earlier = Arc::default();
        let writes = std::mem::take(&mut draft.writes);
        let bytes = writes.iter().map(size).sum::<usize>();
        let is_first = self.writes.is_empty() || writes.is_empty();
        if !is_first && (self.bytes + bytes > MOST_BYTES || self.writes.len() + writes.len() > most) {
            return false;
        }
        if let Some(last) = &self.draft {
            // Of the last one that changes the world.
            draft.revision = if draft.changed { draft.revision } else { last.revision };
            draft.changed |= last.changed;
            draft.removal |= last.removal;
        }
        self.count += u64::from(!writes.is_empty());
        self.bytes += bytes;
        Arc::make_mut(&mut self.writes).extend(writes);
        self.draft = Some(draft);
        true
    }
}

impl Draft {
    /// A token as the changes before this one leave it.
    pub(super) fn token(&self, store: &Store, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let written = self.earlier.iter().rev().find_map(|write| {
            if let Write::PutToken(of, record) = write {
                return (of == hash).then(|| Some(record.clone()));
            }
            matches!(write, Write::DeleteToken(of) if of == hash).then_some(None)
        });
        written.map_or_else(|| store.token(hash), Ok)
    }

    /// A record as the changes before this one leave it; none also where it can't be read.
    pub(super) fn row<T: serde::de::DeserializeOwned>(
        &self,
        store: &Store,
        table: Table,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let written = self.earlier.iter().rev().find_map(|write| {
            if let Write::PutRow(of, known, record) = write {
                return (*of == table && known == key).then_some(Some(record));
            }
            matches!(write, Write::DeleteRow(of, known) if *of == table && known == key).then_some(None)
        });
        match written {
            Some(record) => Ok(record.and_then(|record| crate::store::read_record(record).ok())),
            None => store.row(table, key),
        }
    }
}

/// About so many bytes are written.
fn size(write: &Write) -> usize {
    /// Keys and what has no text of its own.
    const SMALL: usize = 256;
    SMALL
        + match write {
            Write::Meta(_, text) | Write::PutRow(_, _, text) => text.len(),
            Write::PutObject { json, .. } | Write::PutFilterVersion { json, .. } => json.len(),
            Write::SetAside(unreadable) => unreadable.record.len(),
            Write::PutArtifact { bytes, .. } => bytes.len(),
            Write::Audit(entry) => entry.diff.len() + entry.detail.len() + entry.object.len(),
            Write::PutToken(..)
            | Write::DeleteToken(_)
            | Write::DeleteObject { .. }
            | Write::DeleteRow(..)
            | Write::DeleteArtifact { .. }
            | Write::Claim { .. } => 0,
        }
}
