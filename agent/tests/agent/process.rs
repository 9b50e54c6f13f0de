//! The process executor with real processes.

use std::{fs, path::Path, process::Command};

use skep_agent::executor::{Adopted, Controller, Exit, Failure, process::ProcessExecutor};
use skep_proto::v1::{self, TaskState};
use tokio::time::{Instant, timeout};

use crate::support::{
    PATIENCE, alive, command, controller, grace, log, numbers, shell, until, with, written,
};

async fn started(task: &v1::Task, dir: &Path) -> Box<dyn Controller> {
    let mut controller = controller(&ProcessExecutor::default(), task, dir);
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    controller
}

async fn exit(controller: &mut Box<dyn Controller>) -> Exit {
    timeout(PATIENCE, controller.wait()).await.unwrap().unwrap()
}

fn pid(controller: &dyn Controller) -> i32 {
    controller.container().unwrap().pid
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for (line, code, reason) in [
        ("exit 0", 0, "exited with code 0"),
        ("exit 3", 3, "exited with code 3"),
        ("kill -KILL $$", 137, "killed by signal 9 (SIGKILL)"),
    ] {
        let mut controller = started(&shell(line), dir.path()).await;
        let exit = exit(&mut controller).await;
        assert_eq!(
            (exit.code, exit.reason.as_str()),
            (Some(code), reason),
            "{line}"
        );
        assert_eq!(controller.container().unwrap().exit_code, code);
    }
}

#[tokio::test]
async fn the_process_gets_what_the_spec_says_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let task = with(shell("pwd; env; echo problem >&2; cat"), |spec| {
        spec.env = vec!["COLOR=red".to_owned()];
        spec.dir = work.path().to_str().unwrap().to_owned();
    });
    let mut controller = started(&task, dir.path()).await;
    assert!(
        exit(&mut controller).await.is_success(),
        "standard input is empty"
    );
    let output = written(&ProcessExecutor::default(), &task, dir.path()).await;
    let lines: Vec<_> = output.lines().collect();
    // The streams are two pipes: lines of one keep their order, but not among those of the other.
    let pwd = lines.iter().find(|line| line.starts_with('/')).unwrap();
    assert_eq!(Path::new(pwd), work.path().canonicalize().unwrap());
    assert!(lines.contains(&"COLOR=red"), "{output}");
    assert!(
        lines.contains(&format!("SKEP_TASK_ID={}", task.id).as_str()),
        "{output}"
    );
    assert!(
        !output.contains("CARGO"),
        "the daemon's environment stays its own: {output}"
    );
    let errors = v1::LogSubscriptionOptions {
        streams: vec![v1::LogStream::Stderr as i32],
        ..Default::default()
    };
    let lines = log(&ProcessExecutor::default(), &task, dir.path(), errors).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].data, "problem\n");
}

#[tokio::test]
async fn another_user_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(shell("id -u; id -g"), |spec| {
        spec.user = "12345:54321".to_owned()
    });
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    if rustix::process::geteuid().is_root() {
        controller.prepare().await.unwrap();
        controller.start().await.unwrap();
        exit(&mut controller).await;
        let output = written(&ProcessExecutor::default(), &task, dir.path()).await;
        assert_eq!(output, "12345\n54321\n");
    } else {
        let Err(Failure::Fatal(why)) = controller.prepare().await else {
            panic!("accepted")
        };
        assert!(why.contains("only root"), "{why}");
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (task, part) in [
        (command(&["no-such-command-anywhere"]), "was not found"),
        (
            with(shell("true"), |spec| spec.image = "nginx".to_owned()),
            "image \"nginx\"",
        ),
        (
            with(shell("true"), |spec| spec.hostname = "x".to_owned()),
            "a hostname",
        ),
    ] {
        let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
        let Err(Failure::Fatal(why)) = controller.prepare().await else {
            panic!("accepted")
        };
        assert!(why.contains(part), "{why}");
        controller.remove().await.unwrap();
    }
    // What is in a program is noticed at the start.
    let file = dir.path().join("not-a-program");
    fs::write(&file, "x").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&file, mode).unwrap();
    let mut controller = controller(
        &ProcessExecutor::default(),
        &command(&[file.to_str().unwrap()]),
        dir.path(),
    );
    controller.prepare().await.unwrap();
    assert!(matches!(controller.start().await, Err(Failure::Fatal(_))));
    controller.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_stop_signal_reaches_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let line = "trap 'echo got; exit 7' USR1; sleep 1000 & echo $! > pid; wait";
    let task = with(shell(line), |spec| {
        spec.stop_signal = "SIGUSR1".to_owned();
        spec.dir = dir.path().to_str().unwrap().to_owned();
    });
    let mut controller = started(&task, dir.path()).await;
    let child = numbers(&dir.path().join("pid"), 1).await[0];
    controller.shutdown().await.unwrap();
    assert_eq!(controller.container().unwrap().exit_code, 7);
    assert!(!alive(pid(controller.as_ref())));
    until("the child is gone", || !alive(child)).await;
}

#[tokio::test]
async fn who_ignores_the_signal_is_killed_after_the_grace_period_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let line = "trap '' TERM; sleep 1000 & echo $! > pid; while :; do sleep 1; done";
    let task = grace(shell(line), 300);
    let task = with(task, |spec| {
        spec.dir = dir.path().to_str().unwrap().to_owned()
    });
    let mut controller = started(&task, dir.path()).await;
    let child = numbers(&dir.path().join("pid"), 1).await[0];
    let before = Instant::now();
    controller.shutdown().await.unwrap();
    assert!(before.elapsed().as_millis() >= 300, "it has its time");
    assert_eq!(controller.container().unwrap().exit_code, 137);
    until("the child is gone", || !alive(child)).await;
}

