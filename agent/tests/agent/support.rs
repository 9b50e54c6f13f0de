//! What the tests of this room share: tasks to run, and waiting for conditions.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use skep_agent::{
    Dependencies,
    executor::{
        Executor, LogLine, TaskContext,
        process::{Launcher, ProcessExecutor},
    },
};
use skep_proto::v1::{self, TaskState, task_spec::Runtime};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A task that runs `line` in a shell.
pub(crate) fn shell(line: &str) -> v1::Task {
    command(&["sh", "-c", line])
}

/// A task that runs a command.
pub(crate) fn command(words: &[&str]) -> v1::Task {
    let mut task = v1::Task {
        id: skep_proto::id::random(),
        desired_state: TaskState::Running as i32,
        ..Default::default()
    };
    task.status_mut().state = TaskState::Assigned as i32;
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let spec = v1::ContainerSpec {
        image: "process".to_owned(),
        args: words,
        ..Default::default()
    };
    task.spec_mut().runtime = Some(Runtime::Container(spec));
    task
}

/// Changes the container spec of a task.
pub(crate) fn with(mut task: v1::Task, change: impl FnOnce(&mut v1::ContainerSpec)) -> v1::Task {
    if let Some(Runtime::Container(spec)) = &mut task.spec_mut().runtime {
        change(spec);
    }
    task
}

/// How long the task may take to stop.
pub(crate) fn grace(task: v1::Task, millis: i32) -> v1::Task {
    with(task, |spec| {
        spec.stop_grace_period = Some(skep_proto::Duration {
            seconds: i64::from(millis / 1000),
            nanos: millis % 1000 * 1_000_000,
        });
    })
}

/// A controller of the task in `dir`.
pub(crate) fn controller(
    executor: &dyn Executor,
    task: &v1::Task,
    dir: &Path,
) -> Box<dyn skep_agent::executor::Controller> {
    executor.controller(context(task, dir)).unwrap()
}

/// What an executor is given of a task.
pub(crate) fn context(task: &v1::Task, dir: &Path) -> TaskContext {
    TaskContext {
        task: Arc::new(task.clone()),
        dir: dir.to_owned(),
        dependencies: Dependencies::default(),
    }
}

/// All that a task has written and that is kept, of both streams, with the lines' ends.
pub(crate) async fn written(executor: &dyn Executor, task: &v1::Task, dir: &Path) -> String {
    let lines = log(executor, task, dir, v1::LogSubscriptionOptions::default()).await;
    lines
        .iter()
        .map(|line| String::from_utf8_lossy(&line.data).into_owned())
        .collect()
}

/// What is kept of a task's output, as the options say; with `follow`, until its end.
pub(crate) async fn log(
    executor: &dyn Executor,
    task: &v1::Task,
    dir: &Path,
    options: v1::LogSubscriptionOptions,
) -> Vec<LogLine> {
    let lines = executor.logs(&context(task, dir), options).unwrap();
    let lines = timeout(PATIENCE, lines.collect::<Vec<_>>()).await;
    lines.unwrap().into_iter().map(Result::unwrap).collect()
}

/// A process executor that can do all it may.
pub(crate) fn launching() -> ProcessExecutor {
    ProcessExecutor::with_launcher(Launcher {
        program: env!("CARGO_BIN_EXE_skep-launch").into(),
        args: Vec::new(),
    })
}

/// Whether a test can do its part that needs `what`. If not it says so, and with
/// `SKEP_REQUIRE_ALL=1` it fails.
pub(crate) fn able(what: &str, may: bool) -> bool {
    if !may {
        assert!(
            std::env::var_os("SKEP_REQUIRE_ALL").is_none_or(|all| all != "1"),
            "needs {what}"
        );
        eprintln!("skipped: needs {what}");
    }
    may
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process exists and is not just waiting to be reaped.
pub(crate) fn alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let (_, rest) = stat.rsplit_once(')').unwrap();
    !matches!(rest.trim_start().chars().next(), Some('Z' | 'X'))
}

/// The numbers in a file that a task writes, once there are `count`.
pub(crate) async fn numbers(path: &Path, count: usize) -> Vec<i32> {
    let read = || -> Vec<i32> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect()
    };
    until("the task writes numbers", || read().len() >= count).await;
    read()
}
