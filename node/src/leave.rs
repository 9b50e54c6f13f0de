//! Leaving the cluster for good: what a running node does when it is told to, over a socket in its state
//! directory, and what `swarmd leave` does about one that does not run.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use skep_agent::executor::process::end_leftovers;
use skep_proto::{
    skep::{
        LeaveRequest, LeaveResponse,
        local_client::LocalClient,
        local_server::{Local, LocalServer},
    },
    v1::{GetNodeRequest, NodeRole, UpdateNodeRequest},
};
use skep_security::{Tls, control_incoming};
use swarmctl::client::Client;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tonic::{
    Request, Response, Status,
    transport::{Endpoint, Server},
};
use tracing::{info, warn};

use crate::{
    args, control_socket,
    managing::Managing,
    state_dir::{self, StateDir},
};

/// How long a demoted manager may take to leave the Raft group. A leader hands over first.
const RESIGNATION: Duration = Duration::from_secs(60);

/// How often a demotion is tried while others write the node object.
const TRIES: usize = 5;

/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// An order to leave, and where to say what became of it.
pub(crate) struct Order {
    pub(crate) force: bool,
    pub(crate) done: oneshot::Sender<Result<(), Status>>,
}

/// Serves the socket until it is dropped or [`Desk::close`]d.
#[derive(Debug)]
pub(crate) struct Desk {
    orders: mpsc::Receiver<Order>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Desk {
    /// Opens the socket in `state_dir`. Without it the node runs all the same.
    pub(crate) fn open(state_dir: &StateDir, tls: Tls) -> Self {
        // One at a time: whoever comes next waits or finds the node gone.
        let (sender, orders) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let listener = control_socket::bind(&state_dir.local_socket());
        let serving = tokio::spawn(async move {
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => {
                    warn!(%error, "this node cannot be told to leave while it runs");
                    // Keeps the channel open.
                    return sender.closed().await;
                }
            };
            let served = Server::builder()
                .add_service(LocalServer::new(Orders(sender)))
                .serve_with_incoming_shutdown(control_incoming(listener, tls), async {
                    let _ = stopped.await;
                })
                .await;
            if let Err(error) = served {
                warn!(%error, "the local socket has closed");
            }
        });
        Self {
            orders,
            stop,
            serving,
        }
    }

    /// The next order.
    pub(crate) async fn order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    /// Ends when all answers are given.
    pub(crate) async fn close(self) {
        let Self {
            orders,
            stop,
            mut serving,
        } = self;
        drop((orders, stop));
        if timeout(GRACE, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

/// The local service of a node.
#[derive(Debug)]
struct Orders(mpsc::Sender<Order>);

#[tonic::async_trait]
impl Local for Orders {
    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let (done, outcome) = oneshot::channel();
        let force = request.into_inner().force;
        let stopping = || Status::unavailable("this node is stopping");
        let order = Order { force, done };
        self.0.send(order).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())??;
        Ok(Response::new(LeaveResponse {}))
    }
}

/// Has the manager of this node leave the Raft group. With `force` it need not succeed.
pub(crate) async fn resign(managing: &Managing, force: bool) -> Result<(), Status> {
    let Some(manager) = &managing.manager else {
        return Ok(());
    };
    let resigned = async {
        demote(managing).await?;
        let left = timeout(RESIGNATION, manager.stopped()).await;
        left.map(drop).map_err(|_| {
            Status::deadline_exceeded(format!(
                "this manager was demoted, and has not left the others within {RESIGNATION:?}; see \
                 whether they have a leader and try again"
            ))
        })
    };
    match Box::pin(resigned).await {
        Err(status) if force => {
            warn!(
                reason = status.message(),
                "this manager goes without leaving the others"
            );
            Ok(())
        }
        resigned => resigned,
    }
}

async fn demote(managing: &Managing) -> Result<(), Status> {
    let node_id = managing.tls.current().identity().node_id.clone();
    let client = Client::connect(&managing.places.control_socket).await;
    let mut control = client
        .map_err(|error| Status::unavailable(error.to_string()))?
        .control();
    let mut tries = 1;
    loop {
        let request = GetNodeRequest {
            node_id: node_id.clone(),
        };
        let node = control.get_node(request).await?.into_inner().node;
        let node = node.unwrap_or_default();
        let mut spec = node.spec().clone();
        spec.set_desired_role(NodeRole::Worker);
        let request = UpdateNodeRequest {
            node_id: node_id.clone(),
            node_version: node.meta().version,
            spec: Some(spec),
        };
        match control.update_node(request).await {
            Ok(_) => return Ok(()),
            Err(status) if tries < TRIES && status.message() == "update out of sequence" => {
                tries += 1;
            }
            Err(status) => {
                let text = format!("{}; use --force to leave all the same", status.message());
                return Err(Status::new(status.code(), text));
            }
        }
    }
}

/// `swarmd leave`: tells the node that runs, or clears up after one that does not.
pub async fn run(args: args::Leave) -> anyhow::Result<()> {
    let path = args.state_dir;
    if !path.exists() {
        bail!(
            "there is no node in {}; choose another with --state-dir",
            path.display()
        );
    }
    if state_dir::owner(&path).is_some() {
        tell(&path, args.force).await?;
    } else {
        tokio::task::spawn_blocking(move || clear(&path, args.force)).await??;
    }
    Ok(writeln!(io::stdout(), "Node left the swarm.")?)
}

async fn tell(path: &Path, force: bool) -> anyhow::Result<()> {
    let socket = state_dir::local_socket(path);
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(dial)
        .await
        .context(
            "the node runs but cannot be told to leave; if it is locked, stop it and leave with --force",
        )?;
    // No time limit: the tasks have their grace periods.
    let left = LocalClient::new(channel)
        .leave(LeaveRequest { force })
        .await;
    left.map(drop)
        .map_err(|status| anyhow::Error::msg(status.message().to_owned()))
}

/// Removes the state of a node that does not run.
fn clear(path: &Path, force: bool) -> anyhow::Result<()> {
    let state_dir = StateDir::open(path)?;
    if state_dir.raft().exists() && !state_dir.removed_mark().exists() && !force {
        bail!(
            "the node in {} is a manager and does not run, so the others would count on it for ever; \
             start it and leave then, or use --force and demote it from another manager",
            path.display()
        );
    }
    end_leftovers(state_dir.path())?;
    state_dir.wipe()?;
    info!("the state of this node is deleted");
    Ok(())
}
