//! `Debug` of a message shows no secret, however deep it lies. What is secret follows from the
//! names in the compiled `.proto` files, not from the list that hides them.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use skep_proto::{skep, v1};

const VALUE: &str = "hunter2-and-a-half";

/// A field that is not the name of something holds a secret if what it is called, with its message
/// before it, contains one of these.
const WORDS: [&str; 7] = [
    "auth",
    "data",
    "key",
    "passw",
    "raftmessage",
    "secret",
    "token",
];

/// Those that do not: words for things, public keys, and what the users' programs are told and say
/// in the open.
const OPEN: [&str; 9] = [
    "docker.swarmkit.v1.AcceptancePolicy.RoleAdmissionPolicy.Secret.alg",
    "docker.swarmkit.v1.ConfigSpec.data",
    "docker.swarmkit.v1.EncryptionKey.subsystem",
    "docker.swarmkit.v1.IndexEntry.key",
    "docker.swarmkit.v1.LogAttr.key",
    "docker.swarmkit.v1.LogMessage.data",
    "docker.swarmkit.v1.NodeTLSInfo.cert_issuer_public_key",
    "docker.swarmkit.v1.VolumeSecret.key",
    "docker.swarmkit.v1.VolumeSecret.secret",
];

/// Messages that contain all others with secrets, by name, and how `Debug` shows their bytes.
type Root = (&'static str, fn(&[u8]) -> String);

macro_rules! roots {
    ($($package:literal $module:ident: $($message:ident)+;)+) => {
        [$($((concat!($package, ".", stringify!($message)), |bytes: &[u8]| {
            format!("{:?}", $module::$message::decode(bytes).expect(stringify!($message)))
        })),+),+]
    };
}

const ROOTS: &[Root] = &roots! {
    "docker.swarmkit.v1" v1:
        Assignment AssignmentsMessage Cluster CreateSecretRequest GetUnlockKeyResponse
        InternalRaftRequest IssueNodeCertificateRequest MaybeEncryptedRecord
        ProcessRaftMessageRequest Secret Service SessionMessage Snapshot StreamRaftMessageRequest
        Task UpdateClusterRequest UpdateServiceRequest WatchMessage;
    "skep.v1" skep: RaftMessage UnlockRequest;
};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(skep_proto::FILE_DESCRIPTOR_SET).expect("descriptors")
}

fn is_named_like_a_secret(field: &FieldDescriptor) -> bool {
    let parent = field.parent_message();
    let name = format!("{}.{}", parent.name(), field.name()).to_lowercase();
    let is_text = matches!(field.kind(), Kind::String | Kind::Bytes);
    let is_reference = field.name().ends_with("id") || field.name().ends_with("name");
    is_text
        && !is_reference
        && !parent.is_map_entry()
        && WORDS.iter().any(|word| name.contains(word))
}

fn is_secret(field: &FieldDescriptor) -> bool {
    is_named_like_a_secret(field) && !OPEN.contains(&field.full_name())
}

/// The ways from a message to all secrets in it.
fn ways(
    message: &MessageDescriptor,
    way: &mut Vec<FieldDescriptor>,
    found: &mut Vec<Vec<FieldDescriptor>>,
) {
    for field in message.fields().filter(|field| !field.is_map()) {
        way.push(field.clone());
        if is_secret(&field) {
            found.push(way.clone());
        }
        if let Kind::Message(inner) = field.kind()
            && way.iter().all(|field| *field.parent_message() != inner)
        {
            ways(&inner, way, found);
        }
        way.pop();
    }
}

/// A message with nothing but a value at the end of a way.
fn message(descriptor: MessageDescriptor, way: &[FieldDescriptor]) -> DynamicMessage {
    let (field, rest) = way.split_first().expect("it leads to a field");
    let value = match field.kind() {
        Kind::Message(inner) => Value::Message(message(inner, rest)),
        Kind::Bytes => Value::Bytes(VALUE.into()),
        _ => Value::String(VALUE.into()),
    };
    let value = match field.is_list() {
        true => Value::List(vec![value]),
        false => value,
    };
    let mut message = DynamicMessage::new(descriptor);
    message.set_field(field, value);
    message
}

#[test]
fn no_secret_is_shown_however_deep_it_lies() {
    let pool = pool();
    let mut shown = BTreeSet::new();
    let mut reached = BTreeSet::new();
    for (name, debug) in ROOTS {
        let root = pool.get_message_by_name(name).expect(name);
        let mut found = Vec::new();
        ways(&root, &mut Vec::new(), &mut found);
        assert!(!found.is_empty(), "{name} has no secret");
        for way in found {
            let text = debug(&message(root.clone(), &way).encode_to_vec());
            let secret = way.last().unwrap().full_name().to_owned();
            if text.contains(VALUE) || !text.contains("<hidden>") {
                shown.insert(format!("{secret} in {name}"));
            }
            reached.insert(secret);
        }
    }
    assert!(shown.is_empty(), "shown: {shown:#?}");
    let all = pool.all_messages().flat_map(|message| {
        let fields: Vec<_> = message.fields().filter(is_secret).collect();
        fields
    });
    let all: BTreeSet<_> = all.map(|field| field.full_name().to_owned()).collect();
    let missed: Vec<_> = all.difference(&reached).collect();
    assert!(missed.is_empty(), "in none of the roots: {missed:#?}");
}

#[test]
fn what_is_open_exists_and_would_be_taken_for_a_secret() {
    let pool = pool();
    for open in OPEN {
        let (message, field) = open.rsplit_once('.').unwrap();
        let message = pool.get_message_by_name(message).expect(open);
        let field = message.get_field_by_name(field).expect(open);
        assert!(is_named_like_a_secret(&field), "{open}");
    }
}

#[test]
fn the_rest_is_shown() {
    let mut key = v1::EncryptionKey {
        subsystem: "networking:gossip".into(),
        lamport_time: 41,
        key: VALUE.into(),
        ..Default::default()
    };
    let expected = "EncryptionKey { subsystem: \"networking:gossip\", algorithm: 0, \
                    lamport_time: 41, key: <hidden> }";
    assert_eq!(format!("{key:?}"), expected);
    key.key = Default::default();
    assert_eq!(format!("{key:?}"), expected, "nor whether there is one");
}
