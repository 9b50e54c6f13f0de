//! Logs that misbehave.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use skep_raft::{
    Batch, Error, Loaded, LocalMember, LogStore, MemoryLog, SnapshotWriter, WrittenSnapshot,
};

/// A log whose disk can be made to fail.
#[derive(Default)]
pub struct FailingLog(MemoryLog);

static BROKEN: AtomicBool = AtomicBool::new(false);

impl FailingLog {
    pub fn break_disk() {
        BROKEN.store(true, Ordering::SeqCst);
    }
}

impl LogStore for FailingLog {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        self.0.member()
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        self.0.load()
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.0.set_member(member)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        if BROKEN.load(Ordering::SeqCst) {
            return Err(Error::Log {
                action: "write",
                reason: "no space left on device".to_owned(),
            });
        }
        self.0.append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.0.snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.0.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        self.0.compact(index)
    }
}

/// A log that does something before each append: what a disk takes its time for.
pub struct HookedLog {
    log: MemoryLog,
    before_append: Box<dyn Fn() + Send>,
}

impl HookedLog {
    pub fn new(before_append: impl Fn() + Send + 'static) -> Self {
        Self {
            log: MemoryLog::default(),
            before_append: Box::new(before_append),
        }
    }
}

impl LogStore for HookedLog {
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
        (self.before_append)();
        self.log.append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.log.snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.log.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        self.log.compact(index)
    }
}
