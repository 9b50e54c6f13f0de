//! What it costs to write and to restore a snapshot of 100,000 tasks.
#![allow(missing_docs, clippy::unwrap_used)]

use divan::Bencher;
use prost::Message as _;
use skep_proto::{Timestamp, v1::StoreSnapshot};
use skep_store::{Image, Store, testing::sample};

const TASKS: u64 = 100_000;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn wire() -> StoreSnapshot {
    StoreSnapshot {
        tasks: (0..TASKS).map(sample::task).collect(),
        ..Default::default()
    }
}

#[divan::bench(sample_count = 10)]
fn decode(bencher: Bencher<'_, '_>) {
    let bytes = wire().encode_to_vec();
    bencher.bench_local(|| StoreSnapshot::decode(&*bytes).unwrap());
}

#[divan::bench(sample_count = 10)]
fn decode_and_restore(bencher: Bencher<'_, '_>) {
    let bytes = wire().encode_to_vec();
    bencher.bench_local(|| {
        let store = Store::new(Timestamp::default);
        store.restore(1, StoreSnapshot::decode(&*bytes).unwrap());
        store
    });
}

#[divan::bench(sample_count = 10)]
fn decode_and_restore_an_image(bencher: Bencher<'_, '_>) {
    let bytes = wire().encode_to_vec();
    bencher.bench_local(|| {
        let store = Store::new(Timestamp::default);
        store.restore(1, Image::decode(&bytes).unwrap());
        store
    });
}

#[divan::bench(sample_count = 10)]
fn write(bencher: Bencher<'_, '_>) {
    let store = Store::new(Timestamp::default);
    store.restore(1, wire());
    let snapshot = store.snapshot();
    bencher.bench_local(|| snapshot.to_bytes());
}
