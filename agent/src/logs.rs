//! Sends what the tasks of this node wrote to whoever has subscribed to it.
//!
//! One stream goes to the manager per subscription. It reads the executor only as fast as the manager
//! takes what is sent, so a reader far away that pauses costs this node a batch of lines. All of it
//! ends with the session, and a manager that still wants it says so in the next one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use skep_proto::v1::{
    self, LogContext, LogMessage, LogSelector, LogSubscriptionOptions, PublishLogsMessage,
    SubscriptionMessage, log_broker_client::LogBrokerClient,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    error::Error,
    executor::{Executor, Failure, LogLine, TaskContext},
    worker,
};

/// Subscriptions that a node serves at one time. More than a manager gives it; each costs a few
/// batches of memory.
const MAX_SUBSCRIPTIONS: usize = 1024;

/// Contents in bytes from which on a message takes no further line, and the most lines it takes.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_LINES: usize = 1000;

/// Batches on their way into the stream; what waits for long waits in the executor.
const QUEUE: usize = 1;

/// Tasks that are read beside each other if none is followed: as many open files.
const AT_ONCE: usize = 16;

/// Where logs come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) node_id: String,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) worker: worker::Handle,
}

/// Serves the subscriptions that the manager tells of, until its stream ends.
pub(crate) async fn serve(channel: Channel, source: &Source) -> Error {
    const CALL: &str = "log subscriptions";
    let client = LogBrokerClient::new(channel);
    let request = v1::ListenSubscriptionsRequest {};
    let mut told = match client.clone().listen_subscriptions(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refused(CALL, status).await,
    };
    let mut publishers = Publishers::default();
    loop {
        tokio::select! {
            message = told.message() => match message {
                Ok(Some(message)) => publishers.take(message, &client, source),
                Ok(None) => return Error::Ended { call: CALL },
                Err(status) => return refused(CALL, status).await,
            },
            Some(_) = publishers.tasks.join_next() => {}
        }
    }
}

async fn refused(call: &'static str, status: Status) -> Error {
    if status.code() == Code::Unimplemented {
        // A manager without a log broker: that is no reason to leave it.
        std::future::pending::<()>().await;
    }
    Error::call(call)(status)
}

/// The streams to the manager. Dropping this ends them.
#[derive(Default)]
struct Publishers {
    tasks: JoinSet<()>,
    /// By subscription, until that is closed: the manager may repeat itself.
    by_id: HashMap<String, AbortHandle>,
}

impl Publishers {
    fn take(
        &mut self,
        message: SubscriptionMessage,
        client: &LogBrokerClient<Channel>,
        source: &Source,
    ) {
        if message.close {
            if let Some(publisher) = self.by_id.remove(&message.id) {
                publisher.abort();
            }
        } else if self.by_id.len() >= MAX_SUBSCRIPTIONS {
            tracing::warn!(
                subscription_id = message.id,
                "this node serves {MAX_SUBSCRIPTIONS} subscriptions to logs already"
            );
        } else if !self.by_id.contains_key(&message.id) {
            let id = message.id.clone();
            let publisher = publish(client.clone(), source.clone(), message);
            self.by_id.insert(id, self.tasks.spawn(publisher));
        }
    }
}

/// Serves one subscription.
async fn publish(
    mut client: LogBrokerClient<Channel>,
    source: Source,
    subscription: SubscriptionMessage,
) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let messages = stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    let call = async { client.publish_logs(messages).await.map(drop) };
    tokio::pin!(call);
    let done = tokio::select! {
        done = &mut call => done,
        () = source.feed(&subscription, sender) => call.await,
    };
    if let Err(status) = done {
        let subscription_id = subscription.id;
        tracing::debug!(subscription_id, %status, "the manager takes no more logs");
    }
}

/// A line and where it comes from; none is the end of a task's.
type Line = Option<(LogContext, Result<LogLine, Failure>)>;

