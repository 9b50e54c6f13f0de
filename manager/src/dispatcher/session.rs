//! What a node is told for as long as its session lives: itself, the managers, the keys, the root.
//!
//! The stream does nothing while it is not read: what piles up meanwhile is the store subscription,
//! which is bounded, and a message always tells the present state.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use skep_proto::v1::{
    Cluster, Node, NodeDescription, Peer, RaftMember, SessionMessage, WeightedPeer,
    node_status::State,
};
use skep_store::{Change, Event, Kind, Object, Route, Snapshot, Subscription};
use tokio::sync::watch;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::{
    status,
    term::{Handle, Term},
};

/// Weight of every manager in what agents choose by (SwarmKit's number).
const MANAGER_WEIGHT: i64 = 10;

/// Largest description of a node in bytes. A real one has some kilobytes; it is stored, and sent back
/// with every message of the session.
const MAX_DESCRIPTION_BYTES: usize = 256 * 1024;

const LOOKING_FOR_MANAGER: &str = "node is currently trying to find new manager";

struct Session {
    term: Arc<Term>,
    handle: Handle,
    _counted: TaskTrackerToken,
    subscription: Subscription,
    members: watch::Receiver<Vec<RaftMember>>,
    node: Arc<Node>,
    cluster: Arc<Cluster>,
    /// Never empty: agents forget the managers that are not listed.
    managers: Vec<WeightedPeer>,
    next: Next,
}

/// What is sent next.
enum Next {
    /// The present state, at once.
    Message,
    /// The present state, when it changes.
    Change,
    /// The final error.
    Error(Status),
    Nothing,
}

/// Whether all that a session tells is known. To be asked before one is opened.
pub(super) fn check(term: &Term) -> Result<(), Status> {
    known_managers(&term.members.borrow())?;
    known_cluster(&term.store.snapshot())?;
    Ok(())
}

/// Before anything changes: a node's session does not end because it tells too much.
pub(super) fn check_description(description: Option<&NodeDescription>) -> Result<(), Status> {
    let bytes = description.map_or(0, NodeDescription::encoded_len);
    if bytes > MAX_DESCRIPTION_BYTES {
        return Err(Status::resource_exhausted(format!(
            "the description of the node has {bytes} bytes; more than {MAX_DESCRIPTION_BYTES} are \
             not taken"
        )));
    }
    Ok(())
}

fn known_managers(members: &[RaftMember]) -> Result<Vec<WeightedPeer>, Status> {
    let managers = peers(members);
    if managers.is_empty() {
        return Err(Status::unavailable(
            "the managers of the cluster are not known yet",
        ));
    }
    Ok(managers)
}

fn known_cluster(snapshot: &Snapshot) -> Result<&Arc<Cluster>, Status> {
    let cluster = snapshot.all::<Cluster>().next();
    cluster.ok_or_else(|| Status::unavailable("the cluster is not set up yet"))
}

/// The messages of a session that was just opened.
pub(super) fn stream(
    term: Arc<Term>,
    handle: Handle,
) -> Result<BoxStream<'static, Result<SessionMessage, Status>>, Status> {
    let routes = [
        Route::Node(handle.node_id.clone()),
        Route::Kind(Kind::Cluster),
    ];
    let (snapshot, subscription) = term.store.watch(routes);
    let mut members = term.members.clone();
    let managers = known_managers(&members.borrow_and_update())?;
    let cluster = known_cluster(&snapshot)?.clone();
    let node = snapshot
        .get::<Node>(&handle.node_id)
        .ok_or_else(status::node_not_found)?
        .clone();
    let session = Session {
        _counted: term.streams.token(),
        term,
        handle,
        subscription,
        members,
        node,
        cluster,
        managers,
        next: Next::Message,
    };
    Ok(stream::unfold(session, async |mut session| {
        Some((session.next().await?, session))
    })
    .boxed())
}

