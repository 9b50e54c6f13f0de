//! What somebody needs who drives a [`Replica`] in place of the shell: a simulator.
//!
//! Messages go in and out as the bytes that travel, membership changes and batches are told apart
//! without the types of the consensus library. [`forget_vote`] plants a fault on purpose.

use std::time::Duration;

use bytes::Bytes;
use skep_proto::v1;

use crate::{
    Batch, Committed, Error, Incoming, Loaded, LocalMember, Output, Replica,
    codec::{self, MessageType},
    member::Change,
};

/// Time to hand over leadership before a member that was asked to stop ends anyway.
pub const HANDOVER_TIMEOUT: Duration = crate::node::HANDOVER_TIMEOUT;

/// Ticks that the disk of a leader may take for one write before it lets someone else lead.
pub const MAX_STALLED_TICKS: usize = crate::node::MAX_STALLED_TICKS;

/// A message to a peer.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Raft ID of the receiver.
    pub to: u64,
    /// Whether it carries a snapshot, whose fate the sender must be told.
    pub is_snapshot: bool,
    /// The kind of message, for traces.
    pub kind: &'static str,
    /// As it travels, in one piece.
    pub bytes: Bytes,
}

/// Takes the messages out of an output of this replica.
pub fn take_messages(replica: &mut Replica, output: &mut Output) -> Result<Vec<Outgoing>, Error> {
    let mut outgoing = Vec::with_capacity(output.messages.len());
    for mut message in std::mem::take(&mut output.messages) {
        if !fill(replica, &mut message)? {
            continue;
        }
        outgoing.push(Outgoing {
            to: message.to,
            is_snapshot: message.msg_type == MessageType::MsgSnapshot,
            kind: kind(message.msg_type),
            bytes: codec::encode(&message)?.into(),
        });
    }
    Ok(outgoing)
}

/// Puts its data into a message with a snapshot. `false` if it is lost: that is not offered any more.
pub(crate) fn fill(replica: &mut Replica, message: &mut codec::Message) -> Result<bool, Error> {
    if message.msg_type != MessageType::MsgSnapshot {
        return Ok(true);
    }
    let index = message.get_snapshot().get_metadata().index;
    let Some(offered) = replica.offered(index) else {
        replica.report_snapshot(message.to, false);
        return Ok(false);
    };
    message.set_snapshot(offered.stored().map_err(Error::log("read snapshot"))?);
    Ok(true)
}

/// The message in these bytes, and its sender.
pub fn incoming(bytes: &Bytes) -> Result<(u64, Incoming), Error> {
    let message: codec::Message = codec::decode(bytes)?;
    Ok((message.from, Incoming::new(message)?))
}

fn kind(kind: MessageType) -> &'static str {
    match kind {
        MessageType::MsgAppend => "append",
        MessageType::MsgAppendResponse => "append response",
        MessageType::MsgHeartbeat => "heartbeat",
        MessageType::MsgHeartbeatResponse => "heartbeat response",
        MessageType::MsgRequestVote => "vote",
        MessageType::MsgRequestVoteResponse => "vote response",
        MessageType::MsgRequestPreVote => "pre-vote",
        MessageType::MsgRequestPreVoteResponse => "pre-vote response",
        MessageType::MsgSnapshot => "snapshot",
        MessageType::MsgTimeoutNow => "timeout now",
        _ => "other",
    }
}

/// An entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// Its index.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it holds.
    pub data: &'a [u8],
}

/// The entries of a batch.
pub fn entries(batch: &Batch) -> impl Iterator<Item = LogEntry<'_>> {
    batch.entries.iter().map(|entry| LogEntry {
        index: entry.index,
        term: entry.term,
        data: &entry.data,
    })
}

/// Index of the snapshot in a batch.
pub fn snapshot_index(batch: &Batch) -> Option<u64> {
    let snapshot = batch.snapshot.as_ref();
    snapshot.map(|snapshot| snapshot.get_metadata().index)
}

/// Makes one batch of two, as the thread that writes the log does. A batch that must be written by
/// itself is given back.
pub fn merge(batch: &mut Batch, next: Batch) -> Result<(), Box<Batch>> {
    batch.merge(next)
}

/// The first entry of a new group.
pub fn bootstrap(founder: &LocalMember) -> Batch {
    founder.bootstrap()
}

/// Proposes a new member, as a learner.
pub fn propose_add(replica: &mut Replica, id: u64, member: v1::RaftMember) -> Result<(), Error> {
    replica.propose_change(id, &Change::AddLearner(member))
}

/// Proposes a vote for a learner that has caught up, if there is one, and tells which.
pub fn propose_vote(replica: &mut Replica, id: u64) -> Option<u64> {
    if !replica.can_change() {
        return None;
    }
    let learner = replica.caught_up_learners().next()?;
    let member = replica.members().get(&learner)?.clone();
    replica.propose_change(id, &Change::Add(member)).ok()?;
    Some(learner)
}

/// Proposes that a member be removed.
pub fn propose_remove(replica: &mut Replica, id: u64, raft_id: u64) -> Result<(), Error> {
    replica.propose_change(id, &Change::Remove(raft_id))
}

/// ID of the membership change in a committed entry, if it is one.
pub fn change_id(committed: &Committed) -> Option<u64> {
    committed.change
}

/// Loses the vote, as if its write had never reached the disk.
pub fn forget_vote(loaded: &mut Loaded) {
    loaded.hard_state.vote = 0;
}
