//! How far an update has come, read off the stored tasks.
//!
//! In a slot that an update concerns, tasks of an older spec are followed by tasks of the present
//! one. The first of these is the update's own; it is settled once it runs or has ended. The reaper
//! keeps the last task of the older spec while an update is in progress.

use skep_proto::v1::{Task, TaskState};

use super::{context::Context, slots::Slot};
use crate::{
    reconcilers::facts::{created_at, state, status_at},
    time::Time,
};

/// Where a slot stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Progress<'a> {
    /// No task of an older spec is known: the update has no business here.
    Unconcerned,
    /// It has to be replaced.
    Outdated,
    /// Its new task has not come up yet.
    InFlight,
    /// Its new task came up, or failed to, at this time.
    Settled {
        /// The first task of the present spec.
        first: &'a Task,
        /// Since when it ran, or else when it ended.
        at: Time,
    },
}

impl<'a> Progress<'a> {
    /// Where the slot stands.
    pub fn of(context: &Context<'_>, slot: &Slot<'a>) -> Self {
        if slot.tasks.iter().all(|task| !context.is_dirty(task)) && !slot.holders().is_empty() {
            return Self::Unconcerned;
        }
        let (dirty, clean): (Vec<&Task>, Vec<&Task>) = slot
            .tasks
            .iter()
            .map(|task| &***task)
            .partition(|task| context.is_dirty(task));
        // A spec may have come back: what ended before this update began is none of its tasks. Age
        // within the slot does not tell them apart, for leaders' clocks differ.
        let holders = slot.holders();
        let holds = |task: &Task| holders.iter().any(|holder| holder.id == task.id);
        let version = context.service.spec_version;
        let started = context.update_started();
        let tasks: Vec<_> = clean
            .into_iter()
            .filter(|task| {
                let of_update = task.spec_version == version && created_at(task) >= started;
                of_update || holds(task)
            })
            .collect();
        let Some(first) = tasks.first().copied() else {
            return Self::Outdated;
        };
        if dirty.is_empty() {
            return Self::Unconcerned;
        }
        let settled = tasks
            .iter()
            .filter(|task| state(task) >= TaskState::Running)
            .map(|task| status_at(task))
            .min();
        match settled {
            Some(at) => Self::Settled { first, at },
            None => Self::InFlight,
        }
    }
}

/// Those of the update's own tasks that ended when they should not have, last first.
///
/// When a task came up is not stored. What is known: the update went on to its next slots at that
/// time and after `delay`, so the task created `parallelism` places later tells a time by which it
/// ran. Without such a task its watch has not ended.
pub(super) fn failures<'a>(
    context: &Context<'_>,
    progress: impl Iterator<Item = Progress<'a>>,
) -> Vec<&'a Task> {
    let started = context.update_started();
    let mut firsts: Vec<_> = progress
        .filter_map(|progress| match progress {
            Progress::Settled { first, .. } if created_at(first) >= started => Some(first),
            _ => None,
        })
        .collect();
    firsts.sort_by_key(|task| (created_at(task), task.slot));
    let parallelism = match context.update().parallelism {
        0 => usize::MAX,
        n => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let watched = context.update_delay().max(context.update_monitor());
    let mut failed: Vec<_> = firsts
        .iter()
        .enumerate()
        .filter(|&(n, task)| {
            let later = n.checked_add(parallelism).and_then(|n| firsts.get(n));
            let in_watch = later.is_none_or(|later| status_at(task) <= created_at(later) + watched);
            in_watch
                && matches!(
                    state(task),
                    TaskState::Complete | TaskState::Failed | TaskState::Rejected
                )
        })
        .map(|(_, task)| *task)
        .collect();
    failed.sort_by_key(|task| std::cmp::Reverse(status_at(task)));
    failed
}