impl Source {
    /// Sends everything that is asked for, and at the end that this was all.
    async fn feed(
        &self,
        subscription: &SubscriptionMessage,
        sender: mpsc::Sender<PublishLogsMessage>,
    ) {
        let mut options = subscription.options.clone().unwrap_or_default();
        let follow = options.follow;
        let mut tasks = self.worker.watch_tasks();
        let mut known = HashSet::new();
        let mut streams = SelectAll::new();
        let mut waiting = VecDeque::from(self.find(subscription, &mut known).await);
        loop {
            while (follow || streams.len() < AT_ONCE)
                && let Some(context) = waiting.pop_front()
            {
                streams.extend(self.open(&context, options.clone()));
            }
            if streams.is_empty() && !follow {
                if waiting.is_empty() {
                    break;
                }
                continue;
            }
            tokio::select! {
                line = streams.next(), if !streams.is_empty() => {
                    let Some(line) = line else { continue };
                    let messages = gather(line, &mut streams);
                    let message = PublishLogsMessage {
                        subscription_id: subscription.id.clone(),
                        messages,
                        close: false,
                    };
                    if !message.messages.is_empty() && sender.send(message).await.is_err() {
                        return;
                    }
                }
                changed = tasks.changed(), if follow => {
                    if changed.is_err() {
                        break;
                    }
                    // Of a task that has just come everything is new.
                    options.tail = 0;
                    waiting.extend(self.find(subscription, &mut known).await);
                }
            }
        }
        let last = PublishLogsMessage {
            subscription_id: subscription.id.clone(),
            close: true,
            ..Default::default()
        };
        // An error means that the manager does not wait for it.
        let _ = sender.send(last).await;
    }

    /// The tasks here that are selected and were not before.
    async fn find(
        &self,
        subscription: &SubscriptionMessage,
        known: &mut HashSet<String>,
    ) -> Vec<TaskContext> {
        let (selector, node_id) = (subscription.selector.clone(), self.node_id.clone());
        let mut found = self
            .worker
            .find(move |task| {
                let selector = selector.as_ref();
                selector.is_some_and(|selector| selects(selector, &node_id, task))
            })
            .await;
        let before = std::mem::take(known);
        known.extend(found.iter().map(|context| context.task.id.clone()));
        found.retain(|context| !before.contains(&context.task.id));
        found
    }

    /// What a task wrote, if tasks write here.
    fn open(
        &self,
        context: &TaskContext,
        options: LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Line>> {
        let lines = self.executor.logs(context, options)?;
        let origin = LogContext {
            service_id: context.task.service_id.clone(),
            node_id: self.node_id.clone(),
            task_id: context.task.id.clone(),
        };
        let lines = lines.map(move |line| Some((origin.clone(), line)));
        Some(lines.chain(stream::once(async { None })).boxed())
    }
}

fn selects(selector: &LogSelector, node_id: &str, task: &v1::Task) -> bool {
    selector.task_ids.contains(&task.id)
        || selector.service_ids.contains(&task.service_id)
        || selector.node_ids.iter().any(|selected| selected == node_id)
}

/// The line and those that are there without waiting.
fn gather(first: Line, streams: &mut SelectAll<BoxStream<'static, Line>>) -> Vec<LogMessage> {
    let mut messages = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(line) = next {
        match line {
            Some((context, Ok(line))) => {
                bytes += line.data.len();
                messages.push(LogMessage {
                    context: Some(context),
                    timestamp: Some(line.timestamp),
                    stream: line.stream.into(),
                    data: line.data,
                    attrs: Vec::new(),
                });
            }
            Some((context, Err(failure))) => {
                tracing::warn!(task_id = context.task_id, %failure, "a task's log cannot be read");
            }
            // There may be room for another task.
            None => break,
        }
        if bytes >= BATCH_BYTES || messages.len() >= BATCH_LINES {
            break;
        }
        next = streams.next().now_or_never().flatten();
    }
    messages
}
