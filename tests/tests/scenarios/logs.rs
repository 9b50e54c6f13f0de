//! Logs of services, over tasks on many nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_agent::executor::{
    Controller, Executor, Failure, LogLine, TaskContext, null::NullExecutor,
};
use skep_proto::v1::{
    LogMessage, LogSelector, LogStream, LogSubscriptionOptions, NodeDescription,
    SubscribeLogsMessage, SubscribeLogsRequest, node_spec::Availability, node_status::State,
};
use skep_tests::cluster::{Cluster, eventually};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn subscribe(
    cluster: &Cluster,
    manager: &str,
    service_id: &str,
    follow: bool,
) -> Streaming<SubscribeLogsMessage> {
    let request = SubscribeLogsRequest {
        selector: Some(LogSelector {
            service_ids: vec![service_id.to_owned()],
            ..Default::default()
        }),
        options: Some(LogSubscriptionOptions {
            follow,
            ..Default::default()
        }),
    };
    let mut logs = cluster.logs_of(manager).await;
    logs.subscribe_logs(request).await.unwrap().into_inner()
}

/// Everything until the end, and the final error.
async fn read(mut logs: Streaming<SubscribeLogsMessage>) -> (Vec<LogMessage>, Option<Status>) {
    let mut messages = Vec::new();
    let read = async {
        loop {
            match logs.message().await {
                Ok(Some(message)) => messages.extend(message.messages),
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    let end = timeout(PATIENCE, read).await.expect("the logs hang");
    (messages, end)
}

/// What each task of the service has written.
pub async fn lines(cluster: &Cluster, service_id: &str) -> BTreeMap<String, String> {
    let manager = cluster.leader().await;
    let (messages, _) = read(subscribe(cluster, &manager, service_id, false).await).await;
    let mut written = BTreeMap::<_, String>::new();
    for message in messages {
        let line = String::from_utf8_lossy(&message.data);
        let task_id = message.context().task_id.clone();
        written.entry(task_id).or_default().push_str(&line);
    }
    written
}

fn origins(messages: &[LogMessage]) -> BTreeSet<(String, String)> {
    let contexts = messages.iter().map(LogMessage::context);
    contexts
        .map(|context| (context.task_id.clone(), context.node_id.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r48_logs_come_from_all_nodes_through_any_manager_and_a_dead_one_is_a_warning() {
    let mut cluster = Cluster::start(3, 2).await;
    let web = cluster.create("web", 10, &["true"]).await;
    let tasks = cluster.running(&web.id, 10).await;
    let placed: BTreeSet<_> = tasks
        .iter()
        .map(|task| (task.id.clone(), task.node_id.clone()))
        .collect();
    for manager in cluster.managers() {
        let (messages, end) = read(subscribe(&cluster, &manager, &web.id, false).await).await;
        assert!(end.is_none(), "{manager}: {end:?}");
        assert_eq!(origins(&messages), placed, "{manager}");
        assert_eq!(messages.len(), 10, "{manager}");
    }

    let dead = cluster.id("worker-1");
    cluster.kill("worker-1").await;
    let manager = cluster.follower().await;
    let (messages, end) = read(subscribe(&cluster, &manager, &web.id, false).await).await;
    assert!(
        messages
            .iter()
            .all(|message| message.context().node_id != dead)
    );
    let told = end.expect("a warning").message().to_owned();
    let (unavailable, disconnected) = (
        format!("node {dead} is not available"),
        format!("node {dead} disconnected unexpectedly"),
    );
    assert!(
        told.starts_with("warning: incomplete log stream. some logs could not be retrieved for")
            && (told.ends_with(&unavailable) || told.ends_with(&disconnected)),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_with_tasks_that_come_later() {
    let cluster = Cluster::start(3, 1).await;
    let web = cluster.create("web", 1, &["true"]).await;
    cluster.running(&web.id, 1).await;
    let manager = cluster.follower().await;
    let mut logs = subscribe(&cluster, &manager, &web.id, true).await;
    let first = timeout(PATIENCE, logs.message()).await.unwrap().unwrap();
    assert_eq!(first.unwrap().messages.len(), 1);
    cluster.scale(&web.id, 6).await;
    let mut seen = BTreeSet::new();
    let others = async {
        while seen.len() < 5 {
            let message = logs.message().await.unwrap().expect("it goes on");
            seen.extend(origins(&message.messages));
        }
    };
    timeout(PATIENCE, others).await.expect("lines of new tasks");
}

/// Tasks that run nothing and write without end.
#[derive(Default)]
struct Flooding {
    lines: Arc<AtomicUsize>,
}

impl Executor for Flooding {
    fn describe(&self, description: &mut NodeDescription) {
        NullExecutor.describe(description);
    }

    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        NullExecutor.controller(context)
    }

    fn logs(
        &self,
        _: &TaskContext,
        _: LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        let lines = Arc::clone(&self.lines);
        let endless = stream::repeat_with(move || {
            lines.fetch_add(1, Ordering::Relaxed);
            Ok(LogLine {
                timestamp: skep_proto::Timestamp::default(),
                stream: LogStream::Stdout,
                data: vec![b'x'; 10_000].into(),
            })
        });
        Some(endless.boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_nobody_reads_hold_up_nothing_else_on_their_connection() {
    let executor = Arc::new(Flooding::default());
    let lines = Arc::clone(&executor.lines);
    let cluster = Cluster::with_executor(3, 1, executor).await;
    // All on the worker, which has one connection for all it says.
    for manager in cluster.managers() {
        cluster
            .set_availability(&manager, Availability::Drain)
            .await;
    }
    let web = cluster.create("web", 1, &["true"]).await;
    cluster.running(&web.id, 1).await;
    let mut unread = Vec::new();
    for manager in cluster.managers() {
        for _ in 0..3 {
            unread.push(subscribe(&cluster, &manager, &web.id, true).await);
        }
    }
    // Every buffer on the way is full when the worker has ceased to write.
    eventually("the flood is held up", async || {
        let before = lines.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
        (before > 0 && lines.load(Ordering::Relaxed) == before).then_some(())
    })
    .await;
    let written = lines.load(Ordering::Relaxed) * 10_000;
    assert!(
        written < 9 * 12_000_000,
        "{written} bytes are held for 9 readers"
    );
    cluster.scale(&web.id, 20).await;
    cluster.running(&web.id, 20).await;
    cluster.node_is("worker-1", State::Ready).await;

    // A reader that comes back to it goes on where it was.
    let mut last = unread.pop().unwrap();
    for _ in 0..100 {
        let message = timeout(PATIENCE, last.message()).await.unwrap().unwrap();
        assert!(message.is_some_and(|message| !message.messages.is_empty()));
    }
}
