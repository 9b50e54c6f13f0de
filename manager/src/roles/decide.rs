//! What is to be done so that the members of Raft are what the nodes are to be.

use skep_proto::v1::{Node, NodeRole};
use skep_raft::{Quorum, Status as RaftStatus};
use skep_store::{By, Snapshot};

/// What is to be done. When some of it is done, the next thing is decided anew: each member that
/// leaves changes what the others may do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Nodes with their new role, to be stored first.
    pub(super) roles: Vec<Node>,
    /// Raft ID of the member to remove.
    pub(super) remove: Option<u64>,
    /// Set if some member has to stay for now, with the quorum that there would be without it.
    pub(super) refused: Option<Quorum>,
}

/// Everything follows from the nodes and the members:
///
/// - a member whose node is to be a worker, or is gone, leaves; this manager last, because it hands
///   over leadership for that;
/// - a node is a worker once it is no member, so that a crash in between does no harm;
/// - a node that is to be a manager is called one at once.
pub(super) fn decide(snapshot: &Snapshot, raft: &RaftStatus) -> Plan {
    let mut plan = Plan::default();
    let called_manager = By::role(NodeRole::Manager);
    for node in snapshot.find::<Node>(called_manager) {
        if node.spec().desired_role() == NodeRole::Worker && raft.member_of(&node.id).is_none() {
            plan.roles.push(with_role(node, NodeRole::Worker));
        }
    }
    for node in snapshot.find::<Node>(By::role(NodeRole::Worker)) {
        if node.spec().desired_role() == NodeRole::Manager {
            plan.roles.push(with_role(node, NodeRole::Manager));
        }
    }
    let leaves = |node_id: &str| {
        let node = snapshot.get::<Node>(node_id);
        node.is_none_or(|node| node.spec().desired_role() == NodeRole::Worker)
    };
    let mut leaving: Vec<_> = raft
        .members
        .iter()
        .filter(|member| leaves(&member.node_id))
        .map(|member| member.raft_id)
        .collect();
    leaving.sort_by_key(|raft_id| *raft_id == raft.raft_id);
    for raft_id in leaving {
        if raft.can_remove(raft_id) {
            plan.remove = Some(raft_id);
            break;
        }
        plan.refused = Some(raft.without(raft_id));
    }
    plan
}

fn with_role(node: &Node, role: NodeRole) -> Node {
    let mut node = node.clone();
    node.set_role(role);
    node
}
