//! `docker.swarmkit.v1.Watch`: every manager tells what is committed, from its own copy of the store.
//!
//! A watch is bounded in what it may hold for a client that does not read, and managers in how many
//! watches they serve. Objects come as they are stored, secrets with their data: only managers and who
//! may open the control socket get here.

mod condition;
mod feed;
mod matcher;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use skep_proto::v1::{WatchRequest, watch_server};
use skep_raft::Reader;
use skep_store::{Entry, Route, Store};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub use feed::Messages;
use feed::{Begin, Feed, stopping};
use matcher::Matcher;

/// Watches that one manager serves at a time. Docker engines have one each, of their own manager.
const MAX_WATCHES: usize = 256;

/// How long a client that has seen more than this manager waits for it to catch up.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How often it is looked whether it has. Entries that change nothing wake nobody.
const LOOK: Duration = Duration::from_millis(100);

/// Committed entries of the log.
pub trait History: Send + Sync {
    /// See [`Reader::entries_after`].
    fn entries_after(
        &self,
        after: u64,
        through: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, skep_raft::Error>>;
}

impl History for Reader {
    fn entries_after(
        &self,
        after: u64,
        through: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, skep_raft::Error>> {
        Box::pin(Reader::entries_after(self, after, through))
    }
}

/// The server of `docker.swarmkit.v1.Watch`. Clones share everything.
#[derive(Clone)]
pub struct Watch {
    store: Store,
    history: Arc<dyn History>,
    places: Arc<Semaphore>,
    catch_up: Duration,
    cancel: CancellationToken,
}

impl Watch {
    /// A server on `store`, which `history` has led to. All watches end with `cancel`.
    pub fn new(store: Store, history: impl History + 'static, cancel: CancellationToken) -> Self {
        Self {
            store,
            history: Arc::new(history),
            places: Arc::new(Semaphore::new(MAX_WATCHES)),
            catch_up: CATCH_UP,
            cancel,
        }
    }

    /// Makes sure that a watch can begin after this version: the store has reached it, which the one
    /// of a manager that lags behind may not have, and the log still has what follows.
    async fn check(&self, version: u64) -> Result<(), Status> {
        if self.store.snapshot().index() < version {
            let (_, mut news) = self.store.watch([Route::All]);
            let reached = async {
                while self.store.snapshot().index() < version {
                    // Either outcome means: look.
                    let _ = timeout(LOOK, news.next()).await;
                }
            };
            let reached = tokio::select! {
                () = self.cancel.cancelled() => return Err(stopping()),
                reached = timeout(self.catch_up, reached) => reached,
            };
            reached.map_err(|_| {
                Status::unknown(format!(
                    "versions are out of order: the log of this manager ends at {}; list the objects \
                     anew",
                    self.store.snapshot().index()
                ))
            })?;
        }
        let following = self.history.entries_after(version, version).await;
        following.map_err(|error| unreadable(&error))?;
        Ok(())
    }
}

/// The log cannot be read; SwarmKit's clients see such errors without a code.
fn unreadable(error: &skep_raft::Error) -> Status {
    match error {
        skep_raft::Error::Stopped => stopping(),
        error => Status::unknown(error.to_string()),
    }
}

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = Messages;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Messages>, Status> {
        let request = request.into_inner();
        let version = request.resume_from.map(|version| version.index);
        let matcher = Matcher::new(request);
        let matcher = matcher.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "this manager serves {MAX_WATCHES} watches already; watch at another one"
            ))
        })?;
        let begin = match version {
            Some(version) => {
                self.check(version).await?;
                Begin::After(version)
            }
            None => Begin::Now(self.store.watch(matcher.routes()).1),
        };
        let feed = Feed {
            store: self.store.clone(),
            history: self.history.clone(),
            matcher,
            cancel: self.cancel.clone(),
        };
        Ok(Response::new(feed.begin(begin, place)))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
