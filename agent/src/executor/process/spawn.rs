//! Starting a task's process and finding it again, so that no crash in between loses it.
//!
//! A record without a number is on disk before the process exists, and the process carries the
//! task's ID in its environment. Whatever the moment the daemon is killed at, the next one either
//! reads the number or finds the mark.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::{
    Host, files,
    launch::{self, Order},
    logs::Pipes,
    plan::Plan,
    procfs::{self, MARK},
    record::{Process, Record},
    user,
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
    host: &Host,
    task_id: &str,
    dir: &Path,
    plan: &Plan,
) -> Result<(Held, Option<Pipes>), String> {
    let words = std::iter::once(&plan.program).chain(&plan.args).cloned();
    let start = Start::new(host, task_id, dir, plan, words.collect())?;
    let (mut command, socket) = start.command()?;
    let mut pipes = None;
    if plan.logs.is_some() {
        let (ours, theirs) = Pipes::make(dir, start.order.ids)
            .map_err(|error| format!("cannot make pipes in {}: {error}", dir.display()))?;
        command.stdout(theirs.stdout).stderr(theirs.stderr);
        pipes = Some(ours);
    }
    let note = |error| format!("cannot note the start in {}: {error}", dir.display());
    let mut record = Record::starting().map_err(note)?;
    record.save(dir).map_err(note)?;
    let mut child = command
        .spawn()
        .map_err(|error| start.failed(&error.to_string()))?;
    // The launcher's end of the socket is in there, and must be open in the launcher alone.
    drop(command);
    let pid = Pid::from_child(&child);
    record.process = Process::of(pid);
    // The child is not reaped before `pidfd_open`, so the number is still its own.
    let held = record.save(dir).map_err(note).and_then(|()| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| format!("cannot hold the process: {error}"))?;
        start.release(pid, socket)?;
        Ok(Held { pid, pidfd })
    });
    if held.is_err() {
        end(&mut child, pid);
    }
    // Dropping the child neither ends nor reaps it: the descriptor does both.
    held.map(|held| (held, pipes))
}

/// The start of a process with all that a task's processes have.
pub(super) struct Start<'a> {
    host: &'a Host,
    task_id: &'a str,
    plan: &'a Plan,
    order: Order,
}

impl<'a> Start<'a> {
    /// Of the command `words` for a task.
    pub(super) fn new(
        host: &'a Host,
        task_id: &'a str,
        dir: &Path,
        plan: &'a Plan,
        words: Vec<String>,
    ) -> Result<Self, String> {
        let mut env = plan.env.clone();
        if let Some(root) = files::find(task_id, dir) {
            for (name, path) in files::variables(&plan.files, &root) {
                let path = path.to_string_lossy().into_owned();
                env.entry(name.to_owned()).or_insert(path);
            }
        }
        env.insert(MARK.to_owned(), task_id.to_owned());
        let ids = user::resolve(&plan.user)?;
        let groups = user::groups(&plan.groups)?;
        let mut words = words.into_iter();
        let order = Order {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env,
            dir: plan.dir.clone(),
            ids: ids.map(|ids| (ids.uid, ids.gid)),
            groups: (!groups.is_empty()).then_some(groups),
        };
        Ok(Self {
            host,
            task_id,
            plan,
            order,
        })
    }

    /// What to spawn, without output, and the socket for [`Start::release`].
    pub(super) fn command(&self) -> Result<(Command, Option<UnixStream>), String> {
        let launcher = self.host.launcher.as_ref();
        let launcher = launcher.filter(|_| self.plan.needs_launcher());
        let mut socket = None;
        let mut command = match launcher {
            Some(launcher) => {
                let (ours, theirs) = UnixStream::pair()
                    .map_err(|error| format!("cannot talk to the launcher: {error}"))?;
                socket = Some(ours);
                let mut command = Command::new(&launcher.program);
                command
                    .args(&launcher.args)
                    .env_clear()
                    .env(MARK, self.task_id)
                    .stdin(OwnedFd::from(theirs));
                command
            }
            None => {
                let mut command = Command::new(&self.order.program);
                command
                    .args(&self.order.args)
                    .env_clear()
                    .envs(&self.order.env)
                    .current_dir(&self.order.dir)
                    .stdin(Stdio::null());
                if let Some((uid, gid)) = self.order.ids {
                    command.uid(uid).gid(gid);
                }
                command
            }
        };
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Ok((command, socket))
    }

    /// Bounds a process that was spawned and lets it become the command.
    pub(super) fn release(&self, pid: Pid, socket: Option<UnixStream>) -> Result<(), String> {
        let Some(socket) = socket else {
            return Ok(());
        };
        self.plan.limits.apply(pid)?;
        self.host.cgroups.add(self.task_id, pid)?;
        launch::send(socket, &self.order)
    }

    pub(super) fn failed(&self, why: &str) -> String {
        format!("command {:?} cannot be started: {why}", self.order.program)
    }
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
