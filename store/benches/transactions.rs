//! What a transaction costs without replication: built, proposed, committed and published.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use divan::{Bencher, counter::ItemsCount};
use skep_proto::{
    Timestamp, id,
    v1::{Annotations, Config, ConfigSpec, Node, Task, TaskState},
};
use skep_store::{
    Error, Route, Store, Tx,
    testing::{ManualLog, sample},
};

/// Objects that the table has before.
const PRESENT: u64 = 10_000;

/// Objects that one transaction creates.
const CREATED: u64 = 500;

/// Configs that the table has before, and clients that create others.
const CONFIGS: usize = 100_000;
const CLIENTS: usize = 128;

/// Transactions in a sample: few enough to run without a break on a busy machine.
const TRANSACTIONS: usize = 100;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

struct Leader {
    store: Store,
    log: ManualLog,
}

impl Leader {
    fn new() -> Self {
        let (store, log) = (Store::new(Timestamp::default), ManualLog::default());
        store.lead(1, Arc::new(log.clone()));
        Self { store, log }
    }

    fn nodes() -> Self {
        let leader = Self::new();
        for chunk in (0..PRESENT).collect::<Vec<_>>().chunks(1000) {
            leader.commit(|tx| {
                chunk
                    .iter()
                    .try_for_each(|n| tx.create(sample::node(*n)).map(drop))
            });
        }
        leader
    }

    fn tasks() -> Self {
        let leader = Self::new();
        for chunk in (0..PRESENT).collect::<Vec<_>>().chunks(1000) {
            leader.commit(|tx| {
                chunk
                    .iter()
                    .try_for_each(|n| tx.create(sample::task(*n)).map(drop))
            });
        }
        leader
    }

    /// A whole transaction.
    fn commit(&self, transaction: impl FnOnce(&mut Tx) -> Result<(), Error>) {
        let mut write = pin!(self.store.update(transaction));
        let mut context = Context::from_waker(Waker::noop());
        assert!(write.as_mut().poll(&mut context).is_pending());
        let entries = self.log.take(self.store.snapshot().index(), 1);
        self.store.apply(&entries).unwrap();
        assert_eq!(write.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    }
}

#[divan::bench(counters = [ItemsCount::new(CREATED)])]
fn create_nodes_in_one_transaction(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| {
            let nodes: Vec<_> = (0..CREATED).map(sample::node).collect();
            (Leader::new(), nodes)
        })
        .bench_local_values(|(leader, nodes)| {
            leader.commit(|tx| {
                nodes
                    .into_iter()
                    .try_for_each(|node| tx.create(node).map(drop))
            });
            leader
        });
}

/// The same on a manager that follows: it decodes the entry.
#[divan::bench(counters = [ItemsCount::new(CREATED)])]
fn create_nodes_on_a_follower(bencher: Bencher<'_, '_>) {
    let leader = Leader::new();
    let mut write = pin!(leader.store.update(|tx| {
        (0..CREATED).try_for_each(|number| tx.create(sample::node(number)).map(drop))
    }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(write.as_mut().poll(&mut context).is_pending());
    let entries: Vec<skep_store::Entry> = leader.log.take(0, 1);
    bencher
        .with_inputs(|| Store::new(Timestamp::default))
        .bench_local_values(|store| {
            store.apply(&entries).unwrap();
            store
        });
}

/// Each in a transaction of its own.
#[divan::bench(counters = [ItemsCount::new(TRANSACTIONS)])]
fn update_nodes(bencher: Bencher<'_, '_>) {
    let leader = Leader::nodes();
    let ids: Vec<_> = (0..PRESENT).map(sample::id).collect();
    let mut chunks = ids.chunks(TRANSACTIONS).cycle();
    bencher.bench_local(|| {
        let ids = chunks.next().unwrap();
        ids.iter().for_each(|id| update_node(&leader, id));
    });
}

fn config() -> Config {
    let mut config = Config {
        id: id::random(),
        ..Default::default()
    };
    config.spec = Some(ConfigSpec {
        annotations: Some(Annotations {
            name: format!("load-{}", config.id),
            ..Default::default()
        }),
        data: vec![b'x'; 100].into(),
        ..Default::default()
    });
    config
}

/// Many clients at once: while what half of them have written is committed, the others go on.
#[divan::bench(counters = [ItemsCount::new(CLIENTS)])]
fn create_configs_of_many_clients(bencher: Bencher<'_, '_>) {
    let leader = Leader::new();
    for _ in 0..CONFIGS / 1000 {
        leader.commit(|tx| (0..1000).try_for_each(|_| tx.create(config()).map(drop)));
    }
    let store = leader.store.clone();
    let mut writes = VecDeque::new();
    let mut context = Context::from_waker(Waker::noop());
    bencher
        .with_inputs(|| (0..CLIENTS).map(|_| config()).collect::<Vec<_>>())
        .bench_local_values(|configs| {
            for config in configs {
                let mut write = Box::pin(store.update(|tx| tx.create(config)));
                assert!(write.as_mut().poll(&mut context).is_pending());
                writes.push_back(write);
            }
            let committed = writes.len() / 2;
            let entries = leader.log.take(store.snapshot().index(), committed);
            store.apply(&entries).unwrap();
            for mut write in writes.drain(..committed) {
                assert!(write.as_mut().poll(&mut context).is_ready());
            }
        });
}

fn update_node(leader: &Leader, id: &str) {
    leader.commit(|tx| {
        let mut node = Node::clone(tx.get::<Node>(id).unwrap());
        node.status_mut().addr = "192.0.2.2".to_owned();
        tx.update(node).map(drop)
    });
}

/// Each in a transaction of its own.
#[divan::bench(counters = [ItemsCount::new(TRANSACTIONS)])]
fn report_states_of_tasks(bencher: Bencher<'_, '_>) {
    let leader = Leader::tasks();
    let ids: Vec<_> = (0..PRESENT).map(sample::id).collect();
    let mut chunks = ids.chunks(TRANSACTIONS).cycle();
    bencher.bench_local(|| {
        for id in chunks.next().unwrap() {
            leader.commit(|tx| {
                let mut task = Task::clone(tx.get::<Task>(id).unwrap());
                let failed = task.status().state() == TaskState::Failed;
                let next = [TaskState::Failed, TaskState::Running][usize::from(failed)];
                task.status_mut().set_state(next);
                tx.update(task).map(drop)
            });
        }
    });
}

/// Updates of one node, each in a transaction of its own, beside sessions of other nodes.
#[divan::bench(args = [0, 10_000], counters = [ItemsCount::new(TRANSACTIONS)])]
fn update_a_node_beside_watchers_of_others(bencher: Bencher<'_, '_>, watchers: u64) {
    let leader = Leader::nodes();
    let watch = |number| leader.store.watch([Route::Node(sample::id(number))]).1;
    let sessions: Vec<_> = (1..=watchers).map(watch).collect();
    let id = sample::id(0);
    bencher.bench_local(|| (0..TRANSACTIONS).for_each(|_| update_node(&leader, &id)));
    drop(sessions);
}
