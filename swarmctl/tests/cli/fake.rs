//! A Control server that answers from a world tests write down, and notes what it was asked.

mod answers;

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use skep_proto::{
    Shared,
    skep::{
        GetRaftStatusRequest, GetRaftStatusResponse,
        raft_status_server::{self, RaftStatusServer},
    },
    v1::{
        self, Annotations, Cluster, Config, ContainerSpec, Node, NodeDescription, NodeStatus,
        ReplicatedService, Secret, Service, Task, TaskState, TaskStatus, control_server,
        list_service_statuses_response::ServiceStatus,
        logs_server::{self, LogsServer},
        service_spec::Mode,
        task_spec::Runtime,
    },
};
use tokio::{net::UnixListener, sync::oneshot, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

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
    let service = control_server::ControlServer::new(Control(Arc::clone(world)));
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

struct RaftStatus(Arc<Mutex<World>>);

#[tonic::async_trait]
impl raft_status_server::RaftStatus for RaftStatus {
    async fn get_raft_status(
        &self,
        _: Request<GetRaftStatusRequest>,
    ) -> Answer<GetRaftStatusResponse> {
        let raft = self.0.lock().unwrap().raft.clone();
        let raft = raft.ok_or_else(|| Status::unimplemented("unknown service"))?;
        Ok(Response::new(raft))
    }
}

struct Logs(Arc<Mutex<World>>);

#[tonic::async_trait]
impl logs_server::Logs for Logs {
    type SubscribeLogsStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::SubscribeLogsMessage, Status>>>;

    async fn subscribe_logs(
        &self,
        request: Request<v1::SubscribeLogsRequest>,
    ) -> Answer<Self::SubscribeLogsStream> {
        let mut world = self.0.lock().unwrap();
        world.log_requests.push(request.into_inner());
        let messages = world.logs.clone();
        let mut answers = vec![Ok(v1::SubscribeLogsMessage { messages })];
        answers.extend(world.logs_end.clone().map(Err));
        Ok(Response::new(tokio_stream::iter(answers)))
    }
}

struct Control(Arc<Mutex<World>>);

impl Control {
    /// Notes the call; fails if the test wants so.
    fn enter(&self, call: &'static str) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.0.lock().unwrap();
        world.calls.push(call);
        match world.failures.pop_front() {
            Some(status) => Err(status),
            None => Ok(world),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

macro_rules! control {
    ({ $($calls:tt)* }
     answers { $($answer:ident($asked:ident) -> $answered:ident;)* }
     unimplemented { $($call:ident($request:ident) -> $reply:ident;)* }) => {
        #[tonic::async_trait]
        impl control_server::Control for Control {
            $($calls)*
            $(async fn $answer(&self, request: Request<v1::$asked>) -> Answer<v1::$answered> {
                let mut world = self.enter(stringify!($answer))?;
                answers::$answer(&mut world, request.into_inner()).map(Response::new)
            })*
            $(async fn $call(&self, _: Request<v1::$request>) -> Answer<v1::$reply> {
                Err(Status::unimplemented(stringify!($call)))
            })*
        }
    };
}

control! {
    {
        async fn get_service(
            &self,
            request: Request<v1::GetServiceRequest>,
        ) -> Answer<v1::GetServiceResponse> {
            let mut world = self.enter("get_service")?;
            let request = request.into_inner();
            let found =
                find(&mut world.services, "service", &request.service_id, |service| &service.id)?;
            let service = Some(found.clone());
            world.look("get_service");
            Ok(Response::new(v1::GetServiceResponse { service }))
        }

        async fn list_services(
            &self,
            request: Request<v1::ListServicesRequest>,
        ) -> Answer<v1::ListServicesResponse> {
            let world = self.enter("list_services")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut services = world.services.clone();
            services.retain(|service| {
                let name = &service.spec().annotations().name;
                passes(&filters.names, &filters.id_prefixes, name, &service.id)
            });
            Ok(Response::new(v1::ListServicesResponse { services }))
        }

        async fn list_service_statuses(
            &self,
            request: Request<v1::ListServiceStatusesRequest>,
        ) -> Answer<v1::ListServiceStatusesResponse> {
            let world = self.enter("list_service_statuses")?;
            let wanted = request.into_inner().services;
            let mut statuses = world.statuses.clone();
            statuses.retain(|status| wanted.contains(&status.service_id));
            Ok(Response::new(v1::ListServiceStatusesResponse { statuses }))
        }

        async fn create_service(
            &self,
            request: Request<v1::CreateServiceRequest>,
        ) -> Answer<v1::CreateServiceResponse> {
            let mut world = self.enter("create_service")?;
            let mut service = service("s1", "", 0);
            service.spec = request.into_inner().spec;
            world.services.push(service.clone());
            world.looked.clear();
            Ok(Response::new(v1::CreateServiceResponse { service: Some(service) }))
        }

        async fn update_service(
            &self,
            request: Request<v1::UpdateServiceRequest>,
        ) -> Answer<v1::UpdateServiceResponse> {
            let mut world = self.enter("update_service")?;
            let request = request.into_inner();
            let (conflict, meddle) = (world.conflicts > 0, world.meddle);
            world.conflicts = world.conflicts.saturating_sub(1);
            let service =
                find(&mut world.services, "service", &request.service_id, |service| &service.id)?;
            if conflict {
                service.meta_mut().version_mut().index += 1;
                if let Some(meddle) = meddle {
                    meddle(service);
                }
            }
            if request.service_version.as_ref() != Some(service.meta().version()) {
                return Err(Status::unknown("update out of sequence"));
            }
            service.meta_mut().version_mut().index += 1;
            let rollback = request.rollback() == v1::update_service_request::Rollback::Previous;
            service.spec = request.spec;
            let service = Some(service.clone());
            world.rollbacks += usize::from(rollback);
            world.looked.clear();
            Ok(Response::new(v1::UpdateServiceResponse { service }))
        }

        async fn remove_service(
            &self,
            request: Request<v1::RemoveServiceRequest>,
        ) -> Answer<v1::RemoveServiceResponse> {
            let mut world = self.enter("remove_service")?;
            let id = request.into_inner().service_id;
            find(&mut world.services, "service", &id, |service| &service.id)?;
            world.services.retain(|service| service.id != id);
            Ok(Response::new(v1::RemoveServiceResponse {}))
        }

        async fn get_task(
            &self,
            request: Request<v1::GetTaskRequest>,
        ) -> Answer<v1::GetTaskResponse> {
            let mut world = self.enter("get_task")?;
            let id = request.into_inner().task_id;
            let task = Some(find(&mut world.tasks, "task", &id, |task| &task.id)?.clone());
            Ok(Response::new(v1::GetTaskResponse { task }))
        }

        async fn list_tasks(
            &self,
            request: Request<v1::ListTasksRequest>,
        ) -> Answer<v1::ListTasksResponse> {
            let mut world = self.enter("list_tasks")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let among = |wanted: &[String], it: &String| wanted.is_empty() || wanted.contains(it);
            let mut tasks = world.tasks.clone();
            tasks.retain(|task| {
                passes(&filters.names, &filters.id_prefixes, "", &task.id)
                    && among(&filters.service_ids, &task.service_id)
                    && among(&filters.node_ids, &task.node_id)
                    && (filters.desired_states.is_empty()
                        || filters.desired_states.contains(&task.desired_state))
                    && !(filters.up_to_date && world.old.contains(&task.id))
            });
            world.look(if filters.up_to_date { "list_tasks up to date" } else { "list_tasks" });
            Ok(Response::new(v1::ListTasksResponse { tasks }))
        }

        async fn get_node(
            &self,
            request: Request<v1::GetNodeRequest>,
        ) -> Answer<v1::GetNodeResponse> {
            let mut world = self.enter("get_node")?;
            let id = request.into_inner().node_id;
            let node = Some(find(&mut world.nodes, "node", &id, |node| &node.id)?.clone());
            Ok(Response::new(v1::GetNodeResponse { node }))
        }

        async fn list_nodes(
            &self,
            request: Request<v1::ListNodesRequest>,
        ) -> Answer<v1::ListNodesResponse> {
            let mut world = self.enter("list_nodes")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut nodes = world.nodes.clone();
            nodes.retain(|node| {
                let name = node.description.as_ref().map_or("", |description| &description.hostname);
                passes(&filters.names, &filters.id_prefixes, name, &node.id)
            });
            world.look("list_nodes");
            Ok(Response::new(v1::ListNodesResponse { nodes }))
        }

        async fn update_node(
            &self,
            request: Request<v1::UpdateNodeRequest>,
        ) -> Answer<v1::UpdateNodeResponse> {
            let mut world = self.enter("update_node")?;
            let request = request.into_inner();
            let conflict = world.conflicts > 0;
            world.conflicts = world.conflicts.saturating_sub(1);
            let node = find(&mut world.nodes, "node", &request.node_id, |node| &node.id)?;
            if conflict {
                node.meta_mut().version_mut().index += 1;
            }
            if request.node_version.as_ref() != Some(node.meta().version()) {
                return Err(Status::unknown("update out of sequence"));
            }
            node.meta_mut().version_mut().index += 1;
            node.spec = request.spec;
            Ok(Response::new(v1::UpdateNodeResponse { node: Some(node.clone()) }))
        }

        async fn remove_node(
            &self,
            request: Request<v1::RemoveNodeRequest>,
        ) -> Answer<v1::RemoveNodeResponse> {
            let mut world = self.enter("remove_node")?;
            let request = request.into_inner();
            let id = request.node_id;
            let node = find(&mut world.nodes, "node", &id, |node| &node.id)?;
            if node.status().state() == v1::node_status::State::Ready && !request.force {
                let message = format!("node {id} is not down and can't be removed");
                return Err(Status::failed_precondition(message));
            }
            world.nodes.retain(|node| node.id != id);
            Ok(Response::new(v1::RemoveNodeResponse {}))
        }

        async fn get_cluster(
            &self,
            request: Request<v1::GetClusterRequest>,
        ) -> Answer<v1::GetClusterResponse> {
            let mut world = self.enter("get_cluster")?;
            let id = request.into_inner().cluster_id;
            let cluster = find(&mut world.clusters, "cluster", &id, |cluster| &cluster.id)?;
            Ok(Response::new(v1::GetClusterResponse { cluster: Some(cluster.clone()) }))
        }

        async fn list_clusters(
            &self,
            request: Request<v1::ListClustersRequest>,
        ) -> Answer<v1::ListClustersResponse> {
            let world = self.enter("list_clusters")?;
            let filters = request.into_inner().filters.unwrap_or_default();
            let mut clusters = world.clusters.clone();
            clusters.retain(|cluster| {
                let name = &cluster.spec().annotations().name;
                passes(&filters.names, &filters.id_prefixes, name, &cluster.id)
            });
            Ok(Response::new(v1::ListClustersResponse { clusters }))
        }
    }
    answers {
        update_cluster(UpdateClusterRequest) -> UpdateClusterResponse;
        get_secret(GetSecretRequest) -> GetSecretResponse;
        update_secret(UpdateSecretRequest) -> UpdateSecretResponse;
        list_secrets(ListSecretsRequest) -> ListSecretsResponse;
        create_secret(CreateSecretRequest) -> CreateSecretResponse;
        remove_secret(RemoveSecretRequest) -> RemoveSecretResponse;
        get_config(GetConfigRequest) -> GetConfigResponse;
        update_config(UpdateConfigRequest) -> UpdateConfigResponse;
        list_configs(ListConfigsRequest) -> ListConfigsResponse;
        create_config(CreateConfigRequest) -> CreateConfigResponse;
        remove_config(RemoveConfigRequest) -> RemoveConfigResponse;
    }
    unimplemented {
        remove_task(RemoveTaskRequest) -> RemoveTaskResponse;
        get_network(GetNetworkRequest) -> GetNetworkResponse;
        list_networks(ListNetworksRequest) -> ListNetworksResponse;
        create_network(CreateNetworkRequest) -> CreateNetworkResponse;
        remove_network(RemoveNetworkRequest) -> RemoveNetworkResponse;
        get_extension(GetExtensionRequest) -> GetExtensionResponse;
        create_extension(CreateExtensionRequest) -> CreateExtensionResponse;
        remove_extension(RemoveExtensionRequest) -> RemoveExtensionResponse;
        get_resource(GetResourceRequest) -> GetResourceResponse;
        update_resource(UpdateResourceRequest) -> UpdateResourceResponse;
        list_resources(ListResourcesRequest) -> ListResourcesResponse;
        create_resource(CreateResourceRequest) -> CreateResourceResponse;
        remove_resource(RemoveResourceRequest) -> RemoveResourceResponse;
        create_volume(CreateVolumeRequest) -> CreateVolumeResponse;
        get_volume(GetVolumeRequest) -> GetVolumeResponse;
        update_volume(UpdateVolumeRequest) -> UpdateVolumeResponse;
        list_volumes(ListVolumesRequest) -> ListVolumesResponse;
        remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse;
    }
}
