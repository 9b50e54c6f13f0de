//! The thread that writes the log.
//!
//! While one batch is being made durable, later ones queue up and are then written as one: an fsync
//! costs the same for one entry and for a thousand. Old entries are dropped a few at a time, between
//! the batches. The thread ends, and the log is closed, when its [`Disk`] is dropped.

use std::{sync::Arc, thread};

use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};

use crate::{
    Error,
    log::{Batch, LogStore, WrittenSnapshot},
    replica::Append,
};

/// Jobs that may wait. All that wait are usually written at once, so this is only reached when the
/// disk stalls; then the replica's outputs wait too.
const MAX_JOBS: usize = 1024;
/// Size of a merged batch in bytes.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Something to write.
pub(crate) enum Job {
    Append(Append),
    /// A snapshot of this member that lies beside the log, and up to where the log may be dropped
    /// once the snapshot counts.
    Save {
        snapshot: WrittenSnapshot,
        compact: u64,
    },
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Number of the last durable append.
    pub(crate) number: u64,
    /// Set when the thread has given up. Nothing is written any more.
    pub(crate) failed: Option<Arc<Error>>,
}

/// The handle of the thread.
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    progress: watch::Receiver<Progress>,
    /// Number of the last append that was queued.
    submitted: u64,
}

impl Disk {
    pub(crate) fn spawn(log: Box<dyn LogStore>) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let (done, progress) = watch::channel(Progress::default());
        thread::Builder::new()
            .name("raft-disk".into())
            .spawn(move || run(log, queue, &done))
            .map_err(|error| Error::Thread(error.to_string()))?;
        Ok(Self {
            jobs,
            progress,
            submitted: 0,
        })
    }

    /// Whether an append is not durable yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.progress.borrow().number < self.submitted
    }

    pub(crate) fn has_room(&self) -> bool {
        self.jobs.capacity() > 0
    }

    /// Queues a job. `false` if there is no room or the thread has ended.
    pub(crate) fn submit(&mut self, job: Job) -> bool {
        if let Job::Append(append) = &job {
            self.submitted = append.number;
        }
        self.jobs.try_send(job).is_ok()
    }

    /// Waits for the next progress.
    pub(crate) async fn progress(&mut self) -> Progress {
        if self.progress.changed().await.is_err() {
            // The thread never ends by itself without saying why.
            let error = Error::Thread("the thread that writes the log has panicked".into());
            return Progress {
                number: 0,
                failed: Some(Arc::new(error)),
            };
        }
        self.progress.borrow_and_update().clone()
    }

    /// Waits until everything queued is written and the log is closed.
    pub(crate) async fn close(self) {
        let Self {
            jobs, mut progress, ..
        } = self;
        drop(jobs);
        while progress.changed().await.is_ok() {}
    }
}

fn run(log: Box<dyn LogStore>, queue: mpsc::Receiver<Job>, done: &watch::Sender<Progress>) {
    let mut writer = Writer {
        log,
        queue,
        next: None,
        compact: None,
    };
    if let Err(error) = writer.run(done) {
        tracing::error!(%error, "the raft log cannot be written");
        done.send_modify(|progress| progress.failed = Some(Arc::new(error)));
    }
    // Whoever sees the channel closed may open the log again.
    drop(writer);
}

/// What the thread works with.
struct Writer {
    log: Box<dyn LogStore>,
    queue: mpsc::Receiver<Job>,
    /// Taken from the queue, but could not be part of the batch before it.
    next: Option<Job>,
    /// Up to where the log is being dropped.
    compact: Option<u64>,
}

impl Writer {
    fn run(&mut self, done: &watch::Sender<Progress>) -> Result<(), Error> {
        loop {
            match self.next_job() {
                Ok(Job::Append(append)) => {
                    let number = self.write(append)?;
                    done.send_modify(|progress| progress.number = number);
                }
                Ok(Job::Save { snapshot, compact }) => {
                    self.log.save_snapshot(&snapshot)?;
                    self.compact = Some(compact);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            // Also when more jobs wait already: a log that is never idle must not grow for ever.
            if let Some(index) = self.compact
                && self.log.compact(index)?
            {
                self.compact = None;
            }
        }
    }

    /// Waits for a job, unless there is something to do meanwhile.
    fn next_job(&mut self) -> Result<Job, TryRecvError> {
        match self.next.take() {
            Some(job) => Ok(job),
            None if self.compact.is_some() => self.queue.try_recv(),
            None => self.queue.blocking_recv().ok_or(TryRecvError::Disconnected),
        }
    }

    /// Writes an append and all that queue right behind it. What cannot be part of the same batch is
    /// left in `next`.
    fn write(&mut self, append: Append) -> Result<u64, Error> {
        let Append {
            mut number,
            mut batch,
        } = append;
        let mut size = batch.size();
        while size < MAX_BATCH_BYTES
            && let Ok(job) = self.queue.try_recv()
        {
            match job {
                Job::Append(append) => {
                    let added = append.batch.size();
                    match merge(&mut batch, append) {
                        Ok(merged) => (number, size) = (merged, size + added),
                        Err(alone) => {
                            self.next = Some(Job::Append(*alone));
                            break;
                        }
                    }
                }
                save @ Job::Save { .. } => {
                    self.next = Some(save);
                    break;
                }
            }
        }
        self.log.append(&batch)?;
        Ok(number)
    }
}

fn merge(batch: &mut Batch, append: Append) -> Result<u64, Box<Append>> {
    let Append { number, batch: add } = append;
    match batch.merge(add) {
        Ok(()) => Ok(number),
        Err(add) => Err(Box::new(Append {
            number,
            batch: *add,
        })),
    }
}
