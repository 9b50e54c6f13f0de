//! Changes of the members: proposing one, following a committed one, and when a learner may vote.

use raft::ProgressState;

use super::Replica;
use crate::{
    Error,
    codec::{self, Entry, EntryType, HardState},
    member::Change,
};

/// Ticks by which a learner may lag behind its leader when it is given a vote: it has all that was in
/// the log so long ago. From then on the group may need it for a quorum, and a write waits about as long
/// as it lags, whatever that is in entries or bytes; under load it always lacks some. It is the shortest
/// election timeout by default: a group stands still for so long now and then anyway.
const CAUGHT_UP_TICKS: usize = 10;

/// Ticks for which a leader that is not a member any more stays to tell the others. Whoever is not told
/// by then was not there for five times the shortest election timeout.
const FAREWELL_TICKS: usize = 50;

/// A leader's own removal is committed, and the others do not all know it yet. In a group of two the one
/// that is left needs that news: without it, it would wait for a vote that nobody gives any more.
#[derive(Debug)]
pub(super) struct Farewell {
    /// Index of the removal.
    index: u64,
    ticks: usize,
}

/// Whether a committed entry changes the members.
pub(super) fn is_change(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal
}

impl Replica {
    /// Whether a membership change would be taken now: one at a time.
    pub fn can_change(&self) -> bool {
        self.has_room(0) && !self.node.raft.has_pending_conf()
    }

    /// Proposes a membership change under an ID of the caller's.
    pub(crate) fn propose_change(&mut self, id: u64, change: &Change) -> Result<(), Error> {
        if !self.can_change() || self.removed {
            return Err(Error::NotLeader);
        }
        // A committed change that cannot be applied would end every member.
        let voters = &self.conf_state.voters;
        let sound = match change {
            Change::Remove(raft_id) => voters.iter().any(|voter| voter != raft_id),
            Change::AddLearner(member) => !voters.contains(&member.raft_id),
            Change::Add(_) | Change::Update(_) => true,
        };
        if !sound || !self.membership.allows(change) {
            return Err(Error::Outdated);
        }
        // As the library takes a proposal, but it would look into the data, and only knows its own
        // numbers.
        let raft = &mut self.node.raft;
        let mut entry = [Entry {
            entry_type: EntryType::EntryConfChange,
            data: codec::encode_change(id, change),
            ..Entry::default()
        }];
        if !raft.append_entry(&mut entry) {
            return Err(raft::Error::ProposalDropped.into());
        }
        raft.pending_conf_index = raft.raft_log.last_index();
        raft.bcast_append();
        Ok(())
    }

    pub(super) fn apply_change(&mut self, index: u64, change: &Change) -> Result<(), Error> {
        self.membership.apply(change);
        if *change == Change::Remove(self.node.raft.id) {
            // The library must not be told: a leader that is not a member makes it panic.
            match self.holds_office() {
                true => self.farewell = Some(Farewell { index, ticks: 0 }),
                false => self.removed = true,
            }
        } else if let Some(change) = codec::for_library(change) {
            self.conf_state = self.node.apply_conf_change(&change)?;
        }
        Ok(())
    }

    /// Whether this is a change of the members, and that it is committed is not on disk yet. Until then
    /// nobody may hear of it, in whatever way: a member that is removed is gone then, and whoever is left
    /// without it, and has forgotten that it is not needed any more, would wait for its vote for ever. A
    /// leader that is removed itself has no secrets.
    pub(super) fn is_secret(&self, committed: &Entry) -> bool {
        is_change(committed)
            && committed.index > self.durable.commit
            && !(self.holds_office() && self.removes_this(committed))
    }

    fn removes_this(&self, change: &Entry) -> bool {
        let own = Change::Remove(self.node.raft.id);
        codec::decode_change(&change.data).is_ok_and(|(_, change)| change == own)
    }

    /// What is written of the present state. That this leader is removed is not, before the others know: it
    /// would be none any more after a restart, and could not tell them.
    pub(super) fn lasting_state(&self) -> HardState {
        let mut state = self.hard_state.clone();
        if let Some(farewell) = &self.farewell {
            state.commit = state.commit.min(farewell.index - 1);
        }
        state
    }

    /// Counts the ticks of a farewell.
    pub(super) fn age_farewell(&mut self) {
        if let Some(farewell) = &mut self.farewell {
            farewell.ticks += 1;
        }
        self.take_leave();
    }

    /// Ends a farewell that is over.
    pub(super) fn take_leave(&mut self) {
        let Some(farewell) = &self.farewell else {
            return;
        };
        let raft = &self.node.raft;
        let knows = |progress: &raft::Progress| progress.committed_index >= farewell.index;
        let told = self.holds_office()
            && raft
                .prs()
                .iter()
                .all(|(id, progress)| *id == raft.id || knows(progress));
        self.removed |= told || farewell.ticks >= FAREWELL_TICKS;
    }

    /// Raft IDs of the members that do not vote yet.
    pub fn learners(&self) -> &[u64] {
        &self.conf_state.learners
    }

    /// Remembers where the log ends at this tick.
    pub(super) fn note_end(&mut self) {
        self.ends.truncate(CAUGHT_UP_TICKS - 1);
        self.ends.push_front(self.last_index());
    }

    /// The learners that lag little behind this leader and are there, so that they may vote.
    pub fn caught_up_learners(&self) -> impl Iterator<Item = u64> {
        let wanted = self.ends.back().map_or(u64::MAX, |end| *end.max(&1));
        let learners = self.conf_state.learners.iter().copied();
        learners.filter(move |learner| {
            self.leads()
                && self.node.raft.prs().get(*learner).is_some_and(|progress| {
                    progress.state == ProgressState::Replicate
                        && progress.recent_active
                        && progress.matched >= wanted
                })
        })
    }
}
