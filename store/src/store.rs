//! The store itself: the speculative head on the leader, the committed snapshot for everyone.

use std::{collections::VecDeque, fmt, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use skep_proto::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    Change, Commit, Error, Image, MAX_PROPOSAL_BYTES, Route, Snapshot, Subscription, Tx, image,
    spare::Spare,
    table::Tables,
    watch::{self, Watchers},
    wire,
};

/// Transactions that may wait for their commit at a time. It bounds memory; what comes on top waits
/// for a free place before it is built.
const MAX_PENDING: usize = 4096;

/// A transaction on its way into the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Serialised `InternalRaftRequest`.
    pub data: Bytes,
}

/// Where a leader's store hands its proposals. Called with the store locked, in log order: it must
/// neither block nor call back, and must keep the order.
pub trait Propose: Send + Sync {
    /// Takes the proposal, or fails with [`Error::Busy`] or [`Error::LostLeadership`].
    fn propose(&self, proposal: Proposal) -> Result<(), Error>;
}

/// A committed entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its index in the log.
    pub index: u64,
    /// Serialised `InternalRaftRequest`; empty for entries that carry none.
    pub data: Bytes,
}

/// The store of one manager. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    published: ArcSwap<Snapshot>,
    /// Locked while entries are applied, before all else.
    spare: Mutex<Spare>,
    /// `Some` while this manager leads.
    leading: Mutex<Option<Leading>>,
    watchers: Arc<Mutex<Watchers>>,
    places: Arc<Semaphore>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

/// What only a leader has.
struct Leading {
    /// The committed tables with all pending transactions on top. Nobody else ever holds them, so
    /// each transaction changes them in place.
    head: Tables,
    /// Version that the next transaction's objects get. It starts above the index of the last entry
    /// of earlier leaders and grows by one a transaction, so it never passes the log index of the
    /// entry that carries it: no two leaders ever give the same one.
    next_version: u64,
    next_request: u64,
    pending: VecDeque<Pending>,
    proposals: Arc<dyn Propose>,
}

struct Pending {
    request: u64,
    changes: Vec<Change>,
    /// The writer, and others whose answer depends on this transaction.
    waiting: Vec<Waiter>,
}

/// Who is told when a transaction is committed or lost.
struct Waiter {
    done: oneshot::Sender<Result<(), Error>>,
    /// One of [`MAX_PENDING`]. It stays taken when the writer does not wait any more.
    _place: OwnedSemaphorePermit,
}

/// A transaction that is being built. Unless it succeeds, the head becomes what it was before, also
/// when the closure panics.
struct Attempt<'a> {
    leading: &'a mut Leading,
    /// Has the head meanwhile.
    tx: Tx,
}

impl<'a> Attempt<'a> {
    fn new(leading: &'a mut Leading, now: Timestamp) -> Self {
        let head = std::mem::take(&mut leading.head);
        let tx = Tx::new(head, leading.next_version, now);
        Self { leading, tx }
    }

    /// The transaction is on its way.
    fn succeeded(mut self, waiter: Waiter) {
        let changes = self.tx.keep();
        let leading = &mut *self.leading;
        leading.pending.push_back(Pending {
            request: leading.next_request,
            changes,
            waiting: vec![waiter],
        });
        leading.next_request = next_request(leading.next_request);
        leading.next_version += 1;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.leading.head = self.tx.take_back();
    }
}

impl Leading {
    /// Builds the head anew, on nodes that it shares with the `committed` tables.
    fn share(&mut self, committed: &Tables) {
        self.head = committed.clone();
        for change in self.pending.iter().flat_map(|pending| &pending.changes) {
            change.make(&mut self.head);
        }
    }
}

type Outcome = oneshot::Receiver<Result<(), Error>>;

impl Waiter {
    fn new(place: OwnedSemaphorePermit) -> (Self, Outcome) {
        let (done, outcome) = oneshot::channel();
        (
            Self {
                done,
                _place: place,
            },
            outcome,
        )
    }

    fn tell(self, outcome: Result<(), Error>) {
        // The writer may have gone away; nobody else waits for the answer.
        let _ = self.done.send(outcome);
    }
}

