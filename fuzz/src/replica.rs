//! Whole messages to a replica: the consensus library trusts its peers and panics on much of what it
//! does not expect, so what gets through to it is fuzzed too.

use raft::eraftpb::{
    ConfChangeType::AddNode,
    Message,
    MessageType::{self, *},
};
use skep_raft::testing;

use crate::seeds;

/// The replica is member 1 of three.
const ME: u64 = 1;

fn message(kind: MessageType, term: u64, index: u64) -> Message {
    Message {
        msg_type: kind,
        to: ME,
        from: 2,
        term,
        log_term: 1,
        index,
        ..Message::default()
    }
}

/// One of each kind.
pub(crate) fn messages() -> Vec<Message> {
    let mut append = message(MsgAppend, 2, 5);
    append.commit = 6;
    append.entries = vec![seeds::entry(6, 2), seeds::entry(7, 2)].into();
    let mut again = message(MsgAppend, 3, 5);
    again.commit = 5;
    again.entries = vec![seeds::entry(6, 3)].into();
    let mut heartbeat = message(MsgHeartbeat, 2, 0);
    heartbeat.commit = 5;
    let mut snapshot = message(MsgSnapshot, 3, 0);
    snapshot.set_snapshot(seeds::snapshot(20));
    let mut rejected = message(MsgAppendResponse, 2, 6);
    rejected.reject = true;
    rejected.reject_hint = 5;
    let granted = |kind| message(kind, 2, 0);
    vec![
        append,
        again,
        heartbeat,
        snapshot,
        rejected,
        message(MsgAppendResponse, 2, 6),
        message(MsgRequestVote, 2, 9),
        message(MsgRequestPreVote, 2, 9),
        granted(MsgRequestVoteResponse),
        granted(MsgRequestPreVoteResponse),
        granted(MsgHeartbeatResponse),
        message(MsgTimeoutNow, 2, 5),
    ]
}

/// Messages one after the other, each after its size in two bytes. A size of 0 is a tick.
fn pack(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let message = seeds::encode(message);
        bytes.extend((message.len() as u16).to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let all = messages();
    let mut seeds: Vec<_> = all
        .iter()
        .map(|one| pack(std::slice::from_ref(one)))
        .collect();
    seeds.push(pack(&all));
    seeds.push(pack(&[
        all[0].clone(),
        all[2].clone(),
        all[1].clone(),
        all[3].clone(),
    ]));
    // Elected: it asks for votes and gets them, as leader it is answered.
    let mut elected = vec![0; 2 * 12];
    elected.extend(pack(&[
        all[9].clone(),
        all[8].clone(),
        all[5].clone(),
        all[4].clone(),
    ]));
    seeds.push(elected);
    seeds.extend(found());
    seeds
}

/// What once made the library panic.
fn found() -> impl Iterator<Item = Vec<u8>> {
    let with = |term, voters, auto_leave| {
        let mut taken = seeds::snapshot(20);
        taken.mut_metadata().term = term;
        let conf_state = taken.mut_metadata().mut_conf_state();
        conf_state.voters = voters;
        conf_state.auto_leave = auto_leave;
        let mut message = message(MsgSnapshot, 3, 0);
        message.set_snapshot(taken);
        pack(&[message])
    };
    let all = vec![1, 2, 3];
    [
        with(0, all.clone(), false),
        with(2, vec![1, 2, 0], false),
        with(2, all, true),
    ]
    .into_iter()
}

pub(crate) fn run(input: &[u8]) {
    let entries = [
        (1..=3).map(|id| seeds::change(id, AddNode, id)).collect(),
        vec![seeds::entry(4, 1), seeds::entry(5, 1)],
    ];
    let mut replica = testing::replica(ME, entries.concat());
    let mut rest = input;
    while let Some((size, after)) = rest.split_first_chunk() {
        let size = usize::from(u16::from_le_bytes(*size)).min(after.len());
        let (message, after) = after.split_at(size);
        rest = after;
        if !testing::drive(&mut replica, message) {
            return;
        }
    }
}
