//! The manager of a node: it runs while the certificate says that the node is one, and comes and goes
//! without the agent noticing.

use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use skep_manager::{
    manager::{self, Ended, Entry, Manager},
    secret_drivers::SecretDrivers,
};
use skep_raft::LogKind;
use skep_security::{NodeKey, Role, Tls};
use tokio::{
    net::{TcpListener, TcpSocket, UnixListener, lookup_host},
    time::sleep,
};
use tracing::{info, warn};

use crate::{
    address, control_socket,
    node::{Config, Error},
    renewal::{Standing, others},
    state_dir,
};

/// Pauses between attempts of a promoted node to become a member: the first, and the longest.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The listeners of a manager. They are opened before anything is asked of the cluster, so that a
/// port in use is found out first; a worker does without them.
pub(crate) struct Doors {
    listener: TcpListener,
    listening: SocketAddr,
    pub(crate) control: UnixListener,
}

/// Where a manager listens, and what it says about that.
#[derive(Debug)]
pub(crate) struct Places {
    listen_remote_api: String,
    advertise_addr: Option<String>,
    pub(crate) control_socket: PathBuf,
}

impl Places {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            listen_remote_api: config.listen_remote_api.clone(),
            advertise_addr: config.advertise_addr.clone(),
            control_socket: config.listen_control_api.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Result<Doors, Error> {
        let addr = &self.listen_remote_api;
        let failed = |source| Error::Listen {
            addr: addr.clone(),
            source,
        };
        let listener = listen(addr).await.map_err(failed)?;
        let listening = listener.local_addr().map_err(failed)?;
        let control = control_socket::bind(&self.control_socket)?;
        Ok(Doors {
            listener,
            listening,
            control,
        })
    }
}

/// Connections that wait to be accepted (the kernel's own limit, `net.core.somaxconn`, may be lower).
/// When a manager dies all its nodes come to the others within a tenth of a second; whoever finds the
/// queue full is dropped without a word, and tries again after one, three and seven seconds. What the
/// libraries ask for is 128.
const BACKLOG: u32 = 16_384;

