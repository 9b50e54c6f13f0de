//! Reads that must see everything that was acknowledged before them: one round at a time, in which a
//! quorum confirms that this member leads.

use super::Process;
use crate::sim::{mutation::Mutation, scene::Scene};

/// A read: the client and the number of its operation.
pub(in crate::sim) type Read = (usize, u64);

/// The reads of a member.
#[derive(Debug, Default)]
pub(in crate::sim) struct Reads {
    /// For the next round.
    gathered: Vec<Read>,
    round: Option<Round>,
    /// Number of the last round.
    last: u64,
    /// Those that may look at the store now, or are told that this member does not lead.
    pub(in crate::sim) done: Vec<(Read, bool)>,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// Up to where the store must be, once a quorum has confirmed the round.
    index: Option<u64>,
    waiting: Vec<Read>,
}

impl Reads {
    /// A client wants to read.
    pub(in crate::sim) fn ask(&mut self, read: Read) {
        self.gathered.push(read);
    }

    /// A quorum has confirmed a round.
    pub(super) fn confirmed(&mut self, number: u64, index: u64) {
        if let Some(round) = &mut self.round
            && round.number == number
        {
            round.index = Some(index);
        }
    }

    pub(super) fn refuse(&mut self) {
        let waiting = self
            .round
            .take()
            .map_or_else(Vec::new, |round| round.waiting);
        let waiting = waiting.into_iter().chain(self.gathered.drain(..));
        self.done.extend(waiting.map(|read| (read, false)));
    }
}

impl Process {
    pub(super) fn begin_reads(&mut self, scene: &Scene) {
        let reads = &mut self.reads;
        if scene.is(Mutation::StaleRead) {
            let gathered = reads.gathered.drain(..);
            reads.done.extend(gathered.map(|read| (read, true)));
        }
        if reads.round.is_some() || reads.gathered.is_empty() {
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
        if let Some(round) = self.reads.round.take_if(done) {
            let waiting = round.waiting.into_iter();
            self.reads.done.extend(waiting.map(|read| (read, true)));
        }
        self.news |= !self.reads.done.is_empty();
    }
}
