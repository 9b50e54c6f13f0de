//! What can go wrong in a command, and the exit code each outcome has.

use std::{io, path::PathBuf, process::ExitCode};

use tonic::Status;

use crate::progress::ProgressError;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers on the control socket.
    #[error(
        "cannot reach the control socket {}: {reason}; check that swarmd runs and that this node is a \
         manager, or name another socket with --socket or SWARM_SOCKET", .socket.display()
    )]
    Unreachable {
        /// The socket that was dialled.
        socket: PathBuf,
        /// What the operating system or the transport said.
        reason: String,
    },
    /// The server answered with an error; only its message is shown.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// No object has this ID, name or ID prefix.
    #[error("{kind} {name} not found")]
    NotFound {
        /// `service`, `node`, `task`, `secret`, `config` or `cluster`.
        kind: &'static str,
        /// What the user wrote.
        name: String,
    },
    /// Several objects have this name or ID prefix.
    #[error("{kind} {name} is ambiguous: {count} match, use a full ID")]
    Ambiguous {
        /// `service`, `node`, `task`, `secret`, `config` or `cluster`.
        kind: &'static str,
        /// What the user wrote.
        name: String,
        /// How many objects match.
        count: usize,
    },
    /// The flags are well formed but do not fit the object they are applied to.
    #[error("{0}")]
    Usage(String),
    /// The server sent an answer that cannot be used.
    #[error("the server sent an unusable answer: {0}")]
    Answer(String),
    /// The object of the answer cannot be written as JSON.
    #[error("cannot write this object as JSON: {0}")]
    Json(String),
    /// The output stream cannot be written to.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The secret cannot be read.
    #[error("cannot read the input: {0}")]
    Input(String),
    /// The service was accepted but did not converge.
    #[error(transparent)]
    Progress(#[from] ProgressError),
    /// Somebody else has chosen another root CA while this one was rotated to.
    #[error("the root CA was changed again, or the rotation was aborted, by somebody else")]
    RotationReplaced,
    /// More than one thing failed; each was reported before.
    #[error("{count} failures")]
    Several {
        /// How many.
        count: usize,
        /// The exit code they have in common.
        exit: Exit,
    },
    /// The user stopped waiting (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Error {
    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused(status) if is_transport(status) => Exit::Unreachable,
            Self::Progress(error) => error.exit(),
            Self::Usage(_) => Exit::Usage,
            Self::RotationReplaced => Exit::NotConverged,
            Self::Several { exit, .. } => *exit,
            Self::Interrupted => Exit::Interrupted,
            // The reader has what it wanted (`swarmctl ... | head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            _ => Exit::Failed,
        }
    }
}

/// Whether `status` was made on this side because the connection failed.
pub(crate) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

/// The text of a refusal: the server's message, or the code if it gave none.
fn refusal(status: &Status) -> String {
    if is_transport(status) {
        format!(
            "lost the connection to the control socket: {}",
            innermost(status)
        )
    } else if status.message().is_empty() {
        format!("the server failed without a message ({:?})", status.code())
    } else {
        status.message().to_owned()
    }
}

/// The text of the last error in the chain of sources, the most telling one of a transport.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// How a command ended; documented for users in the help of `swarmctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 1: the server refused the request or failed.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: nothing answers on the control socket.
    Unreachable,
    /// 4: the service did not converge.
    NotConverged,
    /// 130: Ctrl-C while waiting (the convention of shells, 128 + SIGINT).
    Interrupted,
}

impl Exit {
    /// The number a process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotConverged => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
