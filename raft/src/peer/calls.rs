//! One call a message: the way of SwarmKit's managers, and of every snapshot.
//!
//! Calls overtake each other on the way, and a peer refuses entries whose predecessors it does not
//! have yet. So appends with entries and snapshots go one at a time.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use skep_proto::v1::{StreamRaftMessageRequest, raft_client::RaftClient};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{
    Courier, End, WATCHDOG, at, is_snapshot,
    lanes::{self, Next},
};
use crate::{
    codec::{self, Message},
    log::OwnSnapshot,
};

/// Pieces of a snapshot that are made before the connection takes them.
const MAX_PIECES: usize = 4;
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
                let offered = match is_snapshot(&message) {
                    true => self.offered.take(),
                    false => None,
                };
                flying.push(fly(self.channel.clone(), message, offered));
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
                    Some(parcel) => self.take(parcel),
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
fn fly(
    channel: Channel,
    message: Message,
    offered: Option<OwnSnapshot>,
) -> BoxFuture<'static, (Kind, Result<(), Status>)> {
    let kind = Kind {
        heavy: lanes::is_heavy(&message),
        snapshot: is_snapshot(&message),
    };
    Box::pin(async move { (kind, deliver(channel, message, offered).await) })
}

/// Sends one message as one stream, with what it stands for if it is a snapshot. Each piece restarts the
/// watchdog.
pub(super) async fn deliver(
    channel: Channel,
    message: Message,
    offered: Option<OwnSnapshot>,
) -> Result<(), Status> {
    let patience = match is_snapshot(&message) {
        true => SNAPSHOT_WATCHDOG,
        false => WATCHDOG,
    };
    let (put, pieces) = mpsc::channel(MAX_PIECES);
    if is_snapshot(&message) {
        let index = message.get_snapshot().get_metadata().index;
        let Some(offered) = offered.filter(|offered| offered.index() == index) else {
            return Err(Status::aborted("the snapshot has been replaced"));
        };
        // Ends at the latest when nobody takes the pieces any more. Were it to end early, what has arrived
        // would be no snapshot: that says how long it is.
        tokio::task::spawn_blocking(move || {
            codec::cut(message, &offered, |piece| {
                let gone = |_| io::ErrorKind::BrokenPipe.into();
                put.blocking_send(piece).map_err(gone)
            })
        });
    } else {
        let message = codec::encode(&message);
        let message = message.map_err(|error| Status::internal(error.to_string()))?;
        let full = |_| Status::internal("there is no room for a message");
        put.try_send(message.into()).map_err(full)?;
        drop(put);
    }
    let (sent, mut progress) = watch::channel(());
    let pieces = ReceiverStream::new(pieces).map(move |message: Bytes| {
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
