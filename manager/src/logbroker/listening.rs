//! Tells a node which subscriptions concern it, and when they are over.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_proto::v1::SubscriptionMessage;
use tokio::sync::Notify;
use tonic::Status;

use super::{Term, stopped};

struct Listening {
    guard: Guard,
    wake: Arc<Notify>,
    /// What the node serves, as far as it was told.
    told: BTreeMap<String, Arc<SubscriptionMessage>>,
    ended: bool,
}

/// Takes the stream from the board however it ends.
struct Guard {
    term: Arc<Term>,
    node_id: String,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut board = self.term.board.lock();
        board.unlisten(&self.node_id, self.number);
    }
}

/// The subscriptions of a node, from now on until the term ends.
pub(super) fn stream(
    term: Arc<Term>,
    node_id: String,
) -> BoxStream<'static, Result<SubscriptionMessage, Status>> {
    let wake = Arc::new(Notify::new());
    let number = term.board.lock().listen(&node_id, wake.clone());
    let listening = Listening {
        guard: Guard {
            term,
            node_id,
            number,
        },
        wake,
        told: BTreeMap::new(),
        ended: false,
    };
    stream::unfold(listening, async |mut listening| {
        Some((listening.next().await?, listening))
    })
    .boxed()
}

impl Listening {
    async fn next(&mut self) -> Option<Result<SubscriptionMessage, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if !self.guard.term.ending.is_cancelled()
                && let Some(message) = self.news()
            {
                return Some(Ok(message));
            }
            tokio::select! {
                biased;
                () = self.guard.term.ending.cancelled() => {
                    self.ended = true;
                    return Some(Err(stopped()));
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// One thing that the node does not know yet.
    fn news(&mut self) -> Option<SubscriptionMessage> {
        let board = self.guard.term.board.lock();
        let over = self.told.keys().find(|id| !board.is_open(id)).cloned();
        if let Some(message) = over.and_then(|id| self.told.remove(&id)) {
            return Some(SubscriptionMessage {
                close: true,
                ..SubscriptionMessage::clone(&message)
            });
        }
        let message = board
            .wanted(&self.guard.node_id)
            .find(|message| !self.told.contains_key(&message.id))?;
        self.told.insert(message.id.clone(), message.clone());
        Some(SubscriptionMessage::clone(message))
    }
}
