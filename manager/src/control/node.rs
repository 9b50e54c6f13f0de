//! Calls about nodes.

mod demotion;
mod removal;

use skep_proto::v1::*;
use skep_raft::Status as RaftStatus;

use super::{ApiError, Control, filter, require, stored};

pub(super) use removal::remove;

pub(super) async fn get(
    control: &Control,
    request: GetNodeRequest,
) -> Result<GetNodeResponse, ApiError> {
    let mut node = Node::clone(&*control.get(&request.node_id)?);
    add_manager_status(&mut node, &(control.raft)());
    Ok(GetNodeResponse { node: Some(node) })
}

pub(super) async fn list(
    control: &Control,
    request: ListNodesRequest,
) -> Result<ListNodesResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let raft = (control.raft)();
    let candidates = filter::Common::from(&filters).candidates();
    let nodes = filter::select::<Node>(&snapshot, candidates)
        .into_iter()
        .filter(|node| passes(&filters, node))
        .map(|node| {
            let mut node = Node::clone(node);
            add_manager_status(&mut node, &raft);
            node
        })
        .collect();
    Ok(ListNodesResponse { nodes })
}

pub(super) async fn update(
    control: &Control,
    request: UpdateNodeRequest,
) -> Result<UpdateNodeResponse, ApiError> {
    require(&request.node_id)?;
    let version = request.node_version.ok_or_else(ApiError::missing)?;
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    let raft = (control.raft)();
    let node = control
        .store
        .update(|tx| {
            let mut node = stored::<Node>(tx, &request.node_id)?;
            let roles = (node.spec().desired_role(), spec.desired_role());
            if roles == (NodeRole::Manager, NodeRole::Worker) {
                demotion::check(tx, &node, &raft)?;
            }
            node.meta_mut().version = Some(version);
            node.spec = Some(spec);
            Ok::<_, ApiError>(tx.update(node)?)
        })
        .await?;
    Ok(UpdateNodeResponse {
        node: Some(Node::clone(&node)),
    })
}

fn passes(filters: &list_nodes_request::Filters, node: &Node) -> bool {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    let description = node.description.as_ref();
    let hostname = description.map_or("", |description| &description.hostname);
    let engine_labels = description
        .and_then(|description| description.engine.as_ref())
        .map_or(&NONE, |engine| &engine.labels);
    let spec = node.spec();
    filter::Common::from(filters).pass_as(&node.id, hostname, engine_labels)
        && filter::has_labels(&spec.annotations().labels, &filters.node_labels)
        && filter::any(&filters.roles, |&role| role == node.role)
        && filter::any(&filters.memberships, |&membership| {
            membership == spec.membership
        })
}

/// Tells what the member list knows of the node; it is not stored.
fn add_manager_status(node: &mut Node, raft: &RaftStatus) {
    node.manager_status = raft.member_of(&node.id).map(|member| ManagerStatus {
        raft_id: member.raft_id,
        addr: member.addr.clone(),
        leader: member.status().leader,
        reachability: member.status().reachability,
    });
}

#[cfg(test)]
mod tests;
