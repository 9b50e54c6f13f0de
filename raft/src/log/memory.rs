//! A log without a disk, for tests: what was acknowledged survives its replica.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Batch, Loaded, LogStore, OwnSnapshot};
use crate::{Error, LocalMember};

/// A log in memory. Clones share it, so that a test can "restart" a member with what it has stored.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Mutex<Loaded>>);

impl LogStore for MemoryLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        let loaded = self.0.lock().clone();
        loaded.check()?;
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.0.lock().member = Some(member.clone());
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut log = self.0.lock();
        batch.check(log.last_index())?;
        if let Some(snapshot) = &batch.snapshot {
            log.entries.clear();
            log.snapshot = Some(snapshot.clone());
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

    fn save_snapshot(&mut self, snapshot: &OwnSnapshot) -> Result<(), Error> {
        self.0.lock().snapshot = Some(snapshot.0.clone());
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), Error> {
        let mut log = self.0.lock();
        let first = log.entries.partition_point(|entry| entry.index <= index);
        log.entries.drain(..first);
        Ok(())
    }
}
