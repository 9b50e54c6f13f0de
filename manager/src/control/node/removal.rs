//! Removal of a node.

use std::collections::BTreeMap;

use prost::Message as _;
use skep_proto::{
    Timestamp,
    v1::{
        BlacklistedCertificate, Cluster, Node, NodeRole, RemoveNodeRequest, RemoveNodeResponse,
        Task, TaskState, TaskStatus, node_status,
    },
};
use skep_raft::Status as RaftStatus;
use skep_store::{By, MAX_PROPOSAL_BYTES, Tx};

use crate::control::{ApiError, Control, cluster, require, stored};

/// Serialised tasks in one transaction, in bytes. The rest of the proposal is for the cluster with
/// its blacklist. About a thousand tasks of usual size.
const MAX_ORPHAN_BYTES: usize = MAX_PROPOSAL_BYTES / 2;

/// Removes a node, bars its certificate and gives up its unfinished tasks. Tasks that do not fit in
/// one transaction are given up in others before.
pub async fn remove(
    control: &Control,
    request: RemoveNodeRequest,
) -> Result<RemoveNodeResponse, ApiError> {
    require(&request.node_id)?;
    loop {
        let raft = (control.raft)();
        let removed = control
            .store
            .update(|tx| {
                let node = stored::<Node>(tx, &request.node_id)?;
                check(&node, request.force, &raft)?;
                if !orphan_tasks(tx, &node.id)? {
                    return Ok(false);
                }
                bar(tx, &node)?;
                tx.remove::<Node>(&node.id)?;
                Ok::<_, ApiError>(true)
            })
            .await?;
        if removed {
            return Ok(RemoveNodeResponse {});
        }
    }
}

fn check(node: &Node, force: bool, raft: &RaftStatus) -> Result<(), ApiError> {
    let id = &node.id;
    if node.spec().desired_role() == NodeRole::Manager && raft.member_of(id).is_some() {
        return Err(ApiError::FailedPrecondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be \
             demoted to worker before removal"
        )));
    }
    if !force && node.status().state() == node_status::State::Ready {
        return Err(ApiError::FailedPrecondition(format!(
            "node {id} is not down and can't be removed"
        )));
    }
    Ok(())
}

/// Gives up unfinished tasks of the node, as many as fit. Returns whether these were all and there
/// is room for the rest of the removal.
fn orphan_tasks(tx: &mut Tx, node_id: &str) -> Result<bool, ApiError> {
    let unfinished: Vec<_> = tx
        .find::<Task>(By::node(node_id))
        .filter(|task| task.status().state < TaskState::Complete.into())
        .cloned()
        .collect();
    let mut bytes = 0;
    for task in unfinished {
        let mut task = Task::clone(&task);
        task.status = Some(TaskStatus {
            timestamp: Some(tx.now()),
            state: TaskState::Orphaned.into(),
            message: "Task belonged to a node that has been deleted".to_owned(),
            ..Default::default()
        });
        let len = task.encoded_len();
        // One task goes through however large it is: it has been stored before.
        if bytes > 0 && bytes + len > MAX_ORPHAN_BYTES {
            return Ok(false);
        }
        bytes += len;
        tx.update(task)?;
    }
    Ok(bytes <= MAX_ORPHAN_BYTES)
}

/// Puts the node on the cluster's blacklist until its certificate has ended.
fn bar(tx: &mut Tx, node: &Node) -> Result<(), ApiError> {
    let mut cluster = tx
        .find::<Cluster>(By::name(cluster::NAME))
        .next()
        .map(|cluster| Cluster::clone(cluster))
        .ok_or_else(|| ApiError::Internal("could not fetch cluster object".to_owned()))?;
    let barred = BlacklistedCertificate {
        expiry: not_after(&node.certificate().certificate),
    };
    let blacklist: &mut BTreeMap<_, _> = &mut cluster.blacklisted_certificates;
    blacklist.insert(node.id.clone(), barred);
    cluster::drop_expired(blacklist, tx.now());
    tx.update(cluster)?;
    Ok(())
}

/// When the first certificate of a PEM chain ends. Without it the node stays barred for good.
fn not_after(chain_pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain_pem).ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    Some(Timestamp { seconds, nanos: 0 })
}
