//! A cluster in one process: real nodes on real sockets with real mTLS, each on a runtime of its
//! own that can be taken away from under it.

pub mod configs;

use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use skep_agent::{
    OnStop,
    executor::{
        Executor,
        null::NullExecutor,
        process::{ProcessExecutor, end_leftovers},
    },
};
use skep_node::{Config, Join, Node};
use skep_proto::v1::{
    Annotations, Cluster as ClusterObject, ContainerSpec, CreateServiceRequest, GetServiceRequest,
    GetTaskRequest, ListClustersRequest, ListNodesRequest, ListTasksRequest, Node as NodeObject,
    NodeRole, NodeSpec, RemoveNodeRequest, ReplicatedService, RestartPolicy, Service, ServiceSpec,
    Task, TaskSpec, TaskState, UpdateNodeRequest, UpdateNodeResponse, UpdateServiceRequest,
    control_client::ControlClient, list_tasks_request::Filters, logs_client::LogsClient,
    node_spec::Availability, node_status::State, service_spec::Mode,
    task_spec::Runtime as TaskRuntime, watch_client::WatchClient,
};
use skep_raft::Status as RaftStatus;
use skep_security::UnlockKey;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Status, transport::Channel};

use crate::{control, links::Links};

mod recovery;

/// How long anything may take before a test gives up. Generous: it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of nodes in this process. Dropping it ends all of them.
pub struct Cluster {
    nodes: Vec<Host>,
    links: Links,
    dir: TempDir,
    executor: Arc<dyn Executor>,
}

/// One node of the cluster, running or not.
struct Host {
    name: String,
    state_dir: PathBuf,
    listen: String,
    manager: bool,
    running: Option<(Runtime, Node)>,
}

impl Cluster {
    /// A cluster whose tasks do nothing. All its nodes are ready when this returns.
    pub async fn start(managers: usize, workers: usize) -> Self {
        Self::with_executor(managers, workers, Arc::new(NullExecutor)).await
    }

    /// A cluster whose tasks are processes of this machine.
    pub async fn of_processes(managers: usize, workers: usize) -> Self {
        Self::with_executor(managers, workers, Arc::<ProcessExecutor>::default()).await
    }

    /// A cluster of managers that listen on these IP addresses of this machine. All are ready when this
    /// returns.
    pub async fn at(ips: &[String]) -> Self {
        let mut cluster = Self::empty(Arc::new(NullExecutor));
        for (index, ip) in ips.iter().enumerate() {
            let name = format!("manager-{}", index + 1);
            Box::pin(cluster.add_at(&name, true, ip)).await;
        }
        cluster.all_ready().await;
        cluster
    }

    fn empty(executor: Arc<dyn Executor>) -> Self {
        Self {
            nodes: Vec::new(),
            links: Links::default(),
            dir: TempDir::new().unwrap(),
            executor,
        }
    }

    /// A cluster whose tasks `executor` runs.
    pub async fn with_executor(
        managers: usize,
        workers: usize,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let mut cluster = Self::empty(executor);
        for number in 1..=managers {
            cluster.add(&format!("manager-{number}"), true).await;
        }
        for number in 1..=workers {
            cluster.add(&format!("worker-{number}"), false).await;
        }
        cluster.all_ready().await;
        cluster
    }

    /// What runs the tasks of nodes that are started from now on.
    pub fn run_by(&mut self, executor: Arc<dyn Executor>) {
        self.executor = executor;
    }

    /// Adds a node, by the token for its kind.
    pub async fn add(&mut self, name: &str, manager: bool) {
        self.add_at(name, manager, "127.0.0.1").await;
    }

