//! `swarmd` as whoever runs it sees it: what it says when something is wrong, and how it stops.
//!
//! What is wrong is told in one line with advice, and changes nothing.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

#[path = "dev/wait.rs"]
mod wait;

#[path = "cli/leave.rs"]
mod leave;
#[path = "cli/recovery.rs"]
mod recovery;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use skep_proto::v1::{Cluster, ListClustersRequest, ListNodesRequest, Node, NodeRole};
use swarmctl::client::Client;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

use crate::wait::{PATIENCE, eventually};

/// `swarmd` with quiet logs and without the settings of whoever runs the tests.
fn swarmd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SWARM_") {
            command.env_remove(name);
        }
    }
    command
        .env("SWARM_LOG_LEVEL", "error")
        .env("SWARM_EXECUTOR", "process")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `swarmd` on a state directory, with a port and a control socket of its own.
fn node(dir: &Path) -> Command {
    let mut command = swarmd();
    command.arg("--state-dir").arg(dir);
    command.args(["--listen-remote-api", "127.0.0.1:0"]);
    command.arg("--listen-control-api").arg(socket(dir));
    command
}

fn socket(dir: &Path) -> PathBuf {
    dir.with_extension("sock")
}

async fn output(mut command: Command) -> Output {
    let done = timeout(PATIENCE, command.output()).await;
    done.expect("it ends by itself").unwrap()
}

/// What it says when it refuses to run: one line.
async fn refusal(command: Command) -> String {
    let done = output(command).await;
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.starts_with("swarmd: "), "{said}");
    let causes = said.matches("os error").count();
    assert!(causes <= 1, "nothing is told twice: {said}");
    said
}

/// Asserts that it refuses to run and says all of `parts`.
async fn refused(command: Command, parts: &[&str]) {
    let said = refusal(command).await;
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// Every file below `dir`, except the one that says which process had the directory last.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if entry.file_name() != "swarmd.lock" {
                files.insert(path.clone(), fs::read(path).unwrap_or_default());
            }
        }
    }
    files
}

/// Whether a node that never came up has left nothing that a later start would go on from.
fn assert_fresh(dir: &Path) {
    assert!(contents(dir).is_empty(), "{:?}", contents(dir).keys());
    assert!(!socket(dir).exists());
}

/// A running manager.
struct Manager {
    dir: PathBuf,
    child: Child,
}

impl Manager {
    /// Starts it, and waits until it answers.
    async fn start(dir: &Path) -> Self {
        Self::spawn(dir, node(dir)).await
    }

    async fn spawn(dir: &Path, mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        let manager = Self {
            dir: dir.to_owned(),
            child: command.spawn().unwrap(),
        };
        manager.addr().await;
        manager
    }

    async fn nodes(&self) -> Vec<Node> {
        eventually("nodes", async || {
            let client = Client::connect(&socket(&self.dir)).await.ok()?;
            let request = ListNodesRequest::default();
            let nodes = client.control().list_nodes(request).await.ok()?;
            Some(nodes.into_inner().nodes)
        })
        .await
    }

    /// Where it is joined.
    async fn addr(&self) -> String {
        eventually("an address", async || {
            let nodes = self.nodes().await;
            let status = nodes.iter().find_map(|node| node.manager_status.as_ref());
            Some(status?.addr.clone())
        })
        .await
    }

    async fn cluster(&self) -> Cluster {
        eventually("the cluster", async || {
            let client = Client::connect(&socket(&self.dir)).await.ok()?;
            let request = ListClustersRequest::default();
            let clusters = client.control().list_clusters(request).await.ok()?;
            clusters.into_inner().clusters.into_iter().next()
        })
        .await
    }