impl Store {
    /// An empty store of a manager that does not lead. `clock` gives the times that writes carry.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(Inner {
                published: ArcSwap::default(),
                spare: Mutex::default(),
                leading: Mutex::new(None),
                watchers: Arc::default(),
                places: Arc::new(Semaphore::new(MAX_PENDING)),
                clock: Box::new(clock),
            }),
        }
    }

    /// An immutable view of what is committed. O(1), takes no lock.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.inner.published.load())
    }

    /// The present snapshot, and a subscription to all that is committed after it and concerns one
    /// of `routes`.
    pub fn watch(&self, routes: impl IntoIterator<Item = Route>) -> (Snapshot, Subscription) {
        watch::subscribe(&self.inner.watchers, routes)
    }

    /// Runs a transaction and waits until it is committed.
    ///
    /// The closure sees all transactions before it, committed or not, and the next one starts
    /// without waiting for this one. Whatever it returns, also an error, is returned only when
    /// everything that it has seen is committed: nobody ever learns of something that never
    /// happened. If leadership is lost first, the answer is [`Error::LostLeadership`].
    pub async fn update<R, E: From<Error>>(
        &self,
        transaction: impl FnOnce(&mut Tx) -> Result<R, E>,
    ) -> Result<R, E> {
        let place = self.inner.places.clone().acquire_owned().await;
        let place = place.map_err(|_| Error::LostLeadership)?;
        let (result, committed) = self.begin(place, transaction)?;
        if let Some(committed) = committed {
            committed.await.unwrap_or(Err(Error::LostLeadership))?;
        }
        result
    }

    /// Builds and proposes a transaction. The receiver is told when all it depends on is committed.
    fn begin<R, E: From<Error>>(
        &self,
        place: OwnedSemaphorePermit,
        transaction: impl FnOnce(&mut Tx) -> Result<R, E>,
    ) -> Result<(Result<R, E>, Option<Outcome>), E> {
        let mut locked = self.inner.leading.lock();
        let leading = locked.as_mut().ok_or(Error::LostLeadership)?;
        let mut attempt = Attempt::new(leading, (self.inner.clock)());
        let mut result = transaction(&mut attempt.tx);
        let request = attempt.leading.next_request;
        let data = match &result {
            Ok(_) if !attempt.tx.changes().is_empty() => {
                wire::encode(request, attempt.tx.changes())
            }
            _ => Bytes::new(),
        };
        if data.len() > MAX_PROPOSAL_BYTES {
            // May be so because of what it has seen.
            result = Err(Error::TooLarge.into());
        }
        if result.is_err() || data.is_empty() {
            let committed = attempt.leading.pending.back_mut().map(|last| {
                let (waiter, committed) = Waiter::new(place);
                last.waiting.push(waiter);
                committed
            });
            return Ok((result, committed));
        }
        attempt.leading.proposals.propose(Proposal { data })?;
        let (waiter, committed) = Waiter::new(place);
        attempt.succeeded(waiter);
        Ok((result, Some(committed)))
    }

    /// This manager leads from now on: everything in the log of earlier leaders has been applied.
    /// `first_request` is any number that no other leader uses for its requests (random).
    pub fn lead(&self, first_request: u64, proposals: Arc<dyn Propose>) {
        let published = self.snapshot();
        *self.inner.leading.lock() = Some(Leading {
            head: Tables::clone(published.tables()),
            next_version: published.index() + 1,
            next_request: first_request.max(1),
            pending: VecDeque::new(),
            proposals,
        });
    }

    /// This manager does not lead any more. All waiting transactions fail, each once; they may
    /// still come back as committed entries.
    pub fn follow(&self) {
        fail_pending(&mut self.inner.leading.lock());
    }

    /// Applies committed entries in log order and publishes them together.
    ///
    /// Fails with [`Error::Corrupt`] if one does not decode, and with [`Error::Newer`] if a later
    /// version has written it; nothing of the batch is published then, and this manager must stop.
    pub fn apply(&self, entries: &[Entry]) -> Result<(), Error> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        let mut spare = self.inner.spare.lock();
        let published = self.inner.published.load().tables().clone();
        let share = spare.is_due();
        let mut tables = spare.take(&published);
        let mut changes = Vec::new();
        let mut ends = Vec::new();
        let mut waiting = Vec::new();
        // Held until all is published: whoever begins a transaction and finds nothing pending must
        // find in the snapshot what is not pending any more.
        let mut leading = self.inner.leading.lock();
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            let tables = Arc::make_mut(&mut tables);
            if let Some(own) = own(&mut leading, &entry.data) {
                own.changes.iter().for_each(|change| change.make(tables));
                changes.extend(own.changes);
                waiting.extend(own.waiting);
            } else {
                // An entry of someone else: what is pending here was built on something else and
                // will not be committed.
                fail_pending(&mut leading);
                changes.extend(wire::replay(entry.index, &entry.data, tables)?);
            }
            if changes.len() > ends.last().map_or(0, |&(_, end)| end) {
                ends.push((entry.index, changes.len()));
            }
        }
        if share && let Some(leading) = &mut *leading {
            leading.share(&tables);
        }
        spare.put(published, &changes);
        let snapshot = Snapshot::new(last.index, tables);
        self.publish(&mut self.inner.watchers.lock(), snapshot, changes, ends);
        drop(leading);
        for waiter in waiting {
            waiter.tell(Ok(()));
        }
        Ok(())
    }

    /// Replaces everything by a snapshot of the log up to `index`. Watchers get only what differs.
    pub fn restore(&self, index: u64, image: impl Into<Image>) {
        let mut spare = self.inner.spare.lock();
        *spare = Spare::default();
        self.follow();
        let snapshot = Snapshot::new(index, image.into().0);
        let mut watchers = self.inner.watchers.lock();
        let changes = if watchers.is_empty() {
            Vec::new()
        } else {
            image::difference(self.inner.published.load().tables(), snapshot.tables())
        };
        let ends = vec![(index, changes.len())];
        self.publish(&mut watchers, snapshot, changes, ends);
    }

    fn publish(
        &self,
        watchers: &mut Watchers,
        snapshot: Snapshot,
        changes: Vec<Change>,
        ends: Vec<(u64, usize)>,
    ) {
        self.inner.published.store(Arc::new(snapshot.clone()));
        if changes.is_empty() {
            watchers.advance(snapshot);
        } else {
            watchers.publish(Commit {
                snapshot,
                changes,
                ends,
            });
        }
    }
}

/// The oldest pending transaction, if the entry carries it.
fn own(leading: &mut Option<Leading>, data: &[u8]) -> Option<Pending> {
    let pending = &mut leading.as_mut()?.pending;
    if pending.front()?.request == wire::request_id(data) {
        pending.pop_front()
    } else {
        None
    }
}

/// Ends leadership and tells everyone who waits.
fn fail_pending(leading: &mut Option<Leading>) {
    for pending in leading
        .take()
        .into_iter()
        .flat_map(|leading| leading.pending)
    {
        for waiter in pending.waiting {
            waiter.tell(Err(Error::LostLeadership));
        }
    }
}

/// Request IDs are never 0: that is what an entry without one reads as.
fn next_request(request: u64) -> u64 {
    request.wrapping_add(1).max(1)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("index", &self.snapshot().index())
            .finish_non_exhaustive()
    }
}
