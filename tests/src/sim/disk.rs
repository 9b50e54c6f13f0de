//! A disk on which everything takes its time, and which keeps what was written when its member
//! crashes: all that was said to be durable, and of what was under way perhaps nothing, perhaps all.

use std::{collections::VecDeque, sync::Arc};

use rand::{Rng, rngs::StdRng};
use skep_raft::{
    Append, Batch, Error, Loaded, LocalMember, LogStore, MemoryLog, Rotation, SealedLog,
    SnapshotWriter, WrittenSnapshot, drive,
};

use super::{keys::Keys, platter::Platter};

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
    /// Old entries are dropped.
    Drop,
}

pub(super) struct Disk {
    /// What is on the platter. The members' logs are clones, which share it.
    platter: Platter,
    /// The keys that it is sealed with.
    pub(super) keys: Keys,
    /// The log that the running member has open.
    log: SealedLog<Platter>,
    jobs: VecDeque<Job>,
    room: usize,
    /// What is being written, and the number of its last append.
    writing: Option<(Work, Option<u64>)>,
    /// Up to where old entries are dropped when the disk has nothing else to do, or with the next write.
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
    /// `lies`: says that things are durable before they are. `keeps`: says that it has dropped what it
    /// keeps.
    pub(super) fn new(room: usize, lies: bool, keeps: bool) -> Result<Self, Error> {
        let platter = Platter::new(MemoryLog::default(), keeps);
        let keys = Keys::default();
        Ok(Self {
            log: SealedLog::open(platter.clone(), Arc::new(keys.clone()))?,
            platter,
            keys,
            jobs: VecDeque::new(),
            room,
            writing: None,
            compact: None,
            unsynced: VecDeque::new(),
            lies,
            fails: false,
            slow: 1,
        })
    }

    /// Opens the log again after a crash. That goes on with a change of its key.
    pub(super) fn open(&mut self) -> Result<Loaded, Error> {
        self.keys.power_on();
        self.log = SealedLog::open(self.platter.clone(), Arc::new(self.keys.clone()))?;
        self.log.load()
    }

    /// Whether a member that starts now could read its log.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.keys.power_on();
        SealedLog::open(self.platter.clone(), Arc::new(self.keys.clone())).map(|_| ())
    }

    /// All its faults end.
    pub(super) fn mend(&mut self) {
        self.slow = 1;
        self.fails = false;
        self.keys.mend();
    }

    /// The change of the log's key.
    pub(super) fn rotation(&self) -> Option<Rotation> {
        self.log.rotation()
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

    /// Whether an append is not durable yet.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.writing, Some((_, Some(_))))
            || self.jobs.iter().any(|job| matches!(job, Job::Append(_)))
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
            // As the thread that writes the log does when no job waits.
            self.writing = self.compact.map(|_| (Work::Drop, None));
            return self.writing.is_some();
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
                self.drop_old()
            }
            Work::Save { snapshot, compact } => {
                self.log.save_snapshot(&snapshot)?;
                self.compact = Some(compact);
                Ok(())
            }
            Work::Drop => self.drop_old(),
        }
    }

    fn drop_old(&mut self) -> Result<(), Error> {
        if let Some(index) = self.compact
            && self.log.compact(index)?
        {
            self.compact = None;
        }
        Ok(())
    }

    /// The member ends: what waits is written first.
    pub(super) fn close(&mut self, rng: &mut StdRng) -> Result<(), Error> {
        while self.writing.is_some() || !self.jobs.is_empty() {
            self.begin();
            match self.finish() {
                Err(_) if self.fails || self.keys.power_lost() => break,
                written => written?,
            };
        }
        self.crash(rng)
    }

    /// The member is gone. Of what is not durable the first few writes may have happened. After the
    /// power has gone in the middle of one, none has.
    pub(super) fn crash(&mut self, rng: &mut StdRng) -> Result<(), Error> {
        let mut under_way: Vec<Work> = self.unsynced.drain(..).collect();
        under_way.extend(self.writing.take().map(|(work, _)| work));
        let survive = rng.random_range(0..=under_way.len());
        for work in under_way.into_iter().take(survive) {
            if self.keys.power_lost() {
                break;
            }
            match self.write(work) {
                Err(_) if self.keys.power_lost() => {}
                written => written?,
            }
        }
        self.jobs.clear();
        self.compact = None;
        self.fails = false;
        Ok(())
    }
}
