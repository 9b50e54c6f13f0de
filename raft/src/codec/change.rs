//! Membership changes as they stand in the log.
//!
//! They have the form of etcd's `raftpb.ConfChange`, whose types differ from those of the consensus
//! library: 2 is an update there and a learner here, and 3, a learner there, is nothing here. This is
//! the only place that knows the numbers of both; everything else deals with [`Change`].

use bytes::Bytes;
use prost::Message as _;
use skep_proto::v1;

use super::library;
use crate::{Error, member::Change};

const ADD_NODE: i32 = 0;
const REMOVE_NODE: i32 = 1;
const UPDATE_NODE: i32 = 2;
const ADD_LEARNER_NODE: i32 = 3;

/// `raftpb.ConfChange`. Its numbers are written also when they are zero, as etcd does.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint64, optional, tag = "1")]
    id: Option<u64>,
    #[prost(int32, optional, tag = "2")]
    kind: Option<i32>,
    #[prost(uint64, optional, tag = "3")]
    node_id: Option<u64>,
    /// A serialised `RaftMember`, absent for a removal.
    #[prost(bytes = "bytes", optional, tag = "4")]
    context: Option<Bytes>,
}

/// The data of an entry that holds a change. `id` tells the changes of a proposer apart.
pub(crate) fn encode_change(id: u64, change: &Change) -> Bytes {
    let (kind, node_id, member) = match change {
        Change::Add(member) => (ADD_NODE, member.raft_id, Some(member)),
        Change::AddLearner(member) => (ADD_LEARNER_NODE, member.raft_id, Some(member)),
        Change::Update(member) => (UPDATE_NODE, member.raft_id, Some(member)),
        Change::Remove(raft_id) => (REMOVE_NODE, *raft_id, None),
    };
    let wire = Wire {
        id: Some(id),
        kind: Some(kind),
        node_id: Some(node_id),
        context: member.map(|member| member.encode_to_vec().into()),
    };
    wire.encode_to_vec().into()
}

/// The change in the data of an entry, and its ID.
pub(crate) fn decode_change(data: &Bytes) -> Result<(u64, Change), Error> {
    let malformed = |error: prost::DecodeError| Error::malformed("membership change", error);
    let wire = Wire::decode(data.clone()).map_err(malformed)?;
    let member = || -> Result<v1::RaftMember, Error> {
        let context = wire.context.clone().unwrap_or_default();
        let mut member = v1::RaftMember::decode(context).map_err(malformed)?;
        member.raft_id = wire.node_id();
        Ok(member)
    };
    if wire.node_id() == 0 {
        return Err(Error::malformed("membership change", "no member is named"));
    }
    let change = match wire.kind() {
        ADD_NODE => Change::Add(member()?),
        REMOVE_NODE => Change::Remove(wire.node_id()),
        UPDATE_NODE => Change::Update(member()?),
        ADD_LEARNER_NODE => Change::AddLearner(member()?),
        kind => {
            let reason = format!("it is of the unknown kind {kind}");
            return Err(Error::malformed("membership change", reason));
        }
    };
    Ok((wire.id(), change))
}

/// What the consensus library must be told of a change. It takes no part in updates.
pub(crate) fn for_library(change: &Change) -> Option<library::ConfChange> {
    let (change_type, node_id) = match change {
        Change::Add(member) => (library::ConfChangeType::AddNode, member.raft_id),
        Change::AddLearner(member) => (library::ConfChangeType::AddLearnerNode, member.raft_id),
        Change::Remove(raft_id) => (library::ConfChangeType::RemoveNode, *raft_id),
        Change::Update(_) => return None,
    };
    Some(library::ConfChange {
        change_type,
        node_id,
        ..library::ConfChange::default()
    })
}
