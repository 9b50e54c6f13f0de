//! Where the nodes of a development cluster live: a directory and a port each, kept for the next
//! start.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::control_socket::MAX_PATH_BYTES;

/// Name of a node's control socket in its directory.
const SOCKET: &str = "swarmd.sock";

/// All nodes of the cluster.
#[derive(Debug)]
pub struct Layout {
    managers: Vec<Member>,
    workers: Vec<Member>,
}

/// One node.
#[derive(Debug)]
pub struct Member {
    name: String,
    dir: PathBuf,
    /// The port that a manager listens on.
    port: Option<u16>,
    /// The control socket of a manager.
    socket: PathBuf,
}

/// What must not change between starts: other managers know each other by these.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ports {
    managers: Vec<u16>,
}

impl Layout {
    /// Lays out the cluster in `dir`, as it was if it has been there before.
    pub fn open(dir: &Path, managers: u16, workers: u16) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| {
            format!(
                "{} cannot be made; choose another with --state-dir",
                dir.display()
            )
        })?;
        let dir = dir.canonicalize()?;
        let longest = dir.join(format!("manager-{managers}")).join(SOCKET);
        if longest.as_os_str().len() > MAX_PATH_BYTES {
            bail!(
                "{} is too long for the control sockets in it, whose paths may have {MAX_PATH_BYTES} \
                 bytes; choose a shorter one with --state-dir",
                dir.display()
            );
        }
        let file = dir.join("dev.json");
        let mut ports: Ports = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} does not read as a layout", file.display()))?,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ports::default(),
            Err(err) => return Err(err).with_context(|| format!("reading {}", file.display())),
        };
        let known = ports.managers.len();
        if known > usize::from(managers) {
            bail!(
                "{} has a cluster of {known} managers, which need each other for a quorum; start it \
                 with --managers {known}",
                dir.display()
            );
        }
        ports
            .managers
            .extend(free_ports(usize::from(managers) - known)?);
        fs::write(&file, serde_json::to_vec(&ports)?)
            .with_context(|| format!("writing {}", file.display()))?;
        let member = |name: String, port: Option<u16>| {
            let dir = dir.join(&name);
            let socket = dir.join(SOCKET);
            Member {
                name,
                dir,
                port,
                socket,
            }
        };
        Ok(Self {
            managers: (1..)
                .zip(&ports.managers)
                .map(|(number, &port)| member(format!("manager-{number}"), Some(port)))
                .collect(),
            workers: (1..=workers)
                .map(|number| member(format!("worker-{number}"), None))
                .collect(),
        })
    }

    /// All nodes, managers first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.managers.iter().chain(&self.workers)
    }

    /// Control socket of the first manager. There is at least one.
    pub fn first(&self) -> &Path {
        self.managers[0].socket()
    }

    /// Where the first manager is joined.
    pub fn first_addr(&self) -> String {
        self.managers[0].listen().unwrap_or_default()
    }
}

impl Member {
    /// `manager-1`, `worker-2`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is to be a manager.
    pub fn is_manager(&self) -> bool {
        self.port.is_some()
    }

    /// Where a manager listens.
    pub fn listen(&self) -> Option<String> {
        self.port.map(|port| format!("127.0.0.1:{port}"))
    }

    /// Its control socket, should it be a manager.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it has been in a cluster before.
    pub fn is_resumed(&self) -> bool {
        self.dir
            .join("certificates")
            .join("swarm-node.crt")
            .exists()
    }
}

/// Ports that nobody listens on now. They are held until all are found, so they differ.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_the_same_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::open(dir.path(), 3, 2).unwrap();
        let addr = first.first_addr();
        let again = Layout::open(dir.path(), 3, 1).unwrap();
        assert_eq!(again.first_addr(), addr);
        assert_eq!(again.members().count(), 4);
        let more = Layout::open(dir.path(), 5, 0).unwrap();
        assert_eq!(more.first_addr(), addr);
        let fewer = Layout::open(dir.path(), 1, 0).unwrap_err().to_string();
        assert!(fewer.contains("--managers 5"), "{fewer}");
        let long = dir.path().join("x".repeat(90));
        let long = Layout::open(&long, 1, 0).unwrap_err().to_string();
        assert!(long.contains("--state-dir"), "{long}");
    }
}
