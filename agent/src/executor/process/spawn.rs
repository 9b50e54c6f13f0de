//! Starting a task's process and finding it again, so that no crash in between loses it.
//!
//! A record without a number is on disk before the process exists, and the process carries the
//! task's ID in its environment. Whatever the moment the daemon is killed at, the next one either
//! reads the number or finds the mark.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::{
    logs::Pipes,
    plan::Plan,
    procfs::{self, MARK},
    record::{Process, Record},
    user::{self, Ids},
};

/// A process and a descriptor that means it and no later bearer of its number.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Starts the process of a task; blocks for a few milliseconds.
///
/// The process leads a group of its own. Its output goes to the returned pipes, `None` if nobody
/// wants it.
pub(super) fn spawn(
    task_id: &str,
    dir: &Path,
    plan: &Plan,
) -> Result<(Held, Option<Pipes>), String> {
    let ids = user::resolve(&plan.user)?;
    let mut command = command(task_id, plan, ids);
    let mut pipes = None;
    if plan.logs.is_some() {
        let (ours, theirs) = Pipes::make(dir, ids.map(|ids| (ids.uid, ids.gid)))
            .map_err(|error| format!("cannot make pipes in {}: {error}", dir.display()))?;
        command.stdout(theirs.stdout).stderr(theirs.stderr);
        pipes = Some(ours);
    }
    let note = |error| format!("cannot note the start in {}: {error}", dir.display());
    let mut record = Record::starting().map_err(note)?;
    record.save(dir).map_err(note)?;
    let mut child = command
        .spawn()
        .map_err(|error| format!("command {:?} cannot be started: {error}", plan.program))?;
    let pid = Pid::from_child(&child);
    record.process = Process::of(pid);
    // The child is not reaped before `pidfd_open`, so the number is still its own.
    let held = record.save(dir).map_err(note).and_then(|()| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| format!("cannot hold the process: {error}"))?;
        Ok(Held { pid, pidfd })
    });
    if held.is_err() {
        end(&mut child, pid);
    }
    // Dropping the child neither ends nor reaps it: the descriptor does both.
    held.map(|held| (held, pipes))
}

fn command(task_id: &str, plan: &Plan, ids: Option<Ids>) -> Command {
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.args)
        .env_clear()
        .envs(&plan.env)
        .env(MARK, task_id)
        .current_dir(&plan.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if let Some(ids) = ids {
        command.uid(ids.uid).gid(ids.gid);
    }
    command
}

fn end(child: &mut Child, pid: Pid) {
    kill_group(pid, Signal::KILL);
    // It cannot be helped if this fails, and the mark still leads to the process.
    let _ = child.wait();
}

/// Signals a whole group. `pid` must not be reaped yet, or the number may mean another group.
pub(super) fn kill_group(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process_group(pid, signal)
        && error != Errno::SRCH
    {
        tracing::warn!(%error, pid = pid.as_raw_nonzero(), "cannot signal a process group");
    }
}

/// The recorded process, `None` if it is no more.
pub(super) fn find(process: Process) -> Option<Held> {
    let held = hold(process.pid()?)?;
    // Compared after the descriptor is open: from here on the number cannot change hands.
    (Process::of(held.pid) == Some(process)).then_some(held)
}

/// The process of a start whose number was not recorded: the first marked leader of a group.
pub(super) fn find_marked(task_id: &str) -> io::Result<Option<(Held, Process)>> {
    let mut leaders = procfs::marked(task_id)?;
    leaders.retain(|(pid, stat)| stat.group == pid.as_raw_nonzero().get());
    leaders.sort_by_key(|(_, stat)| stat.start_time);
    Ok(leaders.into_iter().find_map(|(pid, stat)| {
        let process = Process {
            pid: pid.as_raw_nonzero().get(),
            start_time: stat.start_time,
        };
        Some((find(process)?, process))
    }))
}

/// Kills every process with the mark of the task, whatever group it went to.
pub(super) fn kill_marked(task_id: &str) -> io::Result<()> {
    for (pid, stat) in procfs::marked(task_id)? {
        let process = Process {
            pid: pid.as_raw_nonzero().get(),
            start_time: stat.start_time,
        };
        if let Some(held) = find(process) {
            match pidfd_send_signal(&held.pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn hold(pid: Pid) -> Option<Held> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    Some(Held { pid, pidfd })
}
