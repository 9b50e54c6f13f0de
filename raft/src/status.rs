//! What others see of replication.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1;

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
    /// Where members are, by Raft ID, that have moved and are not yet in the log with their new
    /// address. This one can be among them.
    pub moved: BTreeMap<u64, String>,
    /// Raft IDs of former members.
    pub removed: BTreeSet<u64>,
    /// Index of the last entry that the store has. A change of this alone wakes nobody who waits for
    /// a change of the status.
    pub applied: u64,
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

    /// How many members there would be without `raft_id`, as far as this one can reach them.
    fn reachable_without(&self, raft_id: u64) -> usize {
        let reachable = v1::raft_member_status::Reachability::Reachable;
        self.members
            .iter()
            .filter(|member| member.raft_id != raft_id)
            .filter(|member| {
                member.raft_id == self.raft_id || member.status().reachability() == reachable
            })
            .count()
    }

    /// Whether the group surely goes on without this member. The rule of SwarmKit, which counts with
    /// the present size.
    pub fn can_remove(&self, raft_id: u64) -> bool {
        let quorum = self.members.len().saturating_sub(1) / 2 + 1;
        self.reachable_without(raft_id) >= quorum
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
                true => v1::raft_member_status::Reachability::Reachable,
                false => v1::raft_member_status::Reachability::Unreachable,
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
}
