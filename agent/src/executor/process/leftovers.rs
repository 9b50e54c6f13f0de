//! What a daemon that is gone for good has left running.

use std::{fs, io, path::Path};

use super::{cgroup::Cgroups, files, spawn};

/// Kills all processes of the tasks in a state directory whose daemon does not run and will not be
/// started again; one that is started again takes them over instead. Blocks for a look at every
/// process of the host and task.
pub fn end_leftovers(state_dir: &Path) -> io::Result<()> {
    let tasks = match fs::read_dir(state_dir.join("worker").join("tasks")) {
        Ok(tasks) => tasks,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for task in tasks {
        let task = task?;
        if let Some(id) = task.file_name().to_str() {
            spawn::kill_marked(id)?;
            files::remove(id, &task.path())?;
            Cgroups::of_host().remove(id)?;
        }
    }
    Ok(())
}
