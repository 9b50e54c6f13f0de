//! What travels and rests against the tables in `wire/`, which record the form of etcd's `raftpb`
//! independently of the consensus library: its bytes are read here, and ours by the table.

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_proto::v1;

use super::*;
use crate::member::Change;

const FIELDS: &str = include_str!("wire/raftpb.tsv");
const ENUMS: &str = include_str!("wire/enums.tsv");

/// What a field holds. Numbers are also truth values and enums.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    Message(Fields),
}

use Value::Number;

/// By field name; what is empty is left out.
type Fields = BTreeMap<&'static str, Vec<Value>>;

struct Field {
    name: &'static str,
    number: u64,
    kind: &'static str,
    always: bool,
}

fn is_number(kind: &str) -> bool {
    let of_enum = |line: &str| line.split('\t').next() == Some(kind);
    matches!(kind, "uint64" | "bool") || ENUMS.lines().any(of_enum)
}

fn fields(message: &str) -> Vec<Field> {
    let mut fields: Vec<_> = FIELDS
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|columns| columns[0] == message)
        .map(|columns| Field {
            name: columns[1],
            number: columns[2].parse().unwrap(),
            kind: columns[3],
            always: columns[6] == "nonnull" && columns[4] == "optional",
        })
        .collect();
    assert!(!fields.is_empty(), "no message {message}");
    fields.sort_by_key(|field| field.number);
    fields
}

fn enum_values(name: &str) -> BTreeMap<&'static str, u64> {
    ENUMS
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|columns| columns[0] == name)
        .map(|columns| (columns[1], columns[2].parse().unwrap()))
        .collect()
}

fn varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

/// As etcd writes it: what is marked so also when it is empty.
fn write(message: &str, content: &Fields) -> Vec<u8> {
    let known = fields(message);
    for name in content.keys() {
        assert!(known.iter().any(|f| f.name == *name), "{message}.{name}");
    }
    let mut out = Vec::new();
    for field in known {
        let mut values = content.get(field.name).cloned().unwrap_or_default();
        if values.is_empty() && field.always {
            values.push(match is_number(field.kind) {
                true => Number(0),
                false => Value::Message(Fields::new()),
            });
        }
        for value in values {
            let body = match value {
                Number(value) => {
                    assert!(is_number(field.kind), "{message}.{}", field.name);
                    varint(&mut out, field.number << 3);
                    varint(&mut out, value);
                    continue;
                }
                Value::Bytes(bytes) => bytes,
                Value::Message(content) => write(field.kind, &content),
            };
            varint(&mut out, field.number << 3 | 2);
            varint(&mut out, body.len() as u64);
            out.extend(body);
        }
    }
    out
}

/// As a reader of the table understands it. A number that it does not have is a failure.
fn read(message: &str, bytes: &[u8]) -> Fields {
    let known = fields(message);
    let mut buf = bytes;
    let mut content = Fields::new();
    while !buf.is_empty() {
        let key = prost::encoding::decode_varint(&mut buf).unwrap();
        let field = known
            .iter()
            .find(|field| field.number == key >> 3)
            .unwrap_or_else(|| panic!("{message} has no field {}", key >> 3));
        let value = prost::encoding::decode_varint(&mut buf).unwrap();
        let value = if key & 7 == 0 {
            assert!(is_number(field.kind), "{message}.{}", field.name);
            if value == 0 {
                continue;
            }
            Number(value)
        } else {
            assert_eq!(key & 7, 2, "{message}.{}", field.name);
            assert!(!is_number(field.kind), "packed: {message}.{}", field.name);
            let (body, rest) = buf.split_at(usize::try_from(value).unwrap());
            buf = rest;
            match field.kind {
                _ if body.is_empty() => continue,
                "bytes" => Value::Bytes(body.to_vec()),
                kind => Value::Message(read(kind, body)),
            }
        };
        content.entry(field.name).or_default().push(value);
    }
    content
}

fn bytes(text: &str) -> Vec<Value> {
    vec![Value::Bytes(text.into())]
}

fn number(value: u64) -> Vec<Value> {
    vec![Number(value)]
}

/// Both directions: our bytes read by the table are `expected`, and etcd's bytes of that are `ours`.
fn both_ways<M>(name: &str, ours: &M, expected: &Fields)
where
    M: protobuf::Message + PartialEq + std::fmt::Debug,
{
    assert_eq!(&read(name, &encode(ours).unwrap()), expected, "{name}");
    let theirs: M = decode(&write(name, expected).into()).unwrap();
    assert_eq!(&theirs, ours, "{name}");
}

