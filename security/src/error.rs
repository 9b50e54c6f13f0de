//! What can go wrong with identities. Each message is one line that says what to do about it.

use std::{io, path::PathBuf};

/// An error of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a join token. The secret is never part of the message.
    #[error(
        "invalid join token: {0}; copy the whole token as a manager prints it (SWMTKN-1-...-...)"
    )]
    InvalidToken(&'static str),

    /// The token asks for FIPS mode, which does not exist here.
    #[error("the join token is for a cluster that mandates FIPS mode, which is not supported")]
    FipsToken,

    /// The token's digest is not that of the root the server presented.
    #[error(
        "remote CA does not match fingerprint. Expected: {expected}, but {addr} has {found}: the token is mistyped or truncated, or it belongs to another cluster than this manager; take token and address from the same cluster"
    )]
    WrongFingerprint {
        /// The address asked.
        addr: String,
        /// SHA-256 in the token, hex.
        expected: String,
        /// SHA-256 of the root received, hex.
        found: String,
    },

    /// The manager does not know the token's secret.
    #[error(
        "the manager at {addr} refused the join token ({message}): it was mistyped, truncated or has been rotated; get the current one from a manager"
    )]
    TokenRefused {
        /// The address asked.
        addr: String,
        /// What the manager said.
        message: String,
    },

    /// No connection could be opened.
    #[error(
        "cannot reach a manager at {addr} ({source}): check the address and port, that the manager runs, and that no firewall is in between"
    )]
    Unreachable {
        /// The address dialled.
        addr: String,
        /// Why not.
        source: io::Error,
    },

    /// Something answers there, but no manager of the cluster.
    #[error(
        "the server at {addr} is not a manager of this cluster ({reason}): check the address and port"
    )]
    NotAManager {
        /// The address dialled.
        addr: String,
        /// What it did instead.
        reason: String,
    },

    /// A manager answered with an error.
    #[error(
        "{call} failed at {addr} ({code}: {message}): check that the manager is healthy and its cluster has a leader, then try again"
    )]
    Rpc {
        /// The address asked.
        addr: String,
        /// The RPC.
        call: &'static str,
        /// The gRPC code.
        code: tonic::Code,
        /// The gRPC message.
        message: String,
    },

    /// A certificate, key or request cannot be used.
    #[error("unusable {what}: {reason}")]
    Unusable {
        /// The thing, for example "root certificate".
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// The root has no key here, so nothing can be signed.
    #[error("this node does not hold the key of the root CA and cannot sign certificates")]
    NoSigningKey,

    /// An address cannot be part of a URI.
    #[error("invalid address {0:?}: expected host:port")]
    InvalidAddress(String),

    /// The node's key is encrypted, and no key was given or another one. Docker shows its own text
    /// for this one.
    #[error("node is locked, and needs a valid unlock key")]
    Locked,

    /// The text is not an unlock key. It is never part of the message.
    #[error("invalid unlock key: {0}; copy the whole key (SWMKEY-1-...)")]
    InvalidUnlockKey(&'static str),

    /// The cluster and this node disagree on what its unlock key is.
    #[error(
        "there are two different unlock keys of version {0}; unlock this node with the newer one"
    )]
    TwoUnlockKeys(u64),

    /// The certificate was not renewed. Whoever asks does it again.
    #[error("the certificate cannot be renewed: {0}")]
    Renewal(String),

    /// Part of a stored identity is gone.
    #[error(
        "the identity in {dir} is incomplete, {missing} is missing: restore it, or remove the directory and join the cluster again"
    )]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// The file.
        missing: &'static str,
    },

    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// "read", "write", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn unusable(what: &'static str, reason: impl ToString) -> Self {
        Self::Unusable {
            what,
            reason: reason.to_string(),
        }
    }
}
