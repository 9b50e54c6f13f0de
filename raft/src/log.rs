//! The log on disk: one small trait, and what implements it.
//!
//! The disk is for durability and recovery only; while a member runs, its log is read from memory.
//! What is stored is encrypted by [`SealedLog`], which any log can be wrapped in.

mod dir;
mod entries;
pub(crate) mod format;
mod head;
mod memory;
mod own_snapshot;
mod sealed;
pub(crate) mod segments;
pub(crate) mod sled;
pub(crate) mod snapshot_dir;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use skep_security::DataKey;

pub use memory::MemoryLog;
pub use own_snapshot::OwnSnapshot;
pub use sealed::{Keyring, Rotation, SealedLog};

use self::{dir::LogDir, segments::SegmentLog, sled::SledLog};
use crate::{
    Error, LocalMember,
    codec::{Entry, HardState, Snapshot},
};

/// How a log lies on disk. One that is there stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// As files that are written from front to back.
    #[default]
    Segments,
    /// In a sled database: durable as well, but slower.
    Sled,
}

impl LogKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Segments, Self::Sled];

    /// Whether a log of this kind has left something in `dir`.
    fn is_in(self, dir: &Path) -> bool {
        match self {
            Self::Segments => segments::numbers(dir).is_ok_and(|numbers| !numbers.is_empty()),
            Self::Sled => dir.join("db").exists(),
        }
    }
}

/// Opens the log in `dir`. If there is none, the directory is created with mode 0700 and gets one of
/// kind `new`.
///
/// # Errors
/// [`Error::Locked`] if another process, or somebody else in this one, has it open, [`Error::Newer`] if
/// a newer version has written it, [`Error::Damaged`] if it lacks what was durable.
pub fn open_log(dir: &Path, new: LogKind) -> Result<Box<dyn LogStore>, Error> {
    let dir = LogDir::open(dir, new)?;
    Ok(match dir.format.kind {
        LogKind::Segments => Box::new(SegmentLog::open(dir)?),
        LogKind::Sled => Box::new(SledLog::open(dir)?),
    })
}

/// Everything that a log remembers.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Whose log it is. `None` if nothing was ever stored.
    pub member: Option<LocalMember>,
    /// Term, vote and commit index.
    pub(crate) hard_state: HardState,
    /// Consecutive; the first one comes at latest right after the snapshot.
    pub(crate) entries: Vec<Entry>,
    /// The newest one.
    pub(crate) snapshot: Option<Snapshot>,
}

/// What is written together, all or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// A snapshot from the leader. It replaces the whole log.
    pub(crate) snapshot: Option<Snapshot>,
    /// Seals the data of the snapshot on its way to the disk: a sealed copy would be as large again.
    pub(crate) key: Option<DataKey>,
    /// Consecutive entries. All stored entries from the first one's index on are replaced by them.
    pub(crate) entries: Vec<Entry>,
    /// New term, vote and commit index.
    pub(crate) hard_state: Option<HardState>,
}

/// A durable log. Every method but [`Self::compact`] returns when what it did is on disk, and after an
/// error of a writing method nothing more may be written: what is stored is unknown until the log is
/// opened again.
pub trait LogStore: Send {
    /// Whose log this is, `None` if nothing was ever stored. Unlike [`Self::load`] this reads nothing
    /// else.
    fn member(&self) -> Result<Option<LocalMember>, Error>;

    /// Reads everything. What an interrupted append has left is dropped. Fails with [`Error::Hole`]
    /// or [`Error::Damaged`] if something that was durable is missing, as far as that shows: of what was
    /// appended last it does not.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Stores whose log this is.
    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error>;

    /// Stores a batch. Entries that would leave a hole are refused with [`Error::Hole`].
    fn append(&mut self, batch: &Batch) -> Result<(), Error>;

    /// What writes snapshots that are taken here, beside the log and without delaying it.
    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter>;

    /// Makes a written snapshot count, in place of an earlier one. The entries stay.
    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error>;