fn entry() -> (Entry, Fields) {
    let entry = Entry {
        entry_type: EntryType::EntryConfChange,
        term: 4,
        index: 300,
        data: Bytes::from_static(b"data"),
        ..Entry::default()
    };
    let fields = Fields::from([
        ("Type", number(1)),
        ("Term", number(4)),
        ("Index", number(300)),
        ("Data", bytes("data")),
    ]);
    (entry, fields)
}

fn snapshot() -> (Snapshot, Fields) {
    let mut snapshot = Snapshot {
        data: Bytes::from_static(b"store"),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = 299;
    metadata.term = 3;
    metadata.set_conf_state(conf_state().0);
    let metadata = Fields::from([
        ("conf_state", vec![Value::Message(conf_state().1)]),
        ("index", number(299)),
        ("term", number(3)),
    ]);
    let fields = Fields::from([
        ("data", bytes("store")),
        ("metadata", vec![Value::Message(metadata)]),
    ]);
    (snapshot, fields)
}

fn conf_state() -> (ConfState, Fields) {
    let conf_state = ConfState {
        voters: vec![1, u64::MAX >> 1, 300],
        learners: vec![7, 8],
        voters_outgoing: vec![9],
        learners_next: vec![10],
        auto_leave: true,
        ..ConfState::default()
    };
    let fields = Fields::from([
        (
            "voters",
            vec![Number(1), Number(u64::MAX >> 1), Number(300)],
        ),
        ("learners", vec![Number(7), Number(8)]),
        ("voters_outgoing", number(9)),
        ("learners_next", number(10)),
        ("auto_leave", number(1)),
    ]);
    (conf_state, fields)
}

#[test]
fn entries_states_and_snapshots_have_the_form_of_the_table() {
    let (ours, fields) = entry();
    both_ways("raftpb.Entry", &ours, &fields);
    for (kind, name) in [
        (EntryType::EntryNormal, "EntryNormal"),
        (EntryType::EntryConfChange, "EntryConfChange"),
        (EntryType::EntryConfChangeV2, "EntryConfChangeV2"),
    ] {
        assert_eq!(kind as u64, enum_values("raftpb.EntryType")[name]);
    }
    let (ours, fields) = conf_state();
    both_ways("raftpb.ConfState", &ours, &fields);
    let (ours, fields) = snapshot();
    both_ways("raftpb.Snapshot", &ours, &fields);
    let hard_state = HardState {
        term: 3,
        vote: u64::MAX >> 1,
        commit: 299,
        ..HardState::default()
    };
    let fields = Fields::from([
        ("term", number(3)),
        ("vote", number(u64::MAX >> 1)),
        ("commit", number(299)),
    ]);
    both_ways("raftpb.HardState", &hard_state, &fields);
    // What is zero is there all the same.
    assert_eq!(
        write("raftpb.HardState", &Fields::new()),
        [8, 0, 16, 0, 24, 0]
    );
    both_ways(
        "raftpb.HardState",
        &HardState::default(),
        &Fields::default(),
    );
}

/// All kinds that travel, and those that never do.
const KINDS: [(MessageType, &str); 19] = [
    (MessageType::MsgHup, "MsgHup"),
    (MessageType::MsgBeat, "MsgBeat"),
    (MessageType::MsgPropose, "MsgProp"),
    (MessageType::MsgAppend, "MsgApp"),
    (MessageType::MsgAppendResponse, "MsgAppResp"),
    (MessageType::MsgRequestVote, "MsgVote"),
    (MessageType::MsgRequestVoteResponse, "MsgVoteResp"),
    (MessageType::MsgSnapshot, "MsgSnap"),
    (MessageType::MsgHeartbeat, "MsgHeartbeat"),
    (MessageType::MsgHeartbeatResponse, "MsgHeartbeatResp"),
    (MessageType::MsgUnreachable, "MsgUnreachable"),
    (MessageType::MsgSnapStatus, "MsgSnapStatus"),
    (MessageType::MsgCheckQuorum, "MsgCheckQuorum"),
    (MessageType::MsgTransferLeader, "MsgTransferLeader"),
    (MessageType::MsgTimeoutNow, "MsgTimeoutNow"),
    (MessageType::MsgReadIndex, "MsgReadIndex"),
    (MessageType::MsgReadIndexResp, "MsgReadIndexResp"),
    (MessageType::MsgRequestPreVote, "MsgPreVote"),
    (MessageType::MsgRequestPreVoteResponse, "MsgPreVoteResp"),
];

#[test]
fn messages_of_every_kind_have_the_form_of_the_table() {
    let numbers = enum_values("raftpb.MessageType");
    for (kind, name) in KINDS {
        let mut message = Message {
            msg_type: kind,
            to: u64::MAX >> 1,
            from: 2,
            term: 4,
            log_term: 3,
            index: 299,
            commit: 298,
            reject: true,
            reject_hint: 297,
            context: Bytes::from_static(b"context"),
            ..Message::default()
        };
        message.mut_entries().push(entry().0);
        message.mut_entries().push(entry().0);
        message.set_snapshot(snapshot().0);
        let mut fields = Fields::from([
            ("type", number(numbers[name])),
            ("to", number(u64::MAX >> 1)),
            ("from", number(2)),
            ("term", number(4)),
            ("logTerm", number(3)),
            ("index", number(299)),
            (
                "entries",
                vec![Value::Message(entry().1), Value::Message(entry().1)],
            ),
            ("commit", number(298)),
            ("snapshot", vec![Value::Message(snapshot().1)]),
            ("reject", number(1)),
            ("rejectHint", number(297)),
            ("context", bytes("context")),
        ]);
        fields.retain(|_, values| *values != number(0));
        both_ways("raftpb.Message", &message, &fields);
        // The library's own fields do not leave.
        message.commit_term = 1;
        message.priority = 1;
        message.deprecated_priority = 1;
        message.request_snapshot = 1;
        drop_foreign_fields(&mut message);
        let piece = encode(&message).unwrap();
        assert_eq!(read("raftpb.Message", &piece), fields);
    }
}

#[test]
fn a_number_with_another_meaning_there_is_not_taken_for_ours() {
    let fields = Fields::from([
        ("type", number(4)),
        ("from", number(2)),
        ("term", number(4)),
        ("vote", number(9)),
    ]);
    let message: Message = decode(&write("raftpb.Message", &fields).into()).unwrap();
    assert_eq!(message.request_snapshot, 9, "or this test is of no use");
    let incoming = Incoming::new(message).unwrap();
    assert_eq!(incoming.message.request_snapshot, 0);
}

#[test]
fn membership_changes_have_the_form_of_the_table_and_not_that_of_the_library() {
    let member = v1::RaftMember {
        raft_id: 77,
        node_id: "node".to_owned(),
        addr: "host:4242".to_owned(),
        status: Some(v1::RaftMemberStatus::default()),
    };
    let context = prost::Message::encode_to_vec(&member);
    let numbers = enum_values("raftpb.ConfChangeType");
    for (change, name) in [
        (Change::Add(member.clone()), "ConfChangeAddNode"),
        (Change::Remove(77), "ConfChangeRemoveNode"),
        (Change::Update(member.clone()), "ConfChangeUpdateNode"),
        (Change::AddLearner(member), "ConfChangeAddLearnerNode"),
    ] {
        let mut fields = Fields::from([
            ("id", number(5)),
            ("type", number(numbers[name])),
            ("node_id", number(77)),
        ]);
        if !matches!(change, Change::Remove(_)) {
            fields.insert("context", vec![Value::Bytes(context.clone())]);
        }
        let theirs = write("raftpb.ConfChange", &fields);
        assert_eq!(encode_change(5, &change), theirs, "{name}");
        assert_eq!(decode_change(&theirs.into()).unwrap(), (5, change));
    }
    // Every number of the table is known, and no other.
    for kind in 0..9 {
        let fields = Fields::from([
            ("type", number(kind)),
            ("node_id", number(77)),
            ("context", vec![Value::Bytes(context.clone())]),
        ]);
        let known = decode_change(&write("raftpb.ConfChange", &fields).into()).is_ok();
        assert_eq!(known, numbers.values().any(|number| *number == kind));
    }
    // Nobody is number 0.
    let nobody = Fields::from([("type", number(1))]);
    assert!(decode_change(&write("raftpb.ConfChange", &nobody).into()).is_err());
    assert!(decode_change(&Bytes::from_static(b"\xff\xff")).is_err());
}

#[test]
fn the_library_is_told_its_own_numbers() {
    let member = v1::RaftMember {
        raft_id: 77,
        ..v1::RaftMember::default()
    };
    let told = |change: Change| for_library(&change).map(|told| (told.change_type, told.node_id));
    use library::ConfChangeType::*;
    assert_eq!(told(Change::Add(member.clone())), Some((AddNode, 77)));
    assert_eq!(
        told(Change::AddLearner(member.clone())),
        Some((AddLearnerNode, 77))
    );
    assert_eq!(told(Change::Remove(77)), Some((RemoveNode, 77)));
    assert_eq!(told(Change::Update(member)), None);
}