    /// Adds a node that listens on this IP address of the loopback.
    pub async fn add_at(&mut self, name: &str, manager: bool, ip: &str) {
        let listen = TcpListener::bind((ip, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        self.links.listens(name, &listen);
        let running = |host: &&Host| host.manager && host.running.is_some();
        let join = match self.nodes.iter().find(running) {
            None => None,
            Some(first) => {
                let addr = first.listen.clone();
                let cluster = self.object().await;
                let tokens = cluster.root_ca().join_tokens();
                let token = if manager {
                    &tokens.manager
                } else {
                    &tokens.worker
                };
                Some(Join {
                    addr,
                    token: Some(token.clone()),
                })
            }
        };
        let state_dir = self.dir.path().join(name);
        let name = name.to_owned();
        self.nodes.push(Host {
            name: name.clone(),
            state_dir,
            listen,
            manager,
            running: None,
        });
        self.launch(&name, join, false, None).await;
    }

    async fn launch(
        &mut self,
        name: &str,
        join: Option<Join>,
        force_new_cluster: bool,
        unlock_key: Option<&UnlockKey>,
    ) {
        let launched = self.try_launch(name, join, force_new_cluster, unlock_key);
        if let Err(err) = launched.await {
            panic!("{name} does not start: {err}");
        }
    }

    /// Starts a node, or says why it does not start.
    async fn try_launch(
        &mut self,
        name: &str,
        join: Option<Join>,
        force_new_cluster: bool,
        unlock_key: Option<&UnlockKey>,
    ) -> Result<(), String> {
        let host = self.nodes.iter().find(|host| host.name == name).unwrap();
        let config = Config {
            state_dir: host.state_dir.clone(),
            join,
            force_new_cluster,
            listen_remote_api: host.listen.clone(),
            advertise_addr: None,
            listen_control_api: host.socket(),
            hostname: host.name.clone(),
            executor: self.executor.clone(),
            generic_resources: Vec::new(),
            availability: Availability::Active,
            on_stop: OnStop::Keep,
            dialer: self.links.dialer(name),
            unlock_key: unlock_key.cloned(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .unwrap();
        let node = runtime.spawn(Box::pin(Node::start(config))).await.unwrap();
        match node {
            Ok(node) => {
                self.host(name).running = Some((runtime, node));
                Ok(())
            }
            Err(err) => {
                runtime.shutdown_background();
                Err(err.to_string())
            }
        }
    }

    fn host(&mut self, name: &str) -> &mut Host {
        self.nodes
            .iter_mut()
            .find(|host| host.name == name)
            .unwrap()
    }

    /// Takes a node away as a crash would, and waits until the process has let go of its log, which
    /// an operating system does at once.
    pub async fn kill(&mut self, name: &str) {
        let host = self.host(name);
        let (runtime, node) = host.running.take().unwrap();
        runtime.shutdown_background();
        drop(node);
        let lock = host.state_dir.join("raft").join("lock");
        eventually("the log to be released", async || match File::open(&lock) {
            Ok(lock) => lock.try_lock().ok(),
            Err(_) => Some(()),
        })
        .await;
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, name: &str) {
        let (runtime, node) = self.host(name).running.take().unwrap();
        runtime.spawn(Box::pin(node.stop())).await.unwrap();
        runtime.shutdown_background();
    }

    /// Runs a node, as a daemon does, until the end of its manager is dealt with: it was removed from its
    /// cluster. From then on the node is a worker.
    pub async fn steps_down(&mut self, name: &str) {
        let host = self.host(name);
        let (socket, log) = (host.socket(), host.state_dir.join("raft"));
        let (_, node) = host.running.as_mut().unwrap();
        let stepped_down = eventually("the manager's end", async || {
            (!socket.exists() && !log.exists()).then_some(())
        });
        tokio::select! {
            end = Box::pin(node.run()) => panic!("{name}: {end:?}"),
            () = stepped_down => {}
        }
        assert!(node.manager().is_none());
        host.manager = false;
    }

    /// Runs a node, as a daemon does, until it is a manager.
    pub async fn becomes_manager(&mut self, name: &str) {
        let host = self.host(name);
        let (_, node) = host.running.as_mut().unwrap();
        let manages = tokio::time::timeout(PATIENCE, node.manages());
        tokio::select! {
            end = Box::pin(node.run()) => panic!("{name}: {end:?}"),
            started = manages => started.unwrap(),
        }
        assert!(node.manager().is_some());
        host.manager = true;
    }

    /// Asks for a node to become a worker.
    pub async fn demote(&self, name: &str) {
        self.retry("demotion", async |_| self.try_demote(name).await)
            .await;
    }

    /// Asks for a node to become a manager.
    pub async fn promote(&self, name: &str) {
        self.retry("promotion", async |_| {
            self.try_role(name, NodeRole::Manager).await
        })
        .await;
    }

    /// Asks once for a node to become a worker.
    pub async fn try_demote(
        &self,
        name: &str,
    ) -> Result<tonic::Response<UpdateNodeResponse>, Status> {
        self.try_role(name, NodeRole::Worker).await
    }

    async fn try_role(
        &self,
        name: &str,
        role: NodeRole,
    ) -> Result<tonic::Response<UpdateNodeResponse>, Status> {
        let node = self.node_object(name).await;
        let mut spec = node.spec().clone();
        spec.set_desired_role(role);
        let request = UpdateNodeRequest {
            node_id: node.id.clone(),
            node_version: node.meta().version,
            spec: Some(spec),
        };
        self.control().await.update_node(request).await
    }

    /// Removes the node object of a host.
    pub async fn remove_node(&self, node_id: &str, force: bool) {
        self.retry("node removal", async |mut control| {
            let request = RemoveNodeRequest {
                node_id: node_id.to_owned(),
                force,
            };
            control.remove_node(request).await
        })
        .await;
    }

    /// How replication stands as the leader sees it.
    pub async fn raft(&self) -> RaftStatus {
        let leader = self.leader().await;
        let manager = self.node(&leader).manager().unwrap();
        manager.status().borrow().clone()
    }

    /// Waits until as many members vote, and no other is a member.
    pub async fn voters_are(&self, count: usize) {
        eventually(&format!("{count} voters"), async || {
            let raft = self.raft().await;
            (raft.members.len() == count && raft.learners.is_empty()).then_some(())
        })
        .await;
    }

    /// Takes the raft log of a node that does not run.
    pub fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.state_dir(name).join("raft")).unwrap();
    }

    /// Starts a node again that was killed or stopped.
    pub async fn restart(&mut self, name: &str) {
        self.launch(name, None, false, None).await;
    }

    /// Starts a locked manager again with its unlock key.
    pub async fn restart_locked(&mut self, name: &str, key: &UnlockKey) {
        self.launch(name, None, false, Some(key)).await;
    }

    /// Cuts the link between two nodes.
    pub fn cut(&self, a: &str, b: &str) {
        self.links.cut(a, b);
    }

    /// Cuts all links of a node.
    pub fn isolate(&self, name: &str) {
        for other in self.nodes.iter().filter(|host| host.name != name) {
            self.links.cut(name, &other.name);
        }
    }

    /// Heals all links.
    pub fn heal(&self) {
        self.links.heal();
    }

    /// The network between the nodes.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Names of the managers.
    pub fn managers(&self) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|host| host.manager)
            .map(|host| host.name.clone())
            .collect()
    }

