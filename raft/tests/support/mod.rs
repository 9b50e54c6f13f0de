//! A cluster of managers that consist of a store, replication and a server.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use skep_proto::{
    Timestamp, v1,
    v1::{
        HealthCheckRequest, HealthCheckResponse,
        health_check_response::ServingStatus,
        health_server::{Health, HealthServer},
    },
};
use skep_raft::{
    Batch, Config, Error, Loaded, LocalMember, LogStore, MemoryLog, Raft, RaftService, SledLog,
    SnapshotWriter, Status, WrittenSnapshot, force_new_cluster, request_join,
};
use skep_security::{
    Credentials, Identity, Role, RootCa, ServerName, Tls, authorize, tls_incoming,
};
use skep_store::{Store, Tx};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle, time::timeout};
use tonic::{
    Request, Response,
    transport::{Channel, Server},
};
use tower::util::MapRequestLayer;

const CLUSTER: &str = "cluster1cluster1cluster1c";
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub managers: Vec<Manager>,
    ca: RootCa,
}

pub struct Manager {
    pub store: Store,
    node_id: String,
    /// What it tells the others, and where it listens if that is somewhere else.
    addr: SocketAddr,
    listen: Option<SocketAddr>,
    dir: TempDir,
    tls: Tls,
    /// Whether it serves what SwarmKit's managers serve and nothing else.
    plain: bool,
    running: Option<Running>,
}

