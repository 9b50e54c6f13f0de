//! Which messages of peers make sense.
//!
//! The library trusts its peers and panics on much of what it does not expect. Peers are
//! authenticated, but a fault in one of them must not spread.

use super::Replica;
use crate::{
    Error,
    codec::{Message, MessageType},
};

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
        let last = raft.raft_log.last_index();
        match message.msg_type {
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow => Ok(()),
            MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
                // The leader only says this of entries that this member has acknowledged.
                Err(Error::Lost {
                    acknowledged: message.commit,
                    last,
                })
            }
            MessageType::MsgHeartbeat => Ok(()),
            MessageType::MsgAppend => {
                let expected = (message.index + 1..).zip(&message.entries);
                if message.index == u64::MAX
                    || expected.into_iter().any(|(i, entry)| entry.index != i)
                {
                    return refuse("entries are not consecutive");
                }
                Ok(())
            }
            // An answer to an earlier leader may name entries that are gone; it is ignored anyway.
            MessageType::MsgAppendResponse
                if self.leads()
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
                let mut voters = conf_state.voters.clone();
                voters.sort_unstable();
                voters.dedup();
                let plain = voters.len() == conf_state.voters.len()
                    && conf_state.learners.is_empty()
                    && conf_state.voters_outgoing.is_empty()
                    && conf_state.learners_next.is_empty();
                if metadata.index == 0 || !plain {
                    return refuse("snapshot without a usable configuration");
                }
                Ok(())
            }
            _ => refuse("of a kind that stays within a member"),
        }
    }
}
