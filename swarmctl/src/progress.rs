//! Waits until a service converged and shows how far it is.
//!
//! The service is polled, so that any manager will do and a change of leader is survived. What an
//! observation means is decided in `decide` alone; `observe` makes the calls, `report` shows.

mod decide;
mod observe;
mod report;
mod view;

use std::{io, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Code, Status};

use crate::{
    client::Client,
    error::{Exit, innermost, is_transport},
};
use decide::{Tracker, Verdict};
pub(crate) use report::{Bars, Lines, Quiet, Report};

/// How often the service is looked at. Docker's clients poll as often.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long one look may take before it counts as failed.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long looks may fail in a row before waiting is given up: enough for a change of leader and
/// for the restart of a manager.
const PATIENCE: Duration = Duration::from_secs(30);

/// How progress is shown. All of it goes to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Bars that are redrawn; for terminals.
    Bars,
    /// A line for every change.
    Lines,
    /// Nothing.
    Quiet,
}

/// Why a service did not converge, or why that is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProgressError {
    /// The update was paused because of failures.
    #[error("service update paused: {0}")]
    Paused(String),
    /// The return to the previous spec was paused because of failures.
    #[error("service rollback paused: {0}")]
    RollbackPaused(String),
    /// The update failed and the previous spec is in force again.
    #[error("service rolled back: {0}")]
    RolledBack(String),
    /// Tasks failed and will not be started again.
    #[error("{count} task{} failed and will not be started again: {first}", if *.count == 1 { "" } else { "s" })]
    GaveUp {
        /// How many tasks are missing because of it.
        count: usize,
        /// The error of one of them.
        first: String,
    },
    /// The time the caller gave has passed.
    #[error("service {service} did not converge within {} ({seen})", humantime::format_duration(*.after))]
    Timeout {
        /// The ID of the service.
        service: String,
        /// The time that has passed.
        after: Duration,
        /// What was seen last.
        seen: String,
    },
    /// Somebody removed the service.
    #[error("service {0} was removed")]
    Removed(String),
    /// The managers did not answer for too long, or refused to.
    #[error("cannot follow the progress of the service: {message}")]
    Lost {
        /// The last answer.
        message: String,
        /// Whether the connection to the socket is what failed.
        unreachable: bool,
    },
    /// Progress cannot be shown.
    #[error("cannot show progress: {0}")]
    Output(String),
}

impl From<io::Error> for ProgressError {
    fn from(error: io::Error) -> Self {
        Self::Output(error.to_string())
    }
}

impl ProgressError {
    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Lost {
                unreachable: true, ..
            } => Exit::Unreachable,
            Self::Lost { .. } | Self::Output(_) => Exit::Failed,
            _ => Exit::NotConverged,
        }
    }

    fn lost(status: &Status) -> Self {
        let unreachable = is_transport(status);
        let message = if unreachable {
            innermost(status)
        } else {
            status.message().to_owned()
        };
        Self::Lost {
            message,
            unreachable,
        }
    }
}

/// Waits until the service with the full ID `service_id` converged: as many of its up-to-date
/// tasks run as it asks for, none of an older spec does, and that has been so for its update
/// monitor period. With `timeout` it fails after that time. May be dropped at any time.
pub async fn wait_converged(
    client: &Client,
    service_id: &str,
    out: Output,
    timeout: Option<Duration>,
) -> Result<(), ProgressError> {
    let mut report: Box<dyn Report> = match out {
        Output::Bars => Box::new(Bars::new()),
        Output::Lines => Box::new(Lines::new(io::stderr())),
        Output::Quiet => Box::new(Quiet),
    };
    let wait = Wait {
        timeout,
        rollback: false,
    };
    wait.run(client, service_id, report.as_mut()).await
}

/// How to wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wait {
    /// Give up after this time.
    pub timeout: Option<Duration>,
    /// The user asked for a rollback: one that completes is a success.
    pub rollback: bool,
}

impl Wait {
    /// Waits for the service with the full ID `service_id`.
    pub(crate) async fn run(
        self,
        client: &Client,
        service_id: &str,
        report: &mut dyn Report,
    ) -> Result<(), ProgressError> {
        let mut seen = "nothing was seen of it".to_owned();
        let follow = self.follow(client, service_id, report, &mut seen);
        let result = match self.timeout {
            None => follow.await,
            Some(after) => match timeout(after, follow).await {
                Ok(result) => result,
                Err(_) => Err(ProgressError::Timeout {
                    service: service_id.to_owned(),
                    after,
                    seen,
                }),
            },
        };
        report.finish();
        result
    }

    async fn follow(
        self,
        client: &Client,
        service_id: &str,
        report: &mut dyn Report,
        seen: &mut String,
    ) -> Result<(), ProgressError> {
        let mut tracker = Tracker::new(self.rollback);
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = Instant::now();
        loop {
            ticks.tick().await;
            let look = timeout(POLL_TIMEOUT, observe::observe(client, service_id)).await;
            let look = look.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            let now = Instant::now();
            let observation = match look {
                Ok(observation) => observation,
                Err(status) if status.code() == Code::NotFound => {
                    return Err(ProgressError::Removed(service_id.to_owned()));
                }
                Err(status) if is_passing(&status) && now - answered < PATIENCE => continue,
                Err(status) => return Err(ProgressError::lost(&status)),
            };
            answered = now;
            let step = tracker.step(&observation, now.into_std());
            *seen = step.view.summary();
            report.show(&step.view)?;
            match step.verdict {
                Verdict::Waiting => {}
                Verdict::Converged => return Ok(()),
                Verdict::Failed(error) => return Err(error),
            }
        }
    }
}

/// Whether a later look may succeed: no leader for now, or a manager that restarts.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        // A leader that is lost in the middle of a call, in the words of servers that do not give
        // this a code of its own.
        Code::Unknown | Code::Internal | Code::FailedPrecondition => {
            is_transport(status) || status.message().to_lowercase().contains("leader")
        }
        _ => is_transport(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_leader_passes_and_a_refusal_stays() {
        assert!(is_passing(&Status::unavailable("")));
        assert!(is_passing(&Status::unknown(
            "The swarm does not have a leader"
        )));
        assert!(!is_passing(&Status::unknown("boom")));
        assert!(!is_passing(&Status::permission_denied("leader")));
    }

    #[test]
    fn errors_have_the_documented_codes() {
        let lost = |unreachable| ProgressError::Lost {
            message: String::new(),
            unreachable,
        };
        assert_eq!(lost(true).exit().code(), 3);
        assert_eq!(lost(false).exit().code(), 1);
        assert_eq!(ProgressError::Paused(String::new()).exit().code(), 4);
        assert_eq!(ProgressError::Removed(String::new()).exit().code(), 4);
    }
}
