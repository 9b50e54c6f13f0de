//! A running manager: replication, the two doors, and the leader's part when it leads.

mod joining;
mod remains;

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use skep_proto::{
    skep::{node_server::NodeServer, raft_status_server::RaftStatusServer},
    v1::{
        RaftMember, ca_server::CaServer, control_server::ControlServer,
        dispatcher_server::DispatcherServer, health_server::HealthServer,
        log_broker_server::LogBrokerServer, logs_server::LogsServer, node_ca_server::NodeCaServer,
        watch_server::WatchServer,
    },
};
use skep_raft::{
    DEFAULT_TICK, LogKind, LogStore as _, Raft, RaftService, SealedLog, Status as RaftStatus,
};
use skep_security::{NodeKey, Tls, control_incoming, tls_incoming};
use skep_store::Store;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceBuilder;
use tracing::info;

use crate::{
    ca::{Ca, MAX_REQUEST_BYTES, trust},
    control::Control,
    dispatcher::Dispatcher,
    keys::KeyManager,
    leader::{Founding, Leader},
    logbroker::LogBroker,
    secret_drivers::SecretDrivers,
    server::{
        Health, RaftStatusService, Unlocked,
        admission::Admission,
        barrier::ReadBarrier,
        proxy::{Door, LeaderProxy},
        serve,
        services::Services,
    },
    time,
    watch::Watch,
};

/// How long calls may take to end when a manager stops. Streams that are passed on to the leader do
/// not end by themselves; their agents go to another manager when they are cut off.
const GRACE: Duration = Duration::from_secs(2);

/// How long a manager that joins waits for its vote. A large store on a slow link takes longer; it
/// works meanwhile, but the cluster does not count on it yet.
const VOTE_PATIENCE: Duration = Duration::from_secs(30);

/// Why a manager does not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was removed from the Raft group: demoted, or its node was removed. Its log is worth nothing.
    Removed,
    /// Something failed, or it was stopped; the text says what.
    Failed(String),
}

/// How a manager comes into its cluster. If its log says that it is a member, it simply goes on.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It makes a new one.
    Found(Founding),
    /// It asks the managers at these addresses (`host:port`), one after the other, to be taken in. If
    /// it has been in it before, the first is where it looks for the others.
    Join(Vec<String>),
    /// It has been in it before.
    Resume,
    /// It has been in it before, and goes on as the only manager: the others are lost for ever.
    Alone,
}

/// What a manager needs to run.
#[derive(Debug)]
pub struct Config {
    /// Its identity; the certificate must be a manager's.
    pub tls: Tls,
    /// Its key file, which holds the keys of its log.
    pub key: NodeKey,
    /// Directory of the raft log, made if it is not there.
    pub raft_dir: PathBuf,
    /// How a new log lies on disk.
    pub raft_log: LogKind,
    /// Where secrets with a driver get their values.
    pub secret_drivers: SecretDrivers,
    /// `host:port` at which other managers and workers reach this one.
    pub advertise_addr: String,
    /// Where it listens for them.
    pub listener: TcpListener,
    /// Where it listens for clients.
    pub control: UnixListener,
    /// How it comes into the cluster.
    pub entry: Entry,
}

/// A running manager. Dropping it ends everything at once, as a crash would.
#[derive(Debug)]
pub struct Manager {
    raft: Raft,
    raft_dir: PathBuf,
    key: NodeKey,
    store: Store,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Why a manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Replication could not be started, or the cluster did not take this manager in.
    #[error(transparent)]
    Raft(#[from] skep_raft::Error),
    /// The listener could not be used.
    #[error("the listener cannot be used: {0}")]
    Listener(#[from] std::io::Error),
    /// What a removed manager has left cannot be deleted.
    #[error("what is left of the log of a removed manager cannot be deleted: {0}")]
    Remains(std::io::Error),
    /// It has a certificate, but no cluster has taken it in yet, and nobody was named to ask.
    #[error(
        "this manager was never taken into its cluster; start it once more with --join-addr and \
         --join-token"
    )]
    NotTakenIn,
}

