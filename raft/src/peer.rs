//! The way to one peer: a bounded queue, a lasting connection, one message at a time.
//!
//! While a message is under way, the appends behind it are merged, so a slow peer gets fewer and
//! larger messages. A peer that does not answer costs nobody else anything.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use skep_proto::v1::{
    StreamRaftMessageRequest, raft_client::RaftClient, raft_member_status::Reachability,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    codec::{self, Message, MessageType},
    service::REMOVED,
};

/// Messages that may wait for a peer; SwarmKit's number. What comes on top is dropped, which the
/// consensus survives.
pub(crate) const MAX_QUEUE: usize = 4096;
/// Time for a message, or a piece of a snapshot, before the peer counts as unreachable.
const WATCHDOG: Duration = Duration::from_secs(2);
/// Pause after a failed message, doubled with each.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause: half of the shortest election timeout, so that a peer that is back hears of its
/// leader in time.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// Appends are merged up to this size in bytes. With one more it stays below the 4 MiB of gRPC.
const MERGE_BYTES: usize = 1024 * 1024;

/// What a peer's task tells the owner of the replica.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// A message to it was lost.
    Unreachable(u64),
    /// A snapshot has arrived there, or has not.
    Snapshot { to: u64, delivered: bool },
    /// Some peer became reachable or unreachable.
    Health,
    /// The peer says that this member is removed.
    Removed,
    /// The address of a member that nobody had told this one of, if anyone knows it.
    Resolved { id: u64, addr: Option<String> },
}

/// Whether the last message to a peer has arrived.
#[derive(Debug, Default)]
pub(crate) struct Health {
    reachability: AtomicU8,
    /// Since when it is reachable without a break.
    since: Mutex<Option<Instant>>,
}

impl Health {
    pub(crate) fn reachability(&self) -> Reachability {
        match self.reachability.load(Ordering::Relaxed) {
            1 => Reachability::Unreachable,
            2 => Reachability::Reachable,
            _ => Reachability::Unknown,
        }
    }

    pub(crate) fn reachable_since(&self) -> Option<Instant> {
        *self.since.lock()
    }

    /// Returns whether this is news.
    fn set(&self, reachable: bool) -> bool {
        let value = if reachable { 2 } else { 1 };
        let news = self.reachability.swap(value, Ordering::Relaxed) != value;
        if news {
            *self.since.lock() = reachable.then(Instant::now);
        }
        news
    }
}

/// Delivers what is queued until the queue is closed.
pub(crate) async fn run(
    id: u64,
    channel: Channel,
    mut queue: mpsc::Receiver<Message>,
    health: Arc<Health>,
    events: mpsc::Sender<PeerEvent>,
) {
    let mut client = RaftClient::new(channel);
    let mut next = None;
    let mut pause = MIN_PAUSE;
    loop {
        let mut message = match next.take() {
            Some(message) => message,
            None => match queue.recv().await {
                Some(message) => message,
                None => return,
            },
        };
        next = merge_queued(&mut message, &mut queue);
        let snapshot = is_snapshot(&message);
        let result = Box::pin(deliver(&mut client, message)).await;
        let delivered = result.is_ok();
        // The owner may be gone; then this task is about to be aborted.
        let tell = |event| async { events.send(event).await.unwrap_or_default() };
        if snapshot {
            tell(PeerEvent::Snapshot { to: id, delivered }).await;
        }
        if health.set(delivered) {
            tell(PeerEvent::Health).await;
        }
        let Err(status) = result else {
            pause = MIN_PAUSE;
            continue;
        };
        tracing::debug!(peer = format_args!("{id:x}"), %status, "raft message not delivered");
        if status.code() == Code::NotFound && status.message() == REMOVED {
            tell(PeerEvent::Removed).await;
        }
        tell(PeerEvent::Unreachable(id)).await;
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        // What is queued is outdated now: after a loss the replica starts with a probe.
        let outdated = std::iter::from_fn(|| next.take().or_else(|| queue.try_recv().ok()));
        if outdated.filter(is_snapshot).count() > 0 {
            let delivered = false;
            tell(PeerEvent::Snapshot { to: id, delivered }).await;
        }
    }
}

fn is_snapshot(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot
}

/// Merges what can be merged into `message` and returns the first queued one that cannot.
fn merge_queued(message: &mut Message, queue: &mut mpsc::Receiver<Message>) -> Option<Message> {
    if message.msg_type != MessageType::MsgAppend {
        return None;
    }
    let mut size = codec::size(message);
    while size < MERGE_BYTES
        && let Ok(queued) = queue.try_recv()
    {
        let added = codec::size(&queued);
        if size + added > 2 * MERGE_BYTES {
            return Some(queued);
        }
        match codec::merge(message, queued) {
            Ok(()) => size += added,
            Err(queued) => return Some(*queued),
        }
    }
    None
}

/// Sends one message as one stream. Each piece restarts the watchdog.
async fn deliver(client: &mut RaftClient<Channel>, message: Message) -> Result<(), Status> {
    let (sent, mut progress) = watch::channel(());
    let pieces = stream::iter(codec::pieces(message)).map(move |message| {
        sent.send_replace(());
        StreamRaftMessageRequest { message }
    });
    let mut call = pin!(client.stream_raft_message(pieces));
    let mut sending = true;
    loop {
        tokio::select! {
            biased;
            result = &mut call => return result.map(drop),
            moved = progress.changed(), if sending => sending = moved.is_ok(),
            () = sleep(WATCHDOG) => return Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}
