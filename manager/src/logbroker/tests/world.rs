//! A broker on a store that leads, and clients and nodes that call it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::BoxStream};
use skep_proto::v1::{
    LogContext, LogMessage, LogSelector, LogSubscriptionOptions, PublishLogsMessage,
    SubscribeLogsMessage, SubscribeLogsRequest, SubscriptionMessage, Task, TaskState, TaskStatus,
};
use skep_store::{Error, Store, Tx, testing::leading};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{Code, Status};

use crate::{
    logbroker::{LogBroker, Running, listening, publishing, subscribing},
    time,
};

/// Anything that takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub type Told<T> = BoxStream<'static, Result<T, Status>>;

pub struct World {
    pub store: Store,
    pub broker: LogBroker,
    pub running: Option<Running>,
}

impl World {
    /// With tasks as `(id, service, node, state)`.
    pub async fn new(tasks: &[(&str, &str, &str, TaskState)]) -> Self {
        let store = leading(|| time::now().into());
        let broker = LogBroker::new(store.clone());
        let running = Some(broker.begin());
        let world = Self {
            store,
            broker,
            running,
        };
        for &(id, service, node, state) in tasks {
            world.create(id, service, node, state).await;
        }
        world
    }

    pub async fn write(&self, transaction: impl FnOnce(&mut Tx)) {
        let write = self.store.update(|tx| {
            transaction(tx);
            Ok::<_, Error>(())
        });
        write.await.unwrap();
    }

    pub async fn create(&self, id: &str, service: &str, node: &str, state: TaskState) {
        let task = Task {
            id: id.to_owned(),
            service_id: service.to_owned(),
            node_id: node.to_owned(),
            status: Some(TaskStatus {
                state: state.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.write(|tx| drop(tx.create(task).unwrap())).await;
    }

    pub fn subscribe(&self, selector: LogSelector, follow: bool) -> Told<SubscribeLogsMessage> {
        let options = follow.then(|| LogSubscriptionOptions {
            follow: true,
            ..Default::default()
        });
        let request = SubscribeLogsRequest {
            selector: Some(selector),
            options,
        };
        subscribing::stream(self.broker.term().unwrap(), request).unwrap()
    }

    pub fn listen(&self, node: &str) -> Told<SubscriptionMessage> {
        listening::stream(self.broker.term().unwrap(), node.to_owned())
    }

    /// A node's stream: what to send on it, and how it ends.
    pub fn publish(&self, node: &str) -> Publisher {
        let (sender, receiver) = mpsc::channel(1);
        let term = self.broker.term().unwrap();
        let messages = futures_util::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        let call = tokio::spawn(publishing::publish(term, node.to_owned(), messages));
        Publisher { sender, call }
    }

    pub fn is_empty(&self) -> bool {
        self.broker.term().unwrap().board.lock().is_empty()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.store.follow();
    }
}

pub struct Publisher {
    pub sender: mpsc::Sender<Result<PublishLogsMessage, Status>>,
    pub call: JoinHandle<Result<(), Status>>,
}

impl Publisher {
    pub async fn send(&self, message: PublishLogsMessage) {
        timeout(PATIENCE, self.sender.send(Ok(message)))
            .await
            .expect("it is not taken")
            .unwrap();
    }

    /// How the call ends after this message.
    pub async fn end(self, message: PublishLogsMessage) -> Result<(), Status> {
        self.send(message).await;
        self.ended().await
    }

    pub async fn ended(self) -> Result<(), Status> {
        timeout(PATIENCE, self.call).await.unwrap().unwrap()
    }
}

pub fn service(id: &str) -> LogSelector {
    LogSelector {
        service_ids: vec![id.to_owned()],
        ..Default::default()
    }
}

pub fn lines(id: &str, node: &str, lines: &[&str]) -> PublishLogsMessage {
    let messages = lines.iter().map(|line| LogMessage {
        context: Some(LogContext {
            node_id: node.to_owned(),
            ..Default::default()
        }),
        data: (*line).to_owned().into(),
        ..Default::default()
    });
    PublishLogsMessage {
        subscription_id: id.to_owned(),
        messages: messages.collect(),
        close: false,
    }
}

pub fn close(id: &str) -> PublishLogsMessage {
    PublishLogsMessage {
        subscription_id: id.to_owned(),
        close: true,
        ..Default::default()
    }
}

pub async fn next<T>(stream: &mut Told<T>) -> T {
    let next = timeout(PATIENCE, stream.next()).await;
    next.expect("nothing came").expect("it ended").unwrap()
}

pub fn told(error: Status) -> (Code, String) {
    (error.code(), error.message().to_owned())
}

/// All lines until the end, and the final error.
pub async fn rest(mut stream: Told<SubscribeLogsMessage>) -> (Vec<String>, Option<(Code, String)>) {
    let mut lines = Vec::new();
    loop {
        match timeout(PATIENCE, stream.next()).await.expect("it hangs") {
            Some(Ok(message)) => {
                lines.extend(texts(&message));
            }
            Some(Err(error)) => {
                assert!(stream.next().await.is_none(), "nothing comes after it");
                return (lines, Some(told(error)));
            }
            None => return (lines, None),
        }
    }
}

pub fn texts(message: &SubscribeLogsMessage) -> Vec<String> {
    let messages = message.messages.iter();
    messages
        .map(|message| String::from_utf8(message.data.to_vec()).unwrap())
        .collect()
}

pub fn warning(reasons: &str) -> Option<(Code, String)> {
    let text = "warning: incomplete log stream. some logs could not be retrieved for the \
                following reasons: ";
    Some((Code::Unknown, format!("{text}{reasons}")))
}
