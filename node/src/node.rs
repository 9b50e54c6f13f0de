//! A node: founds, joins or resumes its cluster, then runs what its certificate says.

mod entering;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use skep_agent::{Agent, OnStop, executor::Executor};
use skep_manager::{
    manager::{self, Manager},
    secret_drivers::SecretDrivers,
};
use skep_proto::v1::{GenericResource, Peer, node_spec::Availability};
use skep_raft::LogKind;
use skep_security::{Credentials, Dial, Identity, Tls, UnlockKey};
use tokio::{sync::oneshot, task::JoinSet};
use tonic::Status;
use tracing::{info, warn};

use crate::{
    control_socket,
    leave::{self, Desk},
    locked,
    managing::{Managing, Places},
    renewal::{Renewal, Standing, others},
    state_dir::{self, StateDir},
};
use entering::{Member, enrols_again, enter, finish_founding, found, remove_mark, resume};

/// What a node is started with.
pub struct Config {
    /// Where it keeps everything.
    pub state_dir: PathBuf,
    /// The cluster to join on the first start; without it a new one is founded. Later, where some
    /// manager is.
    pub join: Option<Join>,
    /// Go on as the only manager, with what the log holds.
    pub force_new_cluster: bool,
    /// How a new manager's log lies on disk.
    pub raft_log: LogKind,
    /// Where plugins are, which a manager asks for values of secrets, the first directory first.
    pub plugin_dirs: Vec<PathBuf>,
    /// `ip:port` where a manager listens for nodes.
    pub listen_remote_api: String,
    /// `host[:port]` where others reach this manager.
    pub advertise_addr: Option<String>,
    /// Path of a manager's control socket.
    pub listen_control_api: PathBuf,
    /// Name to show for the node.
    pub hostname: String,
    /// What runs its tasks.
    pub executor: Arc<dyn Executor>,
    /// User-defined resources that it offers.
    pub generic_resources: Vec<GenericResource>,
    /// Whether it takes tasks, on the first start.
    pub availability: Availability,
    /// What becomes of its tasks when it stops.
    pub on_stop: OnStop,
    /// How it dials others.
    pub dialer: Arc<dyn Dial>,
    /// Opens its key, should that be locked. Without the right one the node waits for it.
    pub unlock_key: Option<UnlockKey>,
}

/// How to join a cluster.
#[derive(Clone, Debug)]
pub struct Join {
    /// `host:port` of any manager.
    pub addr: String,
    /// A token of the cluster. A node that has joined needs none.
    pub token: Option<String>,
}

/// Why a node could not be started. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error(transparent)]
    StateDir(#[from] state_dir::Error),
    #[error(transparent)]
    Security(#[from] skep_security::Error),
    #[error(transparent)]
    Manager(#[from] manager::Error),
    #[error(transparent)]
    Agent(#[from] skep_agent::Error),
    #[error(transparent)]
    ControlSocket(#[from] control_socket::Error),
    #[error(
        "cannot listen on {addr}: {source}; stop what uses it or choose another with \
         --listen-remote-api"
    )]
    Listen { addr: String, source: io::Error },
    #[error("this node is locked, and cannot wait for its unlock key: {0}")]
    Locked(io::Error),
    #[error("{0}")]
    Address(String),
    #[error(
        "state directory {} belongs to a node of another cluster than the join token; leave out \
         --join-addr to resume that one, or choose another directory with --state-dir", path.display()
    )]
    OtherCluster { path: PathBuf },
    #[error("to join the cluster of {addr} a token is needed; add --join-token")]
    NoToken { addr: String },
    #[error(
        "--force-new-cluster goes on from a manager's raft log, and there is none in {}; leave it out, \
         or choose the state directory of a manager with --state-dir", path.display()
    )]
    NothingToForce { path: PathBuf },
    #[error(
        "--force-new-cluster goes on from a manager's raft log, and the node in {} is a worker; leave \
         it out, or choose the state directory of a manager with --state-dir", path.display()
    )]
    ForcedWorker { path: PathBuf },
}

/// A running node. Dropping it ends everything at once, as a crash would; its tasks run on.
#[derive(Debug)]
pub struct Node {
    tls: Tls,
    managing: Managing,
    agent: Agent,
    /// Renews the certificate.
    tasks: JoinSet<()>,
    desk: Desk,
    /// Waits for the node to have left.
    leaving: Option<oneshot::Sender<Result<(), Status>>>,
    /// The last: its lock goes when all else is gone.
    state_dir: StateDir,
}

/// Why a node does not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A part has failed in a way that it cannot go on from; the text says how.
    Failed(String),
    /// It was told to leave its cluster, and its manager has: [`Node::leave`] does the rest.
    Left,
}

