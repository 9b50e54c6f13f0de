//! A node: founds, joins or resumes its cluster, then runs what its certificate says.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use skep_agent::{Agent, OnStop, executor::Executor};
use skep_manager::{
    leader::Founding,
    manager::{self, Ended, Entry, Manager},
};
use skep_proto::{
    id,
    v1::{Cluster, GenericResource, Peer, node_spec::Availability},
};
use skep_security::{
    Credentials, DEFAULT_NODE_CERT_EXPIRY, Dial, Identity, JoinToken, Kek, NodeKey, Role, RootCa,
    Tls, UnlockKey, join,
};
use skep_store::{Kind, Route};
use tokio::net::{TcpListener, UnixListener};
use tracing::{info, warn};

use crate::{
    address, control_socket, locked,
    state_dir::{self, StateDir},
};

/// What a node is started with.
pub struct Config {
    /// Where it keeps everything.
    pub state_dir: PathBuf,
    /// The cluster to join on the first start; without it a new one is founded. Later, where some
    /// manager is.
    pub join: Option<Join>,
    /// Go on as the only manager, with what the log holds.
    pub force_new_cluster: bool,
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
    identity: Identity,
    tls: Tls,
    advertise_addr: Option<String>,
    /// Before the state directory: the lock is the last to go.
    agent: Agent,
    manager: Option<Manager>,
    control_socket: PathBuf,
    state_dir: StateDir,
}

