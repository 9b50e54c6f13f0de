//! Who is a manager: the leader makes the members of Raft what the nodes are to be.
//!
//! [`decide`] is the planner; here is what it needs of the world. Unlike other reconcilers it changes
//! something besides the store, so it has a driver of its own.

mod decide;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use skep_proto::v1::{Node, NodeRole};
use skep_raft::{Error as RaftError, Raft, Status as RaftStatus};
use skep_store::{AnyObject, Change, Error, Event, Kind, Route, Store, Subscription};
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use decide::{Plan, decide};

/// Pause before what did not work, or would cost the quorum, is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the removal of a member may take.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The Raft group, as far as members leave it.
pub(crate) trait Group: Send + Sync {
    /// Removes a member, if the quorum survives it. A leader that is to remove itself hands over
    /// leadership and fails.
    fn remove(&self, raft_id: u64) -> BoxFuture<'_, Result<(), RaftError>>;
}

impl Group for Raft {
    fn remove(&self, raft_id: u64) -> BoxFuture<'_, Result<(), RaftError>> {
        Box::pin(Raft::remove(self, raft_id))
    }
}

/// Runs until leadership is lost or the future is dropped.
pub(crate) async fn run(
    store: Store,
    group: Arc<dyn Group>,
    mut status: watch::Receiver<RaftStatus>,
) {
    let (_, mut subscription) = store.watch([Route::Kind(Kind::Node)]);
    loop {
        // First the members, then the nodes: the node of a member was stored before it joined.
        let raft = status.borrow_and_update().clone();
        let plan = decide(&store.snapshot(), &raft);
        let retry = match carry_out(&store, group.as_ref(), plan).await {
            Outcome::Done => continue,
            Outcome::Ended => return,
            Outcome::Nothing => None,
            Outcome::Later => Some(RETRY),
        };
        let later = async {
            match retry {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = new_roles(&mut subscription) => {}
            changed = status.changed() => if changed.is_err() {
                return;
            },
            () = later => {}
        }
    }
}

/// Ends when a node has another role, or is to have one, or is new or gone. What else there is to a node
/// changes all the time, and who looked at all nodes for each of ten thousand that come back at once would
/// keep them waiting.
async fn new_roles(subscription: &mut Subscription) {
    loop {
        match subscription.next().await {
            Event::Lagged(_) => return,
            Event::Commits(commits) => {
                let mut changes = commits.iter().flat_map(|commit| &commit.changes);
                if changes.any(concerns_roles) {
                    return;
                }
            }
        }
    }
}

fn concerns_roles(change: &Change) -> bool {
    /// The role that the node has, and the one that it is to have.
    fn roles(object: &AnyObject) -> Option<(NodeRole, NodeRole)> {
        let node = object.get::<Node>()?;
        Some((node.role(), node.spec().desired_role()))
    }
    match change {
        Change::Update { old, new } => roles(old) != roles(new),
        Change::Create(object) | Change::Remove(object) => roles(object).is_some(),
    }
}

/// What became of a plan.
enum Outcome {
    /// Something was changed: look again.
    Done,
    /// There is nothing to do until something changes.
    Nothing,
    /// It did not work, or must not be done now.
    Later,
    /// This manager does not lead any more.
    Ended,
}

async fn carry_out(store: &Store, group: &dyn Group, plan: Plan) -> Outcome {
    if !plan.roles.is_empty() {
        return match set_roles(store, &plan.roles).await {
            // Someone wrote first: decide anew.
            Ok(()) | Err(Error::OutOfSequence | Error::NotFound) => Outcome::Done,
            Err(Error::LostLeadership) => Outcome::Ended,
            Err(err) => {
                warn!(%err, "roles could not be stored");
                Outcome::Later
            }
        };
    }
    if let Some(refusal) = &plan.refused {
        info!("a manager that is to leave has to wait: {refusal}");
    }
    match plan.remove {
        Some(raft_id) => remove(group, raft_id).await,
        None if plan.refused.is_some() => Outcome::Later,
        None => Outcome::Nothing,
    }
}

async fn set_roles(store: &Store, nodes: &[Node]) -> Result<(), Error> {
    store
        .update(|tx| {
            for node in nodes {
                tx.update(node.clone())?;
            }
            Ok(())
        })
        .await
}

async fn remove(group: &dyn Group, raft_id: u64) -> Outcome {
    let member = format_args!("{raft_id:x}").to_string();
    match timeout(REMOVAL_TIMEOUT, group.remove(raft_id)).await {
        Ok(Ok(())) => {
            info!(member, "a manager has left");
            Outcome::Done
        }
        Ok(Err(RaftError::UnknownMember)) => Outcome::Done,
        Ok(Err(err)) => {
            info!(member, %err, "a manager has not left yet");
            Outcome::Later
        }
        Err(_) => {
            warn!(member, "a manager has not left within {REMOVAL_TIMEOUT:?}");
            Outcome::Later
        }
    }
}

#[cfg(test)]
mod tests;
