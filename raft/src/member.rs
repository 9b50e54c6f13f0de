//! Who belongs to the group, and who this member is.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1;

use crate::{Error, codec};

/// Who this member is, as its log remembers it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LocalMember {
    /// Never zero, and new for every join.
    #[prost(uint64, tag = "1")]
    pub raft_id: u64,
    /// ID of its node object.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// `host:port` where the others reach it.
    #[prost(string, tag = "3")]
    pub addr: String,
    /// The cluster it belongs to.
    #[prost(string, tag = "4")]
    pub cluster_id: String,
    /// The members at the time it joined, with whom it talks until its log tells it more. Empty on
    /// the first member of a cluster.
    #[prost(message, repeated, tag = "5")]
    pub peers: Vec<v1::RaftMember>,
    /// Whether entries and snapshots are encrypted. The log that does that is the only one that
    /// knows.
    #[prost(bool, tag = "6")]
    pub sealed: bool,
}

/// A change of the group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Adds a member that votes, or gives a learner a vote.
    Add(v1::RaftMember),
    /// Adds a member that gets the log but neither votes nor counts for a quorum.
    AddLearner(v1::RaftMember),
    /// Changes the address of a member.
    Update(v1::RaftMember),
    /// Removes a member for ever.
    Remove(u64),
}

/// A member as it is stored: the status is in the eye of the beholder.
fn stored(member: &v1::RaftMember) -> v1::RaftMember {
    v1::RaftMember {
        status: Some(v1::RaftMemberStatus::default()),
        ..member.clone()
    }
}

/// The members as of some entry of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Membership {
    /// By Raft ID.
    pub(crate) members: BTreeMap<u64, v1::RaftMember>,
    /// Raft IDs that must never be used again.
    pub(crate) removed: BTreeSet<u64>,
}

impl Membership {
    /// As a snapshot tells it.
    pub(crate) fn from_wire(snapshot: &v1::ClusterSnapshot) -> Self {
        Self {
            members: snapshot
                .members
                .iter()
                .map(|member| (member.raft_id, stored(member)))
                .collect(),
            removed: snapshot.removed.iter().copied().collect(),
        }
    }

    pub(crate) fn to_wire(&self) -> v1::ClusterSnapshot {
        v1::ClusterSnapshot {
            members: self.members.values().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
        }
    }

    /// Follows a committed change.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Remove(raft_id) => {
                self.members.remove(raft_id);
                self.removed.insert(*raft_id);
            }
            Change::Add(member) | Change::AddLearner(member) => {
                self.members.insert(member.raft_id, stored(member));
            }
            Change::Update(member) => {
                if let Some(known) = self.members.get_mut(&member.raft_id) {
                    *known = stored(member);
                }
            }
        }
    }

    /// Whether a change still makes sense: whoever asked for it may have looked at older members. A
    /// node is one member, and a Raft ID is never used twice.
    pub(crate) fn allows(&self, change: &Change) -> bool {
        match change {
            Change::Add(member) | Change::AddLearner(member) => {
                let same_node = |known: &&v1::RaftMember| known.node_id == member.node_id;
                let known = self.members.values().find(same_node);
                !self.removed.contains(&member.raft_id)
                    && known.is_none_or(|known| known.raft_id == member.raft_id)
            }
            Change::Update(member) => self.members.contains_key(&member.raft_id),
            Change::Remove(raft_id) => self.members.contains_key(raft_id),
        }
    }

    /// A Raft ID that was never used in this group. Random 63 bits plus one, as in SwarmKit.
    pub(crate) fn fresh_id(members: &[v1::RaftMember], removed: &BTreeSet<u64>) -> u64 {
        loop {
            let id = (rand::random::<u64>() >> 1) + 1;
            if !removed.contains(&id) && members.iter().all(|member| member.raft_id != id) {
                return id;
            }
        }
    }
}

impl LocalMember {
    /// Whether the log is this node's.
    ///
    /// # Errors
    /// [`Error::Foreign`] names both.
    pub fn check_owner(&self, node_id: &str, cluster_id: &str) -> Result<(), Error> {
        if (self.node_id.as_str(), self.cluster_id.as_str()) == (node_id, cluster_id) {
            return Ok(());
        }
        let name = |node: &str, cluster: &str| format!("node {node} of cluster {cluster}");
        Err(Error::Foreign {
            found: name(&self.node_id, &self.cluster_id),
            expected: name(node_id, cluster_id),
        })
    }

    /// This member as the others see it.
    pub(crate) fn to_wire(&self) -> v1::RaftMember {
        v1::RaftMember {
            raft_id: self.raft_id,
            node_id: self.node_id.clone(),
            addr: self.addr.clone(),
            status: Some(v1::RaftMemberStatus::default()),
        }
    }

    /// What the first member of a group writes into its empty log: that it is a member, committed in
    /// term 1. Whoever joins later replays it and so learns of all members from the log alone.
    pub(crate) fn bootstrap(&self) -> crate::log::Batch {
        let change = Change::Add(self.to_wire());
        let entry = codec::Entry {
            entry_type: codec::EntryType::EntryConfChange,
            index: 1,
            term: 1,
            data: codec::encode_change(1, &change),
            ..codec::Entry::default()
        };
        crate::log::Batch {
            snapshot: None,
            key: None,
            entries: vec![entry],
            hard_state: Some(codec::HardState {
                term: 1,
                commit: 1,
                ..codec::HardState::default()
            }),
        }
    }
}
