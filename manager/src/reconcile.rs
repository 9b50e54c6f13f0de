//! The one shape of everything that decides, and the driver that runs it.
//!
//! A [`Reconciler`] is a planner: it is told what changed, gets a snapshot and the time, and returns
//! the writes it wants and when it next wants to be asked. It does no I/O, spawns nothing, holds no
//! lock and reads no clock. [`drive`] is the only place that subscribes, commits and waits.

use std::{sync::Arc, time::Duration};

use skep_store::{
    AnyObject, Change, Error, Event, Kind, MAX_CHANGES_PER_BATCH, Object, Route, Snapshot, Store,
    Subscription, Tx,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::time::{self, Time};

/// Part of what the leader decides.
pub trait Reconciler: Send {
    /// For logs and metrics.
    fn name(&self) -> &'static str;

    /// Tables whose changes can alter a decision of this reconciler.
    fn watches(&self) -> &'static [Kind];

    /// What should be written, given the world as it is.
    ///
    /// Called again only when the last plan's writes are committed or have failed. Every decision
    /// must follow from `view.snapshot` and `view.now` alone; `view.changed` may be used to look at
    /// less, never to know more.
    fn plan(&mut self, view: &View<'_>) -> Plan;
}

/// What a reconciler decides on.
#[derive(Debug)]
pub struct View<'a> {
    /// The committed world.
    pub snapshot: &'a Snapshot,
    /// What changed since the last call; `None` means anything may have.
    pub changed: Option<&'a [Change]>,
    /// The time.
    pub now: Time,
}

/// What a reconciler wants.
#[derive(Debug, Default)]
pub struct Plan {
    /// Writes, to be committed in this order, in one or more transactions.
    pub writes: Vec<Write>,
    /// When to ask again even if nothing changes.
    pub wake_at: Option<Time>,
}

/// One write, decided on the version that it carries.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new object.
    Create(AnyObject),
    /// A new state of an object; `meta.version` is the version it was decided on.
    Update(AnyObject),
    /// Removes the object, if it still has this version.
    Remove(AnyObject),
}

impl Plan {
    /// Adds the creation of an object.
    pub fn create(&mut self, object: impl Into<AnyObject>) {
        self.writes.push(Write::Create(object.into()));
    }

    /// Adds an update of an object that was copied from the snapshot and changed.
    pub fn update(&mut self, object: impl Into<AnyObject>) {
        self.writes.push(Write::Update(object.into()));
    }

    /// Adds the removal of an object of the snapshot.
    pub fn remove<T: Object>(&mut self, object: &Arc<T>) {
        self.writes.push(Write::Remove(object.clone().wrap()));
    }

    /// Asks to be woken no later than `at`.
    pub fn wake_at(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// How long to wait before asking again when writes failed for a reason other than a conflict.
const RETRY: Duration = Duration::from_millis(500);

/// Runs `reconciler` until leadership is lost (then [`Error::LostLeadership`] comes back) or the
/// future is dropped.
pub async fn drive(mut reconciler: impl Reconciler, store: Store) -> Error {
    let routes: Vec<_> = reconciler
        .watches()
        .iter()
        .map(|&kind| Route::Kind(kind))
        .collect();
    let (_, mut subscription) = store.watch(routes);
    let mut changed = None;
    let mut wake: Option<Instant> = None;
    loop {
        // At least as new as what the subscription has told; a change that is in here but not yet
        // told brings us back.
        let snapshot = store.snapshot();
        let now = time::now();
        let plan = reconciler.plan(&View {
            snapshot: &snapshot,
            changed: changed.as_deref(),
            now,
        });
        let asked = plan
            .wake_at
            .map(|at| Instant::now() + at.saturating_since(now));
        // Who looked at a part of the world only says nothing about when the rest is due.
        wake = match (wake.filter(|_| changed.is_some()), asked) {
            (Some(due), Some(asked)) => Some(due.min(asked)),
            (due, asked) => due.or(asked),
        };
        let mut failed = false;
        if !plan.writes.is_empty() {
            debug!(
                reconciler = reconciler.name(),
                writes = plan.writes.len(),
                "committing"
            );
            if let Err(err) = commit(&store, plan.writes).await {
                failed = true;
                wake = match err {
                    Error::LostLeadership => return Error::LostLeadership,
                    // Someone wrote first, and that change may have been told already.
                    Error::OutOfSequence | Error::NotFound | Error::Exists => Some(Instant::now()),
                    err => {
                        warn!(reconciler = reconciler.name(), %err, "writes failed");
                        Some(Instant::now() + RETRY)
                    }
                };
            }
        }
        changed = wait(&mut subscription, wake).await.filter(|_| !failed);
    }
}

/// Waits for a change or for `wake`. Returns what changed, `None` for "look at everything".
async fn wait(subscription: &mut Subscription, wake: Option<Instant>) -> Option<Vec<Change>> {
    let sleep = async {
        match wake {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        event = subscription.next() => match event {
            Event::Commits(commits) => {
                Some(commits.iter().flat_map(|commit| commit.changes.iter().cloned()).collect())
            }
            Event::Lagged(_) => None,
        },
        () = sleep => None,
    }
}

/// Commits writes in batches. A write whose object was changed or removed since fails alone: the
/// others of its batch go through, and the conflict is reported at the end.
async fn commit(store: &Store, writes: Vec<Write>) -> Result<(), Error> {
    let mut conflict = None;
    for batch in writes.chunks(MAX_CHANGES_PER_BATCH) {
        let lost = store
            .update(|tx| {
                let mut lost = None;
                for write in batch {
                    if let Err(err) = apply(tx, write) {
                        lost = Some(err);
                    }
                }
                Ok::<_, Error>(lost)
            })
            .await?;
        conflict = conflict.or(lost);
    }
    conflict.map_or(Ok(()), Err)
}

fn apply(tx: &mut Tx, write: &Write) -> Result<(), Error> {
    fn remove<T: Object>(tx: &mut Tx, object: &Arc<T>) -> Result<(), Error> {
        match tx.get::<T>(object.id()) {
            Some(stored) if stored.version() != object.version() => Err(Error::OutOfSequence),
            _ => tx.remove::<T>(object.id()).map(drop),
        }
    }
    macro_rules! each_kind {
        ($any:expr, $object:ident => $body:expr) => {
            match $any {
                AnyObject::Node($object) => $body,
                AnyObject::Service($object) => $body,
                AnyObject::Task($object) => $body,
                AnyObject::Network($object) => $body,
                AnyObject::Cluster($object) => $body,
                AnyObject::Secret($object) => $body,
                AnyObject::Config($object) => $body,
                AnyObject::Resource($object) => $body,
                AnyObject::Extension($object) => $body,
                AnyObject::Volume($object) => $body,
            }
        };
    }
    match write {
        Write::Create(any) => each_kind!(any, object => tx.create((**object).clone()).map(drop)),
        Write::Update(any) => each_kind!(any, object => tx.update((**object).clone()).map(drop)),
        Write::Remove(any) => each_kind!(any, object => remove(tx, object)),
    }
}
