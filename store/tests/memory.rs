//! What the store costs in memory, counted by the allocator.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::{alloc::System, sync::Arc};

use cap::Cap;
use prost::Message as _;
use skep_proto::{Timestamp, v1::Task};
use skep_store::{Image, Store, testing::sample};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const TASKS: u64 = 20_000;

/// Most bytes that a task may cost: two kilobytes.
const BOUND: u64 = 2000;

#[test]
fn a_task_costs_at_most_two_kilobytes() {
    let bytes: Vec<_> = (0..TASKS)
        .map(|n| sample::task(n).encode_to_vec())
        .collect();
    let decode = |bytes: &Vec<u8>| Arc::new(Task::decode(&**bytes).unwrap());
    let before = ALLOCATOR.allocated();
    let messages: Vec<Arc<Task>> = bytes.iter().map(decode).collect();
    let alone = per_task(before);
    drop((messages, bytes));

    let store = Store::new(Timestamp::default);
    let mut wire = Vec::new();
    for number in 0..TASKS {
        prost::encoding::message::encode(4, &sample::task(number), &mut wire);
    }
    let before = ALLOCATOR.allocated();
    store.restore(1, Image::decode(&wire).unwrap());
    let stored = per_task(before);
    eprintln!("{alone} bytes as a message, {stored} in the store");
    assert_eq!(store.snapshot().count::<Task>() as u64, TASKS);
    assert!(stored <= BOUND, "{stored} bytes");
}

fn per_task(before: usize) -> u64 {
    (ALLOCATOR.allocated() - before) as u64 / TASKS
}
