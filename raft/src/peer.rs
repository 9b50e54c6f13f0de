//! The way to one peer: a bounded queue, a lasting connection, one call a message.
//!
//! While entries are under way, the appends behind them are merged, so a slow peer gets fewer and
//! larger messages. A peer that does not answer costs nobody else anything.

mod lanes;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use parking_lot::Mutex;
use skep_proto::v1::{
    StreamRaftMessageRequest, raft_client::RaftClient, raft_member_status::Reachability,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, transport::Channel};

use self::lanes::Lanes;
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
    let client = RaftClient::new(channel);
    // The owner may be gone; then this task is about to be aborted.
    let tell = |event| async { events.send(event).await.unwrap_or_default() };
    let mut pause = MIN_PAUSE;
    loop {
        let mut lanes = Lanes::default();
        let mut flying = FuturesUnordered::new();
        let mut snapshots = 0;
        let error = loop {
            while let Some(message) = lanes.next(Instant::now()) {
                flying.push(fly(client.clone(), message));
            }
            let held = lanes.held();
            tokio::select! {
                biased;
                Some((kind, result)) = flying.next(), if !flying.is_empty() => {
                    if let Err(status) = result {
                        break status;
                    }
                    lanes.landed(kind.heavy);
                    pause = MIN_PAUSE;
                    if kind.snapshot {
                        snapshots -= 1;
                        tell(PeerEvent::Snapshot { to: id, delivered: true }).await;
                    }
                    if health.set(true) {
                        tell(PeerEvent::Health).await;
                    }
                }
                message = queue.recv(), if lanes.has_room() => match message {
                    Some(message) => {
                        snapshots += usize::from(is_snapshot(&message));
                        lanes.push(message, Instant::now());
                    }
                    None => return,
                },
                () = sleep_until(held.unwrap_or_else(Instant::now)), if held.is_some() => {}
            }
        };
        tracing::debug!(peer = format_args!("{id:x}"), %error, "raft message not delivered");
        if health.set(false) {
            tell(PeerEvent::Health).await;
        }
        if error.code() == Code::NotFound && error.message() == REMOVED {
            tell(PeerEvent::Removed).await;
        }
        // What waits or is under way is given up too: it is outdated when the peer is back, and
        // after a loss the replica starts with a probe.
        drop((flying, lanes));
        tell(PeerEvent::Unreachable(id)).await;
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        while let Ok(message) = queue.try_recv() {
            snapshots += usize::from(is_snapshot(&message));
        }
        if snapshots > 0 {
            let delivered = false;
            tell(PeerEvent::Snapshot { to: id, delivered }).await;
        }
    }
}

/// What has to be known of a message when it has arrived.
struct Kind {
    heavy: bool,
    snapshot: bool,
}

fn is_snapshot(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot
}

/// Delivers a message and tells what it was.
fn fly(
    mut client: RaftClient<Channel>,
    message: Message,
) -> BoxFuture<'static, (Kind, Result<(), Status>)> {
    let kind = Kind {
        heavy: lanes::is_heavy(&message),
        snapshot: is_snapshot(&message),
    };
    Box::pin(async move { (kind, deliver(&mut client, message).await) })
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
