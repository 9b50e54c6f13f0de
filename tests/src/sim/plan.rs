//! What kind of run a seed makes: how large, how fast, how bad. Drawn once, so that seeds differ more
//! than a single set of numbers would let them.

use std::ops::Range;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::mutation::Mutation;

/// Microseconds of virtual time.
pub(super) type Micros = u64;
pub(super) const MILLISECOND: Micros = 1000;
pub(super) const SECOND: Micros = 1_000_000;
/// Length of a tick, before clocks are skewed.
pub(super) const TICK: Micros = 100 * MILLISECOND;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Members before the faults begin.
    pub(super) members: usize,
    /// Between how many members the cluster shrinks and grows.
    pub(super) sizes: Range<usize>,
    pub(super) clients: usize,
    /// Time between the writes of a client.
    pub(super) think: Range<Micros>,
    /// Time of a longer rest that a client takes now and then.
    pub(super) rest: Range<Micros>,
    /// Time under faults.
    pub(super) duration: Micros,
    /// Time between two faults.
    pub(super) calm: Range<Micros>,
    /// Time a message takes.
    pub(super) delay: Range<Micros>,
    /// Whether messages of one member to another keep their order.
    pub(super) ordered: bool,
    /// Probabilities of a message to be lost, to arrive twice, to be seconds late.
    pub(super) lost: f64,
    pub(super) doubled: f64,
    pub(super) late: f64,
    /// Probability of a request for a vote to come late, and by how much.
    pub(super) late_vote: f64,
    pub(super) lateness: Range<Micros>,
    /// Ticks of silence before an election, from which each start of a member draws.
    pub(super) patience: Range<usize>,
    /// Time that a write takes on the disk.
    pub(super) sync: Range<Micros>,
    /// Jobs that may wait for the disk.
    pub(super) disk_queue: usize,
    /// Time between a proposal and the turn that takes it.
    pub(super) turn: Range<Micros>,
    pub(super) snapshot_interval: u64,
    pub(super) entries_kept: u64,
    /// Largest deviation of a clock's rate.
    pub(super) drift: f64,
    /// Probability that a member crashes right after a write, and after one of its vote alone.
    pub(super) crashes: [f64; 2],
    /// How much data objects have, in bytes.
    pub(super) data: Range<usize>,
    /// Time between two looks of a watcher.
    pub(super) watch: Range<Micros>,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        // Not the generator of the run, so that a plan can get more numbers without changing runs
        // that do not use them.
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x5eed_0f0a_91a4);
        let pick = |rng: &mut StdRng, of: &[u64]| of[rng.random_range(0..of.len())];
        let members = pick(rng, &[1, 3, 3, 3, 4, 5]) as usize;
        let delay = pick(rng, &[1, 1, 5, 40]) * MILLISECOND;
        let sync = pick(rng, &[100, 1000, 1000, 10_000, 60_000]);
        let bad_network = rng.random_bool(0.6);
        let mut plan = Self {
            members,
            sizes: rng.random_range(1..=3)..rng.random_range(4..=7),
            clients: rng.random_range(2..=12),
            think: 0..pick(rng, &[1, 5, 50, 200]) * MILLISECOND,
            rest: 0..0,
            duration: rng.random_range(8..=25) * SECOND,
            calm: 1..pick(rng, &[200, 600, 2000]) * MILLISECOND,
            delay: delay / 10 + 20..delay + 30,
            ordered: rng.random_bool(0.5),
            lost: if bad_network {
                pick(rng, &[0, 1, 5, 15]) as f64 / 100.0
            } else {
                0.0
            },
            doubled: if bad_network {
                pick(rng, &[0, 1, 5, 20]) as f64 / 100.0
            } else {
                0.0
            },
            late: if bad_network {
                pick(rng, &[0, 1, 3]) as f64 / 100.0
            } else {
                0.0
            },
            late_vote: pick(rng, &[0, 0, 30]) as f64 / 100.0,
            lateness: MILLISECOND..pick(rng, &[50, 500]) * MILLISECOND,
            patience: 10..pick(rng, &[13, 15, 15]) as usize,
            sync: sync / 4..sync + 50,
            disk_queue: pick(rng, &[1, 2, 16, 1024]) as usize,
            turn: 1..pick(rng, &[20, 500, 5000]),
            snapshot_interval: pick(rng, &[0, 5, 20, 20, 100, 500]),
            entries_kept: pick(rng, &[0, 1, 5, 20, 200]),
            drift: pick(rng, &[0, 5, 25, 60]) as f64 / 100.0,
            crashes: [[0.0, 0.0], [0.0, 0.1], [0.003, 0.3]][rng.random_range(0..3)],
            data: 0..pick(rng, &[10, 100, 100, 4000]) as usize,
            watch: 1..pick(rng, &[5, 100, 2000]) * MILLISECOND,
        };
        if rng.random_ratio(1, 24) {
            // Few faults and so many writes that watchers lag.
            plan.clients = 40;
            plan.think = 0..5 * MILLISECOND;
            plan.delay = 50..300;
            plan.sync = 50..300;
            plan.data = 0..10;
            plan.calm = SECOND..3 * SECOND;
            plan.duration = 4 * SECOND;
            plan.lost = 0.0;
            plan.crashes = [0.0, 0.0];
            plan.watch = SECOND..30 * SECOND;
        }
        let operations = if plan.clients == 40 { 6000 } else { 1200 };
        // A client rests after one operation in ten.
        plan.rest = 0..20 * plan.clients as u64 * plan.duration / operations;
        plan
    }

    /// A planted fault that only shows in a rare accident gets plans that provoke it.
    pub(super) fn provoke(&mut self, mutation: Mutation) {
        if mutation == Mutation::VoteTwice {
            // Several stand for the same term, and who has voted for one starts again in between.
            self.members = self.members.max(3);
            self.sizes.start = 3;
            self.calm = MILLISECOND..300 * MILLISECOND;
            self.patience = 10..12;
            self.delay = MILLISECOND..40 * MILLISECOND;
            self.sync = 50..500;
            self.crashes = [0.0, 0.5];
            self.late_vote = 0.5;
            self.lateness = MILLISECOND..100 * MILLISECOND;
        }
    }
}
