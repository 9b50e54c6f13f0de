//! What all parts of a run share: time, chance, what is going to happen, and what is known.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use skep_proto::Timestamp;
use skep_raft::drive::Outgoing;

use super::{
    Options,
    mutation::Mutation,
    network::Network,
    oracle::Oracle,
    plan::{MILLISECOND, Micros, Plan, SECOND},
    queue::{Event, Flight, Queue, Report},
    summary::Summary,
    trace::{Note, Trace},
};

pub(super) struct Scene {
    pub(super) now: Micros,
    pub(super) rng: StdRng,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) plan: Plan,
    pub(super) mutation: Option<Mutation>,
    /// The present time, for the clocks of stores.
    clock: Arc<AtomicU64>,
    /// What has happened how often.
    pub(super) counts: Summary,
    /// No more faults.
    pub(super) healed: bool,
}

impl Scene {
    pub(super) fn new(seed: u64, plan: Plan, options: Options) -> Self {
        Self {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            queue: Queue::default(),
            network: Network::default(),
            oracle: Oracle::default(),
            trace: Trace::new(options.trace),
            plan,
            mutation: options.mutation,
            clock: Arc::default(),
            counts: Summary::default(),
            healed: false,
        }
    }

    pub(super) fn advance(&mut self, to: Micros) {
        self.now = to;
        self.clock.store(to, Ordering::Relaxed);
    }

    /// The clock of a store.
    pub(super) fn clock(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let clock = self.clock.clone();
        move || {
            let micros = clock.load(Ordering::Relaxed);
            Timestamp {
                seconds: (micros / SECOND) as i64,
                nanos: (micros % SECOND) as i32 * 1000,
            }
        }
    }

    pub(super) fn between(&mut self, range: &Range<Micros>) -> Micros {
        self.rng.random_range(range.clone())
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// Has something happen `after` from now.
    pub(super) fn after(&mut self, after: Micros, event: Event) {
        self.queue.push(self.now + after, event);
    }

    pub(super) fn note(&mut self, member: u64, note: Note) {
        self.trace.note(self.now, member, note);
    }

    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Sends a message. What became of it the sender learns as its transport would tell it: of a
    /// snapshot always, of other messages now and then.
    pub(super) fn send(&mut self, from: u64, from_life: u64, message: Outgoing) {
        let link = (from, message.to);
        let arrivals = self
            .network
            .arrivals(&mut self.rng, &self.plan, self.now, link, &message);
        let Outgoing {
            to,
            is_snapshot,
            kind,
            bytes,
        } = message;
        let flight = Flight {
            from,
            from_life,
            to,
            kind,
            is_snapshot,
            bytes,
        };
        if arrivals.is_empty() {
            self.note(from, Note::Lost { to, kind });
            let patience = self.between(&(MILLISECOND..2 * SECOND));
            self.report(&flight, false, patience);
        }
        for at in arrivals {
            self.queue.push(at, Event::Message(flight.clone()));
        }
    }

    /// Tells the sender of a message whether it has arrived.
    pub(super) fn report(&mut self, flight: &Flight, arrived: bool, after: Micros) {
        let report = match flight.is_snapshot {
            true => Report::Snapshot {
                to: flight.to,
                delivered: arrived,
            },
            false if arrived || self.chance(0.5) => return,
            false => Report::Unreachable(flight.to),
        };
        let (member, life) = (flight.from, flight.from_life);
        self.after(
            after,
            Event::Report {
                member,
                life,
                report,
            },
        );
    }
}
