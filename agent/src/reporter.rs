//! The newest status of every task of this node, and which of them the manager has yet to hear.
//!
//! Only the newest status of a task counts: a status that was replaced before it was sent is never
//! sent. A status stays due until the manager acknowledged it, across any number of sessions, and
//! a new session makes all of them due again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prost::Message as _;
use skep_proto::v1;
use tokio::sync::watch;

/// Bytes of statuses that are returned at once: well below what a manager takes in a message (4 MiB).
const MAX_BYTES: usize = 1 << 20;

/// The statuses of this node's tasks.
#[derive(Debug)]
pub(crate) struct Reporter {
    inner: Mutex<Inner>,
    /// How many statuses are due.
    due: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    /// The due ones in the order in which they changed, so that none starves.
    due: BTreeMap<u64, String>,
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    status: v1::TaskStatus,
    /// Number of the change that made this status due.
    change: u64,
}

/// One status to send.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) task_id: String,
    pub(crate) status: v1::TaskStatus,
    change: u64,
}

impl Default for Reporter {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            due: watch::Sender::new(0),
        }
    }
}

impl Inner {
    fn put(&mut self, task_id: &str, status: v1::TaskStatus) {
        self.changes += 1;
        let entry = Entry {
            status,
            change: self.changes,
        };
        if let Some(old) = self.entries.insert(task_id.to_owned(), entry) {
            self.due.remove(&old.change);
        }
        self.due.insert(self.changes, task_id.to_owned());
    }
}

impl Reporter {
    /// The task has a new status.
    pub(crate) fn put(&self, task_id: &str, status: v1::TaskStatus) {
        self.change(|inner| inner.put(task_id, status));
    }

    /// The task is no more on this node.
    pub(crate) fn forget(&self, task_id: &str) {
        self.change(|inner| {
            if let Some(old) = inner.entries.remove(task_id) {
                inner.due.remove(&old.change);
            }
        });
    }

    /// A new session: its manager may know nothing of what the last one heard.
    pub(crate) fn all_due(&self) {
        self.change(|inner| {
            let entries = inner.entries.iter();
            inner.due = entries
                .map(|(id, entry)| (entry.change, id.clone()))
                .collect();
        });
    }

    /// Waits until something is due, and returns up to `limit` of it, and no more than
    /// [`MAX_BYTES`] but always one. It stays due until acknowledged.
    pub(crate) async fn due(&self, limit: usize) -> Vec<Report> {
        let mut due = self.due.subscribe();
        loop {
            // An error means that the sender is gone; it is in `self`.
            let _ = due.wait_for(|count| *count > 0).await;
            let inner = self.inner.lock();
            let mut bytes = 0;
            let reports: Vec<_> = inner
                .due
                .iter()
                .take(limit)
                .filter_map(|(&change, task_id)| {
                    let status = inner.entries.get(task_id)?.status.clone();
                    Some(Report {
                        task_id: task_id.clone(),
                        status,
                        change,
                    })
                })
                .take_while(|report| {
                    let first = bytes == 0;
                    bytes += report.task_id.len() + report.status.encoded_len();
                    first || bytes <= MAX_BYTES
                })
                .collect();
            if !reports.is_empty() {
                return reports;
            }
        }
    }

    /// The manager has these. What changed meanwhile stays due.
    pub(crate) fn acknowledge(&self, reports: &[Report]) {
        self.change(|inner| {
            for report in reports {
                inner.due.remove(&report.change);
            }
        });
    }

    /// Waits until nothing is due.
    pub(crate) async fn idle(&self) {
        let _ = self.due.subscribe().wait_for(|count| *count == 0).await;
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        self.due.send_replace(inner.due.len());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use v1::TaskState;

    use super::*;

    fn status(state: TaskState) -> v1::TaskStatus {
        v1::TaskStatus {
            state: state as i32,
            ..Default::default()
        }
    }

    fn states(reports: &[Report]) -> Vec<(&str, TaskState)> {
        reports
            .iter()
            .map(|report| (report.task_id.as_str(), report.status.state()))
            .collect()
    }

    #[tokio::test]
    async fn only_the_newest_status_is_sent_and_none_is_lost() {
        let reporter = Reporter::default();
        reporter.put("a", status(TaskState::Accepted));
        reporter.put("b", status(TaskState::Accepted));
        reporter.put("a", status(TaskState::Running));
        let sent = reporter.due(10).await;
        assert_eq!(
            states(&sent),
            [("b", TaskState::Accepted), ("a", TaskState::Running)]
        );
        assert_eq!(reporter.due(10).await, sent, "due until acknowledged");

        reporter.put("a", status(TaskState::Failed));
        reporter.acknowledge(&sent);
        let sent = reporter.due(10).await;
        assert_eq!(
            states(&sent),
            [("a", TaskState::Failed)],
            "changed while it was sent"
        );
        reporter.acknowledge(&sent);
        assert!(reporter.due(10).now_or_never().is_none());
        reporter.idle().await;
    }

    #[tokio::test]
    async fn no_report_is_too_large_and_none_waits_for_ever() {
        let reporter = Reporter::default();
        let failed = |bytes| v1::TaskStatus {
            err: "e".repeat(bytes),
            ..status(TaskState::Failed)
        };
        for (id, bytes) in [
            ("a", 2 * MAX_BYTES),
            ("b", MAX_BYTES / 2),
            ("c", 9),
            ("d", MAX_BYTES),
        ] {
            reporter.put(id, failed(bytes));
        }
        for expected in [&["a"][..], &["b", "c"], &["d"]] {
            let sent = reporter.due(10).await;
            let ids: Vec<_> = sent.iter().map(|report| &*report.task_id).collect();
            assert_eq!(ids, expected);
            reporter.acknowledge(&sent);
        }
    }

    #[tokio::test]
    async fn a_new_session_hears_everything_again() {
        let reporter = Reporter::default();
        for id in ["a", "b", "c"] {
            reporter.put(id, status(TaskState::Running));
        }
        reporter.acknowledge(&reporter.due(10).await);
        reporter.forget("b");
        reporter.all_due();
        assert_eq!(reporter.due(1).await.len(), 1);
        let sent = reporter.due(10).await;
        assert_eq!(
            states(&sent),
            [("a", TaskState::Running), ("c", TaskState::Running)]
        );
        assert!(reporter.idle().now_or_never().is_none());
    }
}
