//! Whether a manager may become a worker.

use skep_proto::v1::{Node, NodeRole, RaftMember, raft_member_status::Reachability};
use skep_store::{By, Tx};

use crate::control::ApiError;

/// Fails if the swarm would lose its last manager or its quorum.
pub fn check(tx: &Tx, node: &Node, members: &[RaftMember]) -> Result<(), ApiError> {
    let mut managers = tx.find::<Node>(By::role(NodeRole::Manager));
    if managers.next().is_some_and(|manager| manager.id == node.id) && managers.next().is_none() {
        return Err(ApiError::FailedPrecondition(
            "attempting to demote the last manager of the swarm".to_owned(),
        ));
    }
    let Some(member) = super::member(members, &node.id) else {
        return Err(ApiError::NotFound(
            "can't find manager in raft memberlist".to_owned(),
        ));
    };
    if !keeps_quorum(members, member.raft_id) {
        return Err(ApiError::FailedPrecondition(
            "can't remove member from the raft: this would result in a loss of quorum".to_owned(),
        ));
    }
    Ok(())
}

/// Whether those who are left and reachable are a majority of those who are left now, as Raft
/// counts before a removal: (n - 1) / 2 + 1 of the present n.
fn keeps_quorum(members: &[RaftMember], removed: u64) -> bool {
    let reachable = members
        .iter()
        .filter(|member| member.raft_id != removed)
        .filter(|member| {
            member.status().leader || member.status().reachability() == Reachability::Reachable
        })
        .count();
    reachable > members.len().saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::RaftMemberStatus;

    use super::*;

    #[test]
    fn quorum() {
        // One letter a member: (l)eader, (r)eachable, (u)nreachable; the first is removed.
        let check = |members: &str, expected: bool| {
            let members: Vec<_> = (1..)
                .zip(members.chars())
                .map(|(raft_id, kind)| RaftMember {
                    raft_id,
                    status: Some(RaftMemberStatus {
                        leader: kind == 'l',
                        reachability: match kind {
                            'r' => Reachability::Reachable,
                            'u' => Reachability::Unreachable,
                            _ => Reachability::Unknown,
                        }
                        .into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .collect();
            assert_eq!(keeps_quorum(&members, 1), expected, "{members:?}");
        };
        check("l", false);
        check("rl", true);
        check("ul", true);
        check("lr", true);
        check("rlr", true);
        check("ulr", true);
        check("rlu", false);
        check("rlru", true);
        check("rluu", false);
        check("rlruu", false);
        check("rlrru", true);
    }
}
