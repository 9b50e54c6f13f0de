//! A log without a disk, for tests: what was acknowledged survives its replica.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Batch, Loaded, LogStore, OwnSnapshot, SnapshotWriter, WrittenSnapshot};
use crate::{Error, LocalMember, codec::Snapshot};

/// Entries that are dropped at once.
const DROP_ENTRIES: usize = 256;

/// A log in memory. Clones share it, so that a test can "restart" a member with what it has stored.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    log: Arc<Mutex<Loaded>>,
    written: Written,
}

/// Snapshots that do not count yet.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<Snapshot>>>);

impl SnapshotWriter for Written {
    fn write(&self, snapshot: &OwnSnapshot) -> Result<WrittenSnapshot, Error> {
        let stored = snapshot.stored().map_err(Error::log("write snapshot"))?;
        self.0.lock().push(stored);
        Ok(WrittenSnapshot {
            index: snapshot.index(),
        })
    }
}

#[cfg(test)]
impl MemoryLog {
    /// What would be left of it after a crash now: a log of its own.
    pub(super) fn image(&self) -> Self {
        Self {
            log: Arc::new(Mutex::new(self.log.lock().clone())),
            written: Written::default(),
        }
    }
}

impl LogStore for MemoryLog {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        Ok(self.log.lock().member.clone())
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        let loaded = self.log.lock().clone();
        loaded.check()?;
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.log.lock().member = Some(member.clone());
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut log = self.log.lock();
        batch.check(log.last_index())?;
        if let Some(snapshot) = batch.stored_snapshot() {
            let stored = snapshot.stored().map_err(Error::log("write snapshot"))?;
            log.entries.clear();
            log.snapshot = Some(stored);
        }
        if let Some(first) = batch.entries.first() {
            let kept = log
                .entries
                .partition_point(|entry| entry.index < first.index);
            log.entries.truncate(kept);
            log.entries.extend(batch.entries.iter().cloned());
        }
        if let Some(hard_state) = &batch.hard_state {
            log.hard_state = hard_state.clone();
        }
        Ok(())
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        Arc::new(self.written.clone())
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        let mut written = self.written.0.lock();
        let found = written
            .extract_if(.., |found| found.get_metadata().index <= snapshot.index)
            .last()
            .filter(|found| found.get_metadata().index == snapshot.index);
        let mut log = self.log.lock();
        if found.is_some() {
            log.snapshot = found;
        } else if log.snapshot_index() != snapshot.index {
            // One that was written twice counts already, with what was written last.
            return Err(Error::malformed("snapshot", "it was not written"));
        }
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        let mut log = self.log.lock();
        let index = index.min(log.snapshot_index());
        let old = log.entries.partition_point(|entry| entry.index <= index);
        let dropped = old.min(DROP_ENTRIES);
        log.entries.drain(..dropped);
        Ok(dropped == old)
    }
}
