//! Reads that must see everything that was acknowledged before them.
//!
//! One round at a time: a quorum confirms that this member leads, and the store applies what was
//! committed when the round began. Reads that come meanwhile wait in their queue for the next
//! round, however many they are, so the cost of a round is shared.

use std::future::pending;

use tokio::sync::{mpsc, oneshot};

use super::Node;
use crate::{Error, ReadIndex};

/// Reads that may wait for the next round; then the callers have to.
pub(crate) const MAX_READS: usize = 4096;

/// Where a read learns the index that the store has applied for it.
pub(crate) type Read = oneshot::Sender<Result<u64, Error>>;

/// The queue, and the round under way.
pub(crate) struct Reads {
    queue: mpsc::Receiver<Read>,
    /// Taken from the queue, for the next round.
    gathered: Vec<Read>,
    round: Option<Round>,
    /// Number of the last round.
    last: u64,
}

struct Round {
    number: u64,
    /// Known once a quorum has confirmed the round.
    index: Option<u64>,
    waiting: Vec<Read>,
}

impl Reads {
    pub(crate) fn new(queue: mpsc::Receiver<Read>) -> Self {
        Self {
            queue,
            gathered: Vec::new(),
            round: None,
            last: 0,
        }
    }

    /// Waits for something to begin a round for. Cancelling it loses nothing.
    pub(super) async fn arrived(&mut self) {
        if self.round.is_none()
            && let Some(read) = self.queue.recv().await
        {
            self.gathered.push(read);
            return;
        }
        pending().await
    }

    /// Takes what waits, without those whose callers have gone away.
    fn gather(&mut self) {
        while self.gathered.len() < MAX_READS
            && let Ok(read) = self.queue.try_recv()
        {
            self.gathered.push(read);
        }
        self.gathered.retain(|read| !read.is_closed());
    }

    /// The round of this number is confirmed. One that was given up is not known any more.
    pub(super) fn confirmed(&mut self, read: ReadIndex) {
        if let Some(round) = &mut self.round
            && round.number == read.context
        {
            round.index = Some(read.index);
        }
    }

    /// Gives up the round and what waits for one: this member does not lead.
    pub(super) fn refuse(&mut self) {
        let waiting = self.round.take().map_or_else(Vec::new, |r| r.waiting);
        for read in waiting.into_iter().chain(self.gathered.drain(..)) {
            // Who asked may have gone away.
            let _ = read.send(Err(Error::NotLeader));
        }
    }
}

impl Node {
    /// Begins a round if there is something to begin one for.
    pub(super) fn begin_reads(&mut self) {
        let reads = &mut self.inputs.reads;
        if reads.round.is_some() {
            return;
        }
        reads.gather();
        if reads.gathered.is_empty() {
            return;
        }
        let number = reads.last + 1;
        if self.leading.is_none() || self.replica.read_index(number).is_err() {
            reads.refuse();
            return;
        }
        reads.last = number;
        reads.round = Some(Round {
            number,
            index: None,
            waiting: std::mem::take(&mut reads.gathered),
        });
    }

    /// Ends the round if it is confirmed and the store is where it must be.
    pub(super) fn finish_reads(&mut self) {
        let applied = self.replica.applied();
        let done = |round: &mut Round| round.index.is_some_and(|index| index <= applied);
        let round = self.inputs.reads.round.take_if(done);
        for read in round.map_or_else(Vec::new, |round| round.waiting) {
            // Who asked may have gone away.
            let _ = read.send(Ok(applied));
        }
    }
}
