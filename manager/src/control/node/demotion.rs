//! Whether a manager may become a worker.

use skep_proto::v1::{Node, NodeRole};
use skep_raft::Status as RaftStatus;
use skep_store::{By, Tx};

use crate::control::ApiError;

/// Fails if the swarm would lose its last manager or its quorum.
pub fn check(tx: &Tx, node: &Node, raft: &RaftStatus) -> Result<(), ApiError> {
    // One that is about to be demoted too does not stay.
    let mut others = tx
        .find::<Node>(By::role(NodeRole::Manager))
        .filter(|other| other.id != node.id && other.spec().desired_role() == NodeRole::Manager);
    if others.next().is_none() {
        return Err(ApiError::FailedPrecondition(
            "attempting to demote the last manager of the swarm".to_owned(),
        ));
    }
    let Some(member) = raft.member_of(&node.id) else {
        return Err(ApiError::NotFound(
            "can't find manager in raft memberlist".to_owned(),
        ));
    };
    if !raft.can_remove(member.raft_id) {
        return Err(ApiError::FailedPrecondition(format!(
            "can't remove member from the raft: this would result in a loss of quorum: {}",
            raft.without(member.raft_id)
        )));
    }
    Ok(())
}
