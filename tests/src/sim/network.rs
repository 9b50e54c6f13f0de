//! The network between the members: delays, losses, duplicates, cuts in one direction or both.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, rngs::StdRng};
use skep_raft::drive::Outgoing;

use super::plan::{MILLISECOND, Micros, Plan, SECOND};

/// Bytes a millisecond on a usual link, and on a slow one.
const BANDWIDTH: u64 = 100_000;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Directed pairs between which nothing arrives.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// By how much a directed link is slower.
    pub(super) slow: BTreeMap<(u64, u64), u64>,
    /// When the last message of a pair arrives.
    latest: BTreeMap<(u64, u64), Micros>,
    /// Nothing is lost any more.
    pub(super) healed: bool,
}

impl Network {
    /// When copies of a message arrive; never, if there is none.
    pub(super) fn arrivals(
        &mut self,
        rng: &mut StdRng,
        plan: &Plan,
        now: Micros,
        link: (u64, u64),
        message: &Outgoing,
    ) -> Vec<Micros> {
        if self.cut.contains(&link) || (!self.healed && rng.random_bool(plan.lost)) {
            return Vec::new();
        }
        let doubled = !self.healed && rng.random_bool(plan.doubled);
        let factor = self.slow.get(&link).copied().unwrap_or(1);
        let mut arrivals = Vec::with_capacity(2);
        for _ in 0..1 + u32::from(doubled) {
            let travel = rng.random_range(plan.delay.clone())
                + message.bytes.len() as u64 * MILLISECOND / BANDWIDTH;
            let mut at = now + travel * factor;
            if !self.healed && rng.random_bool(plan.late) {
                at += rng.random_range(0..4 * SECOND);
            } else if !self.healed && message.kind == "vote" && rng.random_bool(plan.late_vote) {
                at += rng.random_range(plan.lateness.clone());
            } else if plan.ordered {
                let latest = self.latest.entry(link).or_default();
                at = at.max(*latest + 1);
                *latest = at;
            }
            arrivals.push(at);
        }
        arrivals
    }

    pub(super) fn mend(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }
}