struct Running {
    raft: Option<Raft>,
    announcing: Option<JoinHandle<()>>,
    /// Of the server: ending it ends all connections.
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(announcing) = self.announcing.take() {
            announcing.abort();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Serving;

#[tonic::async_trait]
impl Health for Serving {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, tonic::Status> {
        assert_eq!(request.get_ref().service, "Raft");
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }
}

pub fn node_object(name: &str) -> v1::Node {
    v1::Node {
        id: name.to_owned(),
        ..v1::Node::default()
    }
}

fn store() -> Store {
    Store::new(Timestamp::default)
}

impl Manager {
    async fn new(ca: &RootCa, number: usize) -> Self {
        let node_id = format!("manager{number}");
        let who = Identity {
            node_id: node_id.clone(),
            role: Role::Manager,
            cluster_id: CLUSTER.to_owned(),
        };
        let hour = Duration::from_secs(3600);
        let tls = Tls::new(Credentials::self_issue(ca, &who, hour).unwrap());
        let addr = bind("127.0.0.1:0".parse().unwrap()).await.local_addr();
        Self {
            store: store(),
            node_id,
            addr: addr.unwrap(),
            listen: None,
            dir: tempfile::tempdir().unwrap(),
            tls,
            plain: false,
            running: None,
        }
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("raft")
    }

    pub fn raft(&self) -> Raft {
        self.running.as_ref().unwrap().raft.clone().unwrap()
    }

    pub fn status(&self) -> Status {
        self.raft().status().borrow().clone()
    }

    pub fn identity(&self) -> (String, String) {
        (self.node_id.clone(), self.addr.to_string())
    }

    /// A connection that this manager makes to another one.
    pub fn channel(&self, to: &Manager) -> Channel {
        let addr = to.addr.to_string();
        self.tls.channel(&addr, ServerName::Manager).unwrap()
    }

    /// Serves peers.
    async fn serve(&mut self) -> RaftService {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (addr, tls) = (self.listen.unwrap_or(self.addr), self.tls.clone());
        let service = RaftService::default();
        let (raft_server, membership_server, stream_server) = service.servers();
        let stream_server = (!self.plain).then_some(stream_server);
        let identify = MapRequestLayer::new(|mut request: http::Request<tonic::body::Body>| {
            if let Ok(caller) = authorize(&request, CLUSTER, &|_| false) {
                request.extensions_mut().insert(caller);
            }
            request
        });
        // The sockets belong to the runtime that they are made on.
        let listener = runtime.spawn(bind(addr)).await.unwrap();
        runtime.spawn(async move {
            let incoming = tls_incoming(listener, tls);
            let server = Server::builder()
                .layer(identify)
                .add_service(HealthServer::new(Serving))
                .add_service(raft_server)
                .add_service(membership_server)
                .add_optional_service(stream_server)
                .serve_with_incoming(incoming);
            Box::pin(server).await.unwrap();
        });
        self.running = Some(Running {
            raft: None,
            announcing: None,
            runtime: Some(runtime),
        });
        service
    }

    /// Serves, then joins through `through`, then replicates.
    async fn run(&mut self, through: Option<SocketAddr>, log: Option<Box<dyn LogStore>>) {
        self.run_with(through, None, log).await;
    }

    /// The same for one that may look for the others at `contact`.
    async fn run_with(
        &mut self,
        through: Option<SocketAddr>,
        contact: Option<SocketAddr>,
        log: Option<Box<dyn LogStore>>,
    ) {
        self.store = store();
        let service = self.serve().await;
        let join = match through {
            Some(manager) => Some(
                request_join(&self.tls, &manager.to_string(), &self.addr.to_string())
                    .await
                    .unwrap(),
            ),
            None => None,
        };
        let config = Config {
            node_id: self.node_id.clone(),
            cluster_id: CLUSTER.to_owned(),
            addr: self.addr.to_string(),
            tick: Duration::from_millis(50),
            join,
        };
        let log = log.unwrap_or_else(|| Box::new(SledLog::open(&self.log_dir()).unwrap()));
        let raft = Raft::start(config, self.store.clone(), self.tls.clone(), log)
            .await
            .unwrap();
        service.begin(&raft);
        self.running.as_mut().unwrap().raft = Some(raft.clone());
        let announcing = tokio::spawn(async move {
            let contact = contact.map(|contact| contact.to_string());
            raft.announce(contact.as_deref()).await;
        });
        self.running.as_mut().unwrap().announcing = Some(announcing);
    }
}

/// Takes an address that the process may have used a moment ago.
async fn bind(addr: SocketAddr) -> TcpListener {
    let started = Instant::now();
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            Err(error) if started.elapsed() > PATIENCE => panic!("{addr}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Cluster {
    pub async fn start(size: usize) -> Self {
        let ca = RootCa::generate().unwrap();
        let mut first = Manager::new(&ca, 0).await;
        first.run(None, None).await;
        let mut cluster = Self {
            managers: vec![first],
            ca,
        };
        for _ in 1..size {
            cluster.add().await;
        }
        cluster
    }

    pub async fn start_with(log: impl LogStore + 'static) -> Self {
        let ca = RootCa::generate().unwrap();
        let mut first = Manager::new(&ca, 0).await;
        first.run(None, Some(Box::new(log))).await;
        Self {
            managers: vec![first],
            ca,
        }
    }

    pub async fn add(&mut self) {
        self.add_with(None).await;
    }

    pub async fn add_with(&mut self, log: Option<Box<dyn LogStore>>) {
        let manager = Manager::new(&self.ca, self.managers.len()).await;
        self.join(manager, log).await;
    }

    /// Adds a manager that takes Raft messages as SwarmKit's do.
    pub async fn add_plain(&mut self) {
        let mut manager = Manager::new(&self.ca, self.managers.len()).await;
        manager.plain = true;
        self.join(manager, None).await;
    }

    async fn join(&mut self, mut manager: Manager, log: Option<Box<dyn LogStore>>) {
        let leader = self.leader().await;
        let through = self.managers[leader].addr;
        manager.run(Some(through), log).await;
        self.managers.push(manager);
        let new = self.managers.len() - 1;
        self.wait("the new member votes and knows all", |cluster| {
            let status = cluster.managers[new].status();
            status.members.len() == cluster.running().count() && status.votes()
        })
        .await;
    }

    /// A node that has a certificate and answers health checks, but is no member.
    pub async fn outsider(&mut self) -> Manager {
        let mut manager = Manager::new(&self.ca, self.managers.len()).await;
        manager.serve().await;
        manager
    }

    /// Takes the log of a killed manager away.
    pub async fn wipe(&mut self, manager: usize) {
        drop(self.open_log(manager).await);
        std::fs::remove_dir_all(self.managers[manager].log_dir()).unwrap();
    }

    /// Starts a manager that has no log, which has to ask the leader.
    pub async fn rejoin(&mut self, manager: usize) {
        let leader = self.leader().await;
        let through = self.managers[leader].addr;
        self.managers[manager].run(Some(through), None).await;
    }

    /// Ends a manager as a crash does: nothing is handed over.
    pub fn kill(&mut self, manager: usize) {
        self.managers[manager].running = None;
    }

    pub async fn restart(&mut self, manager: usize) {
        let log = self.open_log(manager).await;
        self.managers[manager].run(None, Some(Box::new(log))).await;
    }

    /// Opens the log of a manager that was killed, which closes it soon.
    pub async fn open_log(&self, manager: usize) -> SledLog {
        let dir = self.managers[manager].log_dir();
        let started = Instant::now();
        loop {
            match SledLog::open(&dir) {
                Ok(log) => return log,
                Err(Error::Locked(_)) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Starts a killed manager at another address, with where to look for the others.
    pub async fn restart_elsewhere(&mut self, manager: usize, contact: Option<SocketAddr>) {
        let log = self.open_log(manager).await;
        let addr = bind("127.0.0.1:0".parse().unwrap()).await.local_addr();
        let manager = &mut self.managers[manager];
        manager.addr = addr.unwrap();
        manager.run_with(None, contact, Some(Box::new(log))).await;
    }

    /// Starts a killed manager as the only one of its group, at another address.
    pub async fn force(&mut self, manager: usize) {
        let mut log = self.open_log(manager).await;
        let addr = bind("127.0.0.1:0".parse().unwrap()).await.local_addr();
        let manager = &mut self.managers[manager];
        manager.addr = addr.unwrap();
        force_new_cluster(&mut log, &manager.addr.to_string()).unwrap();
        manager.run(None, Some(Box::new(log))).await;
    }

    /// Puts a forwarder in front of a killed manager and lets it advertise that.
    pub async fn restart_behind_forwarder(&mut self, manager: usize) {
        let log = self.open_log(manager).await;
        let manager = &mut self.managers[manager];
        let forwarder = bind("127.0.0.1:0".parse().unwrap()).await;
        let inside = manager.addr;
        manager.addr = forwarder.local_addr().unwrap();
        manager.listen = Some(inside);
        tokio::spawn(async move {
            while let Ok((mut outer, _)) = forwarder.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut inner) = tokio::net::TcpStream::connect(inside).await {
                        let copied = tokio::io::copy_bidirectional(&mut outer, &mut inner);
                        copied.await.unwrap_or_default();
                    }
                });
            }
        });
        manager.run(None, Some(Box::new(log))).await;
    }

    /// Waits until all that run know each other at the addresses that they have now.
    pub async fn all_know_the_addresses(&mut self) {
        self.wait("all know where all are", |cluster| {
            let running = || cluster.running().map(|i| &cluster.managers[i]);
            let mut expected: Vec<_> = running().map(|m| m.addr.to_string()).collect();
            expected.sort();
            running().all(|manager| {
                let status = manager.status();
                let mut known: Vec<_> = status.members.into_iter().map(|m| m.addr).collect();
                known.sort();
                known == expected && status.leader.is_some()
            })
        })
        .await;
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.managers.len()).filter(|i| self.managers[*i].running.is_some())
    }

    pub fn addr(&self, manager: usize) -> SocketAddr {
        self.managers[manager].addr
    }

    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<_> = self.managers.iter().map(|m| m.addr.to_string()).collect();
        addresses.sort();
        addresses
    }

