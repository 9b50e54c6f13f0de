//! Tasks of a service have one spec in memory, however they came into the store.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::{
    collections::HashSet,
    pin::pin,
    task::{Context, Waker},
};

use prost::Message as _;
use skep_proto::{
    Shared, Timestamp,
    v1::{StoreSnapshot, Task, TaskSpec, Version},
};
use skep_store::{By, Error, Image, Snapshot, Store, Tx, testing::ManualLog, testing::sample};

/// Tasks of the first two services of the sample.
const TASKS: u64 = 200;

/// A leader and a follower with one log.
struct Pair {
    leader: Store,
    follower: Store,
    log: ManualLog,
}

impl Pair {
    fn new() -> Self {
        let [leader, follower] = [0, 1].map(|_| Store::new(Timestamp::default));
        let log = ManualLog::default();
        leader.lead(1, std::sync::Arc::new(log.clone()));
        Self {
            leader,
            follower,
            log,
        }
    }

    fn write(&self, transaction: impl FnOnce(&mut Tx) -> Result<(), Error>) {
        let mut write = pin!(self.leader.update(transaction));
        let mut context = Context::from_waker(Waker::noop());
        assert!(write.as_mut().poll(&mut context).is_pending());
        let entries = self.log.take(self.leader.snapshot().index(), 1);
        self.leader.apply(&entries).unwrap();
        self.follower.apply(&entries).unwrap();
        assert!(write.as_mut().poll(&mut context).is_ready());
    }

    /// How many copies of specs each has for these tasks of one service.
    fn copies(&self, service: &str) -> [usize; 2] {
        [&self.leader, &self.follower].map(|store| copies(&store.snapshot(), By::service(service)))
    }
}

fn copies(snapshot: &Snapshot, by: By<'_>) -> usize {
    let specs = snapshot
        .find::<Task>(by)
        .filter_map(|task| task.spec.as_ref());
    specs
        .map(|spec| std::ptr::from_ref::<TaskSpec>(spec))
        .collect::<HashSet<_>>()
        .len()
}

/// The sample's task with a new spec.
fn updated(number: u64) -> Task {
    let mut task = sample::task(number);
    task.id = sample::id(TASKS + number);
    task.spec_version = Some(Version { index: 99 });
    task.spec_mut().force_update = 1;
    task
}

#[test]
fn tasks_that_are_created_share_their_service_s_spec() {
    let pair = Pair::new();
    for number in (0..TASKS).rev() {
        pair.write(|tx| tx.create(sample::task(number)).map(drop));
    }
    for number in [0, TASKS - 1] {
        assert_eq!(pair.copies(&sample::service_of(number)), [1, 1]);
    }
}

#[test]
fn an_update_keeps_the_spec_unless_it_differs() {
    let pair = Pair::new();
    pair.write(|tx| (0..2).try_for_each(|n| tx.create(sample::task(n)).map(drop)));
    let service = sample::service_of(0);
    let change = |change: &dyn Fn(&mut Task)| {
        pair.write(|tx| {
            let mut task = Task::clone(tx.get(&sample::id(0)).unwrap());
            // Not the copy that is in the store.
            task.spec = Some(Shared::from(task.spec().clone()));
            change(&mut task);
            tx.update(task).map(drop)
        });
    };
    change(&|task| task.status_mut().message = "stopped".to_owned());
    assert_eq!(pair.copies(&service), [1, 1]);
    change(&|task| task.spec_mut().force_update = 7);
    assert_eq!(pair.copies(&service), [2, 2]);
    for store in [&pair.leader, &pair.follower] {
        let seen = [0, 1].map(|n| {
            let snapshot = store.snapshot();
            snapshot
                .get::<Task>(&sample::id(n))
                .unwrap()
                .spec()
                .force_update
        });
        assert_eq!(seen, [7, 0]);
    }
}

#[test]
fn a_new_spec_is_shared_while_it_spreads() {
    let tasks = TASKS / 2;
    // In the order of slots, and in one that jumps about.
    for step in [1, 37] {
        let pair = Pair::new();
        for number in 0..tasks {
            pair.write(|tx| tx.create(sample::task(number)).map(drop));
        }
        for number in 0..tasks {
            pair.write(|tx| tx.create(updated(number * step % tasks)).map(drop));
        }
        // Where no neighbour has it yet there is one more: that is so for one task in ten at most.
        for copies in pair.copies(&sample::service_of(0)) {
            assert!(copies <= 1 + tasks as usize / 10, "{copies} copies");
        }
    }
}

#[test]
fn what_is_read_from_a_snapshot_is_shared() {
    let tasks = (0..TASKS).map(sample::task);
    let wire = StoreSnapshot {
        tasks: tasks.chain((0..TASKS).map(updated)).collect(),
        ..Default::default()
    };
    let images = [
        Image::decode(&wire.encode_to_vec()).unwrap(),
        Image::from(wire.clone()),
    ];
    for image in images {
        let store = Store::new(Timestamp::default);
        store.restore(1, image);
        let snapshot = store.snapshot();
        assert_eq!(
            copies(&snapshot, By::All),
            4,
            "two services, two specs each"
        );
        let mut stored = snapshot.to_wire().tasks;
        let mut expected = wire.tasks.clone();
        for tasks in [&mut stored, &mut expected] {
            tasks.sort_by(|a, b| a.id.cmp(&b.id));
        }
        assert_eq!(stored, expected);
    }
}
