//! What waits for a peer, and which of it goes next.
//!
//! Appends keep their order, and while they wait they are merged. An append without entries, by which
//! a peer learns of a commit, waits a moment for the next entries: alone it would double the messages
//! of a cluster with few writers. Everything else (heartbeats, votes, answers) does no harm out of
//! order and waits for nothing.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::codec::{self, Message, MessageType};

/// Messages that wait here. As many as the replica sends entries without an answer.
const MAX_WAITING: usize = 256;
/// Appends are merged while they are smaller than this, in bytes. With one more of the usual size, or
/// with a single entry of the largest size, they stay below the 4 MiB of gRPC.
const MERGE_BYTES: usize = 1024 * 1024;

/// How long news of a commit wait for entries to travel with. A peer applies what is committed so much
/// later when there are no more writes; nobody waits for that.
const COMMIT_DELAY: Duration = Duration::from_millis(5);

/// When there is something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Not before more is [pushed](Lanes::push).
    Nothing,
    /// Now.
    Now,
    /// Then, or as soon as more is pushed.
    At(Instant),
}

/// The messages to one peer that wait.
#[derive(Default)]
pub(super) struct Lanes {
    /// Appends and snapshots, in order.
    ordered: VecDeque<Message>,
    others: VecDeque<Message>,
    /// Until when the first of `ordered` waits, if it is without entries and nothing is behind it.
    held: Option<Instant>,
}

impl Lanes {
    /// Whether another message may be [pushed](Self::push).
    pub(super) fn has_room(&self) -> bool {
        self.ordered.len() + self.others.len() < MAX_WAITING
    }

    pub(super) fn push(&mut self, message: Message, now: Instant) {
        if !is_ordered(&message) {
            self.others.push_back(message);
            return;
        }
        let message = match self.ordered.back_mut() {
            Some(last) if codec::size(last) < MERGE_BYTES => match codec::merge(last, message) {
                Ok(()) => return,
                Err(message) => *message,
            },
            _ => message,
        };
        if self.ordered.is_empty() {
            self.held = Some(now + COMMIT_DELAY);
        }
        self.ordered.push_back(message);
    }

    /// Whether [`Self::next_other`] has something.
    pub(super) fn has_other(&self) -> bool {
        !self.others.is_empty()
    }

    pub(super) fn next_other(&mut self) -> Option<Message> {
        self.others.pop_front()
    }

    /// Whether [`Self::next_ordered`] has something.
    pub(super) fn ordered(&self, now: Instant) -> Next {
        match (self.ordered.front(), self.held) {
            (None, _) => Next::Nothing,
            (Some(first), Some(held))
                if self.ordered.len() == 1 && !is_heavy(first) && now < held =>
            {
                Next::At(held)
            }
            _ => Next::Now,
        }
    }

    /// The next append or snapshot. Whether it is time is for [`Self::ordered`] to say.
    pub(super) fn next_ordered(&mut self) -> Option<Message> {
        self.held = None;
        self.ordered.pop_front()
    }
}

fn is_ordered(message: &Message) -> bool {
    matches!(
        message.msg_type,
        MessageType::MsgAppend | MessageType::MsgSnapshot
    )
}

/// Whether it carries entries or a snapshot.
pub(super) fn is_heavy(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot || !message.entries.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Entry;

    fn message(msg_type: MessageType) -> Message {
        Message {
            msg_type,
            ..Message::default()
        }
    }

    fn append(index: u64, entries: u64, bytes: usize) -> Message {
        let mut append = message(MessageType::MsgAppend);
        append.index = index;
        for i in 1..=entries {
            append.entries.push(Entry {
                index: index + i,
                data: vec![0; bytes].into(),
                ..Entry::default()
            });
        }
        append
    }

    #[test]
    fn entries_that_wait_are_merged_and_keep_their_order() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(append(0, 1, 10), now);
        lanes.push(append(1, 2, 10), now);
        lanes.push(append(9, 1, 10), now);
        assert_eq!(lanes.ordered(now), Next::Now);
        assert_eq!(lanes.next_ordered(), Some(append(0, 3, 10)));
        assert_eq!(lanes.next_ordered(), Some(append(9, 1, 10)));
        assert_eq!(lanes.ordered(now), Next::Nothing);
    }

    #[test]
    fn what_is_not_ordered_waits_for_nothing() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(message(MessageType::MsgSnapshot), now);
        lanes.push(append(9, 1, 10), now);
        lanes.push(message(MessageType::MsgHeartbeat), now);
        assert!(lanes.has_other());
        let heartbeat = message(MessageType::MsgHeartbeat);
        assert_eq!(lanes.next_other(), Some(heartbeat));
        assert!(!lanes.has_other());
        assert_eq!(
            lanes.next_ordered(),
            Some(message(MessageType::MsgSnapshot))
        );
        assert_eq!(lanes.next_ordered(), Some(append(9, 1, 10)));
    }

    #[test]
    fn news_of_a_commit_wait_a_moment_and_travel_with_the_next_entries() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mut news = append(5, 0, 0);
        news.commit = 5;
        lanes.push(news.clone(), now);
        let later = now + COMMIT_DELAY;
        assert_eq!(lanes.ordered(now), Next::At(later));
        assert_eq!(lanes.ordered(later), Next::Now);
        lanes.push(append(5, 1, 10), now);
        let mut both = append(5, 1, 10);
        both.commit = 5;
        assert_eq!(lanes.ordered(now), Next::Now);
        assert_eq!(lanes.next_ordered(), Some(both));
        // What cannot be merged does not wait.
        lanes.push(news.clone(), now);
        lanes.push(append(9, 1, 10), now);
        assert_eq!(lanes.ordered(now), Next::Now);
        assert_eq!(lanes.next_ordered(), Some(news));
    }

    #[test]
    fn merged_appends_fit_in_a_message_and_numbers_are_bounded() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for i in 0..8 {
            lanes.push(append(i, 1, 512 * 1024), now);
        }
        lanes.push(append(8, 1, 1536 * 1024), now);
        while let Some(next) = lanes.next_ordered() {
            assert!(codec::size(&next) < 4 * 1024 * 1024);
        }
        while lanes.has_room() {
            lanes.push(message(MessageType::MsgHeartbeat), now);
        }
        assert_eq!(lanes.others.len(), MAX_WAITING);
    }
}
