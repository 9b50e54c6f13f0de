//! What is going to happen, in the order of virtual time.

use std::{cmp::Ordering, collections::BinaryHeap};

use bytes::Bytes;

use super::plan::Micros;

/// Something that happens. What concerns a process names its life: if the member has crashed in the
/// meantime it is void.
#[derive(Debug)]
pub(super) enum Event {
    Tick {
        member: u64,
        life: u64,
    },
    /// The shell looks for proposals.
    Turn {
        member: u64,
        life: u64,
    },
    Message(Flight),
    Report {
        member: u64,
        life: u64,
        report: Report,
    },
    /// The disk has done what it was at.
    Written {
        member: u64,
        life: u64,
    },
    /// A snapshot is turned into bytes and lies beside the log.
    Snapshot {
        member: u64,
        life: u64,
    },
    /// A member that was asked to stop waits no longer for another leader.
    HandoverTimeout {
        member: u64,
        life: u64,
    },
    Watch {
        member: u64,
        life: u64,
        watcher: usize,
    },
    Start {
        member: u64,
    },
    /// A client does its next thing.
    Client {
        client: usize,
    },
    /// A client does not wait any longer for the answer to this operation.
    Impatience {
        client: usize,
        operation: u64,
    },
    /// Something breaks.
    Fault,
    /// A partition or a slow link ends.
    MendNetwork,
    MendDisk {
        member: u64,
    },
}

/// A message under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) from: u64,
    pub(super) from_life: u64,
    pub(super) to: u64,
    pub(super) kind: &'static str,
    pub(super) is_snapshot: bool,
    pub(super) bytes: Bytes,
}

/// What a sender learns of its messages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Report {
    Unreachable(u64),
    Snapshot {
        to: u64,
        delivered: bool,
    },
    /// The receiver says that the sender is not a member any more.
    Removed,
}

#[derive(Debug)]
struct Scheduled {
    at: Micros,
    /// Keeps the order of what happens at the same time.
    number: u64,
    event: Event,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Scheduled>,
    number: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Micros, event: Event) {
        self.number += 1;
        self.heap.push(Scheduled {
            at,
            number: self.number,
            event,
        });
    }

    pub(super) fn pop(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|next| (next.at, next.event))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
