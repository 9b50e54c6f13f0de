//! The files that show a task its secrets and configs.
//!
//! They lie in memory where the host has a place for that, in a directory of the task that only
//! the daemon can enter; the engine mounts each into the container, read-only.

use std::path::Path;

use bollard::models::{Mount, MountType};
use rustix::process::geteuid;

use super::plan::{File, Source};
use crate::{dependencies::Dependencies, executor::memory_dir};

/// Why files could not be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A manager has not sent a secret or config.
    Missing(String),
    Other(String),
}

/// Writes the files of a task anew and says how to mount them. `dir` is the task's directory, for
/// hosts that have no place in memory.
///
/// Does not yield: a call that is cut off must not write behind the back of [`remove`].
pub(super) fn write(
    task_id: &str,
    dir: &Path,
    files: &[File],
    dependencies: &Dependencies,
) -> Result<Vec<Mount>, Trouble> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let dir = memory_dir::make(task_id, &dir.join("files")).map_err(|error| {
        Trouble::Other(format!(
            "cannot make files for secrets and configs: {error}"
        ))
    })?;
    let mut mounts = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let data = match &file.source {
            Source::Secret(id) => {
                let secret = dependencies.secret(id, task_id);
                secret.map(|secret| secret.spec().data.clone())
            }
            Source::Config(id) => dependencies
                .config(id)
                .map(|config| config.spec().data.clone()),
        };
        let what = match &file.source {
            Source::Secret(_) => format!("secret {:?}", file.name),
            Source::Config(_) => format!("config {:?}", file.name),
        };
        let Some(data) = data else {
            let why = format!("{what} is not on this node: it was removed or never assigned");
            return Err(Trouble::Missing(why));
        };
        let path = dir.join(number.to_string());
        // Only root can give files away. Root in the container reads them whoever owns them.
        let given = geteuid().is_root() || file.uid != 0 || file.gid != 0;
        let owner = given.then_some((file.uid, file.gid));
        let made = memory_dir::write(&path, &data, owner, file.mode);
        made.map_err(|error| Trouble::Other(format!("cannot make a file of {what}: {error}")))?;
        mounts.push(Mount {
            target: Some(file.target.clone()),
            source: Some(path.display().to_string()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// Removes what [`write`] has written for a task in memory.
pub(super) fn remove(task_id: &str) {
    if let Err(error) = memory_dir::remove(task_id, None) {
        tracing::error!(task_id, %error, "cannot remove the files of secrets and configs");
    }
}
