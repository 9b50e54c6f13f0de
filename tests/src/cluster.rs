//! A cluster in one process: real nodes on real sockets with real mTLS, each on a runtime of its
//! own that can be taken away from under it.

pub mod configs;
mod recovery;
mod roles;
mod services;

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
    Cluster as ClusterObject, ListClustersRequest, ListNodesRequest, Node as NodeObject, NodeSpec,
    UpdateNodeRequest, control_client::ControlClient, logs_client::LogsClient,
    node_spec::Availability, node_status::State, watch_client::WatchClient,
};
use skep_raft::{LogKind, Status as RaftStatus};
use skep_security::UnlockKey;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

use crate::{control, links::Links};

pub use services::spec;

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

    /// Where all its managers look for plugins.
    pub fn plugin_dir(&self) -> PathBuf {
        self.dir.path().join("plugins")
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
            raft_log: LogKind::default(),
            plugin_dirs: vec![self.plugin_dir()],
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
                Err(_) => sleep(Duration::from_millis(50)).await,
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

/// Looks until there is something to see. A look that does not end is given up too.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}
