//! What a replica wants done.

use bytes::Bytes;
use skep_store::Image;

use crate::{codec::Message, log::Batch};

/// Who leads, as far as a replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The term it is in.
    pub term: u64,
    /// Raft ID of the leader, 0 if there is none.
    pub leader: u64,
    /// Whether it is the leader itself.
    pub leads: bool,
}

/// What is to be written to the log. Once it is durable, the replica wants to know its number.
#[derive(Debug)]
pub struct Append {
    /// Grows with every append; being told of one implies all before.
    pub number: u64,
    /// What to write.
    pub batch: Batch,
}

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its index in the log.
    pub index: u64,
    /// Its data; empty for what is not for the store.
    pub data: Bytes,
    /// ID of the membership change in it, if it is one. The replica has already applied it.
    pub(crate) change: Option<u64>,
}

/// A read may go on: see [`super::Replica::read_index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// What it was asked under.
    pub context: u64,
    /// Up to where the store must be applied. The entries may still be on their way.
    pub index: u64,
}

/// What a replica wants done, in this order.
#[derive(Debug, Default)]
pub struct Output {
    /// There is another role. What was promised as leader of an earlier term is void.
    pub role: Option<Role>,
    /// To send. They may be lost, delayed or reordered.
    pub(crate) messages: Vec<Message>,
    /// To write.
    pub append: Option<Append>,
    /// Index and tables of a snapshot from the leader, to put in place of the store's.
    pub restore: Option<(u64, Image)>,
    /// To apply.
    pub committed: Vec<Committed>,
    /// Reads that a quorum has confirmed.
    pub reads: Vec<ReadIndex>,
    /// Whether the members or their addresses are others than before.
    pub members_changed: bool,
}
