//! Becoming and ceasing to be the leader, and what only a leader does.

use std::sync::Arc;

use bytes::Bytes;
use skep_proto::v1::raft_member_status::Reachability;
use skep_store::{Proposal, Propose};
use tokio::{sync::mpsc, time::Instant};

use super::{BYTES_PER_TURN, CROWD, GATHERING, Node};
use crate::{Error, member::Change};

/// Ticks that the disk of a leader may take for one write. Its heartbeats go on meanwhile, so nobody
/// else would stand for election, but it can acknowledge nothing. Five times the shortest election
/// timeout: handing over costs about one, and slow disks must not make leaders flap.
pub(crate) const MAX_STALLED_TICKS: usize = 50;

/// A proposal of the store of a leader, and the term in which it was made.
pub(super) struct Queued {
    term: u64,
    data: Bytes,
}

/// Where the store of a leader puts its proposals. They bear the term, so that those of an earlier
/// leadership are recognised and dropped: the store has given them up.
struct Proposals {
    term: u64,
    queue: mpsc::Sender<Queued>,
}

impl Propose for Proposals {
    fn propose(&self, proposal: Proposal) -> Result<(), skep_store::Error> {
        self.queue
            .try_send(Queued {
                term: self.term,
                data: proposal.data,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => skep_store::Error::Busy,
                mpsc::error::TrySendError::Closed(_) => skep_store::Error::LostLeadership,
            })
    }
}

impl Node {
    /// Lets the store lead if it may: this member is the leader, and all of earlier leaders, which
    /// ends with the empty entry of this term, is applied.
    pub(super) fn start_leading(&mut self) {
        let role = self.replica.role();
        if self.leading.is_some()
            || !role.leads
            || !self.replica.applied_in_term()
            || self.replica.applied() < self.lead_at
        {
            return;
        }
        let proposals = Proposals {
            term: role.term,
            queue: self.proposer.clone(),
        };
        self.store.lead(rand::random(), Arc::new(proposals));
        self.leading = Some(role.term);
        self.news = true;
        tracing::info!(term = role.term, "this manager leads the cluster");
    }

    /// Everything that waited for this leader fails.
    pub(super) fn stop_leading(&mut self) {
        if self.leading.take().is_some() {
            self.store.follow();
            self.news = true;
            tracing::info!("this manager does not lead the cluster any more");
        }
        self.inputs.reads.refuse();
        self.lead_at = 0;
        let waiting = self.changing.drain().map(|(_, done)| done);
        let waiting = waiting.chain(self.changes.drain(..).map(|(_, done)| done));
        self.answers
            .extend(waiting.map(|done| (done, Err(Error::NotLeader))));
        self.answers
            .extend(self.transfers.drain(..).map(|done| (done, Ok(()))));
    }

    /// Proposes what the store has queued, as far as there is room.
    pub(super) fn propose(&mut self) {
        if self.gathering.is_some() {
            return;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(Queued { term, data }) =
            self.held.take().or_else(|| self.proposals.try_recv().ok())
        {
            if self.leading != Some(term) {
                continue;
            }
            let full = bytes > 0 && bytes + data.len() > BYTES_PER_TURN;
            if full || !self.replica.has_room(bytes + data.len()) {
                self.held = Some(Queued { term, data });
                break;
            }
            bytes += data.len();
            batch.push(data);
        }
        if batch.len() >= CROWD {
            self.gathering = Some(Instant::now() + GATHERING);
        }
        if let Err(error) = self.replica.propose(batch) {
            // The store counts on these, and on the order. It starts again behind what is on its way.
            tracing::warn!(%error, "proposals were refused");
            self.stop_leading();
            self.lead_at = self.replica.last_index();
        }
    }

    /// Proposes the next membership change when the one before is applied.
    pub(super) fn propose_changes(&mut self) {
        if !self.replica.role().leads {
            let refused = self.changes.drain(..);
            self.answers
                .extend(refused.map(|(_, done)| (done, Err(Error::NotLeader))));
        }
        while self.replica.can_change()
            && let Some((change, done)) = self.changes.pop_front()
        {
            let id = rand::random::<u64>().max(1);
            match self.replica.propose_change(id, &change) {
                Ok(()) => {
                    self.changing.insert(id, done);
                }
                refused => self.answers.push((done, refused)),
            }
        }
        self.promote_learner();
    }

    /// Gives a learner its vote when it has caught up. Nothing is remembered for this: whoever leads
    /// sees it in the members and in how far they are.
    fn promote_learner(&mut self) {
        if self.replica.learners().is_empty() || !self.replica.can_change() {
            return;
        }
        let reachable = |id: &u64| self.peers.reachability(*id) == Reachability::Reachable;
        let learner = self.replica.caught_up_learners().find(reachable);
        let Some(member) = learner.and_then(|id| self.replica.members().get(&id)) else {
            return;
        };
        let change = Change::Add(member.clone());
        tracing::info!(
            member = format_args!("{:x}", member.raft_id),
            node = member.node_id,
            lacks = self
                .replica
                .last_index()
                .saturating_sub(self.replica.matched(member.raft_id)),
            "the new manager has caught up and gets its vote"
        );
        let id = rand::random::<u64>().max(1);
        if let Err(error) = self.replica.propose_change(id, &change) {
            tracing::debug!(%error, "not proposed");
        }
    }

    /// Called at each tick: lets someone else lead while the own disk stalls.
    pub(super) fn give_way_if_stalled(&mut self) {
        if !self.disk.is_busy() {
            self.stalled_ticks = 0;
            return;
        }
        self.stalled_ticks += 1;
        let stalled = self.stalled_ticks > MAX_STALLED_TICKS;
        // With nobody to take over it leads on.
        if stalled && !self.replica.is_transferring() && self.transfer().is_ok() {
            tracing::warn!(
                ticks = self.stalled_ticks,
                "the disk does not get on with the log; another manager is asked to lead"
            );
        }
    }

    /// Asks the peer that was reachable for the longest time to take over.
    pub(super) fn transfer(&mut self) -> Result<(), Error> {
        if !self.replica.role().leads {
            return Err(Error::NotLeader);
        }
        let (members, learners) = (self.replica.members(), self.replica.learners());
        let votes = |peer: u64| members.contains_key(&peer) && !learners.contains(&peer);
        let to = self.peers.longest_reachable(votes).ok_or(Error::HandOver)?;
        self.replica.transfer_leader(to);
        Ok(())
    }
}
