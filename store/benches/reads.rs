//! What reading a snapshot costs.
#![allow(missing_docs, clippy::unwrap_used)]

use divan::{Bencher, black_box, counter::ItemsCount};
use skep_proto::{
    Timestamp,
    v1::{Node, StoreSnapshot, Task, TaskState},
};
use skep_store::{By, Object as _, Snapshot, Store, testing::sample};

const OBJECTS: u64 = 10_000;

/// Objects that one sample gets.
const GETS: usize = 1000;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn snapshot() -> Snapshot {
    let store = Store::new(Timestamp::default);
    store.restore(
        1,
        StoreSnapshot {
            nodes: (0..OBJECTS).map(sample::node).collect(),
            tasks: (0..OBJECTS).map(sample::task).collect(),
            ..Default::default()
        },
    );
    store.snapshot()
}

#[divan::bench(counters = [ItemsCount::new(GETS)])]
fn get_by_id(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    let ids: Vec<_> = (0..OBJECTS).map(sample::id).collect();
    let mut chunks = ids.chunks(GETS).cycle();
    bencher.bench_local(|| {
        let ids = chunks.next().unwrap();
        let found = ids.iter().filter(|id| snapshot.get::<Node>(id).is_some());
        assert_eq!(found.count(), ids.len());
    });
}

#[divan::bench]
fn scan_of_10_000(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    bencher.bench_local(|| {
        let sum = snapshot
            .all::<Node>()
            .map(|node| u64::from(black_box(node.version()) > 0));
        sum.sum::<u64>()
    });
}

#[divan::bench]
fn tasks_of_a_node(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    let node = sample::node_of(77);
    bencher.bench_local(|| snapshot.find::<Task>(By::node(&node)).count());
}

#[divan::bench]
fn tasks_of_a_service(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    let service = sample::service_of(77);
    bencher.bench_local(|| snapshot.find::<Task>(By::service(&service)).count());
}

#[divan::bench]
fn a_node_by_name(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    bencher.bench_local(|| snapshot.find::<Node>(By::name("node-77.example")).count());
}

#[divan::bench]
fn pending_tasks_among_10_000_running(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    bencher.bench_local(|| {
        snapshot
            .find::<Task>(By::task_state(TaskState::Pending))
            .count()
    });
}

#[divan::bench]
fn shut_down_tasks_among_10_000_running(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    bencher.bench_local(|| {
        snapshot
            .find::<Task>(By::desired_state(TaskState::Shutdown))
            .count()
    });
}
