//! `swarmctl cluster`.

mod ca;
mod inspect;
mod key;
mod members;
mod unlock;
mod unlock_key;
mod update;

use clap::Subcommand;
use skep_proto::v1::{Cluster, ClusterSpec, GetClusterRequest, KeyRotation, UpdateClusterRequest};

use super::{
    Context,
    versions::{ATTEMPTS, is_out_of_sequence},
};
use crate::{Error, client::Client};

/// The verbs of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the cluster, with the tokens for joining it
    Inspect(inspect::Inspect),
    /// Change the cluster
    Update(update::Update),
    /// Show the root CA certificate, or replace it on all nodes
    Ca(ca::Ca),
    /// Unlock this manager after a restart
    Unlock(unlock::Unlock),
    /// Show the key that unlocks managers, or make a new one
    UnlockKey(unlock_key::UnlockKey),
    /// Show the managers as members of the Raft group, with the positions of their logs
    Members(members::Members),
}

impl ClusterCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Inspect(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
            Self::Ca(command) => command.run(context).await,
            Self::Unlock(command) => command.run(context).await,
            Self::UnlockKey(command) => command.run(context).await,
            Self::Members(command) => command.run(context).await,
        }
    }
}

/// Writes `cluster` edited, and again from a fresh copy if somebody else was faster.
async fn change(
    client: &Client,
    mut cluster: Cluster,
    rotation: KeyRotation,
    edit: impl Fn(&mut ClusterSpec),
) -> Result<Cluster, Error> {
    let mut control = client.control();
    let cluster_id = cluster.id.clone();
    let missing = || Error::Answer("no cluster".to_owned());
    let mut attempt = 1;
    loop {
        edit(cluster.spec_mut());
        let request = UpdateClusterRequest {
            cluster_id: cluster_id.clone(),
            cluster_version: Some(*cluster.meta().version()),
            spec: cluster.spec.take(),
            rotation: Some(rotation),
        };
        match control.update_cluster(request).await {
            Ok(reply) => return reply.into_inner().cluster.ok_or_else(missing),
            Err(status) if attempt < ATTEMPTS && is_out_of_sequence(&status) => attempt += 1,
            Err(status) => return Err(status.into()),
        }
        let request = GetClusterRequest {
            cluster_id: cluster_id.clone(),
        };
        cluster = control
            .get_cluster(request)
            .await?
            .into_inner()
            .cluster
            .ok_or_else(missing)?;
    }
}
