//! The simulator: whole clusters of the shipping [`skep_raft::Replica`] and [`skep_store::Store`] in
//! virtual time, on a virtual network and virtual disks. Everything that happens follows from one
//! seed, so that a failure can be repeated.
//!
//! A run goes through faults of all kinds under load, then everything is healed and the cluster has
//! to come to rest. What must hold is checked all the time, by `oracle` and by those who see it.

mod client;
mod digest;
mod disk;
mod faults;
mod keys;
mod member;
mod mutation;
mod network;
mod operation;
mod oracle;
mod plan;
mod platter;
mod queue;
mod scene;
mod settle;
mod summary;
mod trace;
mod watcher;
mod world;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub use self::{mutation::Mutation, summary::Summary};
use self::{plan::Plan, world::World};

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A fault that is planted in the cluster, to see whether it is found.
    pub mutation: Option<Mutation>,
    /// Print every event.
    pub trace: bool,
}

/// A rule that did not hold.
#[derive(Clone, Debug)]
struct Violation {
    rule: &'static str,
    details: String,
}

/// What a run that broke a rule tells.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// Events until then.
    pub step: u64,
    /// The rule that did not hold.
    pub rule: String,
    /// What was seen.
    pub details: String,
    /// The last events.
    pub events: Vec<String>,
}

/// For use with `?`.
fn broken<T>(rule: &'static str, details: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        rule,
        details: details.into(),
    })
}

/// Runs one seed.
#[allow(
    clippy::result_large_err,
    reason = "a failure ends everything, its size does not matter"
)]
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    let mut plan = Plan::draw(seed);
    if let Some(mutation) = options.mutation {
        plan.provoke(mutation);
    }
    let mut world = World::new(seed, plan, options);
    // The consensus library panics when an invariant of its own is broken: that is a finding too.
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match outcome {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(violation)) => violation,
        Err(panic) => Violation {
            rule: "nothing panics",
            details: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without a text".to_owned()),
        },
    };
    Err(Failure {
        seed,
        step: world.steps(),
        rule: violation.rule.to_owned(),
        details: violation.details,
        events: world.last_events(),
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        writeln!(f, "seed {} breaks a rule at step {}", self.seed, self.step)?;
        writeln!(f, "rule: {}", self.rule)?;
        writeln!(f, "seen: {}", self.details)?;
        write!(
            f,
            "again: cargo run --release -p skep-tests --bin sim -- --seeds 1 --from {} --trace",
            self.seed
        )
    }
}
