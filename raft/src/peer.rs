//! The way to one peer: a bounded queue and a lasting connection.
//!
//! Managers of this kind take all messages but snapshots through two lasting streams (`streams`);
//! SwarmKit's take one call a message (`calls`), and that is also how snapshots travel. While a peer
//! is slow, the appends that wait for it are merged. A peer that does not answer costs nobody else
//! anything.

mod calls;
mod lanes;
mod streams;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use skep_proto::v1::raft_member_status::Reachability;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::{Code, Status, transport::Channel};

use self::lanes::Lanes;
use crate::{
    Error,
    codec::{Message, MessageType},
    log::OwnSnapshot,
};

/// Messages that may wait for a peer; SwarmKit's number. What comes on top is dropped, which the
/// consensus survives.
pub(crate) const MAX_QUEUE: usize = 4096;
/// Time for a message that is small to arrive before the peer counts as unreachable.
const WATCHDOG: Duration = Duration::from_secs(2);
/// Pause after a failed message, doubled with each.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause: half of the shortest election timeout, so that a peer that is back hears of its
/// leader in time.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// A message for a peer.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) message: Message,
    /// What goes with it if it carries a snapshot; its own is without data.
    pub(crate) snapshot: Option<OwnSnapshot>,
}

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
    queue: mpsc::Receiver<Parcel>,
    health: Arc<Health>,
    events: mpsc::Sender<PeerEvent>,
) {
    let mut courier = Courier {
        id,
        channel,
        queue,
        health,
        events,
        lanes: Lanes::default(),
        snapshots: 0,
        offered: None,
        pause: MIN_PAUSE,
    };
    while courier.wait_for_work().await {
        let end = match courier.over_streams().await {
            End::Failed(status) if status.code() == Code::Unimplemented => {
                courier.over_calls().await
            }
            end => end,
        };
        match end {
            End::Closed => return,
            End::Failed(status) => courier.lost(&status).await,
        }
    }
}

/// Why a connection is not used any more.
enum End {
    /// Nobody wants anything delivered any more.
    Closed,
    /// The peer did not take something.
    Failed(Status),
}

/// Carries messages to one peer.
struct Courier {
    id: u64,
    channel: Channel,
    queue: mpsc::Receiver<Parcel>,
    health: Arc<Health>,
    events: mpsc::Sender<PeerEvent>,
    lanes: Lanes,
    /// Snapshots that wait or are under way.
    snapshots: usize,
    /// What goes with the one that waits: the replica sends no other before it knows what became of it.
    offered: Option<OwnSnapshot>,
    /// How long to wait after the next failure.
    pause: Duration,
}

impl Courier {
    /// Waits until there is something to deliver. `false` if there will be nothing any more.
    async fn wait_for_work(&mut self) -> bool {
        match self.queue.recv().await {
            Some(parcel) => {
                self.take(parcel);
                true
            }
            None => false,
        }
    }

    fn take(&mut self, parcel: Parcel) {
        let Parcel { message, snapshot } = parcel;
        self.snapshots += usize::from(is_snapshot(&message));
        self.offered = snapshot.or(self.offered.take());
        self.lanes.push(message, Instant::now());
    }

    async fn tell(&self, event: PeerEvent) {
        // The owner may be gone; then this task is about to be aborted.
        let _ = self.events.send(event).await;
    }

    /// Something has arrived.
    async fn arrived(&mut self) {
        self.pause = MIN_PAUSE;
        if self.health.set(true) {
            self.tell(PeerEvent::Health).await;
        }
    }

    /// A snapshot has arrived.
    async fn snapshot_arrived(&mut self) {
        self.snapshots -= 1;
        let delivered = PeerEvent::Snapshot {
            to: self.id,
            delivered: true,
        };
        self.tell(delivered).await;
        self.arrived().await;
    }

    /// Something could not be delivered. What waits or is under way is given up too: it is outdated
    /// when the peer is back, and after a loss the replica starts with a probe.
    async fn lost(&mut self, error: &Status) {
        let id = self.id;
        tracing::debug!(peer = format_args!("{id:x}"), %error, "raft message not delivered");
        if self.health.set(false) {
            self.tell(PeerEvent::Health).await;
        }
        if Error::tells_removal(error) {
            self.tell(PeerEvent::Removed).await;
        }
        self.lanes = Lanes::default();
        self.offered = None;
        self.tell(PeerEvent::Unreachable(id)).await;
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        while let Ok(parcel) = self.queue.try_recv() {
            self.snapshots += usize::from(is_snapshot(&parcel.message));
        }
        if std::mem::take(&mut self.snapshots) > 0 {
            let delivered = false;
            self.tell(PeerEvent::Snapshot { to: id, delivered }).await;
        }
    }
}

fn is_snapshot(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot
}

/// Sleeps until `time`; not to be polled without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
