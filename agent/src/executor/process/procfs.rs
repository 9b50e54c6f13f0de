//! The few things read from `/proc`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::Pid;

use crate::disk;

/// The variable that marks every process of a task; its value is the task's ID.
pub(super) const MARK: &str = "SKEP_TASK_ID";
/// More than the kernel gives a process for its environment by default.
const MAX_ENVIRON: u64 = 8 << 20;
const MAX_STAT: u64 = 64 << 10;

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) group: i32,
    pub(super) start_time: u64,
}

/// The kernel's random ID of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// What is known of a process, `None` if it does not exist (any more).
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    let bytes = disk::read(&of(pid).join("stat"), MAX_STAT).ok()??;
    parse_stat(&String::from_utf8_lossy(&bytes))
}

/// Every process with the mark of this task. Costs a read per process of the host.
pub(super) fn marked(task_id: &str) -> io::Result<Vec<(Pid, Stat)>> {
    let mark = format!("{MARK}={task_id}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .filter(|&pid: &i32| pid > 0);
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // Processes end while we look, and those of others may be hidden.
        let Ok(Some(environ)) = disk::read(&of(pid).join("environ"), MAX_ENVIRON) else {
            continue;
        };
        if environ
            .split(|&byte| byte == 0)
            .any(|variable| variable == mark.as_bytes())
            && let Some(stat) = stat(pid)
        {
            found.push((pid, stat));
        }
    }
    Ok(found)
}

fn of(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the command in parentheses, and may itself have spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // `rest` starts with field 3; the group is field 5, the start time field 22.
    let group = fields.nth(2)?.parse().ok()?;
    let start_time = fields.nth(16)?.parse().ok()?;
    Some(Stat { group, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_command() {
        let text = "42 (a) b (c) S 1 40 40 0 -1 4194560 8 9 10 11 12 13 14 15 20 0 1 0 777 1000";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                group: 40,
                start_time: 777
            })
        );
        assert_eq!(parse_stat("42 (sh) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_exists() {
        let own = rustix::process::getpid();
        assert!(stat(own).is_some());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
