//! Any sequence of operations: the store against plain maps, and against its own followers.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use skep_proto::{
    Timestamp,
    v1::{Annotations, Config, ConfigSpec, Task, TaskState},
};
use skep_store::{
    By, Change, Error, Event, Route, Snapshot, Store, Subscription, testing::ManualLog,
};

#[derive(Clone, Debug)]
enum Op {
    /// Create task `id` on `node`.
    Create {
        id: u8,
        node: u8,
    },
    /// Move task `id` to `node`, if it is there.
    Move {
        id: u8,
        node: u8,
    },
    /// Change task `id` deciding on a version that is `behind` commits old.
    StaleMove {
        id: u8,
    },
    Remove {
        id: u8,
    },
    /// A config whose name only `name` decides: names clash.
    Named {
        id: u8,
        name: u8,
    },
    /// Commit this many of the waiting proposals.
    Commit {
        count: u8,
    },
    /// Lose leadership with all that waits, and gain it again.
    NewTerm,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..12_u8;
    prop_oneof![
        4 => (id.clone(), 0..4_u8).prop_map(|(id, node)| Op::Create { id, node }),
        4 => (id.clone(), 0..4_u8).prop_map(|(id, node)| Op::Move { id, node }),
        1 => id.clone().prop_map(|id| Op::StaleMove { id }),
        2 => id.clone().prop_map(|id| Op::Remove { id }),
        2 => (id, 0..3_u8).prop_map(|(id, name)| Op::Named { id, name }),
        4 => (1..5_u8).prop_map(|count| Op::Commit { count }),
        1 => Just(Op::NewTerm),
    ]
}

type Write = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A leader, a follower fed with the same entries, and what must be true of them.
struct World {
    leader: Store,
    follower: Store,
    log: ManualLog,
    index: u64,
    waiting: Vec<Write>,
    /// What a reader of the subscription has pieced together.
    seen: BTreeMap<String, Arc<Task>>,
    subscription: Subscription,
    last_version: u64,
}

impl World {
    fn new() -> Self {
        let ticks = Arc::new(AtomicI64::new(0));
        let clock = move || Timestamp {
            seconds: ticks.fetch_add(1, Ordering::Relaxed),
            nanos: 0,
        };
        let leader = Store::new(clock.clone());
        let (_, subscription) = leader.watch([Route::All]);
        let world = Self {
            leader,
            follower: Store::new(clock),
            log: ManualLog::default(),
            index: 0,
            waiting: Vec::new(),
            seen: BTreeMap::new(),
            subscription,
            last_version: 0,
        };
        world.lead();
        world
    }

    fn lead(&self) {
        self.leader
            .lead(self.index * 1000 + 1, Arc::new(self.log.clone()));
    }

    /// Starts a write, as far as it gets without a commit.
    fn start(&mut self, write: impl Future<Output = Result<(), Error>> + 'static) {
        let mut write: Write = Box::pin(write);
        if poll(&mut write).is_pending() {
            self.waiting.push(write);
        }
    }

