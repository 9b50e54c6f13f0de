//! One call a message: the way of SwarmKit's managers, and of every snapshot.
//!
//! Calls overtake each other on the way, and a peer refuses entries whose predecessors it does not
//! have yet. So appends with entries and snapshots go one at a time.

use std::{pin::pin, time::Duration};

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use skep_proto::v1::{StreamRaftMessageRequest, raft_client::RaftClient};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{Status, transport::Channel};

use super::{
    Courier, End, WATCHDOG, at, is_snapshot,
    lanes::{self, Next},
};
use crate::codec::{self, Message};

/// Calls under way to a peer at a time.
const MAX_FLYING: usize = 16;
/// Time for a snapshot to be taken once all of it is sent, or between two of its pieces. Whether the
/// peer is there at all is found out sooner, by the pings of the connection.
const SNAPSHOT_WATCHDOG: Duration = Duration::from_secs(60);

impl Courier {
    /// Delivers one call a message until one fails.
    pub(super) async fn over_calls(&mut self) -> End {
        let mut flying = FuturesUnordered::new();
        // Whether entries or a snapshot are under way.
        let mut heavy = false;
        loop {
            let mut wake = None;
            while flying.len() < MAX_FLYING {
                let next = match self.lanes.next_other() {
                    None if !heavy => match self.lanes.ordered(Instant::now()) {
                        Next::At(time) => {
                            wake = Some(time);
                            None
                        }
                        Next::Now | Next::Nothing => self.lanes.next_ordered(),
                    },
                    other => other,
                };
                let Some(message) = next else {
                    break;
                };
                heavy |= lanes::is_heavy(&message);
                flying.push(fly(self.channel.clone(), message));
            }
            tokio::select! {
                biased;
                Some((kind, result)) = flying.next(), if !flying.is_empty() => {
                    if let Err(status) = result {
                        return End::Failed(status);
                    }
                    heavy &= !kind.heavy;
                    match kind.snapshot {
                        true => self.snapshot_arrived().await,
                        false => self.arrived().await,
                    }
                }
                message = self.queue.recv(), if self.lanes.has_room() => match message {
                    Some(message) => self.take(message),
                    None => return End::Closed,
                },
                () = at(wake), if wake.is_some() => {}
            }
        }
    }
}

/// What has to be known of a message when it has arrived.
struct Kind {
    heavy: bool,
    snapshot: bool,
}

/// Delivers a message and tells what it was.
fn fly(channel: Channel, message: Message) -> BoxFuture<'static, (Kind, Result<(), Status>)> {
    let kind = Kind {
        heavy: lanes::is_heavy(&message),
        snapshot: is_snapshot(&message),
    };
    Box::pin(async move { (kind, deliver(channel, message).await) })
}

/// Sends one message as one stream. Each piece restarts the watchdog.
pub(super) async fn deliver(channel: Channel, message: Message) -> Result<(), Status> {
    let patience = match is_snapshot(&message) {
        true => SNAPSHOT_WATCHDOG,
        false => WATCHDOG,
    };
    let (sent, mut progress) = watch::channel(());
    let pieces = stream::iter(codec::pieces(message)).map(move |message| {
        sent.send_replace(());
        StreamRaftMessageRequest { message }
    });
    let mut client = RaftClient::new(channel);
    let mut call = pin!(client.stream_raft_message(pieces));
    let mut sending = true;
    loop {
        tokio::select! {
            biased;
            result = &mut call => return result.map(drop),
            moved = progress.changed(), if sending => sending = moved.is_ok(),
            () = sleep(patience) => return Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}
