//! What real processes write, read while they run, after them, and over a restart of the daemon.

use std::fs;

use futures_util::StreamExt as _;
use skep_agent::executor::{Adopted, Executor as _, process::ProcessExecutor};
use skep_proto::v1::{self, LogSubscriptionOptions, TaskState};
use tokio::time::timeout;

use crate::support::{PATIENCE, context, controller, log, shell, with, written};

const FOLLOW: LogSubscriptionOptions = LogSubscriptionOptions {
    streams: Vec::new(),
    follow: true,
    tail: 0,
    since: None,
};

#[tokio::test]
async fn a_log_is_followed_over_a_restart_of_the_daemon_to_the_end_of_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let executor = ProcessExecutor::default();
    let line = "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two >&2; \
                while [ ! -e end ]; do sleep 0.02; done; printf three";
    let task = with(shell(line), |spec| {
        spec.dir = dir.path().to_str().unwrap().to_owned();
    });
    let lines = executor.logs(&context(&task, dir.path()), FOLLOW).unwrap();
    let mut lines = lines.map(|line| line.unwrap());
    let mut first = controller(&executor, &task, dir.path());
    first.prepare().await.unwrap();
    first.start().await.unwrap();
    let line = timeout(PATIENCE, lines.next()).await.unwrap().unwrap();
    assert_eq!(
        (line.stream, &*line.data),
        (v1::LogStream::Stdout, &b"one\n"[..])
    );
    drop(first);
    // Nobody reads now; what is written waits.
    fs::write(dir.path().join("go"), "").unwrap();
    let mut second = controller(&executor, &task, dir.path());
    let adopted = second.adopt(TaskState::Running).await;
    assert_eq!(adopted, Ok(Adopted::Running));
    let line = timeout(PATIENCE, lines.next()).await.unwrap().unwrap();
    assert_eq!(
        (line.stream, &*line.data),
        (v1::LogStream::Stderr, &b"two\n"[..])
    );
    fs::write(dir.path().join("end"), "").unwrap();
    timeout(PATIENCE, second.wait()).await.unwrap().unwrap();
    let line = timeout(PATIENCE, lines.next()).await.unwrap().unwrap();
    assert_eq!(&*line.data, b"three");
    assert!(
        timeout(PATIENCE, lines.next()).await.unwrap().is_none(),
        "it ends"
    );
}

#[tokio::test]
async fn a_task_that_floods_costs_what_its_log_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut task = shell("seq 1 300000; cat /proc/self/stat");
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    task.spec_mut().log_driver = Some(v1::Driver {
        name: "json-file".to_owned(),
        options: [option("max-size", "100k"), option("max-file", "3")].into(),
    });
    let executor = ProcessExecutor::default();
    let mut controller = controller(&executor, &task, dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    timeout(PATIENCE, controller.wait()).await.unwrap().unwrap();
    let files = fs::read_dir(dir.path()).unwrap();
    let size: u64 = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size <= 3 * (100 << 10) + 1000, "{size}");
    let output = written(&executor, &task, dir.path()).await;
    let numbers: Vec<u32> = output
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    assert_eq!(numbers.last(), Some(&300_000), "the newest is kept");
    let gaps = numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]);
    assert_eq!(gaps.count(), 0, "and without gaps");
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn following_what_was_refused_ends() {
    let dir = tempfile::tempdir().unwrap();
    let executor = ProcessExecutor::default();
    let task = with(shell("true"), |spec| spec.image = "nginx".to_owned());
    let mut controller = controller(&executor, &task, dir.path());
    assert!(controller.prepare().await.is_err());
    assert!(log(&executor, &task, dir.path(), FOLLOW).await.is_empty());
}

#[tokio::test]
async fn programs_may_open_their_output_again() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(
        shell("echo a > /dev/stdout; echo b > /dev/stderr"),
        |spec| {
            if rustix::process::geteuid().is_root() {
                spec.user = "12345:54321".to_owned();
            }
        },
    );
    let executor = ProcessExecutor::default();
    let mut controller = controller(&executor, &task, dir.path());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    timeout(PATIENCE, controller.wait()).await.unwrap().unwrap();
    let mut output: Vec<_> = written(&executor, &task, dir.path()).await.into_bytes();
    output.sort_unstable();
    assert_eq!(output, b"\n\nab");
}
