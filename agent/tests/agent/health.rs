//! Health checks against real processes.

use std::{fs, path::Path};

use skep_agent::executor::{Adopted, Failure, process::ProcessExecutor};
use skep_proto::v1::{self, TaskState};
use tokio::time::{Duration, timeout};

use crate::support::{PATIENCE, alive, controller, grace, numbers, shell, until, with};

/// A task with checks each 20 ms, in `dir`.
fn checked(line: &str, check: &str, dir: &Path) -> v1::Task {
    let millis = |millis: i32| {
        Some(skep_proto::Duration {
            seconds: 0,
            nanos: millis * 1_000_000,
        })
    };
    let task = with(shell(line), |spec| {
        spec.dir = dir.to_str().unwrap().to_owned();
        spec.healthcheck = Some(v1::HealthConfig {
            test: vec!["CMD-SHELL".to_owned(), check.to_owned()],
            interval: millis(20),
            timeout: millis(900),
            retries: 3,
            ..Default::default()
        });
    });
    grace(task, 2000)
}

async fn fatal(failed: Result<(), Failure>) -> String {
    match failed {
        Err(Failure::Fatal(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_start_waits_until_the_task_is_healthy_and_its_end_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let check = "echo x >> checks; test -e well || exit 1";
    let mut task = checked("sleep 1000", check, dir.path());
    if let Some(v1::task_spec::Runtime::Container(spec)) = &mut task.spec_mut().runtime {
        spec.healthcheck.as_mut().unwrap().retries = 1_000_000;
    }
    let mut first = controller(&ProcessExecutor::default(), &task, dir.path());
    first.prepare().await.unwrap();
    let started = timeout(Duration::from_millis(300), first.start()).await;
    assert!(started.is_err(), "not before it is healthy");
    assert!(dir.path().join("checks").exists(), "but it is checked");
    // As after a restart of the daemon: it is found, and the wait goes on.
    drop(first);
    let mut second = controller(&ProcessExecutor::default(), &task, dir.path());
    let adopted = second.adopt(TaskState::Starting).await;
    assert_eq!(adopted, Ok(Adopted::Running));
    fs::write(dir.path().join("well"), "").unwrap();
    timeout(PATIENCE, second.start()).await.unwrap().unwrap();
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_is_never_healthy_fails_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let task = checked("sleep 1000", "echo sick; exit 4", dir.path());
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    controller.prepare().await.unwrap();
    let why = fatal(timeout(PATIENCE, controller.start()).await.unwrap()).await;
    assert!(why.contains("unhealthy") && why.contains("sick"), "{why}");
    let container = controller.container().unwrap();
    assert!(!alive(container.pid));
    assert_eq!(container.exit_code, 143, "stopped with its signal");
}

#[tokio::test]
async fn who_falls_ill_is_stopped_and_stays_failed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("well"), "").unwrap();
    let line = "trap 'exit 0' TERM; sleep 1000 & wait";
    let task = checked(line, "test -e well", dir.path());
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    fs::remove_file(dir.path().join("well")).unwrap();
    for _ in 0..2 {
        let waited = timeout(PATIENCE, controller.wait()).await.unwrap();
        let why = fatal(waited.map(drop)).await;
        assert!(why.contains("unhealthy"), "{why}");
    }
    assert!(!alive(controller.container().unwrap().pid));
}

#[tokio::test]
async fn a_check_that_hangs_fails_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let check = "sleep 1000 & echo $! >> hung; wait";
    let mut task = checked("sleep 1000", check, dir.path());
    if let Some(v1::task_spec::Runtime::Container(spec)) = &mut task.spec_mut().runtime {
        spec.healthcheck.as_mut().unwrap().retries = 1;
    }
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    controller.prepare().await.unwrap();
    let why = fatal(timeout(PATIENCE, controller.start()).await.unwrap()).await;
    assert!(why.contains("took longer"), "{why}");
    let hung = numbers(&dir.path().join("hung"), 1).await;
    until("the check is gone", || hung.iter().all(|&pid| !alive(pid))).await;
}

#[tokio::test]
async fn a_process_that_ends_while_it_starts_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    for (line, good) in [("exit 0", true), ("exit 3", false)] {
        let task = checked(line, "exit 1", dir.path());
        let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
        controller.prepare().await.unwrap();
        let started = timeout(PATIENCE, controller.start()).await.unwrap();
        assert_eq!(started.is_ok(), good, "{started:?}");
        assert_eq!(controller.wait().await.unwrap().is_success(), good);
    }
}
