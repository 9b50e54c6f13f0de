//! The dispatcher: the leader's side of the agents' sessions.
//!
//! Nodes register here, give signs of life, are told what to run and report what became of it. All
//! of it goes through the store: an assignment is a task that was committed, a report is answered
//! when it is committed, and heartbeats touch nothing but memory. Who is alive (`registry`) and
//! what a node has been told (`assignments`) are pure; the rest is the I/O around them.
//!
//! No task is spawned: [`Dispatcher::run`] does the writing, and the streams are driven by whoever
//! reads them. Deliberately not here: what becomes of the tasks of nodes that stay away, and
//! passing calls on from a follower to the leader.

mod assigning;
mod assignments;
mod dependencies;
mod liveness;
mod made;
mod period;
mod registry;
mod reports;
mod session;
mod status;
mod tasks;
mod term;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod volumes;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::BoxStream;
use parking_lot::RwLock;
use skep_proto::v1::{
    AssignmentsMessage, AssignmentsRequest, HeartbeatRequest, HeartbeatResponse, RaftMember,
    SessionMessage, SessionRequest, TasksMessage, TasksRequest, UpdateTaskStatusRequest,
    UpdateTaskStatusResponse, UpdateVolumeStatusRequest, UpdateVolumeStatusResponse,
    dispatcher_server,
};
use skep_security::Caller;
use skep_store::Store;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};
use tracing::{debug, info};

use self::term::Term;
use crate::secret_drivers::SecretDrivers;

/// How long the end of a term waits for the streams to say their last words. Agents that do not
/// read them find out by themselves.
const FAREWELL: Duration = Duration::from_millis(500);

/// The service `Dispatcher`. Clones share it. It refuses all calls unless [`Self::run`] runs.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    members: watch::Receiver<Vec<RaftMember>>,
    own_node_id: String,
    secret_drivers: SecretDrivers,
    term: RwLock<Option<Arc<Term>>>,
}

impl Dispatcher {
    /// A dispatcher that does not run yet.
    ///
    /// `members` are the members of the Raft group with their addresses, which nodes are told;
    /// nobody can register while there are none, nor before the cluster object is stored. `own_node_id` is written into the reports that
    /// this manager stores.
    pub fn new(
        store: Store,
        members: watch::Receiver<Vec<RaftMember>>,
        own_node_id: impl Into<String>,
        secret_drivers: SecretDrivers,
    ) -> Self {
        let own_node_id = own_node_id.into();
        let shared = Shared {
            store,
            members,
            own_node_id,
            secret_drivers,
            term: RwLock::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Serves one term of leadership, until `cancel` or until the future is dropped.
    ///
    /// The store must lead already. Nodes that are not down become unknown until they register.
    /// At the end all streams are told so and end; it takes no more than half a second however
    /// many there are.
    pub async fn run(&self, cancel: CancellationToken) {
        let shared = &self.shared;
        let (reports, queue) = reports::Reports::new();
        let term = Arc::new(Term::new(
            shared.store.clone(),
            shared.members.clone(),
            shared.own_node_id.clone(),
            shared.secret_drivers.clone(),
            reports,
        ));
        let expected = liveness::expected(&term);
        term.expect(expected.iter().map(|node| &*node.id));
        info!(nodes = expected.len(), "dispatcher starts");
        let active = Active::new(shared, &term);
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            // The last one never ends: the term holds a sender of its queue.
            _ = async {
                tokio::join!(
                    liveness::mark_unknown(&term, &expected),
                    liveness::mark_down(&term),
                    reports::commit(&term, queue),
                )
            } => {}
        }
        drop(active);
        term.streams.close();
        if timeout(FAREWELL, term.streams.wait()).await.is_err() {
            debug!(
                streams = term.streams.len(),
                "dispatcher stops before all agents have heard"
            );
        }
        info!("dispatcher stopped");
    }

    fn term(&self) -> Result<Arc<Term>, Status> {
        self.shared.term.read().clone().ok_or_else(status::stopped)
    }
}

/// Keeps a term reachable for calls. Its end is the end of the term, also if [`Dispatcher::run`] is
/// dropped half-way.
struct Active<'a> {
    shared: &'a Shared,
    term: &'a Arc<Term>,
}

