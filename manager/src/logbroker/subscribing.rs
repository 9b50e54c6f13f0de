//! What a client reads: the messages of all nodes that its selector means, and at the end what was
//! missing.
//!
//! Without `follow` the end comes when every node is through. With it the stream also looks for tasks
//! that come later; like everything here, it does so only while it is read.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_proto::v1::{
    LogSelector, SubscribeLogsMessage, SubscribeLogsRequest, SubscriptionMessage,
};
use skep_store::{Event, Subscription};
use tokio::sync::Notify;
use tonic::Status;

use super::{
    Term,
    board::MAX_SUBSCRIPTIONS,
    queue::{self, queue},
    selection::{self, select},
    stopped,
};

const INCOMPLETE: &str = "warning: incomplete log stream. some logs could not be retrieved for \
                          the following reasons: ";

struct Reading {
    guard: Guard,
    receiver: queue::Receiver,
    complete: Arc<Notify>,
    /// Tells of tasks that come later.
    later: Option<Later>,
    ended: bool,
}

struct Later {
    subscription: Subscription,
    selector: LogSelector,
}

/// Takes the subscription from the board however its stream ends.
struct Guard {
    term: Arc<Term>,
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.term.board.lock().unsubscribe(&self.id);
    }
}

/// Subscribes.
pub(super) fn stream(
    term: Arc<Term>,
    request: SubscribeLogsRequest,
) -> Result<BoxStream<'static, Result<SubscribeLogsMessage, Status>>, Status> {
    let Some(selector) = request.selector else {
        return Err(Status::invalid_argument("log selector must be provided"));
    };
    let LogSelector {
        service_ids,
        node_ids,
        task_ids,
    } = &selector;
    if service_ids.is_empty() && node_ids.is_empty() && task_ids.is_empty() {
        return Err(Status::invalid_argument("log selector must not be empty"));
    }
    // Agents count on there being options.
    let options = request.options.unwrap_or_default();
    let follow = options.follow;
    let (snapshot, later) = if follow {
        let routes = selection::routes(&term.store.snapshot(), &selector);
        let (snapshot, subscription) = term.store.watch(routes);
        let later = Later {
            subscription,
            selector: selector.clone(),
        };
        (snapshot, Some(later))
    } else {
        (term.store.snapshot(), None)
    };
    let selected = select(&snapshot, &selector, follow);
    let unscheduled = selected.unscheduled.into_iter();
    let problems = unscheduled.map(|id| format!("task {id} has not been scheduled"));
    let message = SubscriptionMessage {
        id: skep_proto::id::random(),
        selector: Some(selector),
        options: Some(options),
        close: false,
    };
    let id = message.id.clone();
    let (sender, receiver) = queue();
    let complete = Arc::new(Notify::new());
    let mut board = term.board.lock();
    if !board.subscribe(message, sender, complete.clone(), problems) {
        return Err(Status::resource_exhausted(format!(
            "{MAX_SUBSCRIPTIONS} subscriptions to logs are open; end one first"
        )));
    }
    board.add_nodes(&id, selected.nodes);
    drop(board);
    let reading = Reading {
        guard: Guard { term, id },
        receiver,
        complete,
        later,
        ended: false,
    };
    Ok(stream::unfold(reading, async |mut reading| {
        Some((reading.next().await?, reading))
    })
    .boxed())
}

impl Reading {
    async fn next(&mut self) -> Option<Result<SubscribeLogsMessage, Status>> {
        if self.ended {
            return None;
        }
        let Guard { term, id } = &self.guard;
        loop {
            let outcome = term.board.lock().outcome(id);
            if let Some(problems) = outcome {
                // What a node has sent is queued before it is through.
                if let Some(messages) = self.receiver.try_recv() {
                    return Some(Ok(SubscribeLogsMessage { messages }));
                }
                self.ended = true;
                let missing = !problems.is_empty();
                let text = || format!("{INCOMPLETE}{}", problems.join(", "));
                return missing.then(|| Err(Status::unknown(text())));
            }
            tokio::select! {
                biased;
                () = term.ending.cancelled() => {
                    self.ended = true;
                    return Some(Err(stopped()));
                }
                nodes = later(&mut self.later) => term.board.lock().add_nodes(id, nodes),
                Some(messages) = self.receiver.recv() => {
                    return Some(Ok(SubscribeLogsMessage { messages }));
                }
                () = self.complete.notified() => {}
            }
        }
    }
}

/// Nodes that tasks have come to. Never, if nobody wants to know.
async fn later(later: &mut Option<Later>) -> BTreeSet<String> {
    let Some(later) = later else {
        return std::future::pending().await;
    };
    match later.subscription.next().await {
        Event::Commits(commits) => {
            selection::arrived(commits.iter().map(AsRef::as_ref), &later.selector)
        }
        Event::Lagged(snapshot) => select(&snapshot, &later.selector, true).nodes,
    }
}
