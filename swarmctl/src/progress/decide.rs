//! Decides from observations whether a service converged. Pure: the time is told.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use skep_proto::v1::{Service, Task, TaskState, service_spec::Mode, update_status::UpdateState};

use super::{
    ProgressError,
    observe::Observation,
    view::{MAX_ROWS, Row, Verify, View, cut},
};
use crate::spec::values::from_wire;

/// How long tasks have to stay as they are if the service does not say so itself: the default of
/// the update configuration's `monitor`.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// What an observation means.
#[derive(Debug)]
pub(crate) enum Verdict {
    Waiting,
    Converged,
    Failed(ProgressError),
}

/// What to show and whether to go on.
pub(crate) struct Step {
    pub view: View,
    pub verdict: Verdict,
}

/// Remembers since when things have been as they are.
pub(crate) struct Tracker {
    /// A rollback that completes is what the user wants.
    rollback_wanted: bool,
    /// Why the service returns to its previous spec, while and after it does.
    rollback: Option<String>,
    /// Since when all tasks have been as they should be.
    stable_since: Option<Instant>,
    /// Since when all that is missing are tasks that will not be started again.
    stuck_since: Option<Instant>,
}

impl Tracker {
    pub(crate) fn new(rollback_wanted: bool) -> Self {
        Self {
            rollback_wanted,
            rollback: None,
            stable_since: None,
            stuck_since: None,
        }
    }

    /// Judges `seen`, observed at `now`.
    pub(crate) fn step(&mut self, seen: &Observation, now: Instant) -> Step {
        let service = &seen.service;
        let status = service.update_status.as_ref();
        let state = status.map_or(UpdateState::Unknown, |status| status.state());
        let message = || status.map_or_else(String::new, |status| status.message.clone());
        if state == UpdateState::RollbackStarted {
            self.rollback = Some(message());
        }
        let count = Count::new(seen);
        let mut view = View {
            job: count.job,
            ready: count.ready(),
            wanted: count.wanted,
            rollback: self
                .rollback
                .clone()
                .filter(|_| state == UpdateState::RollbackStarted),
            rows: if count.wanted <= MAX_ROWS {
                count.rows.clone()
            } else {
                Vec::new()
            },
            verify: None,
        };
        let verdict = match state {
            UpdateState::Paused => Verdict::Failed(ProgressError::Paused(message())),
            UpdateState::RollbackPaused => {
                Verdict::Failed(ProgressError::RollbackPaused(message()))
            }
            _ => self.judge(service, state, &count, now, &mut view.verify),
        };
        if matches!(verdict, Verdict::Converged) {
            view.verify = Some(Verify::Converged(service.id.clone()));
        }
        Step { view, verdict }
    }

    fn judge(
        &mut self,
        service: &Service,
        state: UpdateState,
        count: &Count,
        now: Instant,
        verify: &mut Option<Verify>,
    ) -> Verdict {
        let period = monitor(service);
        if !count.is_complete() {
            self.stable_since = None;
            return self.judge_stuck(count, period, now);
        }
        self.stuck_since = None;
        if count.old > 0 {
            self.stable_since = None;
            *verify = Some(Verify::OldTasks(count.old));
            return Verdict::Waiting;
        }
        let stable = now.saturating_duration_since(*self.stable_since.get_or_insert(now));
        match state {
            // The managers have watched the tasks for the monitor period and made their decision.
            UpdateState::Completed => return Verdict::Converged,
            UpdateState::RollbackCompleted if self.rollback_wanted => return Verdict::Converged,
            UpdateState::RollbackCompleted => {
                let why = self
                    .rollback
                    .clone()
                    .unwrap_or_else(|| "the update failed".to_owned());
                return Verdict::Failed(ProgressError::RolledBack(why));
            }
            _ => {}
        }
        // The tasks of a job are over, and over for good.
        let period = if count.job && count.wanted > 0 {
            Duration::ZERO
        } else {
            period
        };
        let deciding = matches!(state, UpdateState::Updating | UpdateState::RollbackStarted);
        if stable < period {
            *verify = Some(Verify::Stable {
                period,
                left: period - stable,
            });
        } else if deciding {
            *verify = Some(Verify::Update);
        } else {
            return Verdict::Converged;
        }
        Verdict::Waiting
    }

