//! Logs on their way from an executor to a manager.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use skep_agent::{
    OnStop,
    executor::{Controller, Executor, Failure, LogLine, TaskContext, null::NullExecutor},
};
use skep_proto::v1::{
    self, LogContext, LogSelector, LogStream, LogSubscriptionOptions, SubscriptionMessage,
    TaskState,
};

use crate::{
    dispatcher::Manager,
    node::Node,
    support::{command, until},
};

/// Tasks that run nothing and write lines without end, or as many as the tail that is asked for.
#[derive(Default)]
struct Writing {
    /// Lines that were read.
    read: Arc<AtomicUsize>,
}

impl Executor for Writing {
    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        NullExecutor.controller(context)
    }

    fn logs(
        &self,
        context: &TaskContext,
        options: LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        let (read, id) = (Arc::clone(&self.read), context.task.id.clone());
        let lines = stream::iter(0..).map(move |number| {
            read.fetch_add(1, Ordering::Relaxed);
            if number == 1 {
                return Err(Failure::Temporary("a file was rotated away".to_owned()));
            }
            Ok(LogLine {
                timestamp: skep_proto::Timestamp::default(),
                stream: LogStream::Stderr,
                data: format!("{id} {number:01000}\n").into(),
            })
        });
        Some(match usize::try_from(-(options.tail + 1)) {
            Ok(tail) => lines.take(tail).boxed(),
            Err(_) => lines.boxed(),
        })
    }
}

fn subscription(id: &str, selector: LogSelector) -> SubscriptionMessage {
    SubscriptionMessage {
        id: id.to_owned(),
        selector: Some(selector),
        options: Some(LogSubscriptionOptions::default()),
        close: false,
    }
}

fn of_service(id: &str) -> LogSelector {
    LogSelector {
        service_ids: vec![id.to_owned()],
        ..Default::default()
    }
}

fn task(service: &str) -> v1::Task {
    v1::Task {
        service_id: service.to_owned(),
        ..command(&["true"])
    }
}

/// Whether all was sent, with the last message.
fn closed(manager: &Manager, id: &str) -> bool {
    manager.published(id).last().is_some_and(|last| last.close)
}

fn messages(manager: &Manager, id: &str) -> Vec<v1::LogMessage> {
    let published = manager.published(id).into_iter();
    published.flat_map(|message| message.messages).collect()
}

#[tokio::test]
async fn what_is_selected_is_sent_and_then_the_stream_closed() {
    let node = Node::new();
    let manager = node.cluster.manager("m").await;
    let _agent = node.agent_with(&[&manager], Arc::new(Writing::default()), OnStop::Keep);
    manager.sessions(1).await;
    let tasks: Vec<_> = (0..40).map(|_| task("s1")).collect();
    let other = task("s2");
    for task in tasks.iter().chain([&other]) {
        manager.put(task);
    }
    for task in tasks.iter().chain([&other]) {
        manager.reported(task, TaskState::Running).await;
    }

    let mut tail = subscription("tail", of_service("s1"));
    // The last 3 lines.
    tail.options = Some(LogSubscriptionOptions {
        tail: -4,
        ..Default::default()
    });
    manager.subscribe(&tail).await;
    // Said twice, done once.
    manager.subscribe(&tail).await;
    until("all is sent", || closed(&manager, "tail")).await;
    let sent = messages(&manager, "tail");
    assert_eq!(sent.len(), 2 * tasks.len(), "one of three cannot be read");
    for task in &tasks {
        let origin = LogContext {
            service_id: "s1".to_owned(),
            node_id: "node".to_owned(),
            task_id: task.id.clone(),
        };
        let mut lines = sent
            .iter()
            .filter(|message| message.context.as_ref() == Some(&origin));
        let line = lines.next().unwrap();
        assert_eq!(line.data, format!("{} {:01000}\n", task.id, 0));
        assert_eq!(line.stream(), LogStream::Stderr);
        assert_eq!(lines.count(), 1);
    }

    let by_task = LogSelector {
        task_ids: vec![other.id.clone()],
        ..Default::default()
    };
    let mut by_task = subscription("task", by_task);
    by_task.options.clone_from(&tail.options);
    manager.subscribe(&by_task).await;
    until("all is sent", || closed(&manager, "task")).await;
    assert_eq!(messages(&manager, "task").len(), 2);

    manager
        .subscribe(&subscription("nobody", of_service("s3")))
        .await;
    until("it says that there is nothing", || {
        closed(&manager, "nobody")
    })
    .await;
    assert_eq!(manager.published("nobody").len(), 1);
}

#[tokio::test]
async fn a_subscription_ends_when_it_is_closed_and_with_the_session() {
    let node = Node::new();
    let manager = node.cluster.manager("m").await;
    let executor = Arc::new(Writing::default());
    let read = Arc::clone(&executor.read);
    let _agent = node.agent_with(&[&manager], executor, OnStop::Keep);
    manager.sessions(1).await;
    let endless = task("s1");
    manager.put(&endless);
    manager.reported(&endless, TaskState::Running).await;

    let first = subscription("first", of_service("s1"));
    manager.subscribe(&first).await;
    until("lines come", || messages(&manager, "first").len() > 100).await;
    manager
        .subscribe(&SubscriptionMessage {
            close: true,
            ..first
        })
        .await;
    until("it is closed", || manager.publishers_ended() == 1).await;

    manager
        .subscribe(&subscription("second", of_service("s1")))
        .await;
    until("lines come", || messages(&manager, "second").len() > 100).await;
    manager.end_session();
    until("it ends with the session", || {
        manager.publishers_ended() == 2
    })
    .await;
    let before = read.load(Ordering::Relaxed);
    manager.sessions(2).await;
    assert_eq!(read.load(Ordering::Relaxed), before, "nothing reads on");
}

#[tokio::test]
async fn following_takes_up_tasks_that_come_later() {
    let node = Node::new();
    let manager = node.cluster.manager("m").await;
    let _agent = node.agent_with(&[&manager], Arc::new(NullExecutor), OnStop::Keep);
    manager.sessions(1).await;
    let mut follow = subscription("follow", of_service("s1"));
    // What was there is not wanted.
    follow.options = Some(LogSubscriptionOptions {
        follow: true,
        tail: -1,
        ..Default::default()
    });
    let (before, later, other) = (task("s1"), task("s1"), task("s2"));
    manager.put(&before);
    manager.reported(&before, TaskState::Running).await;
    manager.subscribe(&follow).await;
    // Behind it on the same stream: once this one is through, the other is served.
    manager
        .subscribe(&subscription("marker", of_service("s1")))
        .await;
    until("the marker is through", || closed(&manager, "marker")).await;
    manager.put(&other);
    manager.put(&later);
    until("a line comes", || !messages(&manager, "follow").is_empty()).await;
    let origins: Vec<_> = messages(&manager, "follow")
        .into_iter()
        .map(|message| message.context.unwrap().task_id)
        .collect();
    assert_eq!(origins, [later.id]);
    assert!(!closed(&manager, "follow"));
}
