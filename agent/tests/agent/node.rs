//! The whole agent against managers over mTLS, with real processes.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use skep_agent::{
    Agent, Config, OnStop,
    executor::{Executor, null::NullExecutor, process::ProcessExecutor},
};
use skep_proto::v1::{self, TaskState, generic_resource::Resource, task_status::RuntimeStatus};
use skep_security::Role;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Status;

use crate::{
    dispatcher::{Cluster, Manager},
    support::{PATIENCE, alive, command, grace, numbers, shell, until, with},
};

/// A worker's place: what stays when its agent goes.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) dir: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            cluster: Cluster::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn agent(&self, managers: &[&Manager]) -> Agent {
        self.agent_with(managers, Arc::<ProcessExecutor>::default(), OnStop::Keep)
    }

    pub fn agent_with(
        &self,
        managers: &[&Manager],
        executor: Arc<dyn Executor>,
        on_stop: OnStop,
    ) -> Agent {
        Agent::start(Config {
            node_id: "node".to_owned(),
            state_dir: self.dir.path().to_owned(),
            hostname: "here".to_owned(),
            tls: self.cluster.tls("node", Role::Worker),
            executor,
            managers: managers
                .iter()
                .map(|manager| manager.peer.clone())
                .collect(),
            labels: BTreeMap::from([("disk".to_owned(), "fast".to_owned())]),
            generic_resources: vec![v1::GenericResource {
                resource: Some(Resource::DiscreteResourceSpec(
                    v1::DiscreteGenericResource {
                        kind: "ssd".to_owned(),
                        value: 3,
                    },
                )),
            }],
            on_stop,
        })
        .unwrap()
    }

    pub(crate) fn task_dir(&self, task: &v1::Task) -> std::path::PathBuf {
        self.dir.path().join("worker/tasks").join(&task.id)
    }
}

fn container(status: &v1::TaskStatus) -> &v1::ContainerStatus {
    let Some(RuntimeStatus::Container(container)) = &status.runtime_status else {
        panic!("no container status in {status:?}")
    };
    container
}

/// A task that runs until told otherwise, and stops fast.
fn server() -> v1::Task {
    grace(command(&["sleep", "1000"]), 5000)
}

#[tokio::test]
async fn a_node_registers_and_runs_what_it_is_assigned() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let (good, bad, wrong) = (
        shell("exit 0"),
        shell("exit 3"),
        command(&["no-such-command"]),
    );
    manager.put(&good);
    let agent = node.agent(&[&manager]);
    timeout(PATIENCE, agent.ready().wait_for(|ready| *ready))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        agent
            .session()
            .borrow()
            .as_ref()
            .unwrap()
            .node
            .as_ref()
            .unwrap()
            .id,
        "node"
    );

    let description = manager.requests()[0].description.clone().unwrap();
    assert_eq!(description.hostname, "here");
    assert_eq!(description.resources.unwrap().generic.len(), 1);
    assert_eq!(description.engine.unwrap().labels["disk"], "fast");
    assert!(!description.tls_info.unwrap().trust_root.is_empty());

    let status = manager.reported(&good, TaskState::Complete).await;
    assert_eq!(
        (status.message.as_str(), status.err.as_str()),
        ("finished", "")
    );
    manager.put(&bad);
    manager.put(&wrong);
    let status = manager.reported(&bad, TaskState::Failed).await;
    assert_eq!(
        (container(&status).exit_code, status.err.as_str()),
        (3, "exited with code 3")
    );
    let status = manager.reported(&wrong, TaskState::Rejected).await;
    assert!(status.err.contains("no-such-command"), "{}", status.err);
    for task in [&good, &bad, &wrong] {
        let states: Vec<_> = manager.statuses(task).iter().map(|s| s.state).collect();
        assert!(states.is_sorted(), "states only grow: {states:?}");
    }
    assert_eq!(
        agent.task_count(),
        3,
        "ended tasks stay until they are removed"
    );
    until("heartbeats go on", || manager.heartbeats() > 2).await;
    assert_eq!(manager.requests().len(), 1, "one session for all of it");
}

#[tokio::test]
async fn a_task_holds_at_ready_until_it_shall_run_and_stops_when_it_shall_not() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let task = server();
    manager.want(&task, TaskState::Ready);
    let _agent = node.agent(&[&manager]);
    manager.reported(&task, TaskState::Ready).await;
    let log = node.task_dir(&task).join("log");
    assert!(!log.exists(), "it is not started");
    manager.want(&task, TaskState::Running);
    let status = manager.reported(&task, TaskState::Running).await;
    let pid = container(&status).pid;
    assert!(alive(pid));
    assert_eq!(container(&status).container_id, task.id);
    manager.want(&task, TaskState::Ready);
    manager.want(&task, TaskState::Shutdown);
    let status = manager.reported(&task, TaskState::Shutdown).await;
    assert_eq!(container(&status).exit_code, 143);
    assert!(!alive(pid));
    assert!(log.exists(), "what it left stays until it is removed");
    manager.remove(&task);
    until("the task is removed", || !node.task_dir(&task).exists()).await;
}

