//! What can go wrong in this room, in words for the log.

use std::{io, path::PathBuf};

use tonic::Code;

/// An error of the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Local state cannot be read or written.
    #[error("cannot use {path}: {source}")]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nobody to open a session with.
    #[error("no manager is known: name one in the configuration")]
    NoManager,
    /// A connection cannot even be prepared.
    #[error("cannot dial manager {addr}: {source}")]
    Dial {
        /// The manager's address.
        addr: String,
        /// Why.
        source: skep_security::Error,
    },
    /// A call was answered with an error.
    #[error("{call}: {} ({:?})", .status.message(), .status.code())]
    Call {
        /// The RPC.
        call: &'static str,
        /// The manager's answer, or what the connection broke with.
        status: Box<tonic::Status>,
    },
    /// A call was not answered in time.
    #[error("{call}: no answer within {seconds} s")]
    Timeout {
        /// The RPC.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The manager ended a stream that lasts as long as the session.
    #[error("{call}: the manager ended the stream")]
    Ended {
        /// The RPC.
        call: &'static str,
    },
    /// An assignments message does not follow the one before.
    #[error(
        "assignments: a message applies to {applies_to:?}, but the last one led to {expected:?}"
    )]
    Chain {
        /// What the message says it follows.
        applies_to: String,
        /// What it had to follow.
        expected: String,
    },
    /// There is no Docker engine to run tasks with.
    #[error("no docker engine at {host}: {reason}")]
    Engine {
        /// Where it should be.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A part of the agent ended by a defect.
    #[error("a part of the agent ended: {0}")]
    Broken(String),
}

impl Error {
    /// Whether a manager has said itself that the session is over, or cannot be opened now: that there is
    /// no leader behind it (any more), or one that does not know the node. An answer of its own, not what
    /// a connection broke with.
    pub(crate) fn tells_of_no_session(&self) -> bool {
        use std::error::Error as _;
        let Self::Call { status, .. } = self else {
            return false;
        };
        let told = [Code::Aborted, Code::Unavailable, Code::NotFound];
        status.source().is_none() && told.contains(&status.code())
    }

    pub(crate) fn call(call: &'static str) -> impl FnOnce(tonic::Status) -> Self {
        move |status| Self::Call {
            call,
            status: Box::new(status),
        }
    }
}
