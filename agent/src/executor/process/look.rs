//! Finds what an earlier daemon started.

use std::{io, path::Path, thread, time::Duration};

use skep_proto::v1::TaskState;

use super::{
    logs::Pipes,
    procfs,
    record::Record,
    spawn::{self, Held},
};
use crate::executor::Adopted;

/// How long a forked process may take to become the command it was forked for.
const EXEC_TIME: Duration = Duration::from_millis(200);
/// What there is of a task.
pub(super) enum Found {
    Process(Held, Option<Pipes>),
    Nothing(Adopted),
}

/// Looks for what an earlier daemon started; blocks.
pub(super) fn look(task_id: &str, dir: &Path, last: TaskState) -> io::Result<Found> {
    let gone = |text: &str| Ok(Found::Nothing(Adopted::Gone(text.to_owned())));
    let Some(mut record) = Record::load(dir)? else {
        return if last >= TaskState::Running {
            gone("the process is not known on this node any more")
        } else {
            Ok(Found::Nothing(Adopted::Absent))
        };
    };
    if record.boot_id != procfs::boot_id()? {
        return gone("the process ended when the machine restarted; its exit code is unknown");
    }
    let held = match record.process {
        Some(process) => spawn::find(process),
        None => {
            let mut found = spawn::find_marked(task_id)?;
            if found.is_none() {
                // The old daemon may have died between fork and exec: the mark comes with exec.
                thread::sleep(EXEC_TIME);
                found = spawn::find_marked(task_id)?;
            }
            match found {
                Some((held, process)) => {
                    record.process = Some(process);
                    record.save(dir)?;
                    Some(held)
                }
                None => None,
            }
        }
    };
    if let Some(held) = held {
        return Ok(Found::Process(held, Pipes::find(dir)?));
    }
    // Its leader is gone: what is left of it must not outlive the task.
    spawn::kill_marked(task_id)?;
    gone(
        "the process ended while the daemon was not running; its exit code is unknown because \
         the daemon was not its parent any more",
    )
}