    /// Drops some of the entries up to and including `index`, as far as the snapshot covers them, the
    /// oldest ones first. It takes well below a millisecond: an append may be waiting. Returns whether
    /// nothing is left to drop; what was appended together with later entries may stay. A crash may
    /// bring back what was dropped since the last write, which does no harm.
    fn compact(&mut self, index: u64) -> Result<bool, Error>;

    /// The change of the key that encrypts the log. `None` if it is not encrypted.
    fn rotation(&self) -> Option<Rotation> {
        None
    }
}

impl LogStore for Box<dyn LogStore> {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        (**self).member()
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        (**self).load()
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        (**self).set_member(member)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        (**self).append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        (**self).snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        (**self).save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        (**self).compact(index)
    }

    fn rotation(&self) -> Option<Rotation> {
        (**self).rotation()
    }
}

/// Writes snapshots on whatever thread it is called.
pub trait SnapshotWriter: Send + Sync {
    /// Makes a snapshot durable. It counts only once [`LogStore::save_snapshot`] has returned too.
    fn write(&self, snapshot: &OwnSnapshot) -> Result<WrittenSnapshot, Error>;
}

/// A snapshot that lies beside the log but does not count yet. Only a [`SnapshotWriter`] makes these.
#[derive(Debug)]
pub struct WrittenSnapshot {
    index: u64,
}

impl WrittenSnapshot {
    /// Index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Batch {
    /// Entries that hold `data`, from index `first` on.
    pub fn of_entries(first: u64, term: u64, data: Vec<Bytes>) -> Self {
        let entry = |(index, data)| Entry {
            index,
            term,
            data,
            ..Entry::default()
        };
        Self {
            entries: (first..).zip(data).map(entry).collect(),
            ..Self::default()
        }
    }

    /// Adds what comes right after this batch, so that both are written as one. A batch with a
    /// snapshot is given back: it must be written by itself.
    pub(crate) fn merge(&mut self, next: Self) -> Result<(), Box<Self>> {
        if next.snapshot.is_some() {
            return Err(Box::new(next));
        }
        if let Some(first) = next.entries.first() {
            let kept = self
                .entries
                .partition_point(|entry| entry.index < first.index);
            self.entries.truncate(kept);
        }
        self.entries.extend(next.entries);
        self.hard_state = next.hard_state.or(self.hard_state.take());
        Ok(())
    }

    /// The snapshot, to be stored.
    fn stored_snapshot(&self) -> Option<OwnSnapshot> {
        let snapshot = OwnSnapshot::from(self.snapshot.clone()?);
        Some(snapshot.sealed(self.key.clone()))
    }

    /// Approximate size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.entries.iter().map(|entry| 64 + entry.data.len()).sum()
    }

    /// The entries must follow one another, and the first one whatever is stored up to `last`.
    pub(crate) fn check(&self, last: u64) -> Result<(), Error> {
        let last = match &self.snapshot {
            Some(snapshot) => snapshot.get_metadata().index,
            None => last,
        };
        let Some(first) = self.entries.first() else {
            return Ok(());
        };
        if first.index > last + 1 {
            return Err(Error::Hole(last + 1));
        }
        check_consecutive(&self.entries)
    }
}

impl Loaded {
    /// Whether no entry and no snapshot was ever stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.snapshot.is_none()
    }

    /// Index of the snapshot, 0 without one.
    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.get_metadata().index)
    }

    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> u64 {
        let last = self.entries.last().map_or(0, |entry| entry.index);
        last.max(self.snapshot_index())
    }

    /// Looks for what a damaged disk may have lost.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let covered = self.snapshot_index();
        if let Some(first) = self.entries.first()
            && first.index > covered + 1
        {
            return Err(Error::Hole(covered + 1));
        }
        check_consecutive(&self.entries)?;
        if self.hard_state.commit > self.last_index() {
            return Err(Error::Hole(self.last_index() + 1));
        }
        Ok(())
    }
}

fn check_consecutive(entries: &[Entry]) -> Result<(), Error> {
    match entries
        .windows(2)
        .find(|pair| pair[0].index + 1 != pair[1].index)
    {
        Some(pair) => Err(Error::Hole(pair[0].index + 1)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod contract;
