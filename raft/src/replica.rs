//! One member of the group as a plain state machine: no clock, no socket, no thread, no disk.
//!
//! Ticks, messages, proposals and "this is on disk now" go in; [`Replica::take_output`] says what to
//! send, what to write and what to apply. Whoever drives it (the shell in production, a simulator in
//! tests) does that, in the order in which the outputs came.
//!
//! Writing and sending go side by side: a leader's messages leave before its own disk has the
//! entries, everyone else's only afterwards.

mod changes;
mod check;
mod output;
mod read;
mod snapshot;
mod tail;
mod view;

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use skep_store::Image;
use slog::Drain;

use self::{
    changes::{Farewell, is_change},
    tail::Tail,
};
pub use self::{
    output::{Append, Committed, Output, ReadIndex, Role},
    snapshot::SnapshotHeader,
};
use crate::{
    Error, Ticks,
    codec::{self, ConfState, Entry, EntryType, HardState, Incoming, Message, MessageType},
    log::{Batch, Loaded},
    member::Membership,
};

/// Entries in one message, in bytes; a larger entry travels alone. Several messages may be merged on
/// the way, so this stays well below the 4 MiB that a peer accepts.
const MAX_MESSAGE_BYTES: u64 = 512 * 1024;
/// Messages with entries that may be unanswered per peer.
const MAX_INFLIGHT_MESSAGES: usize = 256;
/// Entries that may be neither committed nor given up, in bytes. It bounds a leader's memory while it
/// has no quorum; proposals on top wait.
const MAX_UNCOMMITTED_BYTES: u64 = 32 * 1024 * 1024;
/// Committed entries handed out at once, in bytes: applying them must not take long compared to an
/// election.
const MAX_COMMITTED_BYTES: u64 = 1024 * 1024;
/// What a replica is told at its birth.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Its Raft ID.
    pub raft_id: u64,
    /// What the group has agreed on.
    pub ticks: Ticks,
    /// Ticks of silence, picked at random, before it stands for election. The lower end is at least
    /// that of `ticks`. A range of one makes a replica deterministic.
    pub election_ticks: Range<usize>,
}

impl ReplicaConfig {
    /// The usual one.
    pub fn new(raft_id: u64) -> Self {
        Self::with_ticks(raft_id, Ticks::default())
    }

    /// One with the settings of its group. Each member waits a random number of ticks, up to half as
    /// many again, before it stands for election, so that two rarely do at once. With the default and
    /// ticks of 100 ms a dead leader is replaced within 1.5 s.
    pub fn with_ticks(raft_id: u64, ticks: Ticks) -> Self {
        let election = ticks.election as usize;
        Self {
            raft_id,
            ticks,
            election_ticks: election..election + (election / 2).max(1),
        }
    }
}

/// An output that waits for the disk.
struct Unwritten {
    number: u64,
    /// The state that is written with it; `None` if it need not be written.
    state: Option<HardState>,
    messages: Vec<Message>,
}

/// See the module.
pub struct Replica {
    node: RawNode<Tail>,
    membership: Membership,
    conf_state: ConfState,
    role: Role,
    /// The latest, on disk or on the way there.
    hard_state: HardState,
    /// The commit index that is on disk or on the way there: it is not always written.
    written: u64,
    /// The state that is on disk.
    durable: HardState,
    /// Outputs whose messages wait for the disk.
    unwritten: VecDeque<Unwritten>,
    /// Committed entries from the first membership change on whose commit is not on disk yet.
    held: VecDeque<Entry>,
    /// Messages that do not wait any more.
    released: Vec<Message>,
    /// The decoded snapshot that the library accepted but has not handed out yet.
    incoming: Option<(u64, codec::Content)>,
    /// Number and index of a snapshot that is on its way to the disk.
    restoring: Option<(u64, u64)>,
    /// Index of the last entry or snapshot handed out.
    applied: u64,
    removed: bool,
    /// It was removed, but stays for a moment to tell the others.
    farewell: Option<Farewell>,
    /// Ticks since a peer has last needed the snapshot that is offered.
    offered_ticks: usize,
    /// Index of the last entry at each of the last ticks, the latest first.
    ends: VecDeque<u64>,
}

