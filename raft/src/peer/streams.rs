//! Lasting streams: one for appends, which keep their order, and one for what must not wait behind
//! them (heartbeats, votes, answers). Snapshots go beside both, each as a call.

use std::time::Duration;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use skep_proto::skep::{RaftMessage, RaftProgress, raft_stream_client::RaftStreamClient};
use tokio::{
    sync::mpsc::{self, Permit, error::SendError},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{Courier, End, WATCHDOG, at, calls, is_snapshot, lanes::Next};
use crate::codec::{self, Message};

/// Messages that may wait in a stream. Few: in front of it appends are merged.
const MAX_QUEUED: usize = 4;
/// Time for appends, which may be large, to arrive. The other stream finds out sooner when a peer is
/// not there.
const APPEND_WATCHDOG: Duration = Duration::from_secs(10);

impl Courier {
    /// Delivers over two streams until one fails.
    pub(super) async fn over_streams(&mut self) -> End {
        let opened = tokio::try_join!(
            Pipe::open(self.channel.clone(), APPEND_WATCHDOG),
            Pipe::open(self.channel.clone(), WATCHDOG),
        );
        let ((to_appends, mut appends), (to_others, mut others)) = match opened {
            Ok(opened) => opened,
            Err(status) => return End::Failed(status),
        };
        self.arrived().await;
        let mut snapshots: FuturesUnordered<BoxFuture<'_, Result<(), Status>>> =
            FuturesUnordered::new();
        loop {
            let next = self.lanes.ordered(Instant::now());
            let wake = match next {
                Next::At(time) => Some(time),
                Next::Now | Next::Nothing => None,
            };
            // Behind a snapshot on a slow link, or while the peer puts one together, answers take long.
            // It has a watchdog of its own, and giving up the connection would be to begin it anew.
            let overdue = match snapshots.is_empty() {
                true => appends.overdue().into_iter().chain(others.overdue()).min(),
                false => None,
            };
            let done = tokio::select! {
                biased;
                progress = others.progress.message() => others.moved(progress),
                progress = appends.progress.message() => appends.moved(progress),
                Some(arrived) = snapshots.next(), if !snapshots.is_empty() => {
                    arrived.map(|()| Done::Snapshot)
                }
                permit = to_others.reserve(), if self.lanes.has_other() => {
                    let sent = put(permit, self.lanes.next_other());
                    others.sent(sent)
                }
                permit = to_appends.reserve(), if next == Next::Now => {
                    match self.lanes.next_ordered() {
                        Some(message) if is_snapshot(&message) => {
                            drop(permit);
                            let channel = self.channel.clone();
                            let offered = self.offered.take();
                            snapshots.push(Box::pin(calls::deliver(channel, message, offered)));
                            Ok(Done::Nothing)
                        }
                        append => {
                            let sent = put(permit, append);
                            appends.sent(sent)
                        }
                    }
                }
                message = self.queue.recv(), if self.lanes.has_room() => match message {
                    Some(parcel) => {
                        self.take(parcel);
                        Ok(Done::Nothing)
                    }
                    None => return End::Closed,
                },
                () = at(wake), if wake.is_some() => Ok(Done::Nothing),
                () = at(overdue), if overdue.is_some() => {
                    Err(Status::deadline_exceeded("no answer in time"))
                }
            };
            match done {
                Ok(Done::Nothing) => {}
                Ok(Done::Progress) => self.arrived().await,
                Ok(Done::Snapshot) => {
                    (appends.since, others.since) = (Instant::now(), Instant::now());
                    self.snapshot_arrived().await;
                }
                Err(status) => return End::Failed(status),
            }
        }
    }
}

/// What a turn has brought.
enum Done {
    Nothing,
    /// The peer has taken messages.
    Progress,
    /// The peer has taken a snapshot.
    Snapshot,
}

/// How far one stream is.
struct Pipe {
    progress: Streaming<RaftProgress>,
    sent: u64,
    received: u64,
    /// Since when there was no progress although something was sent.
    since: Instant,
    patience: Duration,
}

impl Pipe {
    async fn open(
        channel: Channel,
        patience: Duration,
    ) -> Result<(mpsc::Sender<RaftMessage>, Self), Status> {
        let (messages, queue) = mpsc::channel(MAX_QUEUED);
        let mut client = RaftStreamClient::new(channel);
        let opening = Box::pin(client.messages(ReceiverStream::new(queue)));
        let opened = timeout(WATCHDOG, opening).await;
        let opened = opened.map_err(|_| Status::deadline_exceeded("no answer in time"))?;
        let pipe = Self {
            progress: opened?.into_inner(),
            sent: 0,
            received: 0,
            since: Instant::now(),
            patience,
        };
        Ok((messages, pipe))
    }

    fn moved(&mut self, progress: Result<Option<RaftProgress>, Status>) -> Result<Done, Status> {
        self.received = progress?.ok_or_else(ended)?.received;
        self.since = Instant::now();
        Ok(Done::Progress)
    }

    fn sent(&mut self, sent: Result<(), Status>) -> Result<Done, Status> {
        if self.sent <= self.received {
            self.since = Instant::now();
        }
        self.sent += 1;
        sent.map(|()| Done::Nothing)
    }

    /// When to give up if there is no progress until then.
    fn overdue(&self) -> Option<Instant> {
        (self.sent > self.received).then(|| self.since + self.patience)
    }
}

fn ended() -> Status {
    Status::unavailable("the peer has ended the stream")
}

fn put(
    permit: Result<Permit<'_, RaftMessage>, SendError<()>>,
    message: Option<Message>,
) -> Result<(), Status> {
    let permit = permit.map_err(|_| ended())?;
    if let Some(message) = message {
        let message = codec::encode(&message);
        let message = message.map_err(|error| Status::internal(error.to_string()))?;
        permit.send(RaftMessage {
            message: message.into(),
        });
    }
    Ok(())
}
