//! What a replica tells of itself.

use std::collections::{BTreeMap, BTreeSet};

use raft::Storage as _;
use skep_proto::v1;

use super::{Replica, Role};
use crate::status::Positions;

impl Replica {
    /// The role that was last told by an output.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether this replica was removed from the group. It does nothing any more then.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// The members, learners too, by Raft ID.
    pub fn members(&self) -> &BTreeMap<u64, v1::RaftMember> {
        &self.membership.members
    }

    /// Raft IDs that must never be used again.
    pub fn removed(&self) -> &BTreeSet<u64> {
        &self.membership.removed
    }

    /// Index of the last entry that was handed out.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether an entry of the present term was handed out, i.e. all of earlier leaders were.
    pub fn applied_in_term(&self) -> bool {
        self.node.store().term(self.applied).ok() == Some(self.node.raft.term)
    }

    /// Index of the last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// How far the log is, given the index of the newest snapshot.
    pub(crate) fn positions(&self, snapshot: u64) -> Positions {
        let raft = &self.node.raft;
        let peers = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let matched = peers.map(|(id, progress)| (*id, progress.matched));
        Positions {
            first: self.node.store().first(),
            last: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            snapshot,
            matched: match self.leads() {
                true => matched.collect(),
                false => BTreeMap::new(),
            },
        }
    }

    /// Term of an entry that is in memory.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok()
    }

    /// How far the log of a peer is known to match this leader's; 0 if unknown.
    pub fn matched(&self, peer: u64) -> u64 {
        let progress = self.node.raft.prs().get(peer);
        progress.map_or(0, |progress| progress.matched)
    }

    /// How many entries are in memory.
    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        let tail = self.node.store();
        tail.last() + 1 - tail.first_index().unwrap()
    }
}
