//! Which message to a peer goes next.
//!
//! Calls overtake each other on the way, and a peer refuses entries whose predecessors it does not
//! have yet. So entries and snapshots go one at a time; behind them appends wait, and are merged
//! meanwhile. An append without entries, by which a peer learns of a commit, waits a moment for the
//! next entries: alone it would double the calls of a cluster with few writers. Everything else (heartbeats, votes, answers) does no harm out of order and does not wait
//! for them.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::codec::{self, Message, MessageType};

/// Messages under way to a peer at a time.
const MAX_FLYING: usize = 16;
/// Messages that wait here. As many as the replica sends entries without an answer.
const MAX_WAITING: usize = 256;
/// Appends are merged while they are smaller than this, in bytes. With one more of the usual size, or
/// with a single entry of the largest size, they stay below the 4 MiB of gRPC.
const MERGE_BYTES: usize = 1024 * 1024;

/// How long news of a commit wait for entries to travel with. A peer applies what is committed so much
/// later when there are no more writes; nobody waits for that.
const COMMIT_DELAY: Duration = Duration::from_millis(5);

/// The messages to one peer that wait or are under way.
#[derive(Default)]
pub(super) struct Lanes {
    /// Appends and snapshots, in order.
    ordered: VecDeque<Message>,
    others: VecDeque<Message>,
    flying: usize,
    /// Whether entries or a snapshot are under way.
    heavy: bool,
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

    /// When [`Self::next`] will give something although nothing else happens. `None` if it gives it
    /// now, or if it waits for what is under way.
    pub(super) fn held(&self) -> Option<Instant> {
        let blocked = self.heavy || self.flying == MAX_FLYING;
        let alone = self.ordered.len() == 1 && !self.ordered.iter().any(is_heavy);
        self.held.filter(|_| alone && !blocked)
    }

    /// The next message to send, which is under way from now on until it has
    /// [landed](Self::landed).
    pub(super) fn next(&mut self, now: Instant) -> Option<Message> {
        if self.flying == MAX_FLYING {
            return None;
        }
        let message = match self.others.pop_front() {
            Some(message) => message,
            None if self.heavy || self.held().is_some_and(|held| now < held) => return None,
            None => {
                self.held = None;
                self.ordered.pop_front()?
            }
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
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(append(0, 1, 10), now);
        assert_eq!(lanes.next(now), Some(append(0, 1, 10)));
        lanes.push(append(1, 1, 10), now);
        lanes.push(append(2, 2, 10), now);
        assert_eq!(lanes.next(now), None);
        lanes.landed(true);
        assert_eq!(lanes.next(now), Some(append(1, 3, 10)));
    }

    #[test]
    fn what_is_not_ordered_overtakes_a_snapshot() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(message(MessageType::MsgSnapshot), now);
        assert!(lanes.next(now).is_some());
        lanes.push(append(9, 1, 10), now);
        lanes.push(message(MessageType::MsgHeartbeat), now);
        assert_eq!(lanes.next(now), Some(message(MessageType::MsgHeartbeat)));
        assert_eq!(lanes.next(now), None);
        lanes.landed(false);
        assert_eq!(lanes.next(now), None);
        lanes.landed(true);
        assert_eq!(lanes.next(now), Some(append(9, 1, 10)));
    }

    #[test]
    fn an_append_without_entries_waits_a_moment_and_holds_up_nothing() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(append(5, 0, 0), now);
        assert_eq!(lanes.next(now), None);
        let later = lanes.held().unwrap();
        assert!(later > now && lanes.next(later).is_some());
        assert_eq!(lanes.held(), None);
        lanes.push(append(5, 1, 10), now);
        assert!(lanes.next(now).is_some());
    }

    #[test]
    fn news_of_a_commit_travel_with_the_next_entries() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mut news = append(5, 0, 0);
        news.commit = 5;
        lanes.push(news, now);
        lanes.push(append(5, 1, 10), now);
        let mut both = append(5, 1, 10);
        both.commit = 5;
        assert_eq!((lanes.held(), lanes.next(now)), (None, Some(both)));
        // While entries are under way there is no need to look at the clock.
        lanes.push(append(6, 0, 0), now);
        assert_eq!((lanes.held(), lanes.next(now)), (None, None));
        lanes.landed(true);
        assert!(lanes.held().is_some());
        // What cannot be merged does not wait.
        lanes.push(append(9, 1, 10), now);
        assert_eq!(lanes.next(now), Some(append(6, 0, 0)));
    }

    #[test]
    fn merged_appends_fit_in_a_call_and_numbers_are_bounded() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for i in 0..8 {
            lanes.push(append(i, 1, 512 * 1024), now);
        }
        lanes.push(append(8, 1, 1536 * 1024), now);
        while let Some(next) = lanes.next(now) {
            assert!(codec::size(&next) < 4 * 1024 * 1024);
            lanes.landed(is_heavy(&next));
        }
        for _ in 0..MAX_FLYING {
            lanes.push(message(MessageType::MsgHeartbeat), now);
            assert!(lanes.next(now).is_some());
        }
        while lanes.has_room() {
            lanes.push(message(MessageType::MsgHeartbeat), now);
        }
        assert_eq!(lanes.next(now), None);
        assert_eq!(lanes.others.len(), MAX_WAITING);
    }
}