    async fn token(&self, role: NodeRole) -> String {
        let cluster = self.cluster().await;
        let tokens = cluster.root_ca().join_tokens();
        match role {
            NodeRole::Manager => tokens.manager.clone(),
            NodeRole::Worker => tokens.worker.clone(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap()
    }

    /// Stops it as a service manager does.
    async fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let start = Instant::now();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        // Within the ten seconds that people and service managers wait before they kill.
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}

/// `token` with another last character.
fn forged(token: &str) -> String {
    let mut forged = token.to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == '0' { '1' } else { '0' });
    forged
}

fn joining(dir: &Path, addr: &str, token: &str) -> Command {
    let mut command = node(dir);
    command.args(["--join-addr", addr, "--join-token", token]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&dir.path().join("manager")).await;
    let other = Manager::start(&dir.path().join("other")).await;
    let addr = manager.addr().await;
    let good = manager.token(NodeRole::Worker).await;
    let foreign = other.token(NodeRole::Worker).await;
    let stranger = dir.path().join("stranger");
    for token in [
        &good[..good.len() - 1],
        &good[..20],
        "letmein",
        "",
        &forged(&good),
        &foreign,
    ] {
        refused(joining(&stranger, &addr, token), &["token"]).await;
        assert_fresh(&stranger);
    }
    assert_eq!(manager.nodes().await.len(), 1);
    // The directory is as good as new.
    let mut command = joining(&stranger, &addr, &good);
    let mut joined = command.spawn().unwrap();
    eventually("the node", async || {
        (manager.nodes().await.len() == 2).then_some(())
    })
    .await;
    joined.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_lead_to_no_manager_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&dir.path().join("manager")).await;
    let token = manager.token(NodeRole::Manager).await;
    let stranger = |name: &str| dir.path().join(name);