    /// Whether tasks are missing that nobody will start again. Between the failure of a task and
    /// its replacement it may look so, hence the period.
    fn judge_stuck(&mut self, count: &Count, period: Duration, now: Instant) -> Verdict {
        let Some(first) = count.given_up.first().filter(|_| count.is_stuck()) else {
            self.stuck_since = None;
            return Verdict::Waiting;
        };
        let since = *self.stuck_since.get_or_insert(now);
        if now.saturating_duration_since(since) < period {
            return Verdict::Waiting;
        }
        Verdict::Failed(ProgressError::GaveUp {
            count: count.given_up.len(),
            first: first.clone(),
        })
    }
}

/// How long tasks of `service` have to stay as they are.
fn monitor(service: &Service) -> Duration {
    let update = service.spec().update.as_ref();
    let said = update.and_then(|update| update.monitor.as_ref());
    said.and_then(from_wire).unwrap_or(DEFAULT_MONITOR)
}

/// The tasks of a service, counted.
#[derive(Debug, Default)]
struct Count {
    job: bool,
    /// Tasks that are asked for.
    wanted: u64,
    /// Tasks that run as they should (never those of a job, which should complete).
    running: u64,
    /// Tasks that completed and are not to run again.
    finished: u64,
    /// Tasks on their way to one of these.
    pending: u64,
    /// Tasks that still run but should not: of an older spec, or of a slot that is gone.
    old: usize,
    /// The errors of places whose last task failed and that will get no new one.
    given_up: Vec<String>,
    rows: Vec<Row>,
}

/// Where a task belongs: its slot, or its node where there are no slots.
type Place = (u64, String);

impl Count {
    fn new(seen: &Observation) -> Self {
        let service = &seen.service;
        let mode = service.spec().mode.as_ref();
        let mut count = Self {
            job: matches!(mode, Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_))),
            ..Default::default()
        };
        let mut places: BTreeMap<Place, Vec<&Task>> = BTreeMap::new();
        for task in &seen.tasks {
            if is_current(task, seen, count.job) && task.desired_state() < TaskState::Remove {
                places.entry(place(task, mode)).or_default().push(task);
            } else if runs(task, seen) {
                count.old += 1;
            }
        }
        for tasks in places.values_mut() {
            tasks.sort_by_key(|task| created(task));
        }
        count.wanted = match mode {
            Some(Mode::Replicated(replicated)) => replicated.replicas,
            Some(Mode::ReplicatedJob(job)) => job.total_completions,
            Some(Mode::GlobalJob(_)) => places.len() as u64,
            // Every node that has a task now, whatever its spec, is to have one in the end.
            Some(Mode::Global(_)) | None => {
                let nodes = seen.tasks.iter().filter(|task| wants_to_run(task, seen));
                nodes
                    .map(|task| &task.node_id)
                    .collect::<std::collections::BTreeSet<_>>()
                    .len() as u64
            }
        };
        for (index, ((slot, node), tasks)) in places.into_iter().enumerate() {
            let label = match seen.nodes.get(&node) {
                Some(host) if slot == 0 && !node.is_empty() => host.name.clone(),
                _ => format!("{}/{}", index + 1, count.wanted),
            };
            count.add(label, &tasks, seen);
        }
        count
    }

    /// Counts one place, whose tasks are sorted by age, oldest first.
    fn add(&mut self, label: String, tasks: &[&Task], seen: &Observation) {
        let live = tasks.iter().rev().find(|task| is_live(task, self.job));
        let Some(last) = live.or(tasks.last()) else {
            return;
        };
        let state = last.status().state();
        // With start-first two tasks of one place can run for a moment; the newest counts.
        self.old += tasks
            .iter()
            .filter(|task| task.id != last.id && runs(task, seen))
            .count();
        if live.is_some() {
            if !self.job && runs(last, seen) {
                self.running += 1;
            } else {
                self.pending += 1;
            }
        } else {
            match state {
                TaskState::Complete => self.finished += 1,
                TaskState::Failed | TaskState::Rejected => {
                    let status = last.status();
                    let error = cut(&status.err).or_else(|| cut(&status.message));
                    self.given_up.push(error.unwrap_or_default());
                }
                // Stopped because it was told to, or about to: the place is empty.
                _ => {
                    self.old += usize::from(runs(last, seen));
                    return;
                }
            }
        }
        let error = if matches!(state, TaskState::Running | TaskState::Complete) {
            None
        } else {
            let before = tasks.iter().rev().find(|task| failed(task));
            cut(&last.status().err).or_else(|| cut(&before?.status().err))
        };
        self.rows.push(Row {
            label,
            state,
            error,
        });
    }

    /// Tasks that are as they should be. Old runs of slots that are gone may count as finished.
    fn ready(&self) -> u64 {
        (self.running + self.finished).min(self.running.max(self.wanted))
    }

    /// Whether all tasks are as they should be.
    fn is_complete(&self) -> bool {
        self.pending == 0 && self.ready() == self.wanted
    }

    /// Whether nothing is on its way, so that what is missing stays missing.
    fn is_stuck(&self) -> bool {
        let ready = self.ready();
        self.pending == 0
            && ready < self.wanted
            && ready.saturating_add(self.given_up.len() as u64) >= self.wanted
    }
}

