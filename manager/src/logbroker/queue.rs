//! The way of messages from publishers to one client: bounded in bytes, whatever their number.
//!
//! A full queue makes publishers wait, and the flow control of their streams carries that back to
//! the node. Nothing is dropped: a client that pauses goes on where it was.

use std::sync::Arc;

use prost::Message as _;
use skep_proto::v1::LogMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that wait for a client. One batch larger than that goes through alone.
const BYTES: u32 = 1024 * 1024;

/// Batches that wait; bytes are what bounds.
const BATCHES: usize = 1024;

/// What a message costs in memory beside its contents, roughly: floods may be of empty ones.
const OVERHEAD: usize = 256;

/// Contents from which on a message to the client takes no further batch.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The publishers' end.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    room: Arc<Semaphore>,
    batches: mpsc::Sender<Batch>,
}

/// The client's end.
#[derive(Debug)]
pub(super) struct Receiver {
    batches: mpsc::Receiver<Batch>,
}

#[derive(Debug)]
struct Batch {
    messages: Vec<LogMessage>,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// The client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let room = Arc::new(Semaphore::new(BYTES as usize));
    (
        Sender {
            room,
            batches: sender,
        },
        Receiver { batches },
    )
}

impl Sender {
    /// Waits for room and queues.
    pub async fn send(&self, messages: Vec<LogMessage>) -> Result<(), Closed> {
        let bytes: usize = messages
            .iter()
            .map(|message| message.encoded_len() + OVERHEAD)
            .sum();
        let needed = u32::try_from(bytes).unwrap_or(BYTES).min(BYTES);
        let room = tokio::select! {
            room = self.room.clone().acquire_many_owned(needed) => room.map_err(|_| Closed)?,
            () = self.closed() => return Err(Closed),
        };
        let batch = Batch {
            messages,
            bytes,
            _room: room,
        };
        self.batches.send(batch).await.map_err(|_| Closed)
    }

    /// Waits until the client has gone.
    pub async fn closed(&self) {
        self.batches.closed().await;
    }
}

impl Receiver {
    /// Waits for messages; those that are there come together. `None` when nobody can send any.
    pub async fn recv(&mut self) -> Option<Vec<LogMessage>> {
        let first = self.batches.recv().await?;
        Some(self.gather(first))
    }

    /// The messages that are there.
    pub fn try_recv(&mut self) -> Option<Vec<LogMessage>> {
        let first = self.batches.try_recv().ok()?;
        Some(self.gather(first))
    }

    fn gather(&mut self, first: Batch) -> Vec<LogMessage> {
        let Batch {
            mut messages,
            mut bytes,
            ..
        } = first;
        while bytes < MESSAGE_BYTES
            && let Ok(next) = self.batches.try_recv()
        {
            messages.extend(next.messages);
            bytes += next.bytes;
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn message(bytes: usize) -> LogMessage {
        LogMessage {
            data: vec![0; bytes].into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_full_queue_makes_publishers_wait_and_loses_nothing() {
        let (sender, mut receiver) = queue();
        let mut sent = 0;
        // Or tokio makes it wait for others' sake.
        let send = || tokio::task::unconstrained(sender.send(vec![message(10_000)]));
        while send().now_or_never() == Some(Ok(())) {
            sent += 1;
            assert!(sent < 1000, "nothing bounds it");
        }
        assert!((90..=105).contains(&sent), "{sent} of 10 KB");
        let mut received = 0;
        while let Some(messages) = receiver.try_recv() {
            let bytes: usize = messages.iter().map(|message| message.data.len()).sum();
            assert!(bytes < MESSAGE_BYTES + 20_000, "{bytes}");
            received += messages.len();
        }
        assert_eq!(received, sent);
        let huge = sender
            .send(vec![message(BYTES as usize * 2)])
            .now_or_never();
        assert_eq!(huge, Some(Ok(())), "alone it goes through");
    }

    #[tokio::test]
    async fn floods_of_empty_messages_are_bounded_too() {
        let (sender, _receiver) = queue();
        let flood = || sender.send(vec![LogMessage::default(); 1000]);
        let sent = std::iter::repeat_with(|| flood().now_or_never())
            .take_while(Option::is_some)
            .take(100)
            .count();
        assert!(sent <= 4, "{sent}");
    }

    #[tokio::test]
    async fn a_publisher_that_waits_hears_that_the_client_has_gone() {
        let (sender, receiver) = queue();
        sender.send(vec![message(BYTES as usize)]).await.unwrap();
        let waiting = sender.send(vec![message(1)]);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(receiver);
        assert_eq!(waiting.await, Err(Closed));
    }
}
