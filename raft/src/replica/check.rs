//! Which messages of peers make sense.
//!
//! The library trusts its peers and panics on much of what it does not expect. Peers are
//! authenticated, but a fault in one of them must not spread.

use std::collections::BTreeSet;

use super::Replica;
use crate::{
    Error,
    codec::{self, EntryType, Message, MessageType},
    member::Change,
};

/// No group ever gets to a higher term or index. The library adds to both and does not look.
const HIGHEST: u64 = u64::MAX / 2;
/// Terms by which a message may be ahead. Each term is an election, which takes a second: nobody was
/// away for so long. It keeps a broken peer from using up all terms there are.
const MAX_TERMS_AHEAD: u64 = 1 << 32;

impl Replica {
    /// Refuses what the library would panic on, or what has no business coming from a peer.
    pub(super) fn check(&self, message: &Message) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::malformed("raft message", reason));
        let raft = &self.node.raft;
        if message.to != raft.id || message.from == raft.id || message.from == 0 {
            return refuse("not for this member");
        }
        if message.term == 0 {
            return refuse("no term");
        }
        if highest(message) > HIGHEST {
            return refuse("a term or index that no group gets to");
        }
        if message.term > raft.term.saturating_add(MAX_TERMS_AHEAD) {
            return refuse("of a term that no election can have come to");
        }
        let last = raft.raft_log.last_index();
        match message.msg_type {
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow => Ok(()),
            MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
                if !self.membership.members.is_empty() && !self.knows(message.from) {
                    return refuse("a stranger's idea of what is committed");
                }
                // The leader only says this of entries that this member has acknowledged.
                Err(Error::Lost {
                    acknowledged: message.commit,
                    last,
                })
            }
            MessageType::MsgHeartbeat => Ok(()),
            MessageType::MsgAppend => {
                let mut expected = (message.index + 1..).zip(&message.entries);
                if expected.any(|(index, entry)| entry.index != index) {
                    return refuse("entries are not consecutive");
                }
                let mut term = message.log_term;
                for entry in &message.entries {
                    if entry.term < term || entry.term > message.term || entry.term == 0 {
                        return refuse("an entry is of an impossible term");
                    }
                    term = entry.term;
                }
                // Of earlier leaders this happens, and the library ignores them.
                if message.term >= raft.term && self.contradicts_committed(message) {
                    return refuse("another entry was committed already");
                }
                Ok(())
            }
            // An answer to an earlier leader may name entries that are gone; it is ignored anyway.
            MessageType::MsgAppendResponse
                if self.holds_office()
                    && message.term == raft.term
                    && !message.reject
                    && message.index > last =>
            {
                refuse("acknowledges what was never sent")
            }
            MessageType::MsgAppendResponse => Ok(()),
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                let conf_state = metadata.get_conf_state();
                let (voters, learners) = (&conf_state.voters, &conf_state.learners);
                let members: BTreeSet<_> = voters.iter().chain(learners).collect();
                let plain = members.len() == voters.len() + learners.len()
                    && !voters.is_empty()
                    && !members.contains(&0)
                    && conf_state.voters_outgoing.is_empty()
                    && conf_state.learners_next.is_empty()
                    && !conf_state.auto_leave;
                if metadata.term == 0 || metadata.term > message.term {
                    return refuse("snapshot of an impossible term");
                }
                if metadata.index == 0 || !plain {
                    return refuse("snapshot without a usable configuration");
                }
                Ok(())
            }
            _ => refuse("of a kind that stays within a member"),
        }
    }

    fn contradicts_committed(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        let committed = message.entries.iter();
        let mut committed = committed.take_while(|entry| entry.index <= log.committed);
        // The term of an entry that is compacted is told as 0.
        committed.any(|entry| {
            let known = log.term(entry.index).unwrap_or(0);
            known != 0 && known != entry.term
        })
    }

    /// Messages that are sound but must not have an effect now.
    pub(super) fn is_idle_talk(&self, message: &Message) -> bool {
        let raft = &self.node.raft;
        match message.msg_type {
            // Votes for strangers count for nobody. If one has more of the log than this replica, what
            // is missing here may say that it is a member; without this vote there may be no leader.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let log = &raft.raft_log;
                let own = (log.last_term(), log.last_index());
                (message.log_term, message.index) <= own && !self.knows(message.from)
            }
            // Only the present leader hands over, and only to one who can take it.
            MessageType::MsgTimeoutNow => {
                message.from != raft.leader_id || message.term != raft.term || !self.may_campaign()
            }
            _ => false,
        }
    }

    /// Whether a peer is a member, or is about to be one by what this replica has of the log.
    fn knows(&self, raft_id: u64) -> bool {
        let joins = |change: &Change| match change {
            Change::Add(member) | Change::AddLearner(member) => member.raft_id == raft_id,
            Change::Update(_) | Change::Remove(_) => false,
        };
        self.membership.members.contains_key(&raft_id)
            || self.node.store().after(self.applied).any(|entry| {
                entry.entry_type == EntryType::EntryConfChange
                    && codec::decode_change(&entry.data).is_ok_and(|(_, change)| joins(&change))
            })
    }
}

/// The highest number that is a term or an index.
fn highest(message: &Message) -> u64 {
    let metadata = message.get_snapshot().get_metadata();
    let entries = message.entries.iter();
    let entries = entries.flat_map(|entry| [entry.term, entry.index]);
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
        metadata.term,
        metadata.index,
    ];
    entries.chain(numbers).max().unwrap_or(0)
}