#[tokio::test]
async fn a_complete_message_without_a_task_removes_it() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let (stays, goes) = (server(), server());
    manager.put(&stays);
    manager.put(&goes);
    let agent = node.agent(&[&manager]);
    let pid = container(&manager.reported(&goes, TaskState::Running).await).pid;
    let other = container(&manager.reported(&stays, TaskState::Running).await).pid;
    manager.forget(&goes);
    manager.end_session();
    until("the process ends", || !alive(pid)).await;
    until("its directory is removed", || {
        !node.task_dir(&goes).exists()
    })
    .await;
    until("one task is left", || agent.task_count() == 1).await;
    assert!(alive(other));
    manager.remove(&stays);
    until("the other ends", || !alive(other)).await;
}

#[tokio::test]
async fn another_manager_takes_over_without_a_task_noticing() {
    let node = Node::new();
    let mut first = node.cluster.manager("m1").await;
    let second = node.cluster.manager("m2").await;
    first.list(&[&first.peer, &second.peer]);
    let task = server();
    first.put(&task);
    second.put(&task);
    let _agent = node.agent(&[&first]);
    // The second is known only from the first one's list, if that is where the session is.
    let pid = container(&first.reported(&task, TaskState::Running).await).pid;
    first.die();
    let status = second.reported(&task, TaskState::Running).await;
    assert_eq!(container(&status).pid, pid, "the same process");
    assert_eq!(
        second.statuses(&task).len(),
        1,
        "and nothing happened to it"
    );
    assert_eq!(
        second.requests()[0].session_id,
        "session-1",
        "the session may be resumed"
    );
    // The second lists nobody: that must not make the node forget it.
    second.end_session();
    second.sessions(2).await;
    let stored = fs::read_to_string(node.dir.path().join("state.json")).unwrap();
    assert!(stored.contains(&second.peer.addr), "{stored}");
    second.remove(&task);
    second.sessions(2).await;
    until("the task is removed", || !alive(pid)).await;
}

#[tokio::test]
async fn a_manager_that_says_that_it_holds_no_session_is_asked_again_over_the_same_connection() {
    let node = Node::new();
    let first = node.cluster.manager("m1").await;
    let second = node.cluster.manager("m2").await;
    first.list(&[&first.peer, &second.peer]);
    second.list(&[&first.peer, &second.peer]);
    let _agent = node.agent(&[&first]);
    first.sessions(1).await;
    for (count, gone) in [
        (2, Status::unavailable("the leader broke off")),
        (3, Status::aborted("node must disconnect")),
        (4, Status::not_found("node not registered")),
    ] {
        first.refuse_session(gone);
        first.sessions(count).await;
    }
    assert_eq!(first.connections(), 1);
    assert_eq!(second.requests().len(), 0);

    // That another has the session, or a call is wrong, is another matter.
    first.refuse_session(Status::invalid_argument("session invalid"));
    let connected = || first.connections() + second.connections() > 1;
    until("another connection is made", connected).await;
}

#[tokio::test]
async fn a_broken_chain_starts_a_new_session() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let task = server();
    manager.put(&task);
    let _agent = node.agent(&[&manager]);
    let pid = container(&manager.reported(&task, TaskState::Running).await).pid;
    manager.break_chain();
    manager.sessions(2).await;
    assert!(alive(pid));
    manager.want(&task, TaskState::Remove);
    manager.reported(&task, TaskState::Shutdown).await;
}

#[tokio::test]
async fn the_end_of_the_daemon_costs_no_task_and_no_status() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let runs = server();
    let ends = with(
        shell("while [ ! -e stop ]; do sleep 0.05; done; exit 3"),
        |spec| {
            spec.dir = node.dir.path().to_str().unwrap().to_owned();
        },
    );
    manager.put(&runs);
    manager.put(&ends);
    let agent = node.agent(&[&manager]);
    let pid = container(&manager.reported(&runs, TaskState::Running).await).pid;
    let ending = container(&manager.reported(&ends, TaskState::Running).await).pid;
    drop(agent);
    fs::write(node.dir.path().join("stop"), "").unwrap();
    until("it ends while nobody looks", || !alive(ending)).await;
    assert!(alive(pid), "the other does not notice");

    // The tasks are taken up without a manager.
    manager.end_session();
    manager.forget_statuses();
    let agent = node.agent(&[]);
    assert_eq!(agent.task_count(), 2);
    let failed = node.task_dir(&ends).join("status.pb");
    until("the end is noticed", || {
        stored(&failed).is_some_and(|s| s == TaskState::Failed)
    })
    .await;
    drop(agent);

    let _agent = node.agent(&[&manager]);
    let status = manager.reported(&runs, TaskState::Running).await;
    assert_eq!(container(&status).pid, pid, "the same process");
    let status = manager.reported(&ends, TaskState::Failed).await;
    assert_eq!(container(&status).pid, ending);
    manager.want(&runs, TaskState::Shutdown);
    manager.reported(&runs, TaskState::Shutdown).await;
    assert!(!alive(pid));
}

