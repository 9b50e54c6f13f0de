//! An agent in a process of its own, killed with SIGKILL at moments around the start of a task.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use skep_agent::{Agent, Config, OnStop, executor::process::ProcessExecutor};
use skep_proto::v1::{self, TaskState, task_status::RuntimeStatus};
use skep_security::{Credentials, Role, Tls};
use tokio::time::sleep;

use crate::{
    dispatcher::{Cluster, Manager},
    support::{alive, grace, shell, until},
};

const DIR: &str = "SKEP_TEST_DAEMON_DIR";
const MANAGER: &str = "SKEP_TEST_DAEMON_MANAGER";

fn agent(dir: &Path, addr: &str) -> Agent {
    let (credentials, _) = Credentials::load(&dir.join("certificates"), None)
        .unwrap()
        .unwrap();
    Agent::start(Config {
        node_id: "node".to_owned(),
        state_dir: dir.join("state"),
        hostname: "here".to_owned(),
        tls: Tls::new(credentials),
        executor: Arc::<ProcessExecutor>::default(),
        managers: vec![v1::Peer {
            node_id: String::new(),
            addr: addr.to_owned(),
        }],
        labels: BTreeMap::new(),
        generic_resources: Vec::new(),
        on_stop: OnStop::Keep,
    })
    .unwrap()
}

/// Not a test: what the test below starts in another process.
#[tokio::test]
#[ignore = "the daemon of another test"]
async fn daemon() {
    if let (Ok(dir), Ok(addr)) = (env::var(DIR), env::var(MANAGER)) {
        let _agent = agent(Path::new(&dir), &addr);
        std::future::pending::<()>().await;
    }
}

fn start_daemon(dir: &Path, manager: &Manager) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["kill::daemon", "--exact", "--ignored"])
        .env(DIR, dir)
        .env(MANAGER, &manager.peer.addr)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The processes a task was started as, in that order.
fn starts(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_around_a_start_leaves_one_process_or_a_failure() {
    let cluster = Cluster::new();
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let tls = cluster.tls("node", Role::Worker);
        tls.current()
            .save(&dir.path().join("certificates"))
            .unwrap();
        let manager = cluster.manager("m1").await;
        let mut daemon = start_daemon(dir.path(), &manager);
        manager.sessions(1).await;

        let pids = dir.path().join("pids");
        let task = grace(
            shell(&format!("echo $$ >> {}; exec sleep 1000", pids.display())),
            5000,
        );
        manager.put(&task);
        // The steps to RUNNING take about a millisecond each: the rounds hit different ones.
        sleep(Duration::from_micros(round * 400)).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        manager.end_session();
        manager.forget_statuses();

        let _agent = agent(dir.path(), &manager.peer.addr);
        let newest = || manager.statuses(&task).pop();
        let settled = || newest().is_some_and(|status| status.state() >= TaskState::Running);
        until("the task is running or over", settled).await;
        let status = newest().unwrap();
        let running = || {
            starts(&pids)
                .into_iter()
                .filter(|&pid| alive(pid))
                .collect::<Vec<_>>()
        };
        match status.state() {
            TaskState::Running => {
                let Some(RuntimeStatus::Container(container)) = status.runtime_status else {
                    panic!("no container status")
                };
                until("the shell writes", || !starts(&pids).is_empty()).await;
                assert_eq!(
                    running(),
                    [container.pid],
                    "round {round}: one process, and known"
                );
            }
            TaskState::Failed => {
                assert!(
                    status.err.contains("unknown"),
                    "round {round}: {}",
                    status.err
                );
                assert!(running().is_empty(), "round {round}");
            }
            other => panic!("round {round}: {other:?}"),
        }
        manager.remove(&task);
        until("it is removed", || running().is_empty()).await;
    }
}