    /// Polls until it holds: a condition over several managers has no single thing to wait on.
    pub async fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < PATIENCE, "it never happens that {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn present_leader(&self) -> Option<usize> {
        self.running()
            .filter(|i| self.managers[*i].status().leading)
            .max_by_key(|i| self.managers[*i].status().term)
    }

    pub async fn leader(&mut self) -> usize {
        self.wait("a manager leads", |cluster| {
            cluster.present_leader().is_some()
        })
        .await;
        self.present_leader().unwrap()
    }

    pub async fn wait_reachable(&mut self, manager: usize) {
        self.wait("all are reachable", |cluster| {
            let reachable = v1::raft_member_status::Reachability::Reachable;
            let members = cluster.managers[manager].status().members;
            members
                .iter()
                .all(|member| member.status().reachability() == reachable)
        })
        .await;
    }

    /// Writes through whoever leads until it is acknowledged.
    async fn update(&mut self, write: impl Fn(&mut Tx) -> Result<(), skep_store::Error>) {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "no write is acknowledged");
            let leader = self.leader().await;
            let store = self.managers[leader].store.clone();
            match timeout(PATIENCE, store.update(&write)).await.unwrap() {
                Ok(()) | Err(skep_store::Error::Exists) => return,
                Err(skep_store::Error::LostLeadership) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn write(&mut self, name: &str) {
        self.update(|tx| tx.create(node_object(name)).map(drop))
            .await;
    }

    pub async fn write_large(&mut self, name: &str, size: usize) {
        self.update(|tx| {
            let mut node = node_object(name);
            node.spec_mut().annotations_mut().name = "x".repeat(size);
            tx.create(node).map(drop)
        })
        .await;
    }

    pub async fn set_raft_config(&mut self, interval: u64, kept: u64) {
        self.update(|tx| {
            let mut cluster = v1::Cluster {
                id: CLUSTER.to_owned(),
                ..v1::Cluster::default()
            };
            let spec = cluster.spec_mut();
            spec.annotations_mut().name = "default".to_owned();
            spec.raft_mut().snapshot_interval = interval;
            spec.raft_mut().log_entries_for_slow_followers = kept;
            tx.create(cluster).map(drop)
        })
        .await;
    }

    pub fn has(&self, manager: usize, name: &str) -> bool {
        let snapshot = self.managers[manager].store.snapshot();
        snapshot.get::<v1::Node>(name).is_some()
    }

    pub async fn everyone_has(&mut self, name: &str) {
        self.wait(&format!("everyone has {name}"), |cluster| {
            cluster.running().all(|i| cluster.has(i, name))
        })
        .await;
    }
}

/// A log whose disk can be made to fail.
#[derive(Default)]
pub struct FailingLog(MemoryLog);

static BROKEN: AtomicBool = AtomicBool::new(false);

impl FailingLog {
    pub fn break_disk() {
        BROKEN.store(true, Ordering::SeqCst);
    }
}

impl LogStore for FailingLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.0.load()
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.0.set_member(member)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        if BROKEN.load(Ordering::SeqCst) {
            return Err(Error::Log {
                action: "write",
                reason: "no space left on device".to_owned(),
            });
        }
        self.0.append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.0.snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.0.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        self.0.compact(index)
    }
}

/// A log that does something before each append: what a disk takes its time for.
pub struct HookedLog {
    log: MemoryLog,
    before_append: Box<dyn Fn() + Send>,
}

impl HookedLog {
    pub fn new(before_append: impl Fn() + Send + 'static) -> Self {
        Self {
            log: MemoryLog::default(),
            before_append: Box::new(before_append),
        }
    }
}

impl LogStore for HookedLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.log.load()
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.log.set_member(member)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        (self.before_append)();
        self.log.append(batch)
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        self.log.snapshot_writer()
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.log.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        self.log.compact(index)
    }
}
