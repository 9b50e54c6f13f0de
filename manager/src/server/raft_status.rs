//! `skep.v1.RaftStatus`: how replication stands on this manager.

use skep_proto::{
    skep::{GetRaftStatusRequest, GetRaftStatusResponse, RaftStatusMember, raft_status_server},
    v1::raft_member_status::Reachability,
};
use skep_raft::Status as RaftStatus;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Answers with what this manager knows, whoever leads.
#[derive(Clone, Debug)]
pub struct RaftStatusService {
    status: watch::Receiver<RaftStatus>,
}

impl RaftStatusService {
    /// A service that tells of `status`.
    pub fn new(status: watch::Receiver<RaftStatus>) -> Self {
        Self { status }
    }
}

#[tonic::async_trait]
impl raft_status_server::RaftStatus for RaftStatusService {
    async fn get_raft_status(
        &self,
        _: Request<GetRaftStatusRequest>,
    ) -> Result<Response<GetRaftStatusResponse>, Status> {
        Ok(Response::new(to_wire(&self.status.borrow())))
    }
}

fn to_wire(status: &RaftStatus) -> GetRaftStatusResponse {
    let positions = &status.positions;
    let members = status.members.iter().map(|member| {
        let own = member.raft_id == status.raft_id;
        let matched = match own {
            true => positions.last,
            false => positions.matched.get(&member.raft_id).copied().unwrap_or(0),
        };
        RaftStatusMember {
            raft_id: member.raft_id,
            node_id: member.node_id.clone(),
            addr: member.addr.clone(),
            learner: status.learners.contains(&member.raft_id),
            leader: member.status().leader,
            reachable: member.status().reachability() == Reachability::Reachable,
            matched_index: matched,
        }
    });
    GetRaftStatusResponse {
        raft_id: status.raft_id,
        term: status.term,
        leader_raft_id: status.leader.as_ref().map_or(0, |leader| leader.raft_id),
        first_index: positions.first,
        last_index: positions.last,
        committed_index: positions.committed,
        applied_index: status.applied,
        snapshot_index: positions.snapshot,
        members: members.collect(),
    }
}