impl<'a> Active<'a> {
    fn new(shared: &'a Shared, term: &'a Arc<Term>) -> Self {
        *shared.term.write() = Some(term.clone());
        Self { shared, term }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let mut current = self.shared.term.write();
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, self.term))
        {
            *current = None;
        }
        drop(current);
        self.term.ending.cancel();
    }
}

/// Node ID of the caller, and the IP address it calls from if that is known.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<(String, Option<String>), Status> {
    let caller = request.extensions().get::<Caller>();
    let identity = caller.and_then(|caller| caller.identity.as_ref());
    let (Some(caller), Some(identity)) = (caller, identity) else {
        return Err(Status::permission_denied(
            "the caller has not proved which node it is",
        ));
    };
    Ok((identity.node_id.clone(), ip(&caller.remote_addr)))
}

/// The IP address in `host:port` or `host`; none if the host is not one.
fn ip(addr: &str) -> Option<String> {
    let ip = addr
        .parse()
        .map(|addr: SocketAddr| addr.ip())
        .or_else(|_| addr.parse::<IpAddr>());
    ip.ok().map(|ip| ip.to_canonical().to_string())
}

#[async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = BoxStream<'static, Result<SessionMessage, Status>>;
    type TasksStream = BoxStream<'static, Result<TasksMessage, Status>>;
    type AssignmentsStream = BoxStream<'static, Result<AssignmentsMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (node_id, addr) = caller(&request)?;
        let term = self.term()?;
        session::check(&term)?;
        let SessionRequest {
            description,
            session_id,
        } = request.into_inner();
        session::check_description(description.as_ref())?;
        let session = term.open(node_id, &session_id, addr, description).await?;
        debug!(
            node = session.node_id,
            session = session.session_id,
            "node is ready"
        );
        Ok(Response::new(session::stream(term, session)?))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let (node_id, _) = caller(&request)?;
        let period = self
            .term()?
            .heartbeat(&node_id, &request.get_ref().session_id)?;
        let period = period
            .try_into()
            .map_err(|_| Status::internal("heartbeat period overflow"))?;
        Ok(Response::new(HeartbeatResponse {
            period: Some(period),
        }))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let (node_id, _) = caller(&request)?;
        let term = self.term()?;
        let UpdateTaskStatusRequest {
            session_id,
            updates,
        } = request.into_inner();
        term.check(&node_id, &session_id)?;
        reports::report(&term, node_id, updates).await?;
        Ok(Response::new(UpdateTaskStatusResponse {}))
    }

    async fn update_volume_status(
        &self,
        request: Request<UpdateVolumeStatusRequest>,
    ) -> Result<Response<UpdateVolumeStatusResponse>, Status> {
        let (node_id, _) = caller(&request)?;
        let term = self.term()?;
        let UpdateVolumeStatusRequest {
            session_id,
            updates,
        } = request.into_inner();
        term.check(&node_id, &session_id)?;
        volumes::report(&term, &node_id, &updates).await?;
        Ok(Response::new(UpdateVolumeStatusResponse {}))
    }

    async fn tasks(
        &self,
        request: Request<TasksRequest>,
    ) -> Result<Response<Self::TasksStream>, Status> {
        let (node_id, _) = caller(&request)?;
        let term = self.term()?;
        let session = term.assign(node_id, request.into_inner().session_id)?;
        Ok(Response::new(tasks::stream(term, session)))
    }

    async fn assignments(
        &self,
        request: Request<AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let (node_id, _) = caller(&request)?;
        let term = self.term()?;
        let session = term.assign(node_id, request.into_inner().session_id)?;
        Ok(Response::new(assigning::stream(term, session)))
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.shared.term.read().is_some();
        f.debug_struct("Dispatcher")
            .field("running", &running)
            .finish_non_exhaustive()
    }
}
