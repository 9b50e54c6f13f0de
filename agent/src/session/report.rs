//! Sends the statuses that are due to the session's manager.

use skep_proto::v1::{self, update_task_status_request::TaskStatusUpdate};
use tonic::Code;

use super::{Client, answered};
use crate::{error::Error, reporter::Reporter};

/// Statuses per call: while one is answered the next ones gather, and of those that change meanwhile
/// only the last is sent.
const BATCH: usize = 512;

/// Sends until a call fails. What was not acknowledged stays due for the next session.
pub(super) async fn report(mut client: Client, session_id: &str, reporter: &Reporter) -> Error {
    let mut batch = BATCH;
    loop {
        let reports = reporter.due(batch).await;
        let updates = reports.iter().map(|report| TaskStatusUpdate {
            task_id: report.task_id.clone(),
            status: Some(report.status.clone()),
        });
        let request = v1::UpdateTaskStatusRequest {
            session_id: session_id.to_owned(),
            updates: updates.collect(),
        };
        match answered("task status", client.update_task_status(request)).await {
            Ok(_) => reporter.acknowledge(&reports),
            Err(Error::Call { call, status }) => match status.code() {
                // The manager does not know the task: it will tell us to remove it.
                Code::NotFound => reporter.acknowledge(&reports),
                // One of them is not ours. Alone, each of the others gets through.
                Code::PermissionDenied if reports.len() > 1 => batch = 1,
                Code::PermissionDenied => {
                    let task_id = reports.first().map(|report| &report.task_id);
                    tracing::warn!(?task_id, %status, "the manager takes no status of a task");
                    reporter.acknowledge(&reports);
                }
                _ => return Error::Call { call, status },
            },
            Err(error) => return error,
        }
    }
}
