//! A Control server that answers from a world tests write down, and notes what it was asked.

mod answers;
mod serve;

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use skep_proto::{
    Shared,
    skep::{GetRaftStatusResponse, raft_status_server::RaftStatusServer},
    v1::{
        self, Annotations, Cluster, Config, ContainerSpec, Node, NodeDescription, NodeStatus,
        ReplicatedService, Secret, Service, Task, TaskState, TaskStatus,
        control_server::ControlServer, list_service_statuses_response::ServiceStatus,
        logs_server::LogsServer, service_spec::Mode, task_spec::Runtime,
    },
};
use tokio::{net::UnixListener, sync::oneshot, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, transport::Server};

use self::serve::{Control, Logs, RaftStatus};

/// A change of the world while a client waits.
pub type Frame = Box<dyn FnOnce(&mut World) + Send>;

/// What the server knows.
#[derive(Default)]
pub struct World {
    pub services: Vec<Service>,
    pub nodes: Vec<Node>,
    pub tasks: Vec<Task>,
    pub clusters: Vec<Cluster>,
    pub secrets: Vec<Secret>,
    pub configs: Vec<Config>,
    pub statuses: Vec<ServiceStatus>,
    /// How replication stands; none is a manager that cannot tell.
    pub raft: Option<GetRaftStatusResponse>,
    /// The IDs of tasks with an old spec.
    pub old: BTreeSet<String>,
    /// How many updates meet an object that somebody else has just changed.
    pub conflicts: usize,
    /// How many updates asked for the previous spec.
    pub rollbacks: usize,
    /// What somebody else does to a service at each of those.
    pub meddle: Option<fn(&mut Service)>,
    /// What a subscriber to logs is sent, and how it ends.
    pub logs: Vec<v1::LogMessage>,
    pub logs_end: Option<Status>,
    pub log_requests: Vec<v1::SubscribeLogsRequest>,
    /// Errors that the next calls get, whatever they are.
    pub failures: VecDeque<Status>,
    /// The names of all calls, in order.
    pub calls: Vec<&'static str>,
    /// The changes that happen while a client waits, one after each complete look.
    pub script: VecDeque<Frame>,
    /// The calls of a look that were answered since the last change.
    pub looked: BTreeSet<&'static str>,
}

impl World {
    /// Notes a call of a look; the next change comes when all four have seen this one.
    fn look(&mut self, call: &'static str) {
        self.looked.insert(call);
        if self.looked.len() == 4 {
            self.looked.clear();
            if let Some(change) = self.script.pop_front() {
                change(self);
            }
        }
    }

    /// Puts the task `id` into `state`, wanted as `desired`, made if there is none.
    pub fn task(&mut self, id: &str, slot: u64, state: TaskState, desired: TaskState) -> &mut Task {
        let at = self
            .tasks
            .iter()
            .position(|task| task.id == id)
            .unwrap_or_else(|| {
                self.tasks.push(task(id, slot));
                self.tasks.len() - 1
            });
        self.tasks[at].status_mut().state = state.into();
        self.tasks[at].desired_state = desired.into();
        &mut self.tasks[at]
    }
}

/// A running server. Dropping it stops it.
pub struct Fake {
    pub socket: PathBuf,
    world: Arc<Mutex<World>>,
    stop: oneshot::Sender<()>,
    server: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Fake {
    pub fn new(world: World) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let world = Arc::new(Mutex::new(world));
        let (stop, server) = serve(&socket, &world);
        Self {
            socket,
            world,
            stop,
            server,
            _directory: directory,
        }
    }

    /// Stops the server, waits until `down` is over, and starts it anew with the same world.
    pub async fn restart(&mut self, down: impl Future<Output = ()>) {
        let (never, _) = oneshot::channel();
        std::mem::replace(&mut self.stop, never).send(()).unwrap();
        self.server.join_next().await.unwrap().unwrap();
        std::fs::remove_file(&self.socket).unwrap();
        down.await;
        (self.stop, self.server) = serve(&self.socket, &self.world);
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// How often `call` was made.
    pub fn count(&self, call: &str) -> usize {
        self.world()
            .calls
            .iter()
            .filter(|made| **made == call)
            .count()
    }
}

/// Serves `world` on `socket` until told to stop; connections are closed then.
fn serve(socket: &Path, world: &Arc<Mutex<World>>) -> (oneshot::Sender<()>, JoinSet<()>) {
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let service = ControlServer::new(Control(Arc::clone(world)));
    let raft_world = Arc::clone(world);
    let logs = LogsServer::new(Logs(Arc::clone(world)));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = JoinSet::new();
    server.spawn(async move {
        Server::builder()
            .add_service(service)
            .add_service(RaftStatusServer::new(RaftStatus(raft_world)))
            .add_service(logs)
            .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) })
            .await
            .unwrap();
    });
    (stop, server)
}

/// A replicated service that runs a process.
pub fn service(id: &str, name: &str, replicas: u64) -> Service {
    let mut service = Service {
        id: id.to_owned(),
        ..Default::default()
    };
    service.meta_mut().version_mut().index = 10;
    let spec = service.spec_mut();
    spec.annotations_mut().name = name.to_owned();
    spec.mode = Some(Mode::Replicated(ReplicatedService { replicas }));
    // Tests do not want to wait for seconds.
    spec.update = Some(v1::UpdateConfig {
        parallelism: 1,
        monitor: Some(skep_proto::Duration {
            seconds: 0,
            nanos: 300_000_000,
        }),
        ..Default::default()
    });
    let container = ContainerSpec {
        image: "process".to_owned(),
        ..Default::default()
    };
    spec.task_mut().runtime = Some(Runtime::Container(container));
    service
}

/// A node that is ready.
pub fn node(id: &str, hostname: &str) -> Node {
    let mut node = Node {
        id: id.to_owned(),
        ..Default::default()
    };
    node.meta_mut().version_mut().index = 10;
    node.description = Some(NodeDescription {
        hostname: hostname.to_owned(),
        ..Default::default()
    });
    node.status = Some(NodeStatus {
        state: v1::node_status::State::Ready.into(),
        ..Default::default()
    });
    node
}

/// A new task of the service `web` (ID `s1`) on the node `n1`.
fn task(id: &str, slot: u64) -> Task {
    Task {
        id: id.to_owned(),
        slot,
        service_id: "s1".to_owned(),
        node_id: "n1".to_owned(),
        service_annotations: Some(Annotations {
            name: "web".to_owned(),
            ..Default::default()
        }),
        spec: Some(Shared::from(v1::TaskSpec {
            runtime: Some(Runtime::Container(ContainerSpec {
                image: "process".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        })),
        status: Some(TaskStatus::default()),
        ..Default::default()
    }
}

/// The object of `list` that has this ID.
fn find<'a, T>(
    list: &'a mut [T],
    kind: &str,
    id: &str,
    id_of: impl Fn(&T) -> &str,
) -> Result<&'a mut T, Status> {
    list.iter_mut()
        .find(|object| id_of(object) == id)
        .ok_or_else(|| Status::not_found(format!("{kind} {id} not found")))
}

/// Whether an object passes the filters for names and prefixes of IDs.
fn passes(names: &[String], prefixes: &[String], name: &str, id: &str) -> bool {
    (names.is_empty() || names.iter().any(|wanted| wanted == name))
        && (prefixes.is_empty()
            || prefixes
                .iter()
                .any(|prefix| id.starts_with(prefix.as_str())))
}
