//! What can go wrong in replication. The texts that start with `raft:` are those that clients and
//! managers of a swarm match on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::status::Quorum;

/// Why replication, or a request to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This manager does not lead, or stopped leading before the request was done.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// Replication on this manager has ended.
    #[error("raft: failed to process the request: node is stopped")]
    Stopped,
    /// This member was removed from the group: its data is of no more use.
    #[error("raft: member was removed from the cluster")]
    Removed,
    /// There is no member with this Raft ID.
    #[error("raft: member unknown")]
    UnknownMember,
    /// The remaining members that can be reached would not be a quorum.
    #[error(
        "raft: member cannot be removed, because removing it may result in loss of quorum: {0}"
    )]
    QuorumLoss(Quorum),
    /// The members changed while this change of them was under way.
    #[error("raft: the members of the cluster have changed meanwhile; try again")]
    Outdated,
    /// A member that must be removed before it can join again: its log is gone, and what it has
    /// acknowledged may be what the group counts on.
    #[error(
        "this manager was a member before and has lost its log; it cannot come back under its old \
         Raft ID, and a new one must wait: {0}"
    )]
    Wiped(Box<Error>),
    /// An address that nobody can dial.
    #[error("invalid address {0} in raft join request")]
    InvalidAddress(String),
    /// The member that wants to join cannot be reached at the address it gave.
    #[error(
        "could not connect to prospective new cluster member using its advertised address: {0}"
    )]
    DialBack(String),
    /// No member can take over, or it did not in time.
    #[error("raft: leadership could not be handed over to another member")]
    HandOver,
    /// Another request changes the members at the moment and did not end in time.
    #[error("raft: request timed out after {0:?}")]
    Timeout(Duration),
    /// Nothing was ever stored, so there is nothing to go on from.
    #[error("there is no raft log to make a new cluster of; leave out --force-new-cluster")]
    NoLog,
    /// Another process, or another replica of this one, has the log open.
    #[error("the raft log in {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The log cannot be read or written.
    #[error("raft log: {action}: {reason}")]
    Log {
        /// What was tried.
        action: &'static str,
        /// What the storage said.
        reason: String,
    },
    /// An entry of the log is missing though later ones, or the commit index, say it was there.
    #[error("raft log: entry {0} is missing")]
    Hole(u64),
    /// The log on disk lacks something that was durable. What a power cut interrupts is not that.
    #[error(
        "raft log in {}: entry {index} is missing or damaged: {reason}; another manager must remove \
         this one (`swarmctl node rm`), then move its state directory away and join again; if no \
         other manager is left, restore a copy of the state directory", .dir.display()
    )]
    Damaged {
        /// Where the log lies.
        dir: PathBuf,
        /// The first entry that may be lost.
        index: u64,
        /// What was found.
        reason: String,
    },
    /// The log was written by a newer version.
    #[error(
        "the raft log in {} has format {found}, but this version knows none above {known}: start the \
         newer version, or move the state directory away and join again", .dir.display()
    )]
    Newer {
        /// Where the log lies.
        dir: PathBuf,
        /// Its format.
        found: u64,
        /// The newest one that is known here.
        known: u64,
    },
    /// An entry or a snapshot cannot be decrypted.
    #[error(
        "raft log: {what} {index} cannot be decrypted: {reason}; restore the key file that belongs \
         to this log, or remove this member from the cluster and join it again"
    )]
    Sealed {
        /// `entry` or `snapshot`.
        what: &'static str,
        /// Its index.
        index: u64,
        /// What is wrong with it.
        reason: skep_security::SealError,
    },
    /// The snapshot that the log goes on from cannot be used.
    #[error(
        "raft snapshot {} cannot be used: {reason}; remove this member from the cluster and join it \
         again", .path.display()
    )]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The leader knows that this member had entries that its log lacks.
    #[error(
        "raft log: this member has acknowledged entries up to {acknowledged} but its log ends at \
         {last}; remove it from the cluster and join it again"
    )]
    Lost {
        /// Index that the leader saw acknowledged.
        acknowledged: u64,
        /// Index of the last entry here.
        last: u64,
    },
    /// Entries that someone wants to read are not in the log any more. The first words are etcd's.
    #[error(
        "requested index is unavailable due to compaction: the log begins at index {first}; list \
         the objects anew"
    )]
    Compacted {
        /// Index of the first entry that is still there.
        first: u64,
    },
    /// Bytes from the log or from a peer that do not decode or make no sense.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What the bytes should be.
        what: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// The log belongs to someone else.
    #[error("the raft log belongs to {found}, but this is {expected}")]
    Foreign {
        /// Whose log it is.
        found: String,
        /// Who opened it.
        expected: String,
    },
    /// The consensus library refused.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// A committed entry cannot be applied.
    #[error(transparent)]
    Store(#[from] skep_store::Error),
    /// No connection can be made with this node's identity.
    #[error(transparent)]
    Security(#[from] skep_security::Error),
    /// A peer refused or did not answer.
    #[error("{}", .0.message())]
    Rpc(#[from] tonic::Status),
    /// The log could not be written. This manager must not go on.
    #[error("{0}")]
    Disk(std::sync::Arc<Error>),
    /// A thread could not be started, or died.
    #[error("raft: {0}")]
    Thread(String),
}

impl Error {
    /// Whether a later version has written what this one would have to leave out.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Store(skep_store::Error::Newer { .. }))
    }

    /// Whether another manager says with this that the one which asks was removed.
    pub(crate) fn tells_removal(status: &tonic::Status) -> bool {
        status.code() == tonic::Code::NotFound && status.message() == crate::service::REMOVED
    }

    /// Whether asking again soon may help: the manager that was asked cannot be reached, or does not
    /// know a leader.
    pub fn may_pass(&self) -> bool {
        use tonic::Code::{DeadlineExceeded, FailedPrecondition, Unavailable};
        match self {
            Self::NotLeader | Self::Timeout(_) => true,
            Self::Rpc(status) => {
                matches!(
                    status.code(),
                    DeadlineExceeded | FailedPrecondition | Unavailable
                )
            }
            _ => false,
        }
    }

    /// For use with `map_err` on storage.
    pub(crate) fn log<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Log {
            action,
            reason: error.to_string(),
        }
    }

    pub(crate) fn damaged(dir: &Path, index: u64, reason: impl ToString) -> Self {
        Self::Damaged {
            dir: dir.to_owned(),
            index,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed {
            what,
            reason: reason.to_string(),
        }
    }
}
