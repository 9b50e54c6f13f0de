//! Managers that consist of a store, replication and a server, and clusters of them.

mod cluster;
mod logs;

use std::{
    net::SocketAddr,
    path::PathBuf,
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
use skep_raft::{Config, LogKind, LogStore, Raft, RaftService, Status, open_log, request_join};
use skep_security::{
    Credentials, Identity, Role, RootCa, ServerName, Tls, authorize, tls_incoming,
};
use skep_store::Store;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tonic::{
    Request, Response,
    transport::{Channel, Server},
};
use tower::util::MapRequestLayer;

pub use self::{
    cluster::Cluster,
    logs::{FailingLog, HookedLog},
};

const CLUSTER: &str = "cluster1cluster1cluster1c";
const PATIENCE: Duration = Duration::from_secs(20);

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
        let log = log.unwrap_or_else(|| open_log(&self.log_dir(), LogKind::default()).unwrap());
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