    /// The node ID of a running node.
    pub fn id(&self, name: &str) -> String {
        self.node(name).identity().node_id
    }

    /// A running node.
    pub fn node(&self, name: &str) -> &Node {
        let host = self.nodes.iter().find(|host| host.name == name).unwrap();
        &host.running.as_ref().unwrap().1
    }

    /// The state directory of a node.
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.nodes
            .iter()
            .find(|host| host.name == name)
            .unwrap()
            .state_dir
            .clone()
    }

    /// A client of a manager's control socket.
    pub async fn control_of(&self, name: &str) -> ControlClient<Channel> {
        let host = self.nodes.iter().find(|host| host.name == name).unwrap();
        control::connect(&host.socket(), false).await.unwrap()
    }

    /// A client of the Watch API on a manager's control socket.
    pub async fn watch_of(&self, name: &str) -> WatchClient<Channel> {
        let host = self.nodes.iter().find(|host| host.name == name).unwrap();
        WatchClient::new(control::channel(&host.socket(), false).await.unwrap())
    }

    /// A client of the Logs API on a manager's control socket.
    pub async fn logs_of(&self, name: &str) -> LogsClient<Channel> {
        let host = self.nodes.iter().find(|host| host.name == name).unwrap();
        LogsClient::new(control::channel(&host.socket(), false).await.unwrap())
    }

    /// A client of some running manager's control socket.
    pub async fn control(&self) -> ControlClient<Channel> {
        let host = self
            .nodes
            .iter()
            .find(|host| host.manager && host.running.is_some())
            .unwrap();
        control::connect(&host.socket(), false).await.unwrap()
    }

    /// The name of the manager that leads, waited for.
    pub async fn leader(&self) -> String {
        eventually("a leader", async || {
            let leading = self.nodes.iter().find(|host| {
                let manager = host.running.as_ref().and_then(|(_, node)| node.manager());
                manager.is_some_and(|manager| manager.status().borrow().leading)
            });
            leading.map(|host| host.name.clone())
        })
        .await
    }

    /// A manager that does not lead.
    pub async fn follower(&self) -> String {
        let leader = self.leader().await;
        self.managers()
            .into_iter()
            .find(|name| *name != leader && self.is_running(name))
            .expect("a cluster of several managers")
    }

    /// Whether a node runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.nodes
            .iter()
            .any(|host| host.name == name && host.running.is_some())
    }

    /// The cluster object.
    pub async fn object(&self) -> ClusterObject {
        eventually("the cluster object", async || {
            let mut control = self.control().await;
            let listed = control
                .list_clusters(ListClustersRequest::default())
                .await
                .ok()?;
            listed.into_inner().clusters.into_iter().next()
        })
        .await
    }

    /// Waits until every node is ready.
    pub async fn all_ready(&self) {
        let count = self.nodes.len();
        eventually("all nodes ready", async || {
            let nodes = self.node_objects().await.ok()?;
            let ready = nodes
                .iter()
                .filter(|node| node.status().state() == State::Ready)
                .count();
            (ready == count).then_some(())
        })
        .await;
    }

    /// All node objects.
    pub async fn node_objects(&self) -> Result<Vec<NodeObject>, Status> {
        let mut control = self.control().await;
        Ok(control
            .list_nodes(ListNodesRequest::default())
            .await?
            .into_inner()
            .nodes)
    }

    /// The object of a node, by the name of its host.
    pub async fn node_object(&self, name: &str) -> NodeObject {
        eventually("the node object", async || {
            let nodes = self.node_objects().await.ok()?;
            nodes.into_iter().find(|node| {
                node.description
                    .as_ref()
                    .is_some_and(|description| description.hostname == name)
            })
        })
        .await
    }

    /// Waits until a node is in a state.
    pub async fn node_is(&self, name: &str, state: State) {
        eventually(&format!("{name} {state:?}"), async || {
            (self.node_object(name).await.status().state() == state).then_some(())
        })
        .await;
    }

    /// Changes a node's availability.
    pub async fn set_availability(&self, name: &str, availability: Availability) {
        self.retry("node update", async |mut control| {
            let node = self.node_object(name).await;
            let spec = NodeSpec {
                availability: availability.into(),
                ..node.spec().clone()
            };
            let request = UpdateNodeRequest {
                node_id: node.id.clone(),
                node_version: node.meta().version,
                spec: Some(spec),
            };
            control.update_node(request).await
        })
        .await;
    }

    /// Creates a service of `replicas` tasks that run `command`.
    pub async fn create(&self, name: &str, replicas: u64, command: &[&str]) -> Service {
        self.create_service(spec(name, replicas, command)).await
    }

    /// Creates a service.
    pub async fn create_service(&self, spec: ServiceSpec) -> Service {
        let created = Box::pin(self.retry("service create", async |mut control| {
            control
                .create_service(CreateServiceRequest {
                    spec: Some(spec.clone()),
                })
                .await
        }))
        .await;
        created.service.unwrap()
    }

    /// Changes a service's spec, whatever version it has.
    pub async fn update(&self, service_id: &str, change: impl Fn(&mut ServiceSpec)) -> Service {
        let updated = Box::pin(self.retry("service update", async |mut control| {
            let service_id = service_id.to_owned();
            let request = GetServiceRequest {
                service_id,
                insert_defaults: false,
            };
            let service = control
                .get_service(request)
                .await?
                .into_inner()
                .service
                .unwrap();
            let mut spec = service.spec().clone();
            change(&mut spec);
            let request = UpdateServiceRequest {
                service_id: service.id.clone(),
                service_version: service.meta().version,
                spec: Some(spec),
                ..Default::default()
            };
            control.update_service(request).await
        }))
        .await;
        updated.service.unwrap()
    }

    /// Sets the number of tasks.
    pub async fn scale(&self, service_id: &str, replicas: u64) -> Service {
        let mode = Mode::Replicated(ReplicatedService { replicas });
        Box::pin(self.update(service_id, |spec| spec.mode = Some(mode))).await
    }

    /// All tasks of a service, also those that are over.
    pub async fn tasks(&self, service_id: &str) -> Result<Vec<Task>, Status> {
        let filters = Filters {
            service_ids: vec![service_id.to_owned()],
            ..Default::default()
        };
        let request = ListTasksRequest {
            filters: Some(filters),
        };
        Ok(self
            .control()
            .await
            .list_tasks(request)
            .await?
            .into_inner()
            .tasks)
    }

    /// A task, if it is there.
    pub async fn task(&self, id: &str) -> Result<Task, Status> {
        let request = GetTaskRequest {
            task_id: id.to_owned(),
        };
        Ok(self
            .control()
            .await
            .get_task(request)
            .await?
            .into_inner()
            .task
            .unwrap_or_default())
    }

    /// Waits until exactly `count` tasks of a service should run and do, and returns them.
    pub async fn running(&self, service_id: &str, count: usize) -> Vec<Task> {
        eventually(&format!("{count} running tasks"), async || {
            let tasks = self.tasks(service_id).await.ok()?;
            let wanted: Vec<_> = tasks
                .into_iter()
                .filter(|task| task.desired_state() <= TaskState::Running)
                .collect();
            let running = wanted
                .iter()
                .all(|task| task.status().state() == TaskState::Running);
            (running && wanted.len() == count).then_some(wanted)
        })
        .await
    }

    /// Calls until it succeeds: leaders come and go, and so do versions.
    async fn retry<T>(
        &self,
        what: &str,
        call: impl AsyncFn(ControlClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> T {
        let start = Instant::now();
        loop {
            match call(self.control().await).await {
                Ok(response) => return response.into_inner(),
                Err(status) if start.elapsed() > PATIENCE => panic!("{what}: {status}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Host {
    fn socket(&self) -> PathBuf {
        self.state_dir.join("s.sock")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in &mut self.nodes {
            if let Some((runtime, node)) = host.running.take() {
                runtime.shutdown_background();
                drop(node);
            }
            end_leftovers(&host.state_dir).unwrap();
        }
    }
}

/// A service whose tasks restart at once.
pub fn spec(name: &str, replicas: u64, command: &[&str]) -> ServiceSpec {
    let container = ContainerSpec {
        image: "process".to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    };
    let restart = RestartPolicy {
        condition: skep_proto::v1::restart_policy::RestartCondition::Any.into(),
        delay: Some(skep_proto::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..Default::default()
    };
    ServiceSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        task: Some(TaskSpec {
            runtime: Some(TaskRuntime::Container(container)),
            restart: Some(restart),
            ..Default::default()
        }),
        mode: Some(Mode::Replicated(ReplicatedService { replicas })),
        ..Default::default()
    }
}

/// Looks until there is something to see.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