/// Whether `task` has the current spec, or is of the current run of a job.
fn is_current(task: &Task, seen: &Observation, job: bool) -> bool {
    if job {
        let run = seen
            .service
            .job_status
            .as_ref()
            .map(|status| status.job_iteration().index);
        return task
            .job_iteration
            .as_ref()
            .map(|run| run.index)
            .unwrap_or(0)
            == run.unwrap_or(0);
    }
    seen.up_to_date.contains(&task.id)
}

/// Whether `task` is wanted to run. The tasks of a job are not wanted any more once they ended.
fn is_live(task: &Task, job: bool) -> bool {
    if job {
        let ended = task.status().state() > TaskState::Running;
        return task.desired_state() <= TaskState::Complete && !ended;
    }
    task.desired_state() <= TaskState::Running
}

/// Whether `task` ended with an error.
fn failed(task: &Task) -> bool {
    matches!(
        task.status().state(),
        TaskState::Failed | TaskState::Rejected
    )
}

/// Whether `task` runs as far as anybody knows: on a node that is down nothing does.
fn runs(task: &Task, seen: &Observation) -> bool {
    task.status().state() == TaskState::Running && node_is_up(task, seen)
}

/// Whether `task` is wanted and on a node that can run it.
fn wants_to_run(task: &Task, seen: &Observation) -> bool {
    task.desired_state() <= TaskState::Running && node_is_up(task, seen)
}

fn node_is_up(task: &Task, seen: &Observation) -> bool {
    seen.nodes.get(&task.node_id).is_some_and(|node| !node.down)
}

/// Where `task` belongs.
fn place(task: &Task, mode: Option<&Mode>) -> Place {
    match mode {
        Some(Mode::Global(_) | Mode::GlobalJob(_)) => (0, task.node_id.clone()),
        _ => (task.slot, String::new()),
    }
}

/// The age of `task`, by which tasks of one place are put in order; the ID decides between equals.
fn created(task: &Task) -> (i64, i32, &str) {
    let (seconds, nanos) = task
        .meta()
        .created_at
        .as_ref()
        .map_or((i64::MIN, 0), |at| (at.seconds, at.nanos));
    (seconds, nanos, &task.id)
}

#[cfg(test)]
mod tests;
