//! Messages that no correct member sends. The library would panic on each of them.

use skep_proto::v1;

use super::Group;
use crate::{
    Error,
    codec::{self, Entry, Incoming, Message, MessageType, Snapshot},
    log::LogStore as _,
};

/// A member that has committed something, and a message to it of the present term.
fn group() -> (Group, Message) {
    let mut group = Group::of(33, 3);
    group.write();
    group.settle();
    let leader = group.elect();
    let to = leader % 3 + 1;
    let message = Message {
        to,
        from: leader,
        term: group.replica(to).role().term,
        ..Message::default()
    };
    (group, message)
}

fn refused(group: &mut Group, message: &Message) -> bool {
    let to = message.to;
    let step = group
        .replica(to)
        .step(Incoming::new(message.clone()).unwrap());
    group.drain(to);
    matches!(step, Err(Error::Malformed { .. }))
}

#[test]
fn entries_that_contradict_what_is_committed_are_refused() {
    let (mut group, mut message) = group();
    let committed = group.replica(message.to).applied();
    message.msg_type = MessageType::MsgAppend;
    message.index = committed - 1;
    message.log_term = message.term;
    message.term += 1;
    message.entries = vec![Entry {
        index: committed,
        term: message.term,
        ..Entry::default()
    }]
    .into();
    assert!(refused(&mut group, &message));
    // An earlier leader may do that; it is ignored.
    message.term = 1;
    message.log_term = 1;
    message.entries[0].term = 1;
    assert!(!refused(&mut group, &message));
}

#[test]
fn entries_of_impossible_terms_are_refused() {
    let (mut group, mut message) = group();
    message.msg_type = MessageType::MsgAppend;
    message.index = group.replica(message.to).last_index();
    message.log_term = message.term;
    for term in [0, message.term - 1, message.term + 1] {
        message.entries = vec![Entry {
            index: message.index + 1,
            term,
            ..Entry::default()
        }]
        .into();
        assert!(refused(&mut group, &message), "{term}");
    }
}

#[test]
fn snapshots_that_no_leader_takes_are_refused() {
    let (mut group, mut message) = group();
    message.msg_type = MessageType::MsgSnapshot;
    let snapshot = |term, voters: &[u64]| {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 500;
        snapshot.mut_metadata().term = term;
        snapshot.mut_metadata().mut_conf_state().voters = voters.to_vec();
        snapshot
    };
    for (term, voters) in [
        (0, &[1, 2, 3][..]),
        (message.term + 1, &[1, 2, 3]),
        (1, &[1, 2, 0]),
        (1, &[1, 2, 2]),
        (1, &[]),
    ] {
        message.set_snapshot(snapshot(term, voters));
        assert!(refused(&mut group, &message), "{term} {voters:?}");
    }
    // The mark of a change that is never made here.
    let mut leaving = snapshot(1, &[1, 2, 3]);
    let metadata = leaving.mut_metadata();
    metadata.mut_conf_state().auto_leave = true;
    message.set_snapshot(leaving);
    assert!(refused(&mut group, &message));
}

#[test]
fn terms_and_indexes_that_would_overflow_are_refused() {
    let (mut group, message) = group();
    let kinds = [
        MessageType::MsgRequestVote,
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
    ];
    for kind in kinds {
        let mut message = message.clone();
        message.msg_type = kind;
        for field in [Message::set_term, Message::set_index, Message::set_commit] {
            let mut message = message.clone();
            field(&mut message, u64::MAX);
            assert!(refused(&mut group, &message), "{message:?}");
        }
    }
    group.write();
}

/// A snapshot with a field that this version does not know.
fn newer(message: &Message) -> Message {
    let field = [0xba, 0x3e, 0];
    let store = [&[0x0a, 3][..], &field].concat();
    let front = codec::encode_front(v1::ClusterSnapshot::default(), store.len());
    let mut snapshot = Snapshot {
        data: [&front[..], &store].concat().into(),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (500, 1);
    metadata.mut_conf_state().voters = vec![1, 2, 3];
    let mut message = message.clone();
    message.msg_type = MessageType::MsgSnapshot;
    message.set_snapshot(snapshot);
    message
}

#[test]
fn r22_a_snapshot_of_a_newer_version_ends_a_member_that_needs_it_and_no_other() {
    let (mut group, message) = group();
    let mut message = newer(&message);
    let to = message.to;
    let mut step = |message: &Message| {
        let incoming = Incoming::new(message.clone()).unwrap();
        group.replica(to).step(incoming)
    };
    // Of a leader of before it changes nothing.
    let term = std::mem::replace(&mut message.term, 1);
    step(&message).unwrap();
    message.term = term;
    let told = step(&message).unwrap_err().to_string();
    assert!(
        told.starts_with(
            "the snapshot holds what this version does not know (field 999 of \
             docker.swarmkit.v1.Node)"
        ),
        "{told}"
    );
    // What it has on disk is what it had.
    let loaded = group.members.get_mut(&to).unwrap().log.load().unwrap();
    assert_eq!(loaded.snapshot_index(), 0);
}

#[test]
fn r22_a_snapshot_of_another_form_is_not_read() {
    let snapshot = |data: Vec<u8>| Snapshot {
        data: data.into(),
        ..Snapshot::default()
    };
    for (data, what) in [
        (vec![0x08, 1], "version 1"),
        (
            vec![0x12, 0, 0x1a, 0, 0x22, 0],
            "field 4 of docker.swarmkit.v1.Snapshot",
        ),
    ] {
        let error = codec::decode_snapshot(&snapshot(data)).unwrap_err();
        assert!(
            error.is_newer() && error.to_string().contains(what),
            "{error}"
        );
    }
    assert!(codec::decode_snapshot(&snapshot(vec![0x12, 0, 0x1a, 0])).is_ok());
}
