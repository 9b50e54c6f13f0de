//! Which message to a peer goes next.
//!
//! Calls overtake each other on the way, and a peer refuses entries whose predecessors it does not
//! have yet. So entries and snapshots go one at a time; behind them appends wait, and are merged
//! meanwhile. Everything else (heartbeats, votes, answers) does no harm out of order and does not wait
//! for them.

use std::collections::VecDeque;

use crate::codec::{self, Message, MessageType};

/// Messages under way to a peer at a time.
const MAX_FLYING: usize = 16;
/// Messages that wait here. As many as the replica sends entries without an answer.
const MAX_WAITING: usize = 256;
/// Appends are merged while they are smaller than this, in bytes. With one more of the usual size, or
/// with a single entry of the largest size, they stay below the 4 MiB of gRPC.
const MERGE_BYTES: usize = 1024 * 1024;

/// The messages to one peer that wait or are under way.
#[derive(Default)]
pub(super) struct Lanes {
    /// Appends and snapshots, in order.
    ordered: VecDeque<Message>,
    others: VecDeque<Message>,
    flying: usize,
    /// Whether entries or a snapshot are under way.
    heavy: bool,
}

impl Lanes {
    /// Whether another message may be [pushed](Self::push).
    pub(super) fn has_room(&self) -> bool {
        self.ordered.len() + self.others.len() < MAX_WAITING
    }

    pub(super) fn push(&mut self, message: Message) {
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
        self.ordered.push_back(message);
    }

    /// The next message to send, which is under way from now on until it has
    /// [landed](Self::landed).
    pub(super) fn next(&mut self) -> Option<Message> {
        if self.flying == MAX_FLYING {
            return None;
        }
        let message = match self.others.pop_front() {
            Some(message) => message,
            None if self.heavy => return None,
            None => self.ordered.pop_front()?,
        };
        self.flying += 1;
        self.heavy |= is_heavy(&message);
        Some(message)
    }

    /// A message that was under way has arrived.
    pub(super) fn landed(&mut self, heavy: bool) {
        self.flying -= 1;
        if heavy {
            self.heavy = false;
        }
    }
}

fn is_ordered(message: &Message) -> bool {
    matches!(
        message.msg_type,
        MessageType::MsgAppend | MessageType::MsgSnapshot
    )
}

/// Whether what follows must wait until this has arrived.
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
    fn entries_wait_for_each_other_and_are_merged() {
        let mut lanes = Lanes::default();
        lanes.push(append(0, 1, 10));
        assert_eq!(lanes.next(), Some(append(0, 1, 10)));
        lanes.push(append(1, 1, 10));
        lanes.push(append(2, 2, 10));
        assert_eq!(lanes.next(), None);
        lanes.landed(true);
        assert_eq!(lanes.next(), Some(append(1, 3, 10)));
    }

    #[test]
    fn what_is_not_ordered_overtakes_a_snapshot() {
        let mut lanes = Lanes::default();
        lanes.push(message(MessageType::MsgSnapshot));
        assert!(lanes.next().is_some());
        lanes.push(append(9, 1, 10));
        lanes.push(message(MessageType::MsgHeartbeat));
        assert_eq!(lanes.next(), Some(message(MessageType::MsgHeartbeat)));
        assert_eq!(lanes.next(), None);
        lanes.landed(false);
        assert_eq!(lanes.next(), None);
        lanes.landed(true);
        assert_eq!(lanes.next(), Some(append(9, 1, 10)));
    }

    #[test]
    fn an_append_without_entries_holds_up_nothing() {
        let mut lanes = Lanes::default();
        lanes.push(append(5, 0, 0));
        assert!(lanes.next().is_some());
        lanes.push(append(5, 1, 10));
        assert!(lanes.next().is_some());
    }

    #[test]
    fn merged_appends_fit_in_a_call_and_numbers_are_bounded() {
        let mut lanes = Lanes::default();
        for i in 0..8 {
            lanes.push(append(i, 1, 512 * 1024));
        }
        lanes.push(append(8, 1, 1536 * 1024));
        while let Some(next) = lanes.next() {
            assert!(codec::size(&next) < 4 * 1024 * 1024);
            lanes.landed(is_heavy(&next));
        }
        for _ in 0..MAX_FLYING {
            lanes.push(message(MessageType::MsgHeartbeat));
            assert!(lanes.next().is_some());
        }
        while lanes.has_room() {
            lanes.push(message(MessageType::MsgHeartbeat));
        }
        assert_eq!(lanes.next(), None);
        assert_eq!(lanes.others.len(), MAX_WAITING);
    }
}
