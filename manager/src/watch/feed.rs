//! What fills the stream of one watch: first what it missed, from the log, then what is committed.
//!
//! What a client has not read yet is held here in messages, up to a limit. The feed itself never
//! waits for a client while it follows the store, so the store holds nothing for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use prost::Message as _;
use skep_proto::v1::WatchMessage;
use skep_store::{Event, Store, Subscription};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;

use super::{History, matcher::Matcher, unreadable};

/// Messages that wait for a client, in bytes; a larger one waits alone.
const MAX_WAITING_BYTES: u32 = 4 * 1024 * 1024;

/// A message on its way, and the part of the limit that it takes up.
type Item = (Result<WatchMessage, Status>, Option<OwnedSemaphorePermit>);

/// One watch. Dropping it ends it.
#[derive(Debug)]
pub struct Messages {
    waiting: mpsc::UnboundedReceiver<Item>,
    _feeding: AbortOnDropHandle<()>,
    _place: OwnedSemaphorePermit,
}

impl Stream for Messages {
    type Item = Result<WatchMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The place in the queue is given up as soon as the message is taken.
        let next = self.waiting.poll_recv(cx);
        next.map(|item| item.map(|(message, _)| message))
    }
}

pub(super) struct Feed {
    pub(super) store: Store,
    pub(super) history: Arc<dyn History>,
    pub(super) matcher: Matcher,
    pub(super) cancel: CancellationToken,
}

/// Where a watch begins.
pub(super) enum Begin {
    /// With what comes next in this subscription.
    Now(Subscription),
    /// Right after this index of the log, which the store has reached.
    After(u64),
}

impl Feed {
    /// Begins to fill a stream.
    pub(super) fn begin(self, begin: Begin, place: OwnedSemaphorePermit) -> Messages {
        // Bounded by the bytes that may wait.
        let (sender, waiting) = mpsc::unbounded_channel();
        let queue = Queue {
            sender,
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize)),
        };
        let feeding = async move {
            // Says that the watch is in place.
            let _ = queue.sender.send((Ok(WatchMessage::default()), None));
            let cancel = self.cancel.clone();
            let feed = async {
                let live = match begin {
                    Begin::Now(live) => live,
                    Begin::After(index) => self.replay(index, &queue).await?,
                };
                self.follow(live, &queue).await
            };
            let end = tokio::select! {
                () = cancel.cancelled() => stopping(),
                Err(end) = feed => end,
            };
            // Who watched may have gone away.
            let _ = queue.sender.send((Err(end), None));
        };
        Messages {
            waiting,
            _feeding: AbortOnDropHandle::new(tokio::spawn(feeding)),
            _place: place,
        }
    }

    /// Sends what the log has after index `after`, as fast as the client reads, and returns what
    /// comes next. What is compacted meanwhile is an error and never left out.
    async fn replay(&self, mut after: u64, queue: &Queue) -> Result<Subscription, Status> {
        loop {
            // The log is read up to the snapshot and the subscription begins right after it.
            let (snapshot, live) = self.store.watch(self.matcher.routes());
            let through = snapshot.index();
            let entries = self.history.entries_after(after, through).await;
            let entries = entries.map_err(|error| unreadable(&error))?;
            after = entries.last().map_or(after, |entry| entry.index);
            // Commits would pile up in it while the client reads what is older.
            let live = Some(live).filter(|_| after >= through);
            for entry in &entries {
                let messages = self.matcher.replayed(entry);
                for message in messages.map_err(|error| Status::internal(error.to_string()))? {
                    queue.send_when_there_is_room(message).await;
                }
            }
            match live {
                Some(live) => return Ok(live),
                None if entries.is_empty() => {
                    return Err(Status::internal("the log ends before the store does"));
                }
                None => {}
            }
        }
    }

    /// Sends what is committed. Returns only with an error.
    async fn follow(&self, mut live: Subscription, queue: &Queue) -> Result<(), Status> {
        loop {
            let Event::Commits(commits) = live.next().await else {
                return Err(too_slow());
            };
            for (index, changes) in commits.iter().flat_map(|commit| commit.entries()) {
                for message in self.matcher.live(index, changes) {
                    queue.send(message)?;
                }
            }
        }
    }
}

struct Queue {
    sender: mpsc::UnboundedSender<Item>,
    /// As many permits as bytes may wait.
    room: Arc<Semaphore>,
}

impl Queue {
    fn send(&self, message: WatchMessage) -> Result<(), Status> {
        let room = self.room.clone().try_acquire_many_owned(size(&message));
        let room = room.map_err(|_| too_slow())?;
        // Who watched may have gone away; then the feed is about to end.
        let _ = self.sender.send((Ok(message), Some(room)));
        Ok(())
    }

    async fn send_when_there_is_room(&self, message: WatchMessage) {
        let room = self.room.clone().acquire_many_owned(size(&message)).await;
        let room = room.expect("nobody closes the semaphore");
        let _ = self.sender.send((Ok(message), Some(room)));
    }
}

fn size(message: &WatchMessage) -> u32 {
    let size = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    size.min(MAX_WAITING_BYTES)
}

pub(super) fn stopping() -> Status {
    Status::unavailable("the manager is stopping; watch at another one")
}

fn too_slow() -> Status {
    Status::resource_exhausted(
        "the watch is not read fast enough and was ended; resume from the last version received, or \
         list the objects anew",
    )
}
