//! The log in memory, from which the consensus library reads.
//!
//! It holds every entry since the last compaction, on disk or not yet: the library only asks that
//! entries can be read back, and is told separately which of them are durable.

use std::{cell::Cell, collections::VecDeque};

use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::{
    codec::{ConfState, Entry, HardState, Snapshot},
    log::OwnSnapshot,
};

pub(super) struct Tail {
    entries: VecDeque<Entry>,
    /// What they hold in all.
    bytes: usize,
    /// Index and term of the entry before the first one.
    base: (u64, u64),
    /// As loaded at start; the library does not ask again.
    initial: RaftState,
    /// For peers whose next entry is compacted. Only there while one needs it.
    offered: Option<OwnSnapshot>,
    /// A peer needs a snapshot that is not offered.
    wanted: Cell<bool>,
}

impl Tail {
    /// The log after a restart. `snapshot` is index and term of the newest snapshot.
    pub(super) fn new(
        entries: Vec<Entry>,
        snapshot: (u64, u64),
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let mut entries = VecDeque::from(entries);
        // The entry before the first is not known any more, but its term is needed: the first one
        // takes its part. With a snapshot right before the first that is not necessary.
        let base = match entries.front() {
            Some(first) if first.index <= snapshot.0 => {
                let base = (first.index, first.term);
                entries.pop_front();
                base
            }
            _ => snapshot,
        };
        let bytes = entries.iter().map(size).sum();
        Self {
            entries,
            bytes,
            base,
            initial: RaftState::new(hard_state, conf_state),
            offered: None,
            wanted: Cell::new(false),
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Bytes that the entries hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that those after `index` hold.
    pub(super) fn bytes_after(&self, index: u64) -> usize {
        self.after(index).map(size).sum()
    }

    /// The entries after `index`.
    pub(super) fn after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let first = index.saturating_sub(self.base.0) as usize;
        self.entries.iter().skip(first)
    }

    /// Adds consecutive entries in place of all from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        let kept = first.index.saturating_sub(self.base.0 + 1) as usize;
        let replaced = self.entries.drain(kept.min(self.entries.len())..);
        self.bytes -= replaced.map(|entry| size(&entry)).sum::<usize>();
        self.bytes += entries.iter().map(size).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// The least index after which the entries up to `index` are no more than `bytes` bytes.
    pub(super) fn holds_back(&self, index: u64, bytes: usize) -> u64 {
        let upto = index.saturating_sub(self.base.0) as usize;
        let mut size = 0;
        let held = self.entries.range(..upto.min(self.entries.len())).rev();
        let held = held.take_while(|entry| {
            size += entry.data.len();
            size <= bytes
        });
        index.saturating_sub(held.count() as u64)
    }

    /// Starts again after a snapshot of the leader.
    pub(super) fn restore(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.base = (index, term);
        self.offered = None;
    }

    /// Forgets the entries up to and including `index`.
    pub(super) fn compact(&mut self, index: u64) {
        while let Some(first) = self.entries.front()
            && first.index <= index
        {
            self.base = (first.index, first.term);
            self.bytes -= size(first);
            self.entries.pop_front();
        }
        if self
            .offered
            .as_ref()
            .is_some_and(|offered| offered.index() < self.base.0)
        {
            self.offered = None;
        }
    }

    /// Whether a peer waits for a snapshot that is not offered.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.wanted.get()
    }

    /// Holds a snapshot for peers, or drops it.
    pub(super) fn offer(&mut self, snapshot: Option<OwnSnapshot>) {
        self.wanted.set(false);
        self.offered = snapshot;
    }

    pub(super) fn offered(&self) -> Option<&OwnSnapshot> {
        self.offered.as_ref()
    }
}

/// Bytes that an entry holds.
fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len()
}

fn compacted() -> raft::Error {
    raft::Error::Store(StorageError::Compacted)
}

/// Whether a snapshot was taken after this member was added. It would refuse an earlier one.
fn knows(snapshot: &OwnSnapshot, member: u64) -> bool {
    let members = snapshot.metadata().get_conf_state();
    members.voters.contains(&member) || members.learners.contains(&member)
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(compacted());
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut entries = Vec::new();
        for entry in self
            .entries
            .range((low - self.base.0 - 1) as usize..(high - self.base.0 - 1) as usize)
        {
            size += raft::util::entry_approximate_size(entry) as u64;
            // The first one comes along however large it is.
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(compacted());
        }
        self.entries
            .get((index - self.base.0 - 1) as usize)
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match &self.offered {
            Some(offered)
                if offered.index() >= request_index.max(self.base.0) && knows(offered, to) =>
            {
                Ok(offered.without_data())
            }
            _ => {
                self.wanted.set(true);
                Err(raft::Error::Store(
                    StorageError::SnapshotTemporarilyUnavailable,
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::Range<u64>, bytes: usize) -> Vec<Entry> {
        let entry = |index| Entry {
            index,
            term: 1,
            data: vec![0; bytes].into(),
            ..Entry::default()
        };
        range.map(entry).collect()
    }

    #[test]
    fn it_knows_how_many_bytes_it_holds() {
        let nothing = (HardState::default(), ConfState::default());
        let mut tail = Tail::new(entries(1..4, 10), (0, 0), nothing.0, nothing.1);
        assert_eq!(tail.bytes(), 30);
        tail.append(&entries(4..6, 7));
        assert_eq!(tail.bytes(), 44);
        assert_eq!((tail.bytes_after(4), tail.bytes_after(9)), (7, 0));
        // Another leader's, in place of three.
        tail.append(&entries(3..4, 1));
        assert_eq!((tail.last(), tail.bytes()), (3, 21));
        tail.compact(2);
        assert_eq!((tail.first(), tail.bytes()), (3, 1));
        tail.compact(9);
        assert_eq!(tail.bytes(), 0);
        tail.append(&entries(4..5, 5));
        tail.restore(9, 2);
        assert_eq!((tail.last(), tail.bytes()), (9, 0));
    }

    #[test]
    fn so_many_bytes_are_held_back_and_no_more() {
        let entries = (6..=10).map(|index| Entry {
            index,
            data: vec![0; 10].into(),
            ..Entry::default()
        });
        let states = (HardState::default(), ConfState::default());
        let tail = Tail::new(entries.collect(), (5, 1), states.0, states.1);
        for (bytes, index) in [(0, 9), (9, 9), (10, 8), (25, 7), (40, 5), (1000, 5)] {
            assert_eq!(tail.holds_back(9, bytes), index, "{bytes} bytes");
        }
        assert_eq!(tail.holds_back(4, 100), 4, "what is gone is not held back");
    }
}
