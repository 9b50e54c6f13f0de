//! What a task wrote.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use skep_agent::executor::{Executor as _, TaskContext};
use skep_proto::v1::{LogStream, LogSubscriptionOptions};
use tokio::time::timeout;

use crate::support::{PATIENCE, bench};

#[tokio::test]
async fn logs_can_be_cut_from_both_ends_and_by_stream() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three");
    let mut controller = bench.started(&task).await;
    assert!(controller.wait().await.unwrap().is_success());
    let all = LogSubscriptionOptions::default;
    let out = LogStream::Stdout;
    assert_eq!(
        bench.logs(&task, all()).await,
        [
            (out, "one\n".to_owned()),
            (LogStream::Stderr, "two\n".to_owned()),
            (out, "three\n".to_owned())
        ]
    );
    let options = LogSubscriptionOptions {
        streams: vec![LogStream::Stderr as i32],
        ..all()
    };
    assert_eq!(bench.logs(&task, options).await.len(), 1);
    for (tail, count) in [(-1, 0), (-2, 1), (-3, 2), (-10, 3), (0, 3)] {
        let options = LogSubscriptionOptions { tail, ..all() };
        let lines = bench.logs(&task, options).await;
        assert_eq!(lines.len(), count, "tail {tail}");
        assert_eq!(lines.last().map_or("three\n", |it| &it.1), "three\n");
    }
    // From the time of the second message on, to the nanosecond.
    let context = TaskContext {
        task: Arc::new(task.clone()),
        dir: bench.dir.path().into(),
        dependencies: bench.dependencies.clone(),
    };
    let lines = bench.executor.logs(&context, all()).unwrap();
    let times: Vec<_> = lines.map(|line| line.unwrap().timestamp).collect().await;
    let options = LogSubscriptionOptions {
        since: Some(times[1]),
        ..all()
    };
    assert_eq!(bench.logs(&task, options).await.len(), 2);
    controller.remove().await.unwrap();
    assert!(bench.logs(&task, all()).await.is_empty(), "none, no error");
}

#[tokio::test]
async fn who_follows_sees_the_task_from_before_its_start_to_its_end() {
    let Some(bench) = bench().await else { return };
    let task = bench.shell("echo one; sleep 1; echo two");
    let context = TaskContext {
        task: Arc::new(task.clone()),
        dir: bench.dir.path().into(),
        dependencies: bench.dependencies.clone(),
    };
    let mut lines = bench.executor.logs(&context, follow()).unwrap();
    let brief = Duration::from_millis(200);
    assert!(timeout(brief, lines.next()).await.is_err(), "nothing yet");
    let mut controller = bench.prepared(&task).await;
    assert!(timeout(brief, lines.next()).await.is_err(), "nothing yet");
    controller.start().await.unwrap();
    let lines: Vec<_> = timeout(PATIENCE, lines.collect()).await.unwrap();
    let lines: Vec<_> = lines.into_iter().map(|line| line.unwrap().data).collect();
    assert_eq!(lines, ["one\n", "two\n"]);
    controller.remove().await.unwrap();

    // Of a task that is gone from this node nothing comes any more.
    let context = TaskContext {
        dir: bench.dir.path().join("gone"),
        ..context
    };
    let lines = bench.executor.logs(&context, follow()).unwrap();
    let lines: Vec<_> = timeout(PATIENCE, lines.collect()).await.unwrap();
    assert!(lines.is_empty());
}

fn follow() -> LogSubscriptionOptions {
    LogSubscriptionOptions {
        follow: true,
        ..Default::default()
    }
}
