//! What has happened: the last events, and a hash of all of them that tells two runs apart.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{keys::Cut, plan::Micros};

/// Events that are kept for the report of a failure.
const KEPT: usize = 60;

/// One thing that has happened to a member, or to a client if there is no member.
#[derive(Clone, Debug, Hash)]
pub(super) enum Note {
    Started {
        applied: u64,
        last: u64,
    },
    Crashed,
    Stopped(&'static str),
    Paused {
        millis: u64,
    },
    Clock {
        percent: u64,
    },
    Received {
        from: u64,
        kind: &'static str,
        bytes: usize,
    },
    Lost {
        to: u64,
        kind: &'static str,
    },
    Append {
        number: u64,
        first: u64,
        last: u64,
        snapshot: u64,
    },
    Written {
        number: u64,
    },
    Committed {
        first: u64,
        last: u64,
    },
    Restored {
        index: u64,
    },
    Snapshot {
        index: u64,
        compact: u64,
    },
    Role {
        term: u64,
        leader: u64,
        leads: bool,
    },
    StoreLeads {
        term: u64,
    },
    StoreFollows,
    Proposed {
        entries: usize,
    },
    Change {
        id: u64,
        member: u64,
        what: &'static str,
    },
    Transfer {
        to: u64,
    },
    Asked {
        client: usize,
        operation: u64,
        what: &'static str,
    },
    Answered {
        client: usize,
        operation: u64,
        index: u64,
        what: &'static str,
    },
    Cut {
        pairs: usize,
    },
    SlowLink {
        from: u64,
        to: u64,
        times: u64,
    },
    SlowDisk {
        times: u64,
    },
    DiskWillFail,
    KeyAsked {
        cut: Option<Cut>,
    },
    PowerLost,
    GivesWay,
    AskedToStop,
    Ended {
        handed_over: bool,
    },
    Watched {
        watcher: usize,
        index: u64,
    },
    Lagged {
        watcher: usize,
        index: u64,
    },
    Mended,
    Healed,
}

#[derive(Debug)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    kept: VecDeque<(Micros, u64, Note)>,
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self {
            hasher: DefaultHasher::new(),
            kept: VecDeque::with_capacity(KEPT),
            print,
        }
    }

    pub(super) fn note(&mut self, at: Micros, member: u64, note: Note) {
        (at, member, &note).hash(&mut self.hasher);
        if self.print {
            println!("{}", line(at, member, &note));
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((at, member, note));
    }

    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(super) fn last(&self) -> Vec<String> {
        let kept = self.kept.iter();
        kept.map(|(at, member, note)| line(*at, *member, note))
            .collect()
    }
}

fn line(at: Micros, member: u64, note: &Note) -> String {
    let seconds = at as f64 / 1e6;
    match member {
        0 => format!("{seconds:10.6}    {note:?}"),
        _ => format!("{seconds:10.6} {member:2} {note:?}"),
    }
}
