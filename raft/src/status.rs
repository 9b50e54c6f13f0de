//! What others see of replication.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use skep_proto::v1::{self, raft_member_status::Reachability};

use crate::Error;

/// How replication stands, as seen by this member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// This member's Raft ID.
    pub raft_id: u64,
    /// The present term.
    pub term: u64,
    /// Who leads, if anyone is known to.
    pub leader: Option<v1::RaftMember>,
    /// Whether this member leads and its store takes writes: all of earlier leaders is applied.
    pub leading: bool,
    /// All members, ordered by Raft ID, with how they look from here: who leads, and whom the last
    /// message reached.
    pub members: Vec<v1::RaftMember>,
    /// Raft IDs of the members that do not vote yet.
    pub learners: BTreeSet<u64>,
    /// Where members are, by Raft ID, that have moved and are not yet in the log with their new
    /// address. This one can be among them.
    pub moved: BTreeMap<u64, String>,
    /// Raft IDs of former members.
    pub removed: BTreeSet<u64>,
    /// Index of the last entry that the store has. A change of this, or of `positions`, alone wakes
    /// nobody who waits for a change of the status.
    pub applied: u64,
    /// How far the log of this member is.
    pub positions: Positions,
}

/// Indexes of entries of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// The first entry that this member still has.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The last one that is known to be committed.
    pub committed: u64,
    /// The last one in the newest snapshot, 0 without a snapshot.
    pub snapshot: u64,
    /// On the leader: up to where the log of each peer is known to match its own, by Raft ID.
    pub matched: BTreeMap<u64, u64>,
}

/// What a group without some member would have to decide with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Voters that would be left and can be reached, this member included.
    pub reachable: usize,
    /// Voters that would be left.
    pub left: usize,
    /// How many of them must be reachable.
    pub needed: usize,
}

impl Quorum {
    /// Whether it can decide.
    pub fn is_there(&self) -> bool {
        self.reachable >= self.needed
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reachable,
            left,
            needed,
        } = self;
        write!(
            f,
            "of the {left} managers left {reachable} could be reached, and {needed} must be"
        )
    }
}

impl Status {
    /// The member with this Raft ID.
    pub fn member(&self, raft_id: u64) -> Option<&v1::RaftMember> {
        self.members.iter().find(|member| member.raft_id == raft_id)
    }

    /// Where a member is, as far as this one knows.
    pub(crate) fn addr(&self, raft_id: u64) -> Option<&str> {
        let member = self.member(raft_id)?;
        Some(self.moved.get(&raft_id).unwrap_or(&member.addr))
    }

    /// The member that a node is.
    pub fn member_of(&self, node_id: &str) -> Option<&v1::RaftMember> {
        self.members.iter().find(|member| member.node_id == node_id)
    }

    /// Whether this member is one that votes.
    pub fn votes(&self) -> bool {
        self.member(self.raft_id).is_some() && !self.learners.contains(&self.raft_id)
    }

    /// The quorum there would be without a member. The rule of SwarmKit, which counts with the present
    /// number n of those who vote: (n - 1) / 2 + 1 of the others must be reachable. A learner takes
    /// nothing with it.
    pub fn without(&self, raft_id: u64) -> Quorum {
        let votes = |member: &&v1::RaftMember| !self.learners.contains(&member.raft_id);
        let voters = self.members.iter().filter(votes);
        let left = voters.clone().filter(|member| member.raft_id != raft_id);
        let reachable = left.clone().filter(|member| {
            member.raft_id == self.raft_id
                || member.status().reachability() == Reachability::Reachable
        });
        Quorum {
            reachable: reachable.count(),
            left: left.count(),
            needed: voters.count().saturating_sub(1) / 2 + 1,
        }
    }

    /// Whether the group surely goes on without this member.
    pub fn can_remove(&self, raft_id: u64) -> bool {
        // A learner decides nothing: whoever leads has its quorum without it.
        self.learners.contains(&raft_id) || self.without(raft_id).is_there()
    }

    /// The same, with the numbers if it may not.
    pub(crate) fn check_removal(&self, raft_id: u64) -> Result<(), Error> {
        match self.can_remove(raft_id) {
            true => Ok(()),
            false => Err(Error::QuorumLoss(self.without(raft_id))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reachable: &[bool]) -> Status {
        let members = reachable.iter().zip(1..).map(|(reachable, raft_id)| {
            let mut member = v1::RaftMember {
                raft_id,
                ..v1::RaftMember::default()
            };
            let reachability = match reachable {
                true => Reachability::Reachable,
                false => Reachability::Unreachable,
            };
            member.status_mut().set_reachability(reachability);
            member
        });
        Status {
            raft_id: 1,
            members: members.collect(),
            ..Status::default()
        }
    }

    #[test]
    fn only_a_member_that_the_quorum_survives_can_be_removed() {
        assert!(!status(&[true]).can_remove(1));
        assert!(status(&[true, true]).can_remove(2));
        assert!(status(&[true, false]).can_remove(2));
        assert!(!status(&[true, false, true]).can_remove(3));
        assert!(status(&[true, false, true]).can_remove(2));
        assert!(status(&[true, true, true]).can_remove(3));
        assert!(!status(&[true, false, false, true, true]).can_remove(5));
        assert!(status(&[true, false, false, true, true]).can_remove(2));
    }

    #[test]
    fn learners_do_not_count() {
        // Two vote; the third one would make them three, with 2 needed.
        let mut two = status(&[true, false, false]);
        assert!(!two.can_remove(1));
        two.learners.insert(3);
        assert!(two.can_remove(2));
        assert!(two.can_remove(3), "nobody needs a learner");
        let mut three = status(&[true, false, true, true]);
        three.learners.insert(4);
        assert!(!three.can_remove(3), "a learner does not stand in");
        assert!(three.votes());
        three.raft_id = 4;
        assert!(!three.votes());
    }

    #[test]
    fn a_refusal_has_the_numbers() {
        let refused = status(&[true, false, true]).check_removal(3).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "raft: member cannot be removed, because removing it may result in loss of quorum: of \
             the 2 managers left 1 could be reached, and 2 must be"
        );
    }
}
