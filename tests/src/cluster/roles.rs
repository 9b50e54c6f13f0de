//! Nodes that become managers or workers, or go.

use skep_proto::v1::{NodeRole, RemoveNodeRequest, UpdateNodeRequest, UpdateNodeResponse};
use tonic::Status;

use super::{Cluster, PATIENCE, eventually};

impl Cluster {
    /// Runs a node, as a daemon does, until the end of its manager is dealt with: it was removed from its
    /// cluster. From then on the node is a worker.
    pub async fn steps_down(&mut self, name: &str) {
        let host = self.host(name);
        let (socket, log) = (host.socket(), host.state_dir.join("raft"));
        let (_, node) = host.running.as_mut().unwrap();
        let stepped_down = eventually("the manager's end", async || {
            (!socket.exists() && !log.exists()).then_some(())
        });
        tokio::select! {
            end = Box::pin(node.run()) => panic!("{name}: {end:?}"),
            () = stepped_down => {}
        }
        assert!(node.manager().is_none());
        host.manager = false;
    }

    /// Runs a node, as a daemon does, until it is a manager.
    pub async fn becomes_manager(&mut self, name: &str) {
        let host = self.host(name);
        let (_, node) = host.running.as_mut().unwrap();
        let manages = tokio::time::timeout(PATIENCE, node.manages());
        tokio::select! {
            end = Box::pin(node.run()) => panic!("{name}: {end:?}"),
            started = manages => started.unwrap(),
        }
        assert!(node.manager().is_some());
        host.manager = true;
    }

    /// Asks for a node to become a worker.
    pub async fn demote(&self, name: &str) {
        self.retry("demotion", async |_| self.try_demote(name).await)
            .await;
    }

    /// Asks for a node to become a manager.
    pub async fn promote(&self, name: &str) {
        self.retry("promotion", async |_| {
            self.try_role(name, NodeRole::Manager).await
        })
        .await;
    }

    /// Asks once for a node to become a worker.
    pub async fn try_demote(
        &self,
        name: &str,
    ) -> Result<tonic::Response<UpdateNodeResponse>, Status> {
        self.try_role(name, NodeRole::Worker).await
    }

    async fn try_role(
        &self,
        name: &str,
        role: NodeRole,
    ) -> Result<tonic::Response<UpdateNodeResponse>, Status> {
        let node = self.node_object(name).await;
        let mut spec = node.spec().clone();
        spec.set_desired_role(role);
        let request = UpdateNodeRequest {
            node_id: node.id.clone(),
            node_version: node.meta().version,
            spec: Some(spec),
        };
        self.control().await.update_node(request).await
    }

    /// Removes the node object of a host.
    pub async fn remove_node(&self, node_id: &str, force: bool) {
        self.retry("node removal", async |mut control| {
            let request = RemoveNodeRequest {
                node_id: node_id.to_owned(),
                force,
            };
            control.remove_node(request).await
        })
        .await;
    }
}
