//! What tasks are given by the whole agent: secrets, templates; and what stays after many of them.

use std::{fs, path::Path};

use skep_agent::executor::{Executor as _, process::ProcessExecutor};
use skep_proto::v1::{self, TaskState, secret_reference::Target};

use crate::{
    node::Node,
    support::{context, shell, until, with, written},
};

fn secret(data: &'static str, templating: &str) -> v1::Secret {
    let mut secret = v1::Secret {
        id: "s1".to_owned(),
        ..Default::default()
    };
    secret.spec_mut().data = data.into();
    secret.spec_mut().templating = Some(v1::Driver {
        name: templating.to_owned(),
        ..Default::default()
    });
    secret
}

/// A task of the service `web` that uses the secret as `name`.
fn with_secret(line: &str, name: &str) -> v1::Task {
    let mut task = with(shell(line), |spec| {
        spec.env = vec!["WHO={{.Service.Name}}.{{.Task.Slot}} at {{.Node.Hostname}}".to_owned()];
        spec.secrets = vec![v1::SecretReference {
            secret_id: "s1".to_owned(),
            secret_name: "password".to_owned(),
            target: Some(Target::File(v1::FileTarget {
                name: name.to_owned(),
                ..Default::default()
            })),
        }];
    });
    task.slot = 7;
    task.service_annotations = Some(v1::Annotations {
        name: "web".to_owned(),
        ..Default::default()
    });
    task
}

/// Directories of tasks outside of the agent's own.
fn left_in_memory(task: &v1::Task) -> bool {
    ["/run", "/dev/shm"]
        .iter()
        .any(|place| Path::new(place).join(format!("skep-{}", task.id)).exists())
}

#[tokio::test]
async fn secrets_and_templates_reach_the_task_and_nobody_else() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    manager.put_secret(secret("hunter2 of {{.Task.Slot}}", "golang"));
    let line = "echo $WHO; cat $CREDENTIALS_DIRECTORY/pw; echo; echo $CREDENTIALS_DIRECTORY";
    let task = with_secret(line, "pw");
    manager.put(&task);
    let _agent = node.agent(&[&manager]);
    manager.reported(&task, TaskState::Complete).await;
    let dir = node.task_dir(&task);
    let output = written(&ProcessExecutor::default(), &task, &dir).await;
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[..2], ["web.7 at here", "hunter2 of 7"]);
    assert!(!Path::new(lines[2]).exists(), "gone with the process");
    for file in fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        if !path.ends_with("log") && path.metadata().unwrap().is_file() {
            let text = fs::read(&path).unwrap();
            assert!(!text.windows(7).any(|it| it == b"hunter2"), "{path:?}");
        }
    }
}

#[tokio::test]
async fn what_is_missing_or_makes_no_sense_rejects_the_task_by_name() {
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    let _agent = node.agent(&[&manager]);
    let missing = with_secret("true", "pw");
    manager.put(&missing);
    let status = manager.reported(&missing, TaskState::Rejected).await;
    assert!(status.err.contains("secret \"password\""), "{}", status.err);
    let bad = with(shell("true"), |spec| {
        spec.env = vec!["A={{.Nope}}".to_owned()]
    });
    manager.put(&bad);
    let status = manager.reported(&bad, TaskState::Rejected).await;
    assert!(status.err.contains("{{.Nope}}"), "{}", status.err);
    let absolute = with_secret("true", "/etc/pw");
    manager.put_secret(secret("x", ""));
    manager.end_session();
    manager.put(&absolute);
    let status = manager.reported(&absolute, TaskState::Rejected).await;
    assert!(status.err.contains("/etc/pw"), "{}", status.err);
    for task in [missing, bad, absolute] {
        manager.remove(&task);
        until("it is removed", || !node.task_dir(&task).exists()).await;
    }
}

#[tokio::test]
async fn r46_a_crash_loop_leaves_no_more_than_the_tasks_that_are_still_assigned() {
    const KEPT: usize = 5;
    // A day of restarts each five seconds is more; what grows shows in fewer.
    const ROUNDS: usize = 12;
    const AT_ONCE: usize = 10;
    let node = Node::new();
    let manager = node.cluster.manager("m1").await;
    manager.put_secret(secret("x", ""));
    let agent = node.agent(&[&manager]);
    let mut history: Vec<v1::Task> = Vec::new();
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        // Several at once, for the disk's sake.
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|_| with_secret("echo crash; exit 1", "pw"))
            .collect();
        for task in &tasks {
            manager.put(task);
        }
        for task in tasks {
            manager.reported(&task, TaskState::Failed).await;
            history.push(task.clone());
            all.push(task);
            if history.len() > KEPT {
                manager.remove(&history.remove(0));
            }
        }
        manager.forget_statuses();
    }
    let tasks = node.dir.path().join("worker/tasks");
    let count = || fs::read_dir(&tasks).unwrap().count();
    until("old tasks are removed", || count() <= KEPT).await;
    until("and forgotten", || agent.task_count() == KEPT).await;
    for task in &history {
        let size: u64 = fs::read_dir(node.task_dir(task))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size < 16 << 10, "{size} bytes of one task");
        let context = context(task, &node.task_dir(task));
        assert!(
            ProcessExecutor::default()
                .logs(&context, Default::default())
                .is_some()
        );
    }
    assert!(!all.iter().any(left_in_memory), "no secret is left");
    let worker: u64 = fs::read_dir(node.dir.path().join("worker"))
        .unwrap()
        .count() as u64;
    assert_eq!(worker, 1, "nothing but tasks");
}
