//! What a task needs on the host before its process can start.

use std::path::PathBuf;

use super::{Host, files, plan::Plan, user};
use crate::dependencies::Dependencies;

/// A task and all that its processes are started with. Methods block.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    pub(super) host: Host,
    pub(super) task_id: String,
    pub(super) dir: PathBuf,
    pub(super) dependencies: Dependencies,
    pub(super) plan: Plan,
}

impl Needs {
    /// Whether the task can be run here; the error says why not.
    pub(super) fn check(&self) -> Result<(), String> {
        self.plan.check(&self.host)
    }

    /// Makes the task's files and groups.
    pub(super) fn provide(&self) -> Result<(), String> {
        let owner = user::resolve(&self.plan.user)?;
        let (files, id) = (&self.plan.files, &self.task_id);
        files::place(files, id, &self.dir, &self.dependencies, owner)?;
        self.host.cgroups.make(id, &self.plan.limits.group)
    }

    /// Whether they are there.
    pub(super) fn are_there(&self) -> bool {
        let group = &self.plan.limits.group;
        let files = self.plan.files.is_empty() || files::find(&self.task_id, &self.dir).is_some();
        files && (group.is_empty() || self.host.cgroups.has(&self.task_id))
    }
}