    fn run(&mut self, op: Op) {
        let store = self.leader.clone();
        match op {
            Op::Create { id, node } => self.start(async move {
                let new = task(id, node);
                store.update(|tx| tx.create(new).map(drop)).await
            }),
            Op::Move { id, node } => self.start(async move {
                store
                    .update(|tx| {
                        let Some(task) = tx.get::<Task>(&task_id(id)) else {
                            return Ok(());
                        };
                        let mut task = Task::clone(task);
                        task.node_id = node_id(node);
                        tx.update(task).map(drop)
                    })
                    .await
            }),
            Op::StaleMove { id } => self.start(async move {
                let known = store.snapshot().get::<Task>(&task_id(id)).cloned();
                let Some(known) = known else { return Ok(()) };
                store
                    .update(move |tx| {
                        let stored = tx.get::<Task>(&known.id).cloned();
                        let result = tx.update(Task::clone(&known)).map(drop);
                        match stored {
                            None => assert_eq!(result, Err(Error::NotFound)),
                            Some(s) if s.meta().version != known.meta().version => {
                                assert_eq!(result, Err(Error::OutOfSequence));
                            }
                            Some(_) => assert_eq!(result, Ok(())),
                        }
                        result
                    })
                    .await
            }),
            Op::Remove { id } => self.start(async move {
                store
                    .update(|tx| tx.remove::<Task>(&task_id(id)).map(drop))
                    .await
            }),
            Op::Named { id, name } => self.start(async move {
                store
                    .update(|tx| {
                        let spec = ConfigSpec {
                            annotations: Some(Annotations {
                                name: format!(
                                    "{}{name}",
                                    if id % 2 == 0 { "Name" } else { "nAME" }
                                ),
                                ..Default::default()
                            }),
                            ..Default::default()
                        };
                        let taken = tx.find::<Config>(By::All).any(|other| {
                            other.spec().annotations().name.to_lowercase() == format!("name{name}")
                        });
                        let id = format!("config{id}");
                        let exists = tx.get::<Config>(&id).is_some();
                        let result = tx
                            .create(Config {
                                id,
                                spec: Some(spec),
                                ..Default::default()
                            })
                            .map(drop);
                        let expected = if exists {
                            Err(Error::Exists)
                        } else if taken {
                            Err(Error::NameConflict)
                        } else {
                            Ok(())
                        };
                        assert_eq!(result, expected);
                        result
                    })
                    .await
            }),
            Op::Commit { count } => self.commit(usize::from(count)),
            Op::NewTerm => {
                self.log.lose();
                self.leader.follow();
                for mut write in std::mem::take(&mut self.waiting) {
                    // Nothing that it depended on was committed: no other answer is possible.
                    assert_eq!(poll(&mut write), Poll::Ready(Err(Error::LostLeadership)));
                }
                // The first entry of a term carries nothing.
                self.index += 1;
                let empty = [skep_store::Entry {
                    index: self.index,
                    data: Default::default(),
                }];
                self.leader.apply(&empty).unwrap();
                self.follower.apply(&empty).unwrap();
                self.lead();
            }
        }
        self.check();
    }

    fn commit(&mut self, count: usize) {
        let entries = self.log.take(self.index, count);
        self.index += entries.len() as u64;
        self.leader.apply(&entries).unwrap();
        // The follower gets them one by one: how entries are batched must not matter.
        for entry in &entries {
            self.follower.apply(std::slice::from_ref(entry)).unwrap();
        }
        self.waiting.retain_mut(|write| poll(write).is_pending());
        if self.log.is_empty() {
            assert!(
                self.waiting.is_empty(),
                "everything is committed, so everyone has an answer"
            );
        }
    }

    fn check(&mut self) {
        let (leader, follower) = (self.leader.snapshot(), self.follower.snapshot());
        assert_eq!(leader.index(), self.index);
        assert_eq!(
            leader.to_wire(),
            follower.to_wire(),
            "same index, same store"
        );
        check_indexes(&leader);
        check_indexes(&follower);
        while let Some(event) = self.subscription.try_next() {
            let Event::Commits(commits) = event else {
                panic!("a reader that keeps up lags")
            };
            for change in commits.iter().flat_map(|commit| &commit.changes) {
                let version = change.object().version();
                if !matches!(change, Change::Remove(_)) {
                    assert!(version > self.last_version, "versions never repeat");
                    assert!(version <= self.index, "versions stay below the log index");
                    self.last_version = version;
                }
                match (change.current::<Task>(), change.object().get::<Task>()) {
                    (Some(task), _) => drop(self.seen.insert(task.id.clone(), task.clone())),
                    (None, Some(task)) => drop(self.seen.remove(&task.id)),
                    (None, None) => {}
                }
            }
        }
        let stored: BTreeMap<_, _> = leader
            .all::<Task>()
            .map(|task| (task.id.clone(), task.clone()))
            .collect();
        assert_eq!(self.seen, stored, "watchers see exactly what is committed");
    }
}

fn check_indexes(snapshot: &Snapshot) {
    for node in 0..4 {
        let node = node_id(node);
        let mut found: Vec<_> = snapshot
            .find::<Task>(By::node(&node))
            .map(|t| &t.id)
            .collect();
        found.sort();
        let expected: Vec<_> = snapshot
            .all::<Task>()
            .filter(|t| t.node_id == node)
            .map(|t| &t.id)
            .collect();
        assert_eq!(found, expected);
    }
    let new = snapshot
        .find::<Task>(By::task_state(TaskState::New))
        .count();
    assert_eq!(new, snapshot.count::<Task>());
}

fn poll(write: &mut Write) -> Poll<Result<(), Error>> {
    write.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn task_id(id: u8) -> String {
    format!("task{id}")
}

fn node_id(node: u8) -> String {
    format!("node{node}")
}

fn task(id: u8, node: u8) -> Task {
    Task {
        id: task_id(id),
        node_id: node_id(node),
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn any_sequence_of_operations(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.commit(usize::MAX);
        world.check();
    }
}
