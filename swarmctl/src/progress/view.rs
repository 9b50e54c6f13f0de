//! What is shown of the progress of a service: one summary, one row per task, one conclusion.

use std::time::Duration;

use skep_proto::v1::TaskState;

/// With more tasks than this only the summary is shown.
pub(crate) const MAX_ROWS: u64 = 20;

/// Errors of tasks are cut to this many characters to keep a row on one line.
const MAX_ERROR: usize = 75;

/// The states a task goes through on its way to running, in order.
const STAGES: [TaskState; 8] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
];

/// Everything shown at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// A job is counted in completed tasks, everything else in running ones.
    pub job: bool,
    /// Tasks that are as they should be.
    pub ready: u64,
    /// Tasks that are asked for.
    pub wanted: u64,
    /// Why the service returns to its previous spec, if it does.
    pub rollback: Option<String>,
    /// The tasks, unless there are too many.
    pub rows: Vec<Row>,
    /// What is being verified once all tasks are there.
    pub verify: Option<Verify>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// `2/3`, or the node of a global service.
    pub label: String,
    pub state: TaskState,
    /// What it waits for or why the task before it failed, cut to one line.
    pub error: Option<String>,
}

/// What is being verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verify {
    /// That old tasks stop.
    OldTasks(usize),
    /// That the tasks stay as they are for a period, of which `left` is left.
    Stable { period: Duration, left: Duration },
    /// That the managers call the update complete.
    Update,
    /// Nothing more: the service with this ID converged.
    Converged(String),
}

impl View {
    /// `2 out of 3 tasks`.
    pub(crate) fn summary(&self) -> String {
        let what = if self.job { "complete" } else { "tasks" };
        format!("{} out of {} {what}", self.ready, self.wanted)
    }

    /// The line above the tasks.
    pub(crate) fn overall(&self) -> String {
        let label = if self.job {
            "job progress"
        } else {
            "overall progress"
        };
        let rollback = if self.rollback.is_some() {
            "rolling back update: "
        } else {
            ""
        };
        format!("{label}: {rollback}{}", self.summary())
    }
}

impl Verify {
    /// The line below the tasks; `left` is not in it, so it changes only when the meaning does.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::OldTasks(1) => "verify: Waiting for 1 old task to stop...".to_owned(),
            Self::OldTasks(count) => format!("verify: Waiting for {count} old tasks to stop..."),
            Self::Stable { period, .. } => waiting(*period),
            Self::Update => "verify: Waiting for the update to complete...".to_owned(),
            Self::Converged(id) => format!("verify: Service {id} converged"),
        }
    }

    /// The line below the tasks, with the time that is left.
    pub(crate) fn countdown(&self) -> String {
        match self {
            Self::Stable { left, .. } => waiting(*left),
            other => other.line(),
        }
    }
}

fn waiting(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil();
    let unit = if seconds == 1.0 { "second" } else { "seconds" };
    format!("verify: Waiting {seconds} {unit} to verify that tasks are stable...")
}

impl Row {
    /// The name of the state: `running`.
    pub(crate) fn state_name(&self) -> String {
        self.state.as_str_name().to_ascii_lowercase()
    }

    /// How far the task is, of [`Row::STAGES`].
    pub(crate) fn stage(&self) -> u64 {
        let reached = STAGES.iter().filter(|&&stage| stage <= self.state).count();
        u64::try_from(reached).unwrap_or(u64::MAX)
    }

    /// The stage of a running task.
    pub(crate) const STAGES: u64 = STAGES.len() as u64;

    /// The row as a line.
    pub(crate) fn line(&self) -> String {
        match &self.error {
            Some(error) => format!("{}: {}: {error}", self.label, self.state_name()),
            None => format!("{}: {}", self.label, self.state_name()),
        }
    }
}

/// `error` on one line of at most [`MAX_ERROR`] characters; `None` if there is nothing in it.
pub(crate) fn cut(error: &str) -> Option<String> {
    let line = crate::output::one_line(error);
    if line.is_empty() {
        return None;
    }
    if line.chars().count() <= MAX_ERROR {
        return Some(line);
    }
    Some(line.chars().take(MAX_ERROR - 1).chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_dockers() {
        let mut view = View {
            ready: 2,
            wanted: 3,
            ..Default::default()
        };
        assert_eq!(view.overall(), "overall progress: 2 out of 3 tasks");
        view.rollback = Some(String::new());
        assert_eq!(
            view.overall(),
            "overall progress: rolling back update: 2 out of 3 tasks"
        );
        view = View { job: true, ..view };
        view.rollback = None;
        assert_eq!(view.overall(), "job progress: 2 out of 3 complete");
        let stable = Verify::Stable {
            period: Duration::from_secs(5),
            left: Duration::from_millis(900),
        };
        let seconds = "verify: Waiting 5 seconds to verify that tasks are stable...";
        assert_eq!(stable.line(), seconds);
        assert_eq!(
            stable.countdown(),
            "verify: Waiting 1 second to verify that tasks are stable..."
        );
        assert_eq!(
            Verify::Converged("x".to_owned()).line(),
            "verify: Service x converged"
        );
    }

    #[test]
    fn errors_are_cut_at_75_characters() {
        assert_eq!(cut(" \n"), None);
        assert_eq!(cut("a\nb"), Some("a b".to_owned()));
        assert_eq!(cut(&"é".repeat(75)), Some("é".repeat(75)));
        assert_eq!(cut(&"é".repeat(76)), Some(format!("{}…", "é".repeat(74))));
    }

    #[test]
    fn stages_lead_to_running() {
        let row = |state| Row {
            label: "1/3".to_owned(),
            state,
            error: None,
        };
        assert_eq!(row(TaskState::New).stage(), 1);
        assert_eq!(row(TaskState::Running).stage(), Row::STAGES);
        assert_eq!(row(TaskState::Running).line(), "1/3: running");
    }
}
