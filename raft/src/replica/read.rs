//! Reading: up to where a store must be applied to be current, and what the log still has.

use raft::Storage;
use skep_store::Entry;

use super::{Replica, output::ReadIndex};
use crate::{
    Error,
    codec::{self, EntryType},
};

/// Entries handed out for reading at a time, in bytes; a larger one comes alone.
const MAX_READ_BYTES: u64 = 1024 * 1024;

impl Replica {
    /// Asks for the index up to which the store must be applied for a read that begins now to see
    /// everything that was acknowledged before. The answer comes in an output under `context`, a
    /// number never used before on this replica, once a quorum has confirmed that this replica
    /// leads. If it ceases to lead no answer comes.
    pub fn read_index(&mut self, context: u64) -> Result<(), Error> {
        // The library says nothing at all when nothing of its term is committed.
        if self.removed || !self.leads() || !self.node.raft.commit_to_current_term() {
            return Err(Error::NotLeader);
        }
        self.node.read_index(context.to_be_bytes().to_vec());
        Ok(())
    }

    /// Which reads may go on, by what the library says of them.
    pub(super) fn confirmed_reads(states: Vec<raft::ReadState>) -> Vec<ReadIndex> {
        let confirmed = |state: raft::ReadState| {
            // Whatever is not a number of ours was not asked here.
            let context = u64::from_be_bytes(state.request_ctx.try_into().ok()?);
            let index = state.index;
            Some(ReadIndex { context, index })
        };
        states.into_iter().filter_map(confirmed).collect()
    }

    /// Entries after index `after` up to `through` that were handed out before, in order, as many as
    /// fit into a bounded answer. Empty if there are none. Fails with [`Error::Compacted`] if the one
    /// after `after` is not in memory any more.
    pub fn entries_after(&self, after: u64, through: u64) -> Result<Vec<Entry>, Error> {
        let last = through.min(self.applied);
        let log = self.node.store();
        let first = log.first_index()?;
        if after.saturating_add(1) < first {
            return Err(Error::Compacted { first });
        }
        if after >= last {
            return Ok(Vec::new());
        }
        let context = raft::GetEntriesContext::empty(false);
        let entries = log.entries(after + 1, last + 1, MAX_READ_BYTES, context)?;
        let plain = |entry: codec::Entry| Entry {
            index: entry.index,
            data: match entry.entry_type {
                EntryType::EntryNormal => entry.data,
                // Changes of the members are not for the store.
                _ => bytes::Bytes::new(),
            },
        };
        Ok(entries.into_iter().map(plain).collect())
    }
}
