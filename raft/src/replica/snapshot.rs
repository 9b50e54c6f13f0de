//! Snapshots: those taken here, those for peers that are far behind, and those of the leader.

use raft::{ProgressState, Storage};
use skep_proto::v1;

use super::{Output, Replica};
use crate::{
    Error,
    codec::{self, ConfState, Snapshot},
    log::OwnSnapshot,
    member::Membership,
};

/// Ticks for which a snapshot is kept in memory when no peer needs it any more: long enough for one
/// that was asked to answer.
const OFFER_TICKS: usize = 20;
/// Entries that are held back for peers when they could be forgotten, in bytes. One that needs more of
/// them than that starts anew with another snapshot.
const MAX_HELD_BYTES: usize = 256 * 1024 * 1024;

/// What goes into a snapshot besides the store. Taken when everything handed out was applied.
#[derive(Clone, Debug)]
pub struct SnapshotHeader {
    index: u64,
    term: u64,
    conf_state: ConfState,
    membership: v1::ClusterSnapshot,
}

impl Replica {
    /// Whether a peer needs a snapshot: take one and [offer](Self::offer) it.
    pub fn wants_snapshot(&self) -> bool {
        self.leads() && self.node.store().wants_snapshot()
    }

    /// Bytes of the entries that are in memory: those since the last compaction.
    pub(crate) fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    /// Of these, bytes of the entries after `index`.
    pub(crate) fn log_bytes_after(&self, index: u64) -> usize {
        self.node.store().bytes_after(index)
    }

    /// The part of a snapshot that is not the store's, as of [`Self::applied`]. `None` before
    /// anything was applied, and for a leader that takes its leave.
    pub fn snapshot_header(&self) -> Option<SnapshotHeader> {
        let term = self.node.store().term(self.applied).ok()?;
        if self.applied == 0 || self.farewell.is_some() {
            return None;
        }
        Some(SnapshotHeader {
            index: self.applied,
            term,
            conf_state: self.conf_state.clone(),
            membership: self.membership.to_wire(),
        })
    }

    /// Keeps a snapshot for the peers that need it, and gets them to ask again.
    pub fn offer(&mut self, snapshot: OwnSnapshot) {
        self.node.mut_store().offer(Some(snapshot));
        self.offered_ticks = 0;
        self.node.ping();
    }

    /// What a message with a snapshot stands for: the library gets no data, and makes messages without.
    /// `None` if that snapshot is not offered any more; then the message must not be sent.
    pub fn offered(&self, index: u64) -> Option<&OwnSnapshot> {
        let offered = self.node.store().offered();
        offered.filter(|offered| offered.index() == index)
    }

    /// Drops the snapshot that was offered when no peer has needed it for a while.
    pub(super) fn age_offer(&mut self) {
        if self.node.store().offered().is_none() {
            return;
        }
        let mut peers = self.node.raft.prs().iter().map(|(_, peer)| peer.state);
        let needed = peers.any(|state| state == ProgressState::Snapshot);
        drop(peers);
        if self.leads() && needed {
            self.offered_ticks = 0;
        }
        self.offered_ticks += 1;
        if self.offered_ticks > OFFER_TICKS {
            self.node.mut_store().offer(None);
        }
    }

    /// Forgets the entries up to `index`, which must be in a snapshot that is on its way to the
    /// disk. What is not yet applied stays, and what a peer needs next: otherwise one that gets a
    /// large snapshot over a slow link would need another one each time.
    pub fn compact(&mut self, index: u64) {
        let index = index.min(self.applied.saturating_sub(1));
        let index = match self.needed() {
            Some(needed) if needed < index => {
                let held = self.node.store().holds_back(index, MAX_HELD_BYTES);
                needed.max(held)
            }
            _ => index,
        };
        self.node.mut_store().compact(index);
    }

    /// Index of the last entry that no peer needs which is being brought up to date.
    fn needed(&self) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        let raft = &self.node.raft;
        let first = self.node.store().first();
        let peers = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        peers
            .filter_map(|(_, peer)| match peer.state {
                ProgressState::Snapshot => Some(peer.pending_snapshot),
                ProgressState::Replicate if peer.recent_active => Some(peer.matched),
                ProgressState::Replicate | ProgressState::Probe => None,
            })
            // Who is further behind needs a snapshot anyway.
            .filter(|has| has + 1 >= first)
            .min()
    }

    /// A snapshot of the leader takes the place of everything.
    pub(super) fn restore(
        &mut self,
        number: u64,
        snapshot: &Snapshot,
        output: &mut Output,
    ) -> Result<(), Error> {
        let metadata = snapshot.get_metadata();
        let content = match self.incoming.take() {
            Some((index, content)) if index == metadata.index => content,
            _ => codec::decode_snapshot(snapshot)?,
        };
        self.node.mut_store().restore(metadata.index, metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        self.membership = Membership::from_wire(&content.membership);
        self.applied = metadata.index;
        self.held.clear();
        self.restoring = Some((number, metadata.index));
        output.members_changed = true;
        output.restore = Some((metadata.index, content.store));
        Ok(())
    }
}

impl SnapshotHeader {
    /// Index of the last entry in the snapshot.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Makes the snapshot. This looks at all that is in `store`, so it takes a while.
    pub fn with_store(self, store: skep_store::Snapshot) -> OwnSnapshot {
        let mut front = Snapshot {
            data: codec::encode_front(self.membership, store.encoded_len()),
            ..Snapshot::default()
        };
        let metadata = front.mut_metadata();
        metadata.index = self.index;
        metadata.term = self.term;
        metadata.set_conf_state(self.conf_state);
        OwnSnapshot::new(front, store)
    }
}
