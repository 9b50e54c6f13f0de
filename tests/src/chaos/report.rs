//! What came of a run.

use std::{sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use super::{Options, client::Tally, ledger::Fault};

/// How many of the things that were found are told in words.
const TOLD: usize = 20;

/// What went wrong on purpose, and what did by itself.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub kills: u64,
    pub stops: u64,
    pub partitions: u64,
    pub slowed: u64,
    pub broken: u64,
    /// What should not have happened, in words.
    pub wrong: Vec<String>,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    managers: u8,
    clients: u64,
    seconds: u64,
    seed: u64,
    /// Acknowledged writes.
    writes: u64,
    /// Calls that were refused for good.
    refused: u64,
    /// Calls of which nobody knows whether they were carried out.
    unknown: u64,
    /// Reads that were answered.
    reads: u64,
    /// Acknowledged writes that are not there.
    lost: usize,
    /// Writes that were refused and are there; objects that were removed and are back.
    resurrected: usize,
    /// Writes that were carried out twice or should not have been accepted.
    doubled: usize,
    /// Reads that did not see an earlier acknowledged write.
    stale: usize,
    /// Versions that did not grow.
    versions: usize,
    /// Managers that ended by themselves, did not come back, or do not hold the same.
    broken_managers: usize,
    kills: u64,
    stops: u64,
    partitions: u64,
    slowed: u64,
    broken: u64,
    /// Longest time without an acknowledged write.
    longest_gap_ms: u64,
    /// From the start of all managers, after all were killed, until they are level.
    recovery_ms: u64,
    /// What was found, in words; not more than twenty.
    found: Vec<String>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        seed: u64,
        tally: &Tally,
        counts: &Counts,
        (longest_gap, recovery): (Duration, Duration),
        (found, wrong): (Vec<(Fault, String)>, Vec<String>),
    ) -> Self {
        let of = |kind: Fault| found.iter().filter(|(fault, _)| *fault == kind).count();
        let told = wrong.iter().cloned();
        let told = told.chain(
            found
                .iter()
                .map(|(fault, text)| format!("{fault:?}: {text}")),
        );
        Self {
            managers: options.managers,
            clients: options.clients,
            seconds: options.seconds,
            seed,
            writes: tally.writes.load(Ordering::Relaxed),
            refused: tally.refused.load(Ordering::Relaxed),
            unknown: tally.unknown.load(Ordering::Relaxed),
            reads: tally.reads.load(Ordering::Relaxed),
            lost: of(Fault::Lost),
            resurrected: of(Fault::Resurrected),
            doubled: of(Fault::Doubled),
            stale: of(Fault::Stale),
            versions: of(Fault::Version),
            broken_managers: wrong.len(),
            kills: counts.kills,
            stops: counts.stops,
            partitions: counts.partitions,
            slowed: counts.slowed,
            broken: counts.broken,
            longest_gap_ms: longest_gap.as_millis() as u64,
            recovery_ms: recovery.as_millis() as u64,
            found: told.take(TOLD).collect(),
        }
    }

    /// Whether all is as it must be. A run in which nothing was written shows nothing.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty() && self.writes > 0
    }
}
