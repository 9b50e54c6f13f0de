//! The state machine of one task: which step comes next, and what its outcome means.
//!
//! Pure: the [`runner`] performs the steps. A state only grows, and so does the desired state.

pub(crate) mod runner;

use skep_proto::v1::{self, TaskState};

use crate::executor::{Exit, Failure};

/// What to do next with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until somebody wants something else.
    Hold,
    /// Go to a state at once.
    Enter(TaskState),
    Prepare,
    Start,
    Wait,
    Shutdown,
}

/// The step that leads a task in `state` towards `desired`.
pub(crate) fn next(state: TaskState, desired: TaskState) -> Step {
    if state >= TaskState::Complete {
        return Step::Hold;
    }
    if desired >= TaskState::Shutdown {
        return Step::Shutdown;
    }
    match state {
        TaskState::Accepted if desired > TaskState::Accepted => Step::Enter(TaskState::Preparing),
        TaskState::Ready if desired > TaskState::Ready => Step::Enter(TaskState::Starting),
        TaskState::Accepted | TaskState::Ready => Step::Hold,
        TaskState::Preparing => Step::Prepare,
        TaskState::Starting => Step::Start,
        TaskState::Running => Step::Wait,
        // New, pending, assigned.
        _ => Step::Enter(TaskState::Accepted),
    }
}

/// The state that a task in `state` comes to without doing anything. The states on the way are as good
/// as over: they are neither stored nor reported.
fn pass(mut state: TaskState, desired: TaskState) -> TaskState {
    while let Step::Enter(later) = next(state, desired) {
        state = later;
    }
    state
}

/// The end of a step: where the task is now, and what users read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) state: TaskState,
    pub(crate) message: String,
    pub(crate) err: String,
}

impl Outcome {
    /// The task is in `state`, by plan.
    pub(crate) fn entered(state: TaskState) -> Self {
        let message = match state {
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "prepared",
            TaskState::Starting => "starting",
            TaskState::Running => "started",
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            _ => "",
        };
        Self {
            state,
            message: message.to_owned(),
            err: String::new(),
        }
    }

    /// Where the task is once it has gone on as far as it can at once.
    pub(crate) fn pass(self, desired: TaskState) -> Self {
        match pass(self.state, desired) {
            state if state == self.state => self,
            state => Self::entered(state),
        }
    }

    /// A step of a task in `state` failed for good.
    pub(crate) fn failed(state: TaskState, err: String) -> Self {
        let (state, message) = if state < TaskState::Starting {
            (TaskState::Rejected, "rejected")
        } else {
            (TaskState::Failed, "failed")
        };
        Self {
            state,
            message: message.to_owned(),
            err,
        }
    }

    /// A running task ended by itself.
    pub(crate) fn exited(exit: &Exit) -> Self {
        if exit.is_success() {
            Self::entered(TaskState::Complete)
        } else {
            Self::failed(TaskState::Running, exit.reason.clone())
        }
    }

    /// What a step of a task in `state` led to; `done` is where it leads if all went well.
    /// A temporary failure leads nowhere: the text says why.
    pub(crate) fn of(
        state: TaskState,
        done: TaskState,
        result: Result<(), Failure>,
    ) -> Result<Self, String> {
        match result {
            Ok(()) => Ok(Self::entered(done)),
            Err(Failure::Fatal(err)) => Ok(Self::failed(state, err)),
            Err(Failure::Temporary(why)) => Err(why),
        }
    }
}