fn stored(path: &Path) -> Option<TaskState> {
    let bytes = fs::read(path).ok()?;
    let status: v1::TaskStatus = prost::Message::decode(bytes.as_slice()).ok()?;
    Some(status.state())
}

#[tokio::test]
async fn a_status_is_sent_until_it_is_taken() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    manager.fail_statuses(3);
    let task = shell("exit 0");
    manager.put(&task);
    let _agent = node.agent(&[&manager]);
    manager.reported(&task, TaskState::Complete).await;
    assert!(
        manager.requests().len() >= 4,
        "each failure ended a session"
    );
}

#[tokio::test]
async fn a_status_nobody_wants_does_not_hold_up_others() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let (foreign, own) = (shell("exit 0"), shell("exit 0"));
    manager.disown(&foreign);
    manager.put(&foreign);
    manager.put(&own);
    let _agent = node.agent(&[&manager]);
    manager.reported(&own, TaskState::Complete).await;
    assert_eq!(manager.requests().len(), 1, "the session goes on");
}

#[tokio::test]
async fn stopping_keeps_or_ends_the_tasks_as_configured() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let task = server();
    manager.put(&task);
    let agent = node.agent(&[&manager]);
    let pid = container(&manager.reported(&task, TaskState::Running).await).pid;
    agent.stop().await;
    assert!(alive(pid), "kept");

    manager.forget_statuses();
    let agent = node.agent_with(&[&manager], Arc::<ProcessExecutor>::default(), OnStop::Stop);
    manager.reported(&task, TaskState::Running).await;
    agent.stop().await;
    assert!(!alive(pid), "stopped");
    let status = manager.reported(&task, TaskState::Shutdown).await;
    assert!(status.message.contains("agent"), "{}", status.message);
}

#[tokio::test]
async fn secrets_never_reach_the_disk() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let mut secret = v1::Secret {
        id: "s".to_owned(),
        ..Default::default()
    };
    secret.spec_mut().data = "hunter2-hunter2".into();
    manager.put_secret(secret);
    let task = server();
    manager.put(&task);
    let agent = node.agent(&[&manager]);
    manager.reported(&task, TaskState::Running).await;
    let grep = std::process::Command::new("grep")
        .args([
            "-r",
            "-c",
            "-a",
            "hunter2",
            node.dir.path().to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(
        !grep.status.success(),
        "{}",
        String::from_utf8_lossy(&grep.stdout)
    );
    manager.remove(&task);
    until("it is removed", || agent.task_count() == 0).await;
}

#[tokio::test]
async fn many_tasks_start_and_go() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let tasks: Vec<_> = (0..200).map(|_| server()).collect();
    tasks.iter().for_each(|task| manager.put(task));
    let agent = node.agent_with(&[&manager], Arc::new(NullExecutor), OnStop::Keep);
    for task in &tasks {
        manager.reported(task, TaskState::Running).await;
    }
    assert_eq!(agent.task_count(), tasks.len());
    tasks.iter().for_each(|task| manager.remove(task));
    until("all are removed", || agent.task_count() == 0).await;
    assert_eq!(
        fs::read_dir(node.dir.path().join("worker/tasks"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_task_with_a_broken_record_is_ended_and_run_again_if_wanted() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let out = node.dir.path().join("pids");
    let line = format!("echo $$ >> {}; exec sleep 1000", out.display());
    let task = grace(shell(&line), 5000);
    manager.put(&task);
    let agent = node.agent(&[&manager]);
    manager.reported(&task, TaskState::Running).await;
    let first = numbers(&out, 1).await[0];
    drop(agent);
    manager.end_session();
    fs::write(node.task_dir(&task).join("task.pb"), [0xff]).unwrap();
    let _agent = node.agent(&[&manager]);
    let second = numbers(&out, 2).await[1];
    until("only the new one runs", || !alive(first) && alive(second)).await;
    manager.remove(&task);
    until("it is removed", || !alive(second)).await;
}