impl Manager {
    /// Starts a manager and, with [`Entry::Join`], waits until its cluster has taken it in and, for 30
    /// seconds at most, until it votes.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let Config {
            tls,
            key,
            raft_dir,
            raft_log,
            secret_drivers,
            advertise_addr,
            listener,
            control,
            entry,
        } = config;
        let identity = tls.current().identity().clone();
        let store = Store::new(|| time::now().into());
        remains::discard(&raft_dir).map_err(Error::Remains)?;
        let log = skep_raft::open_log(&raft_dir, raft_log)?;
        let member = log.member()?;
        let is_member = member.is_some();
        if let Some(member) = member {
            // Here already: its entries are encrypted, and say less about what is wrong.
            member.check_owner(&identity.node_id, &identity.cluster_id)?;
        }
        let mut log = SealedLog::open(log, Arc::new(key.clone()))?;
        let rotation = log.rotation();
        let (mut founding, mut join, mut contact) = (None, None, None);
        let mut listener = listener;
        match entry {
            Entry::Found(first) => founding = Some(first),
            Entry::Alone => {
                skep_raft::force_new_cluster(&mut log, &advertise_addr)?;
                info!("this manager goes on as the only one of its cluster");
            }
            Entry::Join(addrs) if is_member => contact = addrs.into_iter().next(),
            _ if is_member => {}
            Entry::Join(addrs) => {
                let (response, back) =
                    joining::ask(&tls, &addrs, &advertise_addr, listener).await?;
                (join, listener) = (Some(response), back);
            }
            Entry::Resume => return Err(Error::NotTakenIn),
        }
        let joined = join.is_some();
        let raft_config = skep_raft::Config {
            node_id: identity.node_id.clone(),
            cluster_id: identity.cluster_id.clone(),
            addr: advertise_addr,
            tick: DEFAULT_TICK,
            join,
        };
        let raft = Raft::start(raft_config, store.clone(), tls.clone(), Box::new(log)).await?;

        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let status = raft.status();
        let (members, follow) = follow_members(status.clone());
        let following = cancel.clone();
        tasks.spawn(async move {
            following.run_until_cancelled(follow).await;
        });
        let key_manager = KeyManager {
            store: store.clone(),
            cluster_id: identity.cluster_id.clone(),
            key: key.clone(),
            rotation,
        };
        tasks.spawn(key_manager.run(cancel.child_token()));
        let trusting = trust::follow(store.clone(), tls.clone(), identity.cluster_id.clone());
        let stop = cancel.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(trusting).await;
        });
        let dispatcher = Dispatcher::new(
            store.clone(),
            members,
            identity.node_id.clone(),
            secret_drivers,
        );
        let log_broker = LogBroker::new(store.clone());
        let (control_api, routes) = {
            let ca = Ca::new(store.clone(), tls.clone());
            let raft_status = status.clone();
            let control = Control::new(store.clone(), move || raft_status.borrow().clone())
                .with_identity(tls.clone());
            let watch = Watch::new(store.clone(), raft.reader(), cancel.clone());
            let routes = Routes::new(WatchServer::new(watch))
                .add_service(DispatcherServer::new(dispatcher.clone()))
                .add_service(LogsServer::new(log_broker.clone()))
                .add_service(LogBrokerServer::new(log_broker.clone()))
                .add_service(RaftStatusServer::new(RaftStatusService::new(
                    status.clone(),
                )))
                .add_service(CaServer::new(ca.clone()))
                .add_service(NodeCaServer::new(ca).max_decoding_message_size(MAX_REQUEST_BYTES));
            (ControlServer::new(control), routes)
        };
        let leader = Leader {
            identity: identity.clone(),
            founding,
            store: store.clone(),
            tls: tls.clone(),
            dispatcher,
            log_broker,
            status: status.clone(),
            group: Arc::new(raft.clone()),
        };
        tasks.spawn(leader.run(cancel.child_token()));

        let health = Health::new(&[Health::RAFT]);
        health.set(Health::RAFT, true);
        let raft_service = RaftService::new(cancel.clone());
        raft_service.begin(&raft);
        let (raft_server, membership_server, raft_stream_server) = raft_service.servers();
        let remote = routes
            .clone()
            .add_service(HealthServer::new(health))
            .add_service(raft_server)
            .add_service(membership_server)
            .add_service(raft_stream_server);
        let admission = Admission::Certificate {
            cluster_id: identity.cluster_id.as_str().into(),
            store: store.clone(),
        };
        let proxy = LeaderProxy::new(Door::Remote, status.clone(), tls.clone());
        let barrier = ReadBarrier::new(raft.reader());
        let incoming = tls_incoming(listener, tls.clone());
        let remote = ServiceBuilder::new()
            .layer(admission)
            .layer(proxy)
            .layer(barrier.clone())
            .service(Services::new(control_api.clone(), remote));
        tasks.spawn(serve(incoming, remote, cancel.clone()));

        let health = Health::new(&[Health::CONTROL_API]);
        health.set(Health::CONTROL_API, true);
        let local = routes
            .add_service(HealthServer::new(health))
            .add_service(NodeServer::new(Unlocked));
        let proxy = LeaderProxy::new(Door::Socket, status, tls.clone());
        let incoming = control_incoming(control, tls);
        let admission = Admission::Socket(identity);
        let local = ServiceBuilder::new()
            .layer(admission)
            .layer(proxy)
            .layer(barrier)
            .service(Services::new(control_api, local));
        tasks.spawn(serve(incoming, local, cancel.clone()));
        let (announcing, stop) = (raft.clone(), cancel.clone());
        tasks.spawn(async move {
            let announced = announcing.announce(contact.as_deref());
            stop.run_until_cancelled(announced).await;
        });
        let manager = Self {
            raft,
            raft_dir,
            key,
            store,
            cancel,
            tasks,
        };
        if joined {
            manager.wait_for_vote().await;
        }
        Ok(manager)
    }

    /// Waits a while until this manager has caught up and votes, so that whoever starts three, one after
    /// the other, has three that count.
    async fn wait_for_vote(&self) {
        let mut status = self.raft.status();
        let votes = status.wait_for(RaftStatus::votes);
        // An error means that it has ended, which whoever runs it finds out.
        if tokio::time::timeout(VOTE_PATIENCE, votes).await.is_err() {
            info!("this manager is still catching up; it gets its vote when it has");
        }
    }

    /// Who leads, who is a member, how far the log is applied.
    pub fn status(&self) -> watch::Receiver<RaftStatus> {
        self.raft.status()
    }

    /// This manager's store, to read from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Replication, for what a daemon does to it (handing over leadership).
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Waits until replication has stopped by itself, and says why.
    pub async fn stopped(&self) -> Ended {
        match self.raft.stopped().await {
            Ok(()) => Ended::Failed("replication was stopped".to_owned()),
            Err(err) if matches!(*err, skep_raft::Error::Removed) => Ended::Removed,
            Err(err) => Ended::Failed(err.to_string()),
        }
    }

    /// Stops: hands over leadership, ends sessions and calls, closes the log. If this manager was
    /// removed from the cluster, its log and the keys of that are deleted: they are of no more use,
    /// and others' secrets are in them.
    pub async fn stop(mut self) {
        if self.raft.status().borrow().leading {
            // Without another member there is nobody to hand over to.
            let _ = self.raft.transfer_leadership().await;
        }
        self.cancel.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            info!("calls that did not end in time are cut off");
        }
        self.tasks.shutdown().await;
        self.raft.stop().await;
        if let Err(err) = self.raft.stopped().await
            && matches!(*err, skep_raft::Error::Removed)
        {
            remains::remove(self.raft_dir, self.key).await;
        }
    }
}

/// The raft members on their own, so that nobody is woken by what else changes in the status.
fn follow_members(
    mut status: watch::Receiver<RaftStatus>,
) -> (watch::Receiver<Vec<RaftMember>>, impl Future<Output = ()>) {
    let (sender, members) = watch::channel(status.borrow().members.clone());
    let follow = async move {
        while status.changed().await.is_ok() {
            let members = status.borrow_and_update().members.clone();
            sender.send_if_modified(|known| {
                let changed = *known != members;
                *known = members;
                changed
            });
        }
    };
    (members, follow)
}
