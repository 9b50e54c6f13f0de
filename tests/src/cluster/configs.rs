//! Configs: the simplest objects to write and to look for in a store.

use std::time::Duration;

use skep_proto::v1::{
    Annotations, ClusterSpec, Config, ConfigSpec, CreateConfigRequest, UpdateClusterRequest,
};
use tonic::{Code, Status};

use super::Cluster;

/// A request for a config of this size.
pub fn config_of(name: &str, bytes: usize) -> CreateConfigRequest {
    let spec = ConfigSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        data: vec![b'x'; bytes].into(),
        ..Default::default()
    };
    CreateConfigRequest { spec: Some(spec) }
}

impl Cluster {
    /// Writes a config, through whichever manager, until it is acknowledged.
    pub async fn create_config(&self, name: &str, bytes: usize) {
        Box::pin(self.retry("config create", async |mut control| {
            match control.create_config(config_of(name, bytes)).await {
                // An earlier try whose answer was lost.
                Err(status) if status.code() == Code::AlreadyExists => {
                    Ok(tonic::Response::new(Default::default()))
                }
                done => done,
            }
        }))
        .await;
    }

    /// How many configs a running manager has in its own store, whoever leads.
    pub fn configs_at(&self, name: &str) -> usize {
        let manager = self.node(name).manager().unwrap();
        manager.store().snapshot().count::<Config>()
    }

    /// Index that a running manager's own store is at.
    pub fn index_at(&self, name: &str) -> u64 {
        let manager = self.node(name).manager().unwrap();
        manager.store().snapshot().index()
    }

    /// The term and the ID of the leader as a running manager knows them.
    pub fn term_at(&self, name: &str) -> (u64, u64) {
        let status = self.node(name).manager().unwrap().status();
        let status = status.borrow();
        let leader = status.leader.as_ref().map_or(0, |leader| leader.raft_id);
        (status.term, leader)
    }

    /// Changes the spec of the cluster.
    pub async fn configure(&self, change: impl Fn(&mut ClusterSpec)) {
        Box::pin(self.retry("cluster update", async |mut control| {
            let cluster = self.object().await;
            let mut spec = cluster.spec().clone();
            change(&mut spec);
            let request = UpdateClusterRequest {
                cluster_id: cluster.id.clone(),
                cluster_version: cluster.meta().version,
                spec: Some(spec),
                rotation: None,
            };
            control.update_cluster(request).await
        }))
        .await;
    }

    /// Sets how many entries there are between snapshots, and how many are kept behind one.
    pub async fn set_snapshots(&self, interval: u64, kept: u64) {
        self.configure(|spec| {
            spec.raft_mut().snapshot_interval = interval;
            spec.raft_mut().log_entries_for_slow_followers = kept;
        })
        .await;
    }

    /// Sets the heartbeat period, so that dead nodes are found out soon.
    pub async fn set_heartbeat(&self, period: Duration) {
        self.configure(|spec| spec.dispatcher_mut().heartbeat_period = period.try_into().ok())
            .await;
    }

    /// Asks the leader to hand over. Returns whether it did.
    pub async fn transfer(&self) -> Result<(), Status> {
        let leader = self.leader().await;
        let raft = self.node(&leader).manager().unwrap().raft().clone();
        let done = raft.transfer_leadership().await;
        done.map_err(|err| Status::unknown(err.to_string()))
    }
}