impl Replica {
    /// A replica that goes on from what its log had. Also gives the store that the snapshot in the
    /// log holds, with its index.
    #[allow(clippy::type_complexity)]
    pub fn new(
        config: &ReplicaConfig,
        loaded: Loaded,
    ) -> Result<(Self, Option<(u64, Image)>), Error> {
        loaded.check()?;
        if let Some(last) = loaded.entries.last()
            && last.term > loaded.hard_state.term
        {
            let reason = format!("entry {} is of a later term than the member", last.index);
            return Err(Error::malformed("raft log", reason));
        }
        let mut membership = Membership::default();
        let mut conf_state = ConfState::default();
        let mut position = (0, 0);
        let mut store = None;
        if let Some(snapshot) = &loaded.snapshot {
            let content = codec::decode_snapshot(snapshot)?;
            let metadata = snapshot.get_metadata();
            position = (metadata.index, metadata.term);
            conf_state = metadata.get_conf_state().clone();
            membership = Membership::from_wire(&content.membership);
            store = Some((metadata.index, content.store));
        }
        let mut hard_state = loaded.hard_state;
        // The commit index is not always written, and a snapshot only holds what is committed.
        hard_state.commit = hard_state.commit.max(position.0);
        let tail = Tail::new(
            loaded.entries,
            position,
            hard_state.clone(),
            conf_state.clone(),
        );
        let library = raft::Config {
            id: config.raft_id,
            election_tick: config.ticks.election as usize,
            heartbeat_tick: config.ticks.heartbeat as usize,
            min_election_tick: config.election_ticks.start,
            max_election_tick: config.election_ticks.end,
            applied: position.0,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            ..raft::Config::default()
        };
        // Below "info" the library formats whole messages.
        let drain = slog::LevelFilter::new(tracing_slog::TracingSlogDrain, slog::Level::Info);
        let logger = slog::Logger::root(drain.fuse(), slog::o!());
        let node = RawNode::new(&library, tail, &logger)?;
        let replica = Self {
            node,
            membership,
            conf_state,
            role: Role {
                term: hard_state.term,
                ..Role::default()
            },
            written: hard_state.commit,
            durable: hard_state.clone(),
            hard_state,
            unwritten: VecDeque::new(),
            held: VecDeque::new(),
            released: Vec::new(),
            incoming: None,
            restoring: None,
            applied: position.0,
            removed: false,
            farewell: None,
            offered_ticks: 0,
            ends: VecDeque::new(),
        };
        Ok((replica, store))
    }

    /// A tick of the clock has passed.
    pub fn tick(&mut self) {
        self.age_offer();
        self.age_farewell();
        self.note_end();
        if self.removed || (!self.holds_office() && !self.may_campaign()) {
            return;
        }
        self.node.tick();
    }

    /// Stands for election at once if there is nobody else to wait for.
    pub fn campaign_if_alone(&mut self) {
        if self.is_alone() && !self.holds_office() && self.may_campaign() && !self.removed {
            // It only fails for messages of others.
            let _ = self.node.campaign();
        }
    }