impl Node {
    /// Starts a node. When this returns it is a member of its cluster; its session with a manager
    /// may still be on the way ([`Agent::ready`]).
    pub async fn start(config: Config) -> Result<Self, Error> {
        let state_dir = StateDir::open(&config.state_dir)?;
        let loaded = match Credentials::load(&state_dir.certificates(), config.unlock_key.as_ref())
        {
            Err(skep_security::Error::Locked) => None,
            loaded => Some(loaded?),
        };
        let founds =
            matches!(loaded, Some(None)) && config.join.is_none() && !config.force_new_cluster;
        let mut doors = match Doors::open(&config).await {
            // Only who joins may turn out to be a worker, which does without.
            Err(err) if founds || loaded.is_none() => return Err(err),
            doors => doors,
        };
        let loaded = match (loaded, &mut doors) {
            (None, Ok((_, _, control))) => {
                Some(locked::until_unlocked(control, &state_dir.certificates()).await?)
            }
            (loaded, _) => loaded.flatten(),
        };
        let member = match loaded {
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
        let identity = tls.current().identity().clone();
        let mut managers: Vec<_> = config
            .join
            .iter()
            .map(|join| Peer {
                node_id: String::new(),
                addr: join.addr.clone(),
            })
            .collect();
        let (mut manager, mut advertise_addr) = (None, None);
        let removed = state_dir.removed_mark().exists();
        if removed {
            // It may have been in the middle of this.
            remove_log(&state_dir)?;
            warn!(
                node = identity.node_id,
                "the manager of this node was removed from its cluster; it goes on as a worker. To \
                 make it a manager again, remove its node, empty the state directory and join anew"
            );
        }
        if identity.role == Role::Manager && !removed {
            let (listener, listening, control) = doors?;
            let peer = config.join.as_ref().map(|join| join.addr.as_str());
            let addr = address::advertised(config.advertise_addr.as_deref(), listening, peer)
                .map_err(Error::Address)?;
            info!(node = identity.node_id, addr, "starting manager");
            let started = Manager::start(manager::Config {
                tls: tls.clone(),
                key: key.clone(),
                raft_dir: state_dir.raft(),
                advertise_addr: addr.clone(),
                listener,
                control,
                entry,
            });
            let started = Box::pin(started).await?;
            if founding {
                finish_founding(&state_dir, &tls, &key, &started).await?;
            }
            remove_mark(&state_dir, &state_dir.joining_mark())?;
            managers = vec![Peer {
                node_id: identity.node_id.clone(),
                addr: addr.clone(),
            }];
            manager = Some(started);
            advertise_addr = Some(addr);
        }
        let agent = Agent::start(skep_agent::Config {
            node_id: identity.node_id.clone(),
            state_dir: state_dir.path().to_owned(),
            hostname: config.hostname,
            tls: tls.clone(),
            executor: config.executor,
            managers,
            labels: BTreeMap::new(),
            generic_resources: config.generic_resources,
            on_stop: config.on_stop,
        })?;
        Ok(Self {
            identity,
            tls,
            advertise_addr,
            agent,
            manager,
            control_socket: config.listen_control_api,
            state_dir,
        })
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
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
        self.manager.as_ref()
    }

    /// Where others reach its manager.
    pub fn advertise_addr(&self) -> Option<&str> {
        self.advertise_addr.as_deref()
    }

    /// Waits until a part has failed in a way that it cannot go on from, and says how. A manager that was
    /// removed from its cluster is none: this node goes on without it.
    pub async fn failed(&mut self) -> String {
        loop {
            let manager = async {
                match &self.manager {
                    Some(manager) => manager.stopped().await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = manager => ended,
                err = self.agent.broken() => return err.to_string(),
            };
            match ended {
                Ended::Failed(reason) => return reason,
                Ended::Removed => {
                    if let Err(err) = self.step_down().await {
                        return err.to_string();
                    }
                }
            }
        }
    }

    /// Ends the manager and deletes what it has stored.
    async fn step_down(&mut self) -> Result<(), state_dir::Error> {
        warn!(
            node = self.identity.node_id,
            "this manager was removed from its cluster; its raft data is deleted and the node goes on \
             as a worker"
        );
        // Before anything is gone: if this is broken off, the next start does the rest.
        fs::write(self.state_dir.removed_mark(), "")
            .map_err(|source| unusable(&self.state_dir, source))?;
        if let Some(manager) = self.manager.take() {
            Box::pin(manager.stop()).await;
        }
        control_socket::remove(&self.control_socket);
        remove_log(&self.state_dir)
    }

    /// Stops the agent, then the manager.
    pub async fn stop(self) {
        self.agent.stop().await;
        if let Some(manager) = self.manager {
            manager.stop().await;
        }
    }
}

/// The listeners of a manager. They are opened before anything is asked of the cluster, so that a
/// port in use is found out first; a worker does without them.
struct Doors;

impl Doors {
    async fn open(config: &Config) -> Result<(TcpListener, SocketAddr, UnixListener), Error> {
        let addr = &config.listen_remote_api;
        let failed = |source| Error::Listen {
            addr: addr.clone(),
            source,
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let listening = listener.local_addr().map_err(failed)?;
        Ok((
            listener,
            listening,
            control_socket::bind(&config.listen_control_api)?,
        ))
    }
}

/// A member of a cluster, and how its manager gets into it, should it be one.
struct Member {
    tls: Tls,
    key: NodeKey,
    entry: Entry,
    founding: bool,
}

/// Makes a new cluster. Nothing of it counts before [`finish_founding`].
fn found(config: &Config, state_dir: &StateDir) -> Result<Member, Error> {
    discard_unfinished(state_dir)?;
    fs::write(state_dir.founding_mark(), "").map_err(|source| unusable(state_dir, source))?;
    let ca = RootCa::generate()?;
    let identity = Identity {
        node_id: id::random(),
        role: Role::Manager,
        cluster_id: id::random(),
    };
    info!(cluster = identity.cluster_id, "founding a new cluster");
    let credentials = Credentials::self_issue(&ca, &identity, DEFAULT_NODE_CERT_EXPIRY)?;
    let key = NodeKey::new(&state_dir.certificates(), &credentials, Kek::default())?;
    Ok(Member {
        tls: Tls::with_dialer(credentials, config.dialer.clone()),
        key,
        entry: Entry::Found(Founding {
            ca,
            availability: config.availability,
        }),
        founding: true,
    })
}

/// Waits until the cluster is in the log, then saves the certificate: from here on there is one.
async fn finish_founding(
    state_dir: &StateDir,
    tls: &Tls,
    key: &NodeKey,
    manager: &Manager,
) -> Result<(), Error> {
    let (mut snapshot, mut subscription) = manager.store().watch([Route::Kind(Kind::Cluster)]);
    while snapshot.count::<Cluster>() == 0 {
        tokio::select! {
            _ = subscription.next() => snapshot = manager.store().snapshot(),
            ended = manager.stopped() => {
                let reason = match ended {
                    Ended::Failed(reason) => reason,
                    Ended::Removed => "it was removed".to_owned(),
                };
                return Err(Error::Address(reason));
            }
        }
    }
    key.save(&tls.current())?;
    remove_mark(state_dir, &state_dir.founding_mark())
}

/// Removes what is left of a founding that was broken off. A log that is something else, without
/// the certificate of its node, is not touched.
fn discard_unfinished(state_dir: &StateDir) -> Result<(), Error> {
    let raft = state_dir.raft();
    if raft.exists() {
        if !state_dir.founding_mark().exists() {
            return Err(state_dir::Error::NoCertificate {
                path: state_dir.path().to_owned(),
            }
            .into());
        }
        fs::remove_dir_all(&raft).map_err(|source| unusable(state_dir, source))?;
    }
    remove_mark(state_dir, &state_dir.joining_mark())?;
    remove_mark(state_dir, &state_dir.founding_mark())
}

fn remove_mark(state_dir: &StateDir, mark: &Path) -> Result<(), Error> {
    match fs::remove_file(mark) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(unusable(state_dir, source).into())
        }
        _ => Ok(()),
    }
}

fn remove_log(state_dir: &StateDir) -> Result<(), state_dir::Error> {
    match fs::remove_dir_all(state_dir.raft()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(unusable(state_dir, source)),
        _ => Ok(()),
    }
}

fn unusable(state_dir: &StateDir, source: io::Error) -> state_dir::Error {
    state_dir::Error::Unusable {
        path: state_dir.path().to_owned(),
        source,
    }
}

/// Joins a cluster: gets a certificate from one of its managers.
async fn enter(config: &Config, state_dir: &StateDir, how: &Join) -> Result<Member, Error> {
    let token = how.token.as_ref().ok_or_else(|| Error::NoToken {
        addr: how.addr.clone(),
    })?;
    let token: JoinToken = token.parse()?;
    discard_unfinished(state_dir)?;
    let joined = join::join(
        config.dialer.clone(),
        &how.addr,
        &token,
        config.availability,
    );
    let credentials = Box::pin(joined).await?;
    // Only managers know the unlock key, so only they can be locked.
    let kek = match credentials.identity().role {
        Role::Manager => {
            let asked = join::unlock_key(config.dialer.clone(), &how.addr, &credentials);
            Box::pin(asked).await?
        }
        Role::Worker => Kek::default(),
    };
    if credentials.identity().role == Role::Manager {
        // Before the certificate: whoever has that one does not ask for another.
        fs::write(state_dir.joining_mark(), &how.addr)
            .map_err(|source| unusable(state_dir, source))?;
    }
    let key = NodeKey::new(&state_dir.certificates(), &credentials, kek)?;
    key.save(&credentials)?;
    info!(node = credentials.identity().node_id, role = ?credentials.identity().role, "joined");
    let entry = Entry::Join(how.addr.clone());
    let tls = Tls::with_dialer(credentials, config.dialer.clone());
    Ok(Member {
        tls,
        key,
        entry,
        founding: false,
    })
}

/// Goes on without the other managers, if there is something to go on from.
fn alone(state_dir: &StateDir, credentials: &Credentials) -> Result<Entry, Error> {
    let path = state_dir.path().to_owned();
    if credentials.identity().role != Role::Manager {
        return Err(Error::ForcedWorker { path });
    }
    // Opening the log would make one.
    if !state_dir.raft().exists() {
        return Err(Error::NothingToForce { path });
    }
    Ok(Entry::Alone)
}

/// Comes back to the cluster that the certificate is of.
fn resume(
    config: &Config,
    state_dir: &StateDir,
    credentials: Credentials,
    key: NodeKey,
) -> Result<Member, Error> {
    if let Some(token) = config.join.as_ref().and_then(|how| how.token.as_ref()) {
        let token: JoinToken = token.parse()?;
        if !token.pins(credentials.root_pem()) {
            return Err(Error::OtherCluster {
                path: state_dir.path().to_owned(),
            });
        }
        info!("already a member of this cluster; resuming");
    }
    remove_mark(state_dir, &state_dir.founding_mark())?;
    let entry = match &config.join {
        _ if config.force_new_cluster => alone(state_dir, &credentials)?,
        Some(how) => Entry::Join(how.addr.clone()),
        // It may have been broken off while it was being taken in.
        None => match fs::read_to_string(state_dir.joining_mark()) {
            Ok(addr) => Entry::Join(addr),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Entry::Resume,
            Err(source) => return Err(unusable(state_dir, source).into()),
        },
    };
    let tls = Tls::with_dialer(credentials, config.dialer.clone());
    Ok(Member {
        tls,
        key,
        entry,
        founding: false,
    })
}
