//! What an append to the log costs, beside other ways to store it and what the disk itself costs.
//!
//! Batches of several sizes through [`LogStore`]: both logs as shipped, raft-engine, memory; and an fdatasync of a file that is not a log at all. By itself, and three at
//! a time on one disk as in a cluster on one machine. They take turns, so that what else the machine
//! does hits all alike. Medians and 99th percentiles in microseconds. `LOG_BENCH_DIR` says where
//! (default: the temporary directory, which may be a memory disk).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a table for people"
)]

mod engine_log;

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use skep_raft::{Batch, LogKind, LogStore, MemoryLog, open_log};

use self::engine_log::EngineLog;

const ENTRY_BYTES: usize = 256;
/// Turns of each target, and appends in each.
const TURNS: usize = 10;
const ROUNDS: usize = 50;

/// Something that can be appended to, durably.
type Target = Box<dyn FnMut(u64, usize) + Send>;

fn log(mut log: impl LogStore + 'static) -> Target {
    Box::new(move |first, count| {
        let data = vec![Bytes::from(vec![7; ENTRY_BYTES]); count];
        log.append(&Batch::of_entries(first, 1, data)).unwrap();
    })
}

fn sync(path: &Path) -> Target {
    let mut file = preallocated(path);
    Box::new(move |_, count| {
        file.write_all(&vec![7; count * ENTRY_BYTES]).unwrap();
        file.sync_data().unwrap();
    })
}

/// A file that has its full size already, so that a sync of data need not write anything else.
fn preallocated(path: &Path) -> File {
    std::fs::write(path, vec![0; 32 << 20]).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    file
}

fn open(name: &str, dir: &Path) -> Target {
    match name {
        "fdatasync, no log" => sync(dir),
        "segments" => log(open_log(dir, LogKind::Segments).unwrap()),
        "sled" => log(open_log(dir, LogKind::Sled).unwrap()),
        "raft-engine" => log(EngineLog::open(dir)),
        _ => log(MemoryLog::default()),
    }
}

const NAMES: [&str; 5] = [
    "fdatasync, no log",
    "segments",
    "sled",
    "raft-engine",
    "memory",
];

/// The times of one turn of targets that run at the same time.
fn turn(targets: &mut [Target], turn: usize, count: usize) -> Vec<Duration> {
    let ready = Barrier::new(targets.len());
    let run = |append: &mut Target| {
        ready.wait();
        let round = |round| {
            let first = 1 + ((turn * ROUNDS + round) * count) as u64;
            let started = Instant::now();
            append(first, count);
            started.elapsed()
        };
        (0..ROUNDS).map(round).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = targets
            .iter_mut()
            .map(|target| scope.spawn(move || run(target)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn main() {
    // Names may be given; cargo gives an option, too.
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let wanted = |name: &&str| {
        let mut names = wanted
            .iter()
            .filter(|name| !name.starts_with('-'))
            .peekable();
        names.peek().is_none() || names.any(|wanted| name.contains(wanted.as_str()))
    };
    let names: Vec<_> = NAMES.into_iter().filter(wanted).collect();
    println!(
        "{:>20} {:>8} {:>8} {:>8} {:>8}",
        "", "entries", "at once", "p50 us", "p99 us"
    );
    for count in [1, 16, 128] {
        for parallel in [1, 3] {
            let root = match std::env::var_os("LOG_BENCH_DIR") {
                Some(dir) => tempfile::tempdir_in(dir).unwrap(),
                None => tempfile::tempdir().unwrap(),
            };
            let open_all = |name: &&str| -> Vec<Target> {
                let open = |number| open(name, &root.path().join(format!("{name}{number}")));
                (0..parallel).map(open).collect()
            };
            let mut targets: Vec<_> = names.iter().map(open_all).collect();
            let mut times = vec![Vec::new(); names.len()];
            for number in 0..TURNS {
                for (targets, times) in targets.iter_mut().zip(&mut times) {
                    times.extend(turn(targets, number, count));
                }
            }
            for (name, mut times) in names.iter().zip(times) {
                times.sort();
                let median = times[times.len() / 2].as_micros();
                let tail = times[times.len() * 99 / 100].as_micros();
                println!("{name:>20} {count:>8} {parallel:>8} {median:>8} {tail:>8}");
            }
        }
    }
}