    /// Takes a message of a peer. An error means that the message made no sense and was dropped,
    /// except for [`Error::Lost`] and for a snapshot of the leader that a later version has written:
    /// after those this replica must not go on.
    pub fn step(&mut self, incoming: Incoming) -> Result<(), Error> {
        if self.removed {
            return Ok(());
        }
        let Incoming { message, snapshot } = incoming;
        self.check(&message)?;
        if self.is_idle_talk(&message) {
            return Ok(());
        }
        let snapshot =
            snapshot.map(|content| (message.get_snapshot().get_metadata().index, content));
        match self.node.step(message) {
            // A peer that was removed, or that this replica does not know yet.
            Ok(()) | Err(raft::Error::StepPeerNotFound) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some((index, content)) = snapshot
            && self
                .node
                .snap()
                .is_some_and(|s| s.get_metadata().index == index)
        {
            self.incoming = Some((index, content?));
        }
        self.take_leave();
        Ok(())
    }

    /// Whether proposals of `bytes` bytes altogether would be taken now.
    pub fn has_room(&self, bytes: usize) -> bool {
        let uncommitted = self.node.raft.uncommitted_size();
        self.leads()
            && self.node.raft.lead_transferee.is_none()
            && (uncommitted == 0 || uncommitted + bytes <= MAX_UNCOMMITTED_BYTES as usize)
    }

    /// Appends entries to the log of the group, all or none. Only a leader can.
    pub fn propose(&mut self, data: Vec<Bytes>) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        if !self.leads() || self.removed {
            return Err(Error::NotLeader);
        }
        let mut message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.node.raft.id,
            ..Message::default()
        };
        for data in data {
            message.mut_entries().push(Entry {
                data,
                ..Entry::default()
            });
        }
        Ok(self.node.step(message)?)
    }

    /// Asks a member to take over. It may not happen; then this replica leads on after a while.
    pub fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
    }

    /// Whether another member is being asked to take over. Nothing can be proposed meanwhile.
    pub fn is_transferring(&self) -> bool {
        self.leads() && self.node.raft.lead_transferee.is_some()
    }

    /// A message to `peer` could not be delivered.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.node.report_unreachable(peer);
    }

    /// A snapshot was delivered to `peer`, or could not be.
    pub fn report_snapshot(&mut self, peer: u64, delivered: bool) {
        self.node.report_snapshot(
            peer,
            match delivered {
                true => SnapshotStatus::Finish,
                false => SnapshotStatus::Failure,
            },
        );
    }

    /// The append of this number, and all before it, are durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        self.release(number);
        if let Some((restoring, index)) = self.restoring
            && restoring <= number
        {
            self.restoring = None;
            self.node.advance_apply_to(index);
        }
    }

    /// Lets go the messages of outputs up to `number`, and of those after it that need no write.
    fn release(&mut self, number: u64) {
        let mut last = number;
        let ready = |next: &Unwritten| next.number <= number || next.state.is_none();
        while self.unwritten.front().is_some_and(ready)
            && let Some(done) = self.unwritten.pop_front()
        {
            last = done.number;
            self.durable = done
                .state
                .unwrap_or_else(|| std::mem::take(&mut self.durable));
            self.released.extend(done.messages);
        }
        if last > number {
            self.node.on_persist_ready(last);
        }
    }

    /// Whether [`Self::take_output`] would have something to say.
    pub fn has_output(&self) -> bool {
        let resigns = self.farewell.is_some() && self.role.leads;
        let hands_out = self.held.front().is_some_and(|next| !self.is_secret(next));
        let speaks = !self.released.is_empty() || hands_out || resigns;
        !self.removed && (self.node.has_ready() || speaks)
    }

    /// What is to be done now. An error means that a committed entry is broken: this replica must
    /// not go on.
    pub fn take_output(&mut self) -> Result<Output, Error> {
        let mut output = Output {
            messages: std::mem::take(&mut self.released),
            ..Output::default()
        };
        if self.removed || !self.node.has_ready() {
            self.hand_out(&mut output)?;
            self.note_role(&mut output);
            return Ok(output);
        }
        let mut ready = self.node.ready();
        let number = ready.number();
        let mut messages = ready.take_messages();
        output.reads = Self::confirmed_reads(ready.take_read_states());
        let persisted_messages = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        let changes = committed
            .iter()
            .any(|entry| is_change(entry) && entry.index > self.written);
        let mut batch = Batch::default();
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.restore(number, &snapshot, &mut output)?;
            batch.snapshot = Some(snapshot);
        }
        batch.entries = ready.take_entries();
        self.node.mut_store().append(&batch.entries);
        if let Some(hard_state) = ready.hs() {
            self.hard_state = hard_state.clone();
        }
        let must_sync = ready.must_sync() || changes;
        self.node.advance_append_async(ready);
        self.held.extend(committed);
        let secrets = self.held.iter().any(|entry| self.is_secret(entry));
        self.hand_out(&mut output)?;
        let hard_state = self.lasting_state();
        self.unwritten.push_back(Unwritten {
            number,
            state: must_sync.then(|| hard_state.clone()),
            messages: persisted_messages,
        });
        if must_sync {
            self.written = hard_state.commit;
            batch.hard_state = Some(hard_state);
            output.append = Some(Append { number, batch });
        } else if self.unwritten.len() == 1 {
            // Only the commit index is new. It need not be written, and nothing else waits.
            self.node.on_persist_ready(number);
            self.release(number);
            output.messages.append(&mut self.released);
        }
        match self.unwritten.back_mut() {
            // Who votes alone leads before its term is on disk. Others would hear of entries of a term
            // that it may have once more, with others.
            Some(last) if secrets || self.durable.term < self.hard_state.term => {
                last.messages.splice(0..0, messages).for_each(drop)
            }
            _ => output.messages.append(&mut messages),
        }
        self.note_role(&mut output);
        Ok(output)
    }

    /// Hands out what is committed, up to the first change of the members that is a secret.
    fn hand_out(&mut self, output: &mut Output) -> Result<(), Error> {
        while let Some(next) = self.held.front()
            && !self.is_secret(next)
            && let Some(entry) = self.held.pop_front()
        {
            self.commit(entry, output)?;
        }
        if !output.committed.is_empty() && !self.removed {
            self.node.advance_apply_to(self.applied);
        }
        Ok(())
    }

    fn commit(&mut self, mut entry: Entry, output: &mut Output) -> Result<(), Error> {
        let mut committed = Committed {
            index: entry.index,
            data: Bytes::new(),
            change: None,
        };
        match entry.entry_type {
            EntryType::EntryNormal => committed.data = entry.take_data(),
            EntryType::EntryConfChange => {
                let (id, change) = codec::decode_change(&entry.data)?;
                committed.change = Some(id);
                self.apply_change(entry.index, &change)?;
                output.members_changed = true;
            }
            EntryType::EntryConfChangeV2 => {
                return Err(Error::malformed(
                    "entry",
                    format!("entry {} changes several members at once", entry.index),
                ));
            }
        }
        self.applied = entry.index;
        output.committed.push(committed);
        Ok(())
    }

    fn note_role(&mut self, output: &mut Output) {
        if self.farewell.is_some() && output.members_changed && self.role.leads {
            // What is committed with its removal was still proposed by a leader, which the next output
            // says that it is not any more.
            return;
        }
        let raft = &self.node.raft;
        let role = Role {
            term: raft.term,
            leader: match self.farewell {
                None => raft.leader_id,
                Some(_) => 0,
            },
            leads: self.leads(),
        };
        if role != self.role {
            self.role = role;
            output.role = Some(role);
        }
    }

    fn leads(&self) -> bool {
        self.holds_office() && self.farewell.is_none()
    }

    /// Whether the others hear this replica as their leader, also while it takes leave.
    fn holds_office(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether nobody else votes.
    pub(crate) fn is_alone(&self) -> bool {
        self.conf_state.voters == [self.node.raft.id]
    }

    /// The library panics if a replica stands for election while a snapshot is not on disk yet, or,
    /// when it is alone, while entries are not.
    fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.restoring.is_none()
            && log.unstable_snapshot().is_none()
            && (!self.is_alone() || log.persisted == log.last_index())
    }
}

#[cfg(test)]
mod group;
