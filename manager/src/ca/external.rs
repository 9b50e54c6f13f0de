//! Has an external CA sign what waits to be signed, where the cluster names one.
//!
//! Unlike the signer it talks to the outside, so it has a driver of its own.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rand::seq::SliceRandom as _;
use skep_proto::v1::{Cluster, Node};
use skep_security::{ExternalCa, ExternalCaError, Identity, Tls};
use skep_store::{Error, Event, Kind, Route, Snapshot, Store};
use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};

use super::{
    authority::{Authority, External},
    signer::{settle, waits},
};

/// Pause before an external CA that cannot be reached is asked again, unless the cluster changes.
const RETRY: Duration = Duration::from_secs(10);

/// Requests under way at a time, and how many may go unanswered before the others are put off.
const CONCURRENCY: usize = 8;

/// Runs until leadership is lost or the future is dropped.
pub(crate) async fn run(store: Store, tls: Tls, cluster_id: String) {
    let (mut snapshot, mut changes) =
        store.watch([Route::Kind(Kind::Node), Route::Kind(Kind::Cluster)]);
    loop {
        let cluster = snapshot.get::<Cluster>(&cluster_id).cloned();
        // Most clusters have none, and nodes change all the time.
        let some = cluster
            .as_ref()
            .filter(|cluster| !cluster.spec().ca_config().external_cas.is_empty());
        let signed = match some.map(|cluster| Authority::of(cluster)) {
            Some(Authority::External(ca)) => {
                sign_all(&store, &snapshot, &tls, &cluster_id, ca).await
            }
            _ => Ok(true),
        };
        let retry_at = match signed {
            Ok(true) => None,
            Ok(false) => Some(Instant::now() + RETRY),
            Err(Error::LostLeadership) => return,
            Err(err) => {
                warn!(%err, "a certificate of the external CA could not be stored");
                Some(Instant::now() + RETRY)
            }
        };
        // Nodes that come meanwhile do not make it reachable; another URL may.
        loop {
            let event = match retry_at {
                None => Some(changes.next().await),
                Some(at) => timeout_at(at, changes.next()).await.ok(),
            };
            snapshot = match event {
                Some(Event::Lagged(snapshot)) => snapshot,
                Some(Event::Commits(_)) | None => store.snapshot(),
            };
            let now = snapshot.get::<Cluster>(&cluster_id);
            if retry_at.is_none_or(|at| Instant::now() >= at) || now != cluster.as_ref() {
                break;
            }
        }
    }
}

/// Has everything signed that waits. Says whether nothing is left to be tried again.
async fn sign_all(
    store: &Store,
    snapshot: &Snapshot,
    tls: &Tls,
    cluster_id: &str,
    External {
        root,
        urls,
        intermediate,
    }: External,
) -> Result<bool, Error> {
    let mut waiting: Vec<_> = snapshot
        .all::<Node>()
        .filter(|node| waits(node))
        .cloned()
        .collect();
    if waiting.is_empty() {
        return Ok(true);
    }
    // Those that it does not answer must not be in the way of the others for ever.
    waiting.shuffle(&mut rand::rng());
    let ca = match ExternalCa::new(tls, &root, urls) {
        Ok(ca) => ca.with_intermediate(intermediate),
        Err(err) => {
            error!(%err, "nodes wait for certificates, but the root of the external CA is unusable");
            return Ok(true);
        }
    };
    let ca = &ca;
    let mut answers = stream::iter(waiting)
        .map(|node| async move {
            let who = Identity {
                node_id: node.id.clone(),
                role: node.role().into(),
                cluster_id: cluster_id.to_owned(),
            };
            let answer = ca.issue(&node.certificate().csr, &who).await;
            (node, who, answer)
        })
        .buffer_unordered(CONCURRENCY);
    let mut unanswered = 0;
    while let Some((asked, who, answer)) = answers.next().await {
        let answer = match answer {
            Ok(chain) => Ok(chain),
            Err(ExternalCaError::Refused(reason)) => Err(reason),
            Err(err @ ExternalCaError::Unreachable(_)) => {
                warn!(node = asked.id, %err, "a node waits for its certificate");
                unanswered += 1;
                match unanswered == CONCURRENCY {
                    true => break,
                    false => continue,
                }
            }
        };
        store
            .update(|tx| {
                let Some(mut node) = tx.get::<Node>(&asked.id).map(|node| Node::clone(node)) else {
                    return Ok(());
                };
                let same = node.certificate().csr == asked.certificate().csr
                    && node.role() == asked.role();
                if !same || !waits(&node) {
                    return Ok(());
                }
                settle(&mut node, &who, answer);
                tx.update(node).map(drop)
            })
            .await?;
    }
    Ok(unanswered == 0)
}
