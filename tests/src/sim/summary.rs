//! What runs were like, to see that they did something.

use std::fmt;

/// What a run that kept all rules was like, or several together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Hash of all that happened.
    pub trace: u64,
    /// Events.
    pub steps: u64,
    /// Virtual time in milliseconds.
    pub virtual_ms: u64,
    /// Committed entries.
    pub entries: u64,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Operations that were refused for good.
    pub refused: u64,
    /// Operations that may have happened or not.
    pub unknown: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Times that a member was started.
    pub starts: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Snapshots that members have taken of themselves, and that they got from leaders.
    pub snapshots: [u64; 2],
    /// Watchers that were told that they lag.
    pub lagged: u64,
    /// Changes of a log's key.
    pub keys: u64,
    /// Members that ended because they were asked to, and those of them that had handed over.
    pub stops: [u64; 2],
    /// Times that a leader whose disk stalls has asked another member to lead.
    pub gave_way: u64,
}

impl Summary {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.steps += other.steps;
        self.virtual_ms += other.virtual_ms;
        self.entries += other.entries;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.starts += other.starts;
        self.leaders += other.leaders;
        for (sum, more) in self.snapshots.iter_mut().zip(other.snapshots) {
            *sum += more;
        }
        self.lagged += other.lagged;
        self.keys += other.keys;
        self.gave_way += other.gave_way;
        for (sum, more) in self.stops.iter_mut().zip(other.stops) {
            *sum += more;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [taken, restored] = self.snapshots;
        let [stops, handed_over] = self.stops;
        write!(
            f,
            "{} virtual seconds, {} events, {} entries, {} operations acknowledged, {} refused, {} \
             unknown, {} reads, {} starts, {} leaders, {taken} snapshots taken, {restored} restored, {} \
             watchers lagged, {} keys changed, {stops} stops, {handed_over} handed over, {} gave way",
            self.virtual_ms / 1000,
            self.steps,
            self.entries,
            self.acknowledged,
            self.refused,
            self.unknown,
            self.reads,
            self.starts,
            self.leaders,
            self.lagged,
            self.keys,
            self.gave_way,
        )
    }
}