#[tokio::test]
async fn what_the_leader_leaves_behind_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(shell("sleep 1000 & echo $! > pid"), |spec| {
        spec.dir = dir.path().to_str().unwrap().to_owned();
    });
    let mut controller = started(&task, dir.path()).await;
    assert!(exit(&mut controller).await.is_success());
    let child = numbers(&dir.path().join("pid"), 1).await[0];
    until("the child is gone", || !alive(child)).await;
}

#[tokio::test]
async fn an_interrupted_start_is_still_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let task = shell("sleep 1000");
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    controller.prepare().await.unwrap();
    // Polled once: the start is under way, and nobody waits for it any more.
    assert!(futures_util::FutureExt::now_or_never(controller.start()).is_none());
    controller.shutdown().await.unwrap();
    assert!(
        !alive(pid(controller.as_ref())),
        "it was started and then stopped"
    );
}

/// Starts `line` as a daemon that is dead now did: marked, leading a group, not our child.
async fn orphan(task: &v1::Task, dir: &Path, line: &str) -> i32 {
    let launcher = "setsid sh -c \"$LINE\" > /dev/null 2>&1 & echo $!";
    let output = Command::new("sh")
        .args(["-c", launcher])
        .env("SKEP_TASK_ID", &task.id)
        .env("LINE", line)
        .current_dir(dir)
        .output()
        .unwrap();
    let pid: i32 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Between fork and exec it is not the leader yet.
    until("the orphan leads a group", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| {
            rest.split_ascii_whitespace().nth(2) == Some(pid.to_string().as_str())
        })
    })
    .await;
    pid
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap()
        .trim()
        .to_owned()
}

fn record(dir: &Path, boot_id: &str, process: Option<(i32, u64)>) {
    let process = process.map_or("null".to_owned(), |(pid, start_time)| {
        format!(r#"{{"pid":{pid},"start_time":{start_time}}}"#)
    });
    let record = format!(r#"{{"boot_id":"{boot_id}","process":{process}}}"#);
    fs::write(dir.join("process.json"), record).unwrap();
}

fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_ascii_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_process_of_a_dead_daemon_is_waited_for_but_its_code_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let task = shell("unused");
    let pid = orphan(
        &task,
        dir.path(),
        "while [ ! -e stop ]; do sleep 0.05; done",
    )
    .await;
    record(dir.path(), &boot_id(), Some((pid, start_time(pid))));
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    assert_eq!(
        controller.adopt(TaskState::Running).await,
        Ok(Adopted::Running)
    );
    assert_eq!(controller.container().unwrap().pid, pid);
    fs::write(dir.path().join("stop"), "").unwrap();
    let exit = exit(&mut controller).await;
    assert_eq!(exit.code, None);
    assert!(exit.reason.contains("unknown"), "{}", exit.reason);
    assert_eq!(controller.container().unwrap().exit_code, -1);
}

#[tokio::test]
async fn a_process_of_a_dead_daemon_is_stopped_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let task = grace(shell("unused"), 5000);
    // The inner one left the group, and would live on.
    let pid = orphan(
        &task,
        dir.path(),
        "setsid sleep 1000 & echo $! > inner; wait",
    )
    .await;
    let inner = numbers(&dir.path().join("inner"), 1).await[0];
    record(dir.path(), &boot_id(), Some((pid, start_time(pid))));
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    assert_eq!(
        controller.adopt(TaskState::Running).await,
        Ok(Adopted::Running)
    );
    controller.shutdown().await.unwrap();
    until("all is gone", || !alive(pid) && !alive(inner)).await;
}

#[tokio::test]
async fn a_process_whose_number_was_never_written_is_found_by_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let task = shell("unused");
    let pid = orphan(&task, dir.path(), "sleep 1000; true").await;
    record(dir.path(), &boot_id(), None);
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    assert_eq!(
        controller.adopt(TaskState::Starting).await,
        Ok(Adopted::Running)
    );
    assert_eq!(controller.container().unwrap().pid, pid);
    let written = fs::read_to_string(dir.path().join("process.json")).unwrap();
    assert!(written.contains(&format!("\"pid\":{pid}")), "{written}");
    controller.remove().await.unwrap();
    until("it is gone", || !alive(pid)).await;
}

#[tokio::test]
async fn a_number_that_means_another_process_is_left_alone() {
    let own = i32::try_from(std::process::id()).unwrap();
    for (boot, start) in [
        (boot_id(), start_time(own) + 1),
        ("another-boot".to_owned(), start_time(own)),
        (boot_id(), u64::MAX),
    ] {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &boot, Some((own, start)));
        let mut controller = controller(&ProcessExecutor::default(), &shell("unused"), dir.path());
        let adopted = controller.adopt(TaskState::Running).await.unwrap();
        assert!(matches!(adopted, Adopted::Gone(_)), "{adopted:?}");
        controller.remove().await.unwrap();
    }
}

#[tokio::test]
async fn the_exit_code_is_known_when_the_same_daemon_takes_the_task_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(
        shell("while [ ! -e stop ]; do sleep 0.05; done; exit 5"),
        |spec| {
            spec.dir = dir.path().to_str().unwrap().to_owned();
        },
    );
    drop(started(&task, dir.path()).await);
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    assert_eq!(
        controller.adopt(TaskState::Running).await,
        Ok(Adopted::Running)
    );
    fs::write(dir.path().join("stop"), "").unwrap();
    assert_eq!(exit(&mut controller).await.code, Some(5));
}
