//! What a disk keeps. It can be made to say that it has dropped what it keeps.

use std::sync::Arc;

use skep_raft::{
    Batch, Error, Loaded, LocalMember, LogStore, MemoryLog, SnapshotWriter, WrittenSnapshot,
};

/// A log that survives its member. Clones share it.
#[derive(Clone)]
pub(super) struct Platter {
    log: MemoryLog,
    keeps: bool,
}

impl Platter {
    pub(super) fn new(log: MemoryLog, keeps: bool) -> Self {
        Self { log, keeps }
    }
}

impl LogStore for Platter {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        self.log.member()
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        self.log.load()
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.log.set_member(member)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        self.log.append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.log.snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.log.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        match self.keeps {
            true => Ok(true),
            false => self.log.compact(index),
        }
    }
}
