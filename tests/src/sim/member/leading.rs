//! Becoming and ceasing to be the leader, and what only a leader does.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rand::Rng;
use skep_proto::v1::{InternalRaftRequest, StoreActionKind, store_action::Target};
use skep_raft::drive;
use skep_store::{Proposal, Propose};

use super::{Process, wire};
use crate::sim::{
    mutation::Mutation,
    oracle::{MemberChange, request_id},
    scene::Scene,
    trace::Note,
};

/// Proposals taken in one turn, in bytes.
const BYTES_PER_TURN: usize = 512 * 1024;
/// Proposals that may wait: few, so that stores find the queue full now and then.
const MAX_PROPOSALS: usize = 64;

/// A proposal of the store of a leader, and the term in which it was made.
#[derive(Debug)]
pub(in crate::sim) struct Queued {
    term: u64,
    data: Bytes,
}

#[derive(Debug, Default)]
pub(in crate::sim) struct Proposals {
    queue: VecDeque<Queued>,
    /// Request ID of the proposal that was made last, and whether it was taken.
    pub(in crate::sim) latest: Option<(u64, bool)>,
    /// Request ID of the last one that was taken in this leadership.
    pub(in crate::sim) tail: Option<u64>,
}

struct Proposer {
    term: u64,
    reuse_version: bool,
    proposals: Arc<Mutex<Proposals>>,
}

impl Propose for Proposer {
    fn propose(&self, Proposal { mut data, .. }: Proposal) -> Result<(), skep_store::Error> {
        let mut proposals = self.proposals.lock();
        let Some(request) = request_id(&data) else {
            return Err(skep_store::Error::Busy);
        };
        let room = proposals.queue.len() < MAX_PROPOSALS;
        proposals.latest = Some((request, room));
        if !room {
            return Err(skep_store::Error::Busy);
        }
        if self.reuse_version && request.is_multiple_of(16) {
            data = lower_versions(&data);
        }
        proposals.tail = Some(request);
        let term = self.term;
        proposals.queue.push_back(Queued { term, data });
        Ok(())
    }
}

/// The planted fault: updates give configs a version that is as old as any.
fn lower_versions(data: &Bytes) -> Bytes {
    let Ok(mut request) = InternalRaftRequest::decode(data.clone()) else {
        return data.clone();
    };
    for action in &mut request.action {
        let update = action.action() == StoreActionKind::StoreActionUpdate;
        if let (true, Some(Target::Config(config))) = (update, &mut action.target) {
            config.meta_mut().version_mut().index = 1;
        }
    }
    request.encode_to_vec().into()
}

impl Process {
    /// Lets the store lead if it may: this member is the leader, and all of earlier leaders is
    /// applied.
    pub(super) fn start_leading(&mut self, member: u64, scene: &mut Scene) {
        let role = self.replica.role();
        if self.leading.is_some()
            || !role.leads
            || !self.replica.applied_in_term()
            || self.replica.applied() < self.lead_at
        {
            return;
        }
        self.proposals.lock().tail = None;
        let proposer = Proposer {
            term: role.term,
            reuse_version: scene.is(Mutation::ReuseVersion),
            proposals: self.proposals.clone(),
        };
        self.store.lead(scene.rng.random(), Arc::new(proposer));
        self.leading = Some(role.term);
        scene.note(member, Note::StoreLeads { term: role.term });
    }

    /// Called at each tick: lets someone else lead while the own disk stalls.
    pub(super) fn give_way_if_stalled(&mut self, member: u64, busy: bool, scene: &mut Scene) {
        if !busy {
            self.stalled_ticks = 0;
            return;
        }
        self.stalled_ticks += 1;
        if self.stalled_ticks > drive::MAX_STALLED_TICKS
            && !self.replica.is_transferring()
            && self.hand_over(member, scene)
        {
            scene.note(member, Note::GivesWay);
            scene.counts.gave_way += 1;
        }
    }

    pub(super) fn stop_leading(&mut self, member: u64, scene: &mut Scene) {
        if self.leading.take().is_some() {
            self.store.follow();
            self.news = true;
            scene.note(member, Note::StoreFollows);
        }
        self.reads.refuse();
        self.lead_at = 0;
        self.changes.clear();
    }

    /// Proposes what the store has queued, as far as there is room.
    pub(super) fn propose(&mut self, member: u64, scene: &mut Scene) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(Queued { term, data }) = self
            .held
            .take()
            .or_else(|| self.proposals.lock().queue.pop_front())
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
        let entries = batch.len();
        if entries > 0 {
            scene.note(member, Note::Proposed { entries });
        }
        if self.replica.propose(batch).is_err() {
            // The store counts on these, and on the order.
            self.stop_leading(member, scene);
            self.lead_at = self.replica.last_index();
        }
    }

    /// Proposes the next membership change when the one before is applied.
    pub(super) fn propose_changes(&mut self, member: u64, scene: &mut Scene) {
        if !self.replica.role().leads {
            self.changes.clear();
        }
        while self.replica.can_change()
            && let Some((id, change)) = self.changes.pop_front()
        {
            let (what, subject, proposed) = match change {
                MemberChange::Add(new) => (
                    "add",
                    new,
                    drive::propose_add(&mut self.replica, id, wire(new)),
                ),
                MemberChange::Remove(old) => (
                    "remove",
                    old,
                    drive::propose_remove(&mut self.replica, id, old),
                ),
            };
            if proposed.is_ok() {
                scene.oracle.proposes_change(id, change);
                scene.note(
                    member,
                    Note::Change {
                        id,
                        member: subject,
                        what,
                    },
                );
            }
        }
        let id = scene.rng.random::<u64>().max(1);
        if let Some(learner) = drive::propose_vote(&mut self.replica, id) {
            scene.oracle.proposes_change(id, MemberChange::Add(learner));
            let vote = Note::Change {
                id,
                member: learner,
                what: "vote",
            };
            scene.note(member, vote);
        }
    }
}
