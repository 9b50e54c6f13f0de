//! A disk on which everything takes its time, and which keeps what was written when its member
//! crashes: all that was said to be durable, and of what was under way perhaps nothing, perhaps all.

use std::{collections::VecDeque, sync::Arc};

use rand::{Rng, rngs::StdRng};
use skep_raft::{
    Append, Batch, Error, LocalMember, LogStore, MemoryLog, SnapshotWriter, WrittenSnapshot, drive,
};

/// Most appends that are lost in a crash when the disk lies about them.
const UNSYNCED: usize = 4;

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    Append(Append),
    /// A snapshot that lies beside the log, and up to where the log may be dropped then.
    Save {
        snapshot: WrittenSnapshot,
        compact: u64,
    },
}

#[derive(Debug)]
enum Work {
    Append(Batch),
    Save {
        snapshot: WrittenSnapshot,
        compact: u64,
    },
}

pub(super) struct Disk {
    /// What is on the platter. The members' logs are clones, which share it.
    platter: MemoryLog,
    /// The log that the running member has open.
    log: Box<dyn LogStore>,
    jobs: VecDeque<Job>,
    room: usize,
    /// What is being written, and the number of its last append.
    writing: Option<(Work, Option<u64>)>,
    /// Up to where old entries are dropped by the next write.
    compact: Option<u64>,
    /// Said to be durable and not yet on the platter. Only ever used if the disk is made to lie.
    unsynced: VecDeque<Work>,
    pub(super) lies: bool,
    /// The next write fails.
    pub(super) fails: bool,
    /// By how much it is slower than planned.
    pub(super) slow: u64,
}

impl Disk {
    pub(super) fn new(room: usize, lies: bool) -> Self {
        let platter = MemoryLog::default();
        Self {
            log: open(&platter),
            platter,
            jobs: VecDeque::new(),
            room,
            writing: None,
            compact: None,
            unsynced: VecDeque::new(),
            lies,
            fails: false,
            slow: 1,
        }
    }

    /// Opens the log again after a crash.
    pub(super) fn open(&mut self) -> &mut dyn LogStore {
        self.log = open(&self.platter);
        &mut *self.log
    }

    /// Writes what a new member begins with, at once.
    pub(super) fn found(&mut self, member: &LocalMember, first: bool) -> Result<(), Error> {
        self.log.set_member(member)?;
        match first {
            true => self.log.append(&drive::bootstrap(member)),
            false => Ok(()),
        }
    }

    pub(super) fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.log.snapshot_writer()
    }

    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < self.room
    }

    /// Queues a job. `false` if there is no room.
    pub(super) fn submit(&mut self, job: Job) -> bool {
        let room = self.has_room();
        if room {
            self.jobs.push_back(job);
        }
        room
    }

    /// Begins to write what waits, as one write if possible. `false` if there is nothing to begin.
    pub(super) fn begin(&mut self) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let Some(job) = self.jobs.pop_front() else {
            return false;
        };
        self.writing = Some(match job {
            Job::Save { snapshot, compact } => (Work::Save { snapshot, compact }, None),
            Job::Append(Append {
                mut number,
                mut batch,
            }) => {
                while let Some(Job::Append(next)) = self.jobs.front()
                    && drive::snapshot_index(&next.batch).is_none()
                    && let Some(Job::Append(next)) = self.jobs.pop_front()
                {
                    number = next.number;
                    // It has no snapshot, so it is never given back.
                    let merged = drive::merge(&mut batch, next.batch);
                    debug_assert!(merged.is_ok());
                }
                (Work::Append(batch), Some(number))
            }
        });
        true
    }

    /// Whether what is being written holds neither entries nor a snapshot.
    pub(super) fn writes_vote(&self) -> bool {
        let Some((Work::Append(batch), _)) = &self.writing else {
            return false;
        };
        drive::entries(batch).next().is_none() && drive::snapshot_index(batch).is_none()
    }

    /// Ends the write. Returns the number of the last append in it, if there is one.
    pub(super) fn finish(&mut self) -> Result<Option<u64>, Error> {
        let Some((work, number)) = self.writing.take() else {
            return Ok(None);
        };
        if self.fails {
            // What is stored now is unknown until the log is opened again.
            self.writing = Some((work, number));
            return Err(Error::Log {
                action: "write",
                reason: "no space left on device".to_owned(),
            });
        }
        self.unsynced.push_back(work);
        let kept = if self.lies { UNSYNCED } else { 0 };
        while self.unsynced.len() > kept
            && let Some(work) = self.unsynced.pop_front()
        {
            self.write(work)?;
        }
        Ok(number)
    }

    fn write(&mut self, work: Work) -> Result<(), Error> {
        match work {
            Work::Append(batch) => {
                self.log.append(&batch)?;
                if let Some(index) = self.compact
                    && self.log.compact(index)?
                {
                    self.compact = None;
                }
            }
            Work::Save { snapshot, compact } => {
                self.log.save_snapshot(&snapshot)?;
                self.compact = Some(compact);
            }
        }
        Ok(())
    }

    /// The member is gone. Of what is not durable the first few writes may have happened.
    pub(super) fn crash(&mut self, rng: &mut StdRng) -> Result<(), Error> {
        let mut under_way: Vec<Work> = self.unsynced.drain(..).collect();
        under_way.extend(self.writing.take().map(|(work, _)| work));
        let survive = rng.random_range(0..=under_way.len());
        for work in under_way.into_iter().take(survive) {
            self.write(work)?;
        }
        self.jobs.clear();
        self.compact = None;
        self.fails = false;
        Ok(())
    }
}

/// The log that a member works on. What decorates logs belongs here.
fn open(platter: &MemoryLog) -> Box<dyn LogStore> {
    Box::new(platter.clone())
}