/// The task as a manager wants it now, given what it wanted before: everything is new but the
/// desired state, which never shrinks.
pub(crate) fn updated(old: &v1::Task, mut new: v1::Task) -> v1::Task {
    if new.desired_state < old.desired_state {
        tracing::warn!(
            task_id = new.id,
            "a manager wants an earlier state of a task than before; ignored"
        );
        new.desired_state = old.desired_state;
    }
    new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [TaskState; 14] = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];

    #[test]
    fn the_way_to_running_holds_where_it_must() {
        assert_eq!(
            next(TaskState::Assigned, TaskState::Running),
            Step::Enter(TaskState::Accepted)
        );
        assert_eq!(next(TaskState::Accepted, TaskState::Accepted), Step::Hold);
        assert_eq!(next(TaskState::Preparing, TaskState::Ready), Step::Prepare);
        assert_eq!(next(TaskState::Ready, TaskState::Ready), Step::Hold);
        assert_eq!(
            next(TaskState::Ready, TaskState::Running),
            Step::Enter(TaskState::Starting)
        );
        assert_eq!(
            next(TaskState::Ready, TaskState::Complete),
            Step::Enter(TaskState::Starting)
        );
        assert_eq!(
            next(TaskState::Running, TaskState::Complete),
            Step::Wait,
            "a job"
        );
        assert_eq!(next(TaskState::Running, TaskState::Remove), Step::Shutdown);
        assert_eq!(
            next(TaskState::Assigned, TaskState::Shutdown),
            Step::Shutdown
        );
        assert_eq!(next(TaskState::Failed, TaskState::Shutdown), Step::Hold);
    }

    #[test]
    fn failures_before_the_start_reject() {
        let fatal = || Err(Failure::Fatal("no".to_owned()));
        let state = |from| Outcome::of(from, TaskState::Ready, fatal()).unwrap().state;
        assert_eq!(state(TaskState::Preparing), TaskState::Rejected);
        assert_eq!(state(TaskState::Starting), TaskState::Failed);
        let temporary = Err(Failure::Temporary("later".to_owned()));
        assert_eq!(
            Outcome::of(TaskState::Starting, TaskState::Running, temporary),
            Err("later".to_owned())
        );
        let exit = |code| {
            Outcome::exited(&Exit {
                code,
                reason: "why".to_owned(),
            })
        };
        assert_eq!(exit(Some(0)).state, TaskState::Complete);
        assert_eq!(
            (exit(Some(3)).state, exit(Some(3)).err.as_str()),
            (TaskState::Failed, "why")
        );
        assert_eq!(exit(None).state, TaskState::Failed);
    }

    #[test]
    fn a_task_stops_only_where_there_is_something_to_do() {
        let passed = |state, desired| Outcome::entered(state).pass(desired).state;
        let running = TaskState::Running;
        assert_eq!(passed(TaskState::Accepted, running), TaskState::Preparing);
        assert_eq!(passed(TaskState::Ready, running), TaskState::Starting);
        assert_eq!(passed(TaskState::Ready, TaskState::Ready), TaskState::Ready);
        assert_eq!(
            passed(TaskState::Ready, TaskState::Shutdown),
            TaskState::Ready
        );
        let failed = Outcome::failed(TaskState::Preparing, "why".to_owned());
        assert_eq!(failed.clone().pass(running), failed);
    }

    #[test]
    fn the_desired_state_never_shrinks() {
        let task = |desired: TaskState, slot| v1::Task {
            desired_state: desired as i32,
            slot,
            ..Default::default()
        };
        let old = task(TaskState::Shutdown, 1);
        let new = updated(&old, task(TaskState::Running, 2));
        assert_eq!((new.desired_state(), new.slot), (TaskState::Shutdown, 2));
    }

    proptest! {
        /// Whatever is wanted, steps end, and states only grow on the way.
        #[test]
        fn every_task_comes_to_rest(
            state in prop::sample::select(&STATES[..]),
            desired in prop::sample::select(&STATES[..]),
        ) {
            let mut state = state;
            for _ in 0..STATES.len() {
                let reached = match next(state, desired) {
                    Step::Hold => return Ok(()),
                    Step::Enter(state) => state,
                    Step::Prepare => TaskState::Ready,
                    Step::Start => TaskState::Running,
                    Step::Wait => TaskState::Complete,
                    Step::Shutdown => TaskState::Shutdown,
                };
                prop_assert!(reached > state);
                state = reached;
            }
            prop_assert!(false, "no rest");
        }
    }
}
