//! When a snapshot is taken, and what becomes of it.
//!
//! The tables of a store snapshot cost nothing to take; turning them into bytes and writing those
//! happens beside the loop and the log, and piece by piece: the whole is never in memory. The log
//! before a snapshot is then dropped, but for what slow followers may still need.
//!
//! A snapshot is due after as many entries as the cluster object says. A large one waits until the
//! log has grown as large: writing all there is for every few changes would cost more than the
//! changes themselves. What there may be of log in memory bounds both.

use std::{future::pending, sync::Arc};

use tokio::task::JoinHandle;

use super::Node;
use crate::{Error, LogStore, OwnSnapshot, Rotation, SnapshotWriter, WrittenSnapshot, disk::Job};

/// Entries between snapshots, if the cluster object does not say.
const DEFAULT_INTERVAL: u64 = 10_000;
/// Entries kept behind a snapshot, if the cluster object does not say.
const DEFAULT_KEPT: u64 = 500;
/// A snapshot of less than so many bytes never waits for the log to grow.
const SMALL_BYTES: usize = 1024 * 1024;
/// Bytes of log for which no snapshot waits any longer: they are in memory, and a restart replays them.
const MAX_LOG_BYTES: usize = 64 * 1024 * 1024;

/// The newest snapshot, and the one being taken.
pub(super) struct Snapshots {
    newest: u64,
    /// Bytes of the newest one, 0 if nobody has looked.
    bytes: usize,
    /// Bytes of the log before the newest one that stay in memory, for whoever is behind.
    kept: usize,
    writer: Arc<dyn SnapshotWriter>,
    /// Needs a snapshot now and then, to end a change of the log's key.
    rotation: Option<Rotation>,
    taking: Option<JoinHandle<Result<Taken, Error>>>,
}

/// A snapshot that was just taken: for peers, and for the log.
pub(super) type Taken = (OwnSnapshot, WrittenSnapshot);

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(taking) = &self.taking {
            taking.abort();
        }
    }
}

impl Snapshots {
    /// `newest` is the index of the newest snapshot in `log`, and `bytes` its size.
    pub(super) fn new(newest: u64, bytes: usize, log: &dyn LogStore) -> Self {
        Self {
            newest,
            bytes,
            kept: 0,
            writer: log.snapshot_writer(),
            rotation: log.rotation(),
            taking: None,
        }
    }

    /// Index of the newest one, 0 without one.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// A snapshot of the leader was put in place of everything.
    pub(super) fn restored(&mut self, index: u64) {
        self.newest = index;
        (self.bytes, self.kept) = (0, 0);
    }

    /// Waits for the snapshot that is being taken, for ever if there is none.
    pub(super) async fn taken(&mut self) -> Result<Taken, Error> {
        let Some(taking) = &mut self.taking else {
            return pending().await;
        };
        let taken = taking.await;
        self.taking = None;
        taken.map_err(|error| Error::Thread(error.to_string()))?
    }

    /// Waits until nothing is being written any more.
    pub(super) async fn close(mut self) {
        if let Some(taking) = self.taking.take() {
            taking.abort();
            // What comes of it does not matter: it does not count.
            let _ = taking.await;
        }
    }
}

impl Node {
    /// Begins a snapshot if one is due or a peer needs one.
    pub(super) fn take_snapshot(&mut self) {
        if self.snapshots.taking.is_some() {
            return;
        }
        let rotates = || {
            let rotation = self.snapshots.rotation.as_ref();
            rotation.is_some_and(|rotation| rotation.wants_snapshot(self.replica.applied()))
        };
        let due = || {
            let applied = self.replica.applied();
            let entries = applied.saturating_sub(self.snapshots.newest);
            let log = self.replica.log_bytes();
            let log = log.saturating_sub(self.snapshots.kept);
            is_due(entries, log, self.snapshot_config().0, self.snapshots.bytes)
        };
        if !self.replica.wants_snapshot() && !due() && !rotates() {
            return;
        }
        let store = self.store.snapshot();
        let Some(header) = self.replica.snapshot_header() else {
            return;
        };
        if header.index() != store.index() {
            return;
        }
        let writer = self.snapshots.writer.clone();
        let take = move || {
            let snapshot = header.with_store(store);
            let written = writer.write(&snapshot)?;
            Ok((snapshot, written))
        };
        self.snapshots.taking = Some(tokio::task::spawn_blocking(take));
    }

    pub(super) fn snapshot_taken(&mut self, (own, snapshot): Taken) {
        let index = snapshot.index();
        let bytes = own.bytes() as usize;
        if self.replica.wants_snapshot() {
            self.replica.offer(own);
        }
        let rotation = self.snapshots.rotation.as_ref();
        // What is sealed with an old key leaves the disk, but not the memory.
        let aged = rotation.and_then(|rotation| rotation.must_drop(index));
        // One of the leader may have come in between.
        if index < self.snapshots.newest || (index == self.snapshots.newest && aged.is_none()) {
            return;
        }
        let unneeded = index.saturating_sub(self.snapshot_config().1);
        let compact = unneeded.max(aged.unwrap_or(0));
        // Without room there is another one soon.
        if self.disk.submit(Job::Save { snapshot, compact }) {
            self.snapshots.newest = index;
            self.snapshots.bytes = bytes;
            self.replica.compact(unneeded);
            self.snapshots.kept = self.replica.log_bytes() - self.replica.log_bytes_after(index);
            tracing::info!(index, "raft snapshot taken");
        } else if let Some(rotation) = rotation {
            rotation.discarded();
        }
    }

    /// Entries between snapshots, and entries kept behind one.
    fn snapshot_config(&self) -> (u64, u64) {
        self.raft_config()
            .map_or((DEFAULT_INTERVAL, DEFAULT_KEPT), |config| {
                (
                    config.snapshot_interval,
                    config.log_entries_for_slow_followers,
                )
            })
    }
}

/// Whether a snapshot is due with so many entries, of `log` bytes, after one of `bytes` bytes. As much log
/// as snapshot, so that what is written in snapshots is at most about twice what goes into the log, however
/// large the state; and few entries do as well if they are that large.
fn is_due(entries: u64, log: usize, interval: u64, bytes: usize) -> bool {
    let worthwhile = match bytes {
        ..SMALL_BYTES => 0,
        _ => bytes.min(MAX_LOG_BYTES),
    };
    interval > 0 && (log >= MAX_LOG_BYTES || entries >= interval && log >= worthwhile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_waits_for_the_log_but_not_for_ever() {
        // After an interval of entries.
        let due = |log, bytes| is_due(100, log, 100, bytes);
        assert!(due(0, 0) && due(0, SMALL_BYTES - 1));
        assert!(!due(SMALL_BYTES - 1, SMALL_BYTES) && due(SMALL_BYTES, SMALL_BYTES));
        assert!(!due(MAX_LOG_BYTES - 1, usize::MAX) && due(MAX_LOG_BYTES, usize::MAX));
        // Before.
        let early = |log| is_due(99, log, 100, 0);
        assert!(!early(MAX_LOG_BYTES - 1) && early(MAX_LOG_BYTES));
        assert!(!is_due(100, usize::MAX, 0, 0), "they are switched off");
    }
}
