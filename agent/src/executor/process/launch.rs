//! The launcher: a copy of the daemon's program that becomes a task's command once it is told to.
//!
//! Limits and groups must be set for a process that exists but does not yet run the command. So the
//! daemon starts itself with [`launch`] in place of its work, bounds that process from outside, and
//! then sends it the command over its standard input. If the daemon dies before that, the launcher
//! ends, and nothing has run. What cannot be started comes back as a text over the same socket.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::AsFd as _,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

/// More than the kernel takes for arguments and environment.
const MAX_ORDER: u64 = 16 << 20;
/// The most of an answer that is read.
const MAX_ANSWER: u64 = 4096;
/// How long a launcher may take: a directory on a network may be slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// What shells exit with if a command cannot be started.
const CANNOT_START: u8 = 126;

/// How to start the launcher: a program, and the arguments that make it call [`launch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Such as `/proc/self/exe`.
    pub program: PathBuf,
    /// What makes it the launcher.
    pub args: Vec<String>,
}

/// What a launcher becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) dir: PathBuf,
    /// The user and group, `None` for those it has.
    pub(super) ids: Option<(u32, u32)>,
    /// All further groups, `None` for those it has.
    pub(super) groups: Option<Vec<u32>>,
}

/// Sends the order and waits until the launcher has become the command.
pub(super) fn send(mut socket: UnixStream, order: &Order) -> Result<(), String> {
    let talk = |socket: &mut UnixStream| -> io::Result<String> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.write_all(&serde_json::to_vec(order)?)?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        socket.take(MAX_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match talk(&mut socket) {
        Ok(answer) if answer.is_empty() => Ok(()),
        Ok(answer) => Err(format!(
            "command {:?} cannot be started: {answer}",
            order.program
        )),
        Err(error) => Err(format!("the launcher does not answer: {error}")),
    }
}

/// Waits for an order on the standard input and becomes what it says. Returns only if that failed.
///
/// To be called by the program of a [`Launcher`] before it does anything else.
pub fn launch() -> ExitCode {
    // A copy that the command does not inherit: that it closes tells the daemon of the success.
    let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() else {
        return CANNOT_START.into();
    };
    let mut socket = UnixStream::from(fd);
    let error = match receive(&mut socket) {
        Ok(order) => become_command(&order),
        // The daemon is gone, and nobody would hear of it.
        Err(error) => error,
    };
    let _ = socket.write_all(error.to_string().as_bytes());
    CANNOT_START.into()
}

fn receive(socket: &mut UnixStream) -> io::Result<Order> {
    let mut bytes = Vec::new();
    socket.take(MAX_ORDER).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn become_command(order: &Order) -> io::Error {
    if let Err(error) = change_user(order) {
        return error;
    }
    Command::new(&order.program)
        .args(&order.args)
        .env_clear()
        .envs(&order.env)
        .current_dir(&order.dir)
        .stdin(Stdio::null())
        .exec()
}

/// Takes the groups, the group and the user, in the order in which each is still allowed.
fn change_user(order: &Order) -> io::Result<()> {
    if let Some(groups) = &order.groups {
        let groups: Vec<_> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups)?;
    } else if order.ids.is_some() {
        set_thread_groups(&[])?;
    }
    if let Some((uid, gid)) = order.ids {
        let gid = Gid::from_raw(gid);
        set_thread_res_gid(gid, gid, gid)?;
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}
