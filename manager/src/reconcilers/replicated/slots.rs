//! Tasks by slot: a slot is one of the places of a service, held by one task after the other.

use std::{collections::BTreeMap, sync::Arc};

use skep_proto::v1::{Task, TaskState};

use super::restart;
use crate::reconcilers::facts::{created_at, is_live, state};

/// The tasks of one slot.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// Oldest first, never empty. Without those desired to be removed: the slot is rid of them.
    pub tasks: Vec<&'a Arc<Task>>,
}

impl<'a> Slot<'a> {
    /// Those that nobody has yet asked to end.
    pub fn live(&self) -> impl Iterator<Item = &'a Arc<Task>> {
        self.tasks.iter().copied().filter(|task| is_live(task))
    }

    /// The tasks that hold the slot: the live ones, or the last one if it has ended for good. A slot
    /// that nothing holds is dead.
    pub fn holders(&self) -> Vec<&'a Arc<Task>> {
        let live: Vec<_> = self.live().collect();
        match self.tasks.last() {
            Some(newest) if live.is_empty() && !restart::is_allowed(newest, self) => vec![newest],
            _ => live,
        }
    }

    /// Whether one of its live tasks is observed running.
    pub fn is_running(&self) -> bool {
        self.live().any(|task| state(task) == TaskState::Running)
    }
}

/// Sorts tasks of one service into slots.
pub(super) fn group<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Vec<Slot<'a>> {
    let mut slots = BTreeMap::<u64, Vec<_>>::new();
    for task in tasks.filter(|task| task.desired_state() < TaskState::Remove) {
        slots.entry(task.slot).or_default().push(task);
    }
    let slots = slots.into_iter().map(|(number, mut tasks)| {
        tasks.sort_by_key(|task| (created_at(task), &task.id));
        Slot { number, tasks }
    });
    slots.collect()
}