impl Session {
    async fn next(&mut self) -> Option<Result<SessionMessage, Status>> {
        match std::mem::replace(&mut self.next, Next::Change) {
            Next::Message if !self.handle.gone.is_cancelled() => return Some(Ok(self.message())),
            Next::Message | Next::Change => {}
            Next::Error(error) => {
                self.next = Next::Nothing;
                return Some(Err(error));
            }
            Next::Nothing => return None,
        }
        loop {
            let changed = tokio::select! {
                biased;
                () = self.handle.gone.cancelled() => return Some(self.end()),
                event = self.subscription.next() => self.take(event),
                () = changed(&mut self.members) => Ok(self.take_members()),
            };
            match changed {
                Ok(true) => return Some(Ok(self.message())),
                Ok(false) => {}
                Err(error) => {
                    self.next = Next::Nothing;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Takes over what has been committed. Says whether the node has to hear of it.
    fn take(&mut self, event: Event) -> Result<bool, Status> {
        let before = (self.node.version(), self.cluster.version());
        match event {
            Event::Lagged(snapshot) => self.take_snapshot(&snapshot)?,
            Event::Commits(commits) => {
                for change in commits.iter().flat_map(|commit| &commit.changes) {
                    self.take_change(change)?;
                }
            }
        }
        Ok(before != (self.node.version(), self.cluster.version()))
    }

    fn take_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), Status> {
        match snapshot.get(&self.handle.node_id) {
            Some(node) => self.node = Arc::clone(node),
            None => return Err(self.removed()),
        }
        if let Some(cluster) = snapshot.all::<Cluster>().next() {
            self.cluster = cluster.clone();
        }
        Ok(())
    }

    fn take_change(&mut self, change: &Change) -> Result<(), Status> {
        if let Some(cluster) = change.current::<Cluster>() {
            self.cluster = cluster.clone();
        } else if change.object().kind() == Kind::Node
            && change.object().id() == self.handle.node_id
        {
            self.node = change
                .current::<Node>()
                .ok_or_else(|| self.removed())?
                .clone();
        }
        Ok(())
    }

    /// A change of who is reachable is none to the node.
    fn take_members(&mut self) -> bool {
        let managers = peers(&self.members.borrow_and_update());
        if managers.is_empty() || managers == self.managers {
            return false;
        }
        self.managers = managers;
        true
    }

    /// The node object is gone.
    fn removed(&self) -> Status {
        self.term.remove(&self.handle.node_id);
        status::node_not_found()
    }

    /// What comes when the session is gone.
    fn end(&mut self) -> Result<SessionMessage, Status> {
        let error = self.term.farewell(&self.handle);
        if !self.term.ending.is_cancelled() {
            self.next = Next::Nothing;
            return Err(error);
        }
        self.next = Next::Error(error);
        let mut message = self.message();
        let status = message.node.get_or_insert_default().status_mut();
        status.set_state(State::Disconnected);
        status.message = LOOKING_FOR_MANAGER.to_owned();
        Ok(message)
    }

    /// Always with all fields.
    fn message(&self) -> SessionMessage {
        SessionMessage {
            session_id: self.handle.session_id.clone(),
            node: Some(Node::clone(&self.node)),
            managers: self.managers.clone(),
            network_bootstrap_keys: self.cluster.network_bootstrap_keys.clone(),
            root_ca: self.cluster.root_ca().ca_cert.clone(),
        }
    }
}

/// Waits for news of the members. There are none any more once their source is gone.
async fn changed(members: &mut watch::Receiver<Vec<RaftMember>>) {
    if members.changed().await.is_err() {
        std::future::pending().await
    }
}

fn peers(members: &[RaftMember]) -> Vec<WeightedPeer> {
    members
        .iter()
        .map(|member| WeightedPeer {
            peer: Some(Peer {
                node_id: member.node_id.clone(),
                addr: member.addr.clone(),
            }),
            weight: MANAGER_WEIGHT,
        })
        .collect()
}