impl Node {
    /// Starts a node. When this returns it is a member of its cluster; its session with a manager
    /// may still be on the way ([`Agent::ready`]). It has to be driven ([`Self::run`]).
    pub async fn start(config: Config) -> Result<Self, Error> {
        let state_dir = StateDir::open(&config.state_dir)?;
        let loaded = match Credentials::load(&state_dir.certificates(), config.unlock_key.as_ref())
        {
            Err(skep_security::Error::Locked) => None,
            loaded => Some(loaded?),
        };
        let founds =
            matches!(loaded, Some(None)) && config.join.is_none() && !config.force_new_cluster;
        let places = Places::of(&config);
        let mut doors = match places.open().await {
            // Only who joins may turn out to be a worker, which does without.
            Err(err) if founds || loaded.is_none() => return Err(err),
            doors => doors,
        };
        let loaded = match (loaded, &mut doors) {
            (None, Ok(doors)) => {
                let certificates = state_dir.certificates();
                Some(locked::until_unlocked(&mut doors.control, &certificates).await?)
            }
            (loaded, _) => loaded.flatten(),
        };
        let member = match loaded {
            Some((credentials, _)) if enrols_again(&config, &credentials)? => {
                let how = config.join.as_ref().expect("enrols_again has seen it");
                enter(&config, &state_dir, how).await?
            }
            Some((credentials, key)) => resume(&config, &state_dir, credentials, key)?,
            None if config.force_new_cluster => {
                let path = state_dir.path().to_owned();
                return Err(Error::NothingToForce { path });
            }
            None => match &config.join {
                Some(how) => enter(&config, &state_dir, how).await?,
                None => found(&config, &state_dir)?,
            },
        };
        let Member {
            tls,
            key,
            entry,
            founding,
        } = member;
        let node_id = tls.current().identity().node_id.clone();
        let standing = Standing::new(state_dir.removed_mark());
        let mut managing = Managing {
            tls: tls.clone(),
            key: key.clone(),
            standing: standing.clone(),
            places,
            state_dir: state_dir.path().to_owned(),
            raft_dir: state_dir.raft(),
            raft_log: config.raft_log,
            secret_drivers: SecretDrivers::new(config.plugin_dirs.clone()),
            manager: None,
            advertise_addr: None,
        };
        let peer = config.join.as_ref().map(|join| join.addr.as_str());
        if managing.wanted() {
            match managing.start(doors?, entry, peer).await {
                Ok(manager) if founding => finish_founding(&state_dir, &tls, &key, manager).await?,
                // It was promoted, and ended before it was taken in. It is driven there later.
                Err(Error::Manager(manager::Error::NotTakenIn))
                    if !others(state_dir.path(), &node_id).is_empty() => {}
                started => drop(started?),
            }
            if managing.manager.is_some() {
                remove_mark(&state_dir, &state_dir.joining_mark())?;
            }
        } else if state_dir.raft().exists() {
            // It may have been in the middle of this.
            managing.remove_log().await?;
        }
        if standing.removed() {
            warn!(
                node = node_id,
                "the manager of this node was removed from its cluster; the node goes on as a worker \
                 until it has a certificate that says what it is now"
            );
        }
        let (known_id, known_addr) = match (&managing.advertise_addr, peer) {
            (Some(own), _) => (node_id.as_str(), Some(own.as_str())),
            (None, peer) => ("", peer),
        };
        let agent = Agent::start(skep_agent::Config {
            node_id: node_id.clone(),
            state_dir: state_dir.path().to_owned(),
            hostname: config.hostname,
            tls: tls.clone(),
            executor: config.executor,
            managers: known_addr
                .map(|addr| Peer {
                    node_id: known_id.to_owned(),
                    addr: addr.to_owned(),
                })
                .into_iter()
                .collect(),
            labels: BTreeMap::new(),
            generic_resources: config.generic_resources,
            on_stop: config.on_stop,
        })?;
        let renewal = Renewal {
            tls: tls.clone(),
            key,
            dialer: config.dialer,
            standing,
            session: agent.session(),
            control_socket: config.listen_control_api,
            state_dir: state_dir.path().to_owned(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(renewal.run());
        let desk = Desk::open(&state_dir, tls.clone());
        Ok(Self {
            tls,
            managing,
            agent,
            tasks,
            desk,
            leaving: None,
            state_dir,
        })
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.tls.current().identity().clone()
    }

    /// Its certificate and how it dials.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its manager, if it is one.
    pub fn manager(&self) -> Option<&Manager> {
        self.managing.manager.as_ref()
    }

    /// Where others reach its manager.
    pub fn advertise_addr(&self) -> Option<&str> {
        self.managing.advertise_addr.as_deref()
    }

    /// Waits until its manager runs, while someone else drives the node.
    pub fn manages(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut standing = self.managing.standing.subscribe();
        async move {
            if standing.wait_for(|state| state.manages).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Drives the node: its manager is started when the node is promoted, and ended when it is demoted.
    /// Returns when the node cannot go on, or is to leave.
    pub async fn run(&mut self) -> End {
        loop {
            let order = tokio::select! {
                reason = self.managing.follow() => return End::Failed(reason),
                err = self.agent.broken() => return End::Failed(err.to_string()),
                Some(ended) = self.tasks.join_next() => {
                    let reason = ended.err().map_or_else(String::new, |err| format!(": {err}"));
                    return End::Failed(format!("the renewal of certificates has ended{reason}"));
                }
                order = self.desk.order() => order,
            };
            info!(
                force = order.force,
                "this node is told to leave its cluster"
            );
            match Box::pin(leave::resign(&self.managing, order.force)).await {
                Ok(()) => {
                    self.leaving = Some(order.done);
                    return End::Left;
                }
                Err(refusal) => {
                    warn!(reason = refusal.message(), "this node does not leave");
                    let _ = order.done.send(Err(refusal));
                }
            }
        }
    }

    /// Ends the node for good: its tasks are stopped, and its state is deleted.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.tasks.shutdown().await;
        self.agent.leave().await;
        if let Some(manager) = self.managing.manager.take() {
            manager.stop().await;
        }
        // Also waits for what is still being saved.
        let removed = self.managing.remove_log().await;
        let wiped = removed.and_then(|()| self.state_dir.wipe());
        if let Some(leaving) = self.leaving {
            let outcome = match &wiped {
                Ok(()) => Ok(()),
                Err(error) => Err(Status::internal(error.to_string())),
            };
            let _ = leaving.send(outcome);
        }
        self.desk.close().await;
        info!("this node has left its cluster");
        Ok(wiped?)
    }

    /// Stops the agent, then the manager.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.agent.stop().await;
        if let Some(manager) = self.managing.manager.take() {
            manager.stop().await;
        }
        self.desk.close().await;
        control_socket::remove(&self.state_dir.local_socket());
    }
}
