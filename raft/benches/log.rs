//! What an append to the log costs, beside what the disk itself costs.
//!
//! For batches of several sizes: the log on sled, and a plain file that is appended to and synced
//! with fdatasync; by itself, and with three at a time on one disk as in a cluster on one machine.
//! Medians and 99th percentiles in microseconds. `LOG_BENCH_DIR` says where (default: the temporary
//! directory, which may be a memory disk).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a table for people"
)]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use skep_raft::{Batch, LogStore, SledLog};

const ENTRY_BYTES: usize = 256;
const ROUNDS: u64 = 400;

/// Something that can be appended to, durably.
type Target = Box<dyn FnMut(u64, usize)>;
/// Opens one in a directory.
type Open = fn(&Path) -> Target;

fn sled(dir: &Path) -> Target {
    let mut log = SledLog::open(dir).unwrap();
    Box::new(move |first, count| {
        let data = vec![Bytes::from(vec![7; ENTRY_BYTES]); count];
        log.append(&Batch::of_entries(first, 1, data)).unwrap();
    })
}

fn file(dir: &Path) -> Target {
    std::fs::create_dir(dir).unwrap();
    let mut file = File::create(dir.join("log")).unwrap();
    Box::new(move |_, count| {
        file.write_all(&vec![7; count * ENTRY_BYTES]).unwrap();
        file.sync_data().unwrap();
    })
}

/// The same into a file that has its full size already.
fn preallocated(dir: &Path) -> Target {
    std::fs::create_dir(dir).unwrap();
    let path = dir.join("log");
    std::fs::write(&path, vec![0; 32 << 20]).unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    Box::new(move |_, count| {
        file.write_all(&vec![7; count * ENTRY_BYTES]).unwrap();
        file.sync_data().unwrap();
    })
}

/// Median and 99th percentile of [`ROUNDS`] appends, over `parallel` targets at a time.
fn measure(open: Open, count: usize, parallel: usize) -> (Duration, Duration) {
    let root = match std::env::var_os("LOG_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let ready = Barrier::new(parallel);
    let run = |number: usize| {
        let mut append = open(&root.path().join(number.to_string()));
        let mut times = Vec::new();
        ready.wait();
        for round in 0..ROUNDS {
            let started = Instant::now();
            append(1 + round * count as u64, count);
            times.push(started.elapsed());
        }
        times
    };
    let mut times = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..parallel).map(|n| scope.spawn(move || run(n))).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn main() {
    println!(
        "{:>34} {:>8} {:>8} {:>8}",
        "", "at once", "p50 us", "p99 us"
    );
    let targets: [(&str, Open); 3] = [
        ("sled", sled),
        ("file", file),
        ("preallocated file", preallocated),
    ];
    for count in [1, 16, 128] {
        for parallel in [1, 3] {
            for (name, open) in targets {
                let (median, tail) = measure(open, count, parallel);
                println!(
                    "{:>34} {:>8} {:>8} {:>8}",
                    format!("{name}, {count} entries"),
                    parallel,
                    median.as_micros(),
                    tail.as_micros()
                );
            }
        }
    }
}
