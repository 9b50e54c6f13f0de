//! What can go wrong in the store.

use prost::DecodeError;

use crate::MAX_PROPOSAL_BYTES;

/// Why a transaction did not happen.
///
/// The texts are those that clients of a swarm match on; `docs` of each variant say where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An object with this ID is already there.
    #[error("object already exists")]
    Exists,
    /// There is no object with this ID.
    #[error("object does not exist")]
    NotFound,
    /// Another object of this kind has the name (compared without case).
    #[error("name conflicts with an existing object")]
    NameConflict,
    /// The object was changed since the version the writer knew.
    #[error("update out of sequence")]
    OutOfSequence,
    /// A resource names an extension that is not registered.
    #[error("object kind is unregistered")]
    UnregisteredKind,
    /// Extensions cannot be changed.
    #[error("extensions are immutable")]
    ImmutableExtension,
    /// Resources of this extension exist.
    #[error("cannot delete extension because objects of this type exist in the data store")]
    ExtensionInUse,
    /// This manager is not the leader, or stopped being it before the entry was committed. In the
    /// second case the write may still happen.
    #[error("raft: failed to process the request: node lost leader status")]
    LostLeadership,
    /// The transaction exceeds [`MAX_PROPOSAL_BYTES`].
    #[error(
        "raft: raft message is too large and can't be sent; \
         the limit of a write is {MAX_PROPOSAL_BYTES} bytes"
    )]
    TooLarge,
    /// Replication takes no more proposals at the moment.
    #[error("too many writes are waiting to be replicated; try again")]
    Busy,
    /// A committed entry does not decode: this manager must not go on.
    #[error("entry {index} of the log does not decode: {reason}")]
    Corrupt {
        /// Log index of the entry.
        index: u64,
        /// What the decoder said.
        reason: String,
    },
    /// A snapshot of the store does not decode.
    #[error("the snapshot does not decode: {0}")]
    CorruptSnapshot(#[from] DecodeError),
    /// A committed entry or a snapshot holds what only a later version knows. It would be lost here,
    /// and the stores would differ: this manager must not go on.
    #[error(
        "{place} holds what this version does not know ({what}): a newer version has written it; \
         start that one, or a later one, on this manager"
    )]
    Newer {
        /// The entry or the snapshot.
        place: String,
        /// The field or the kind of action.
        what: String,
    },
}
