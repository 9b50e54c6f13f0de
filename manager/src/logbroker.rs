//! The log broker: brings what tasks wrote from the nodes to whoever asks.
//!
//! A client subscribes; the nodes that have what it wants are told; each of them publishes on a
//! stream of its own. Who wants what of whom is in `board`, which is pure; messages go from a
//! publisher to its client through a bounded `queue`, so one that floods, or one that does not read,
//! holds up nobody but its partner. No task is spawned: every stream is driven by whoever reads it,
//! and dropping one anywhere leaves nothing behind.

mod board;
mod listening;
mod publishing;
mod queue;
mod selection;
mod subscribing;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use futures_util::stream::BoxStream;
use parking_lot::{Mutex, RwLock};
use skep_proto::v1::{
    ListenSubscriptionsRequest, PublishLogsMessage, PublishLogsResponse, SubscribeLogsMessage,
    SubscribeLogsRequest, SubscriptionMessage, log_broker_server, logs_server,
};
use skep_store::Store;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use self::board::Board;
pub(crate) use self::board::MAX_SUBSCRIPTIONS;
use crate::dispatcher::caller;

/// The services `Logs` and `LogBroker`. Clones share them. They refuse all calls unless this manager
/// leads ([`Self::begin`]).
#[derive(Clone)]
pub struct LogBroker {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    term: RwLock<Option<Arc<Term>>>,
}

/// What all streams of one term of leadership share.
struct Term {
    store: Store,
    board: Mutex<Board>,
    /// Cancelled at the end of the term.
    ending: CancellationToken,
}

/// A term of the broker: it ends when this is dropped, and with it all streams.
#[must_use = "the term ends when this is dropped"]
pub struct Running {
    shared: Arc<Shared>,
    ending: CancellationToken,
}

impl LogBroker {
    /// A broker that does not run yet.
    pub fn new(store: Store) -> Self {
        let shared = Shared {
            store,
            term: RwLock::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Begins a term of leadership, in the place of any other.
    pub fn begin(&self) -> Running {
        let ending = CancellationToken::new();
        let term = Term {
            store: self.shared.store.clone(),
            board: Mutex::default(),
            ending: ending.clone(),
        };
        let before = self.shared.term.write().replace(Arc::new(term));
        if let Some(before) = before {
            before.ending.cancel();
        }
        Running {
            shared: self.shared.clone(),
            ending,
        }
    }

    fn term(&self) -> Result<Arc<Term>, Status> {
        self.shared.term.read().clone().ok_or_else(stopped)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.cancel();
        let mut term = self.shared.term.write();
        if term.as_ref().is_some_and(|term| term.ending.is_cancelled()) {
            *term = None;
        }
    }
}

/// This manager does not lead, or not any more.
fn stopped() -> Status {
    Status::aborted("log broker is stopped")
}

#[async_trait]
impl logs_server::Logs for LogBroker {
    type SubscribeLogsStream = BoxStream<'static, Result<SubscribeLogsMessage, Status>>;

    async fn subscribe_logs(
        &self,
        request: Request<SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        let stream = subscribing::stream(self.term()?, request.into_inner())?;
        Ok(Response::new(stream))
    }
}

#[async_trait]
impl log_broker_server::LogBroker for LogBroker {
    type ListenSubscriptionsStream = BoxStream<'static, Result<SubscriptionMessage, Status>>;

    async fn listen_subscriptions(
        &self,
        request: Request<ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let (node_id, _) = caller(&request)?;
        Ok(Response::new(listening::stream(self.term()?, node_id)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsMessage>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let (node_id, _) = caller(&request)?;
        publishing::publish(self.term()?, node_id, request.into_inner()).await?;
        Ok(Response::new(PublishLogsResponse {}))
    }
}

impl fmt::Debug for LogBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.shared.term.read().is_some();
        f.debug_struct("LogBroker")
            .field("running", &running)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