/// Listens on the first address that `addr` stands for and that can be had.
async fn listen(addr: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "it stands for no address");
    for addr in lookup_host(addr).await? {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let listening = socket.and_then(|socket| {
            // As tokio's own: the port of a manager that has just ended can be had at once.
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        });
        match listening {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The owner of the manager.
#[derive(Debug)]
pub(crate) struct Managing {
    pub(crate) tls: Tls,
    pub(crate) key: NodeKey,
    pub(crate) standing: Standing,
    pub(crate) places: Places,
    pub(crate) state_dir: PathBuf,
    pub(crate) raft_dir: PathBuf,
    pub(crate) raft_log: LogKind,
    pub(crate) secret_drivers: SecretDrivers,
    pub(crate) manager: Option<Manager>,
    /// Where others reach it, or did.
    pub(crate) advertise_addr: Option<String>,
}

impl Managing {
    /// Whether there is to be a manager.
    pub(crate) fn wanted(&self) -> bool {
        self.tls.current().identity().role == Role::Manager && !self.standing.removed()
    }

    /// Starts the manager. `peer` is some other one.
    pub(crate) async fn start(
        &mut self,
        doors: Doors,
        entry: Entry,
        peer: Option<&str>,
    ) -> Result<&Manager, Error> {
        let advertised = self.places.advertise_addr.as_deref();
        let addr =
            address::advertised(advertised, doors.listening, peer).map_err(Error::Address)?;
        let node = self.tls.current().identity().node_id.clone();
        info!(node, addr, "starting manager");
        let started = Manager::start(manager::Config {
            tls: self.tls.clone(),
            key: self.key.clone(),
            raft_dir: self.raft_dir.clone(),
            raft_log: self.raft_log,
            secret_drivers: self.secret_drivers.clone(),
            advertise_addr: addr.clone(),
            listener: doors.listener,
            control: doors.control,
            entry,
        });
        let started = Box::pin(started).await?;
        self.advertise_addr = Some(addr);
        let manager = self.manager.insert(started);
        self.standing.set_manages(true);
        Ok(manager)
    }

    /// Starts and ends the manager as the certificate says, until it fails in a way that the node
    /// cannot go on from. Says how.
    pub(crate) async fn follow(&mut self) -> String {
        let mut credentials = self.tls.subscribe();
        let mut standing = self.standing.subscribe();
        loop {
            credentials.mark_unchanged();
            standing.mark_unchanged();
            let ended = match (&self.manager, self.wanted()) {
                (Some(manager), true) => tokio::select! {
                    ended = manager.stopped() => Some(ended),
                    _ = credentials.changed() => None,
                    _ = standing.changed() => None,
                },
                (Some(_), false) => Some(Ended::Removed),
                (None, true) => {
                    let demoted = credentials.wait_for(|new| new.identity().role == Role::Worker);
                    tokio::select! {
                        () = Box::pin(self.promote()) => {}
                        _ = demoted => info!("this node is not to be a manager after all"),
                    }
                    None
                }
                (None, false) => {
                    tokio::select! {
                        _ = credentials.changed() => {}
                        _ = standing.changed() => {}
                    }
                    None
                }
            };
            match ended {
                None => {}
                Some(Ended::Failed(reason)) => return reason,
                Some(Ended::Removed) => {
                    if let Err(error) = self.step_down().await {
                        return error.to_string();
                    }
                }
            }
        }
    }

    /// Has this node taken in as a manager by those that its agent knows, however long that takes.
    async fn promote(&mut self) {
        let own = self.tls.current().identity().node_id.clone();
        let mut pause = RETRY;
        loop {
            let peers = others(&self.state_dir, &own);
            if peers.is_empty() {
                warn!("this node is to be a manager, and knows no other one that could take it in");
            } else {
                match self.enter(peers).await {
                    Ok(()) => return info!(node = own, "this node is a manager now"),
                    Err(error) => warn!(
                        %error, ?pause,
                        "this node is to be a manager, and is not taken in yet"
                    ),
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(MAX_RETRY);
        }
    }

    async fn enter(&mut self, peers: Vec<String>) -> Result<(), Error> {
        let doors = self.places.open().await?;
        let peer = peers.first().cloned();
        let entry = Entry::Join(peers);
        self.start(doors, entry, peer.as_deref()).await.map(drop)
    }

    /// Ends the manager and deletes what it has stored.
    async fn step_down(&mut self) -> Result<(), state_dir::Error> {
        let current = self.tls.current();
        warn!(
            node = current.identity().node_id,
            "this manager was removed from its cluster; its raft data is deleted and the node goes on \
             as a worker"
        );
        if current.identity().role == Role::Manager {
            // Before anything is gone: if this is broken off, the next start does the rest.
            self.standing
                .set_removed()
                .map_err(|source| self.unusable(source))?;
        }
        if let Some(manager) = self.manager.take() {
            self.standing.set_manages(false);
            Box::pin(manager.stop()).await;
        }
        control_socket::remove(&self.places.control_socket);
        self.remove_log().await
    }

    /// Deletes the log of a manager that is none any more, and the keys of that.
    pub(crate) async fn remove_log(&self) -> Result<(), state_dir::Error> {
        let (raft_dir, key) = (self.raft_dir.clone(), self.key.clone());
        let removed = tokio::task::spawn_blocking(move || {
            match fs::remove_dir_all(&raft_dir) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(source),
                _ => {}
            }
            key.remove_data_keys().map_err(io::Error::other)
        });
        let removed = removed.await.unwrap_or_else(|error| Err(error.into()));
        removed.map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: io::Error) -> state_dir::Error {
        state_dir::Error::Unusable {
            path: self.state_dir.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_crowd_may_wait_to_be_accepted() {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..300 {
            // Who is dropped tries again after a second, in vain: nobody is accepted.
            let connected = timeout(Duration::from_secs(10), TcpStream::connect(addr)).await;
            crowd.push(connected.expect("the queue is full").unwrap());
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_found_out() {
        let first = listen("127.0.0.1:0").await.unwrap();
        let addr = first.local_addr().unwrap();
        let error = listen(&addr.to_string()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        listen("localhost:0").await.unwrap();
    }
}
