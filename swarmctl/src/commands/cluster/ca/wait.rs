//! Waiting for the end of a rotation of the root CA.

use std::time::Duration;

use skep_proto::v1::{Cluster, GetClusterRequest, ListNodesRequest, Node};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::Status;

use super::{
    certificate::Issuer,
    progress::{Progress, Step, goal, step},
};
use crate::{Error, client::Client, commands::Context, progress::is_passing};

/// How often the nodes are looked at: the manager moves some every three seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long one look may take before it counts as failed.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long looks may fail in a row: managers are moved too, and the leader may change.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the root that `cluster` moves to is in place, and returns the cluster as it is then.
pub(super) async fn wait(
    context: &mut Context<'_>,
    client: &Client,
    cluster: Cluster,
    quiet: bool,
) -> Result<Cluster, Error> {
    let mut last = None;
    let interrupted = tokio::select! {
        done = follow(context, client, &cluster, quiet, &mut last) => return done,
        signal = tokio::signal::ctrl_c() => signal,
    };
    interrupted?;
    if let Some(behind) = last.as_ref().and_then(Progress::waits_for) {
        writeln!(
            context.io.err,
            "Nodes without a certificate of the new root CA: {behind}"
        )?;
    }
    writeln!(
        context.io.err,
        "Operation continuing in background.\n\
         Use `swarmctl cluster ca` to see when the root CA has changed."
    )?;
    Err(Error::Interrupted)
}

async fn follow(
    context: &mut Context<'_>,
    client: &Client,
    cluster: &Cluster,
    quiet: bool,
    last: &mut Option<Progress>,
) -> Result<Cluster, Error> {
    let wanted = goal(cluster).to_vec();
    let issuer = Issuer::of_pem(&wanted)
        .ok_or_else(|| Error::Answer("a root certificate that cannot be read".to_owned()))?;
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = Instant::now();
    loop {
        ticks.tick().await;
        let looked = timeout(POLL_TIMEOUT, look(client, &cluster.id)).await;
        let looked = looked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let (now, nodes) = match looked {
            Ok(seen) => seen,
            Err(status) if is_passing(&status) && answered.elapsed() < PATIENCE => continue,
            Err(status) => return Err(status.into()),
        };
        answered = Instant::now();
        let (progress, done) = match step(&now, &nodes, &wanted, &issuer) {
            Step::Waiting(progress) => (progress, false),
            Step::Done(progress) => (progress, true),
            Step::Replaced => return Err(Error::RotationReplaced),
        };
        if !quiet && last.as_ref() != Some(&progress) {
            writeln!(context.io.err, "{}", progress.line())?;
        }
        *last = Some(progress);
        if done {
            return Ok(now);
        }
    }
}

/// The nodes after the cluster: what they say is no older than what it says.
async fn look(client: &Client, cluster_id: &str) -> Result<(Cluster, Vec<Node>), Status> {
    let mut control = client.control();
    let request = GetClusterRequest {
        cluster_id: cluster_id.to_owned(),
    };
    let cluster = control.get_cluster(request).await?.into_inner().cluster;
    let nodes = control.list_nodes(ListNodesRequest::default()).await?;
    let missing = || Status::internal("the server sent no cluster");
    Ok((cluster.ok_or_else(missing)?, nodes.into_inner().nodes))
}
