//! The one shape of everything that decides, and the driver that runs it.
//!
//! A [`Reconciler`] is a planner: it is told what changed, gets a snapshot and the time, and returns
//! the writes it wants and when it next wants to be asked. It does no I/O, spawns nothing, holds no
//! lock and reads no clock. [`drive`] is the only place that subscribes, commits and waits.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use prost::Message as _;
use skep_store::{
    AnyObject, Change, Error, Event, Kind, Object, Route, Snapshot, Store, Subscription, Tx,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    batch::split,
    time::{self, Time},
};

/// Part of what the leader decides.
pub trait Reconciler: Send {
    /// For logs and metrics.
    fn name(&self) -> &'static str;

    /// Tables whose changes can alter a decision of this reconciler.
    fn watches(&self) -> &'static [Kind];

    /// What should be written, given the world as it is.
    ///
    /// Called again only when the last plan's writes are committed or have failed. Every decision
    /// must follow from `view.snapshot` and `view.now` alone; `view.trigger` may be used to look at
    /// less, never to know more.
    fn plan(&mut self, view: &View<'_>) -> Plan;
}

/// What a reconciler decides on.
#[derive(Debug)]
pub struct View<'a> {
    /// The committed world.
    pub snapshot: &'a Snapshot,
    /// Why it is asked again.
    pub trigger: &'a Trigger,
    /// The time.
    pub now: Time,
}

/// Why a reconciler is asked again.
#[derive(Debug)]
pub enum Trigger {
    /// Anything may have changed.
    Resync,
    /// This has changed since the last call, and nothing else.
    Changes(Vec<Change>),
    /// Nothing has changed: it is the time that the last plan named.
    Timer,
}

impl From<Event> for Trigger {
    fn from(event: Event) -> Self {
        match event {
            Event::Commits(commits) => {
                let changes = commits.iter().flat_map(|commit| &commit.changes);
                Self::Changes(changes.cloned().collect())
            }
            Event::Lagged(_) => Self::Resync,
        }
    }
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
    let mut trigger = Trigger::Resync;
    let mut wake: Option<Instant> = None;
    loop {
        // At least as new as what the subscription has told; a change that is in here but not yet
        // told brings us back.
        let snapshot = store.snapshot();
        let now = time::now();
        let plan = reconciler.plan(&View {
            snapshot: &snapshot,
            trigger: &trigger,
            now,
        });
        let asked = plan
            .wake_at
            .map(|at| Instant::now() + at.saturating_since(now));
        // Who looked at a part of the world only says nothing about when the rest is due.
        let due = wake.filter(|_| matches!(trigger, Trigger::Changes(_)));
        wake = match (due, asked) {
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
        let next = wait(&mut subscription, wake).await;
        trigger = if failed { Trigger::Resync } else { next };
    }
}

/// Waits for a change or for `wake`.
async fn wait(subscription: &mut Subscription, wake: Option<Instant>) -> Trigger {
    let sleep = async {
        match wake {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        event = subscription.next() => event.into(),
        () = sleep => Trigger::Timer,
    }
}

/// Commits writes in batches that fit in a transaction, none waiting for the one before. A write
/// whose object was changed or removed since, or that no transaction can carry, fails alone: all
/// others go through, and what failed is reported at the end.
async fn commit(store: &Store, writes: Vec<Write>) -> Result<(), Error> {
    let lengths: Vec<_> = split(&writes, size)
        .into_iter()
        .map(<[Write]>::len)
        .collect();
    let mut writes = writes.into_iter();
    let transactions = lengths.into_iter().map(|length| {
        let batch: Vec<_> = writes.by_ref().take(length).collect();
        store.update(move |tx| {
            let conflict = batch
                .into_iter()
                .filter_map(|write| apply(tx, write).err())
                .last();
            Ok::<_, Error>(conflict)
        })
    });
    let mut failed = None;
    for committed in join_all(transactions).await {
        match committed {
            Ok(conflict) => failed = failed.or(conflict),
            Err(Error::LostLeadership) => return Err(Error::LostLeadership),
            // More important to know of than a conflict, which mends itself.
            Err(err) => failed = Some(err),
        }
    }
    failed.map_or(Ok(()), Err)
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

/// Bytes of the object in a transaction.
fn size(write: &Write) -> usize {
    let (Write::Create(any) | Write::Update(any) | Write::Remove(any)) = write;
    each_kind!(any, object => object.encoded_len())
}

fn apply(tx: &mut Tx, write: Write) -> Result<(), Error> {
    fn remove<T: Object>(tx: &mut Tx, object: &Arc<T>) -> Result<(), Error> {
        match tx.get::<T>(object.id()) {
            Some(stored) if stored.version() != object.version() => Err(Error::OutOfSequence),
            _ => tx.remove::<T>(object.id()).map(drop),
        }
    }
    match write {
        Write::Create(any) => {
            each_kind!(any, object => tx.create(Arc::unwrap_or_clone(object)).map(drop))
        }
        Write::Update(any) => {
            each_kind!(any, object => tx.update(Arc::unwrap_or_clone(object)).map(drop))
        }
        Write::Remove(any) => each_kind!(any, object => remove(tx, &object)),
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{Annotations, Task};
    use skep_store::testing::leading;

    use super::*;

    /// Wants the tasks that are not there.
    struct Wants(Vec<Task>);

    impl Reconciler for Wants {
        fn name(&self) -> &'static str {
            "test"
        }

        fn watches(&self) -> &'static [Kind] {
            &[Kind::Task]
        }

        fn plan(&mut self, view: &View<'_>) -> Plan {
            let mut plan = Plan::default();
            for task in &self.0 {
                if view.snapshot.get::<Task>(&task.id).is_none() {
                    plan.create(task.clone());
                }
            }
            plan
        }
    }

    fn task(id: usize, bytes: usize) -> Task {
        Task {
            id: format!("task-{id}"),
            annotations: Some(Annotations {
                name: "x".repeat(bytes),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn large_writes_are_spread_and_an_impossible_one_holds_up_nothing() {
        let store = leading(|| time::now().into());
        let mut tasks: Vec<_> = (0..150).map(|id| task(id, 20 * 1024)).collect();
        tasks.insert(75, task(1000, skep_store::MAX_PROPOSAL_BYTES));
        let (mut snapshot, mut subscription) = store.watch([Route::Kind(Kind::Task)]);
        let driven = drive(Wants(tasks), store.clone());
        let created = async {
            while snapshot.count::<Task>() < 150 {
                subscription.next().await;
                snapshot = store.snapshot();
            }
        };
        tokio::select! {
            ended = driven => panic!("it ended: {ended}"),
            created = tokio::time::timeout(Duration::from_secs(10), created) => created.unwrap(),
        }
        assert!(snapshot.get::<Task>("task-1000").is_none());
    }
}