    // Closed again at once.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    // Something else than a manager answers there.
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web_addr = web.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = web.accept().await {
            // It may be gone at any time.
            let _ = connection.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = connection.write_all(answer).await;
        }
    });
    let join = async |name: &str, addr: &str, part: &str| {
        refused(joining(&stranger(name), addr, &token), &[part]).await;
    };
    tokio::join!(
        join("a", &closed, &closed),
        join("b", &web_addr, &web_addr),
        join("c", "manager.invalid:4242", "manager.invalid:4242"),
        join("d", "manager", "manager"),
        join("e", "", "host:port"),
    );
    for name in ["a", "b", "c", "d", "e"] {
        assert_fresh(&stranger(name));
    }
    assert_eq!(manager.nodes().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_has_one_node_of_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("manager");
    let manager = Manager::start(&state).await;
    let pid = manager.pid().as_raw_nonzero().to_string();
    let mut second = swarmd();
    second.arg("--state-dir").arg(&state);
    second.args(["--listen-remote-api", "127.0.0.1:0", "--listen-control-api"]);
    second.arg(dir.path().join("second.sock"));
    let path = state.display().to_string();
    refused(second, &[&path, &pid, "--state-dir"]).await;
    assert_eq!(manager.nodes().await.len(), 1, "the first one runs on");
    manager.stop().await;

    // A node of this cluster is told to join another one.
    let other = Manager::start(&dir.path().join("other")).await;
    let before = contents(&state);
    let addr = other.addr().await;
    let token = other.token(NodeRole::Worker).await;
    refused(
        joining(&state, &addr, &token),
        &[&path, "another cluster", "--join-addr"],
    )
    .await;
    assert_eq!(contents(&state), before);
    assert_eq!(other.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    for path in [file.clone(), file.join("state")] {
        let mut command = swarmd();
        command.arg("--state-dir").arg(&path);
        refused(command, &[&path.display().to_string(), "--state-dir"]).await;
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // Permissions do not stop root.
    if !rustix::process::geteuid().is_root() {
        let locked = dir.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
        for path in [locked.clone(), locked.join("state")] {
            let path_text = path.display().to_string();
            refused(node(&path), &[&path_text, "--state-dir"]).await;
        }
        assert!(contents(&locked).is_empty());
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_to_listen_at_that_are_taken_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&dir.path().join("manager")).await;
    let addr = manager.addr().await;
    let founder = dir.path().join("founder");
    let at = |dir: &Path, addr: &str, socket: &Path| {
        let mut command = swarmd();
        command.arg("--state-dir").arg(dir);
        command.args(["--listen-remote-api", addr]);
        command.arg("--listen-control-api").arg(socket);
        command
    };
    let (free_port, free_socket) = ("127.0.0.1:0", socket(&founder));
    refused(
        at(&founder, &addr, &free_socket),
        &[&addr, "--listen-remote-api"],
    )
    .await;
    for nonsense in ["somewhere", "127.0.0.1:99999", "127.0.0.1"] {
        refused(
            at(&founder, nonsense, &free_socket),
            &[nonsense, "--listen-remote-api"],
        )
        .await;
    }
    let taken = socket(&dir.path().join("manager"));
    refused(
        at(&founder, free_port, &taken),
        &[&taken.display().to_string(), "--listen-control-api"],
    )
    .await;
    let long = dir.path().join("x".repeat(120));
    refused(at(&founder, free_port, &long), &["--listen-control-api"]).await;
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    refused(at(&founder, free_port, &file), &["--listen-control-api"]).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(!founder.join("certificates").exists());
    assert!(!founder.join("raft").exists());
    assert!(!free_socket.exists());
    Manager::start(&founder).await.stop().await;

    // A node that has been there before is not changed either.
    let cluster = manager.cluster().await.id;
    manager.stop().await;
    let state = dir.path().join("manager");
    let before = contents(&state);
    let held = TcpListener::bind(&addr).unwrap();
    refused(at(&state, &addr, &taken), &[&addr, "--listen-remote-api"]).await;
    assert_eq!(contents(&state), before);
    drop(held);
    let again = Manager::spawn(&state, at(&state, &addr, &taken)).await;
    assert_eq!(again.cluster().await.id, cluster);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for addr in ["", "host:port", "0.0.0.0", "http://host"] {
        let mut command = node(&state);
        command.args(["--advertise-addr", addr]);
        refused(command, &["--advertise-addr", "HOST:PORT"]).await;
    }
    for level in ["loud", "info,skep_raft=loud", "="] {
        let mut command = node(&state);
        command.args(["--log-level", level]);
        refused(command, &["--log-level", level]).await;
    }
    assert!(!state.exists());
}

#[tokio::test]
async fn command_lines_that_are_wrong_end_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for (args, part) in [
        (&["fly"][..], "fly"),
        (&["--fly"], "--fly"),
        (&["--join-token", "SWMTKN-1-a-b"], "--join-addr"),
        (&["--executor", "podman"], "process"),
        (&["--availability", "lazy"], "drain"),
        (&["--log-format", "yaml"], "json"),
        (&["dev", "--managers", "0"], "--managers"),
        (&["dev", "--bare", "--", "sleep"], "--bare"),
    ] {
        let mut command = swarmd();
        command.env("SWARM_STATE_DIR", &state).args(args);
        let done = output(command).await;
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(said.contains("--help"), "{args:?}: {said}");
    }
    assert!(!state.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_manager_ends_well_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let manager = Manager::start(&state).await;
    let (cluster, nodes) = (manager.cluster().await, manager.nodes().await);
    // Someone who stays connected does not hold it up.
    let _client = Client::connect(&socket(&state)).await.unwrap();
    manager.stop().await;
    assert!(!socket(&state).exists(), "the socket is gone");
    let manager = Manager::start(&state).await;
    assert_eq!(manager.cluster().await.id, cluster.id);
    assert_eq!(manager.nodes().await[0].id, nodes[0].id);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_ends_well_and_has_no_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&dir.path().join("manager")).await;
    let addr = manager.addr().await;
    let token = manager.token(NodeRole::Worker).await;
    let state = dir.path().join("worker");
    let mut command = joining(&state, &addr, &token);
    let child = command.spawn().unwrap();
    let worker = Manager {
        dir: state.clone(),
        child,
    };
    eventually("the worker's description", async || {
        let nodes = manager.nodes().await;
        let described = nodes
            .iter()
            .filter(|node| node.description.is_some())
            .count();
        (described == 2).then_some(())
    })
    .await;
    assert!(!socket(&state).exists());
    worker.stop().await;
}
