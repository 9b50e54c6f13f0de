//! Everything that the leader decides, one planner per concern.
//!
//! Each is a [`Reconciler`]: what it decides follows from a snapshot and the time alone. What it
//! remembers between calls only tells it where to look.

mod allocator;
pub mod constraint;
pub(crate) mod dirty;
mod facts;
pub(crate) mod network_keys;
mod orphans;
mod reaper;
mod replicated;
mod scheduler;

#[cfg(test)]
mod convergence;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod world;

use skep_store::Kind;

use crate::reconcile::{Plan, Reconciler, View};

/// The reconcilers that bring tasks about, new. Each wants a driver of its own.
pub fn all() -> Vec<Box<dyn Reconciler>> {
    vec![
        Box::new(replicated::Replicated::default()),
        Box::new(allocator::Allocator),
        Box::new(scheduler::Scheduler::default()),
        Box::new(reaper::Reaper::default()),
    ]
}

/// Those that wait for hours and have to do with no other.
pub fn upkeep() -> Vec<Box<dyn Reconciler>> {
    vec![
        Box::new(network_keys::NetworkKeys::default()),
        Box::new(orphans::Orphans),
    ]
}

impl Reconciler for Box<dyn Reconciler> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn watches(&self) -> &'static [Kind] {
        (**self).watches()
    }
    fn plan(&mut self, view: &View<'_>) -> Plan {
        (**self).plan(view)
    }
}
