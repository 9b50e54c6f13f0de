//! Valid inputs to begin with.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;
use skep_proto::v1;
use skep_security::{
    CertificateRequest, Credentials, DataKey, Identity, JoinToken, Kek, NodeKey, Role, RootCa, Tls,
    UnlockKey,
};

pub(crate) fn encode<M: protobuf::Message>(message: &M) -> Vec<u8> {
    message.write_to_bytes().unwrap()
}

fn node(id: &str) -> v1::Node {
    let mut node = v1::Node {
        id: id.into(),
        ..v1::Node::default()
    };
    node.spec_mut().annotations_mut().name = format!("name of {id}");
    node.description = Some(v1::NodeDescription {
        hostname: format!("{id}.example"),
        ..v1::NodeDescription::default()
    });
    node
}

pub(crate) fn member(raft_id: u64) -> v1::RaftMember {
    v1::RaftMember {
        raft_id,
        node_id: format!("node{raft_id}"),
        addr: format!("10.0.0.{raft_id}:4242"),
        status: None,
    }
}

/// What a store proposes: something created, changed, removed.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    use v1::{StoreActionKind as Kind, store_action::Target};
    let mut task = v1::Task {
        id: "task".into(),
        service_id: "service".into(),
        node_id: "first".into(),
        slot: 3,
        ..v1::Task::default()
    };
    task.spec_mut();
    let mut service = v1::Service {
        id: "service".into(),
        ..v1::Service::default()
    };
    service.spec_mut().annotations_mut().name = "web".into();
    let request = |id, actions: Vec<(Kind, Target)>| {
        let action = |(kind, target): (Kind, Target)| v1::StoreAction {
            action: kind.into(),
            target: Some(target),
        };
        v1::InternalRaftRequest {
            id,
            action: actions.into_iter().map(action).collect(),
        }
        .encode_to_vec()
    };
    vec![
        request(
            1,
            vec![
                (Kind::StoreActionCreate, Target::Node(node("first"))),
                (Kind::StoreActionCreate, Target::Service(service)),
                (Kind::StoreActionCreate, Target::Task(task.clone())),
            ],
        ),
        request(
            2,
            vec![
                (Kind::StoreActionUpdate, Target::Task(task)),
                (Kind::StoreActionCreate, Target::Node(node("second"))),
                (Kind::StoreActionRemove, Target::Node(node("second"))),
            ],
        ),
    ]
}

/// What a snapshot holds.
pub(crate) fn snapshots() -> Vec<Vec<u8>> {
    let snapshot = v1::Snapshot {
        version: v1::snapshot::Version::V0.into(),
        membership: Some(v1::ClusterSnapshot {
            members: (1..=3).map(member).collect(),
            removed: vec![9],
        }),
        store: Some(v1::StoreSnapshot {
            nodes: vec![node("first"), node("third")],
            ..v1::StoreSnapshot::default()
        }),
    };
    vec![snapshot.encode_to_vec(), Vec::new()]
}

pub(crate) fn snapshot(index: u64) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot {
        data: snapshots().remove(0).into(),
        ..eraftpb::Snapshot::default()
    };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = 2;
    snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2, 3];
    snapshot
}

pub(crate) fn entry(index: u64, term: u64) -> eraftpb::Entry {
    eraftpb::Entry {
        index,
        term,
        data: requests().remove(0).into(),
        ..eraftpb::Entry::default()
    }
}

pub(crate) fn change(index: u64, kind: eraftpb::ConfChangeType, id: u64) -> eraftpb::Entry {
    let change = eraftpb::ConfChange {
        id: index,
        change_type: kind,
        node_id: id,
        context: member(id).encode_to_vec().into(),
        ..eraftpb::ConfChange::default()
    };
    eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryConfChange,
        index,
        term: 1,
        data: encode(&change).into(),
        ..eraftpb::Entry::default()
    }
}

pub(crate) fn entries() -> Vec<Vec<u8>> {
    use eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
    let changes = [AddNode, RemoveNode, AddLearnerNode].map(|kind| change(4, kind, 3));
    let mut entries: Vec<_> = changes.iter().map(encode).collect();
    entries.push(encode(&entry(7, 3)));
    entries
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    crate::replica::messages().iter().map(encode).collect()
}

pub(crate) fn records() -> Vec<Vec<u8>> {
    records_after(&[1; 28])
}

/// After the size of it come term, vote, snapshot, first entry, and a member with ID and name.
pub(crate) fn segment_records() -> Vec<Vec<u8>> {
    records_after(&[14, 8, 3, 16, 7, 24, 6, 32, 7, 50, 4, 8, 7, 18, 0])
}

fn records_after(start: &[u8]) -> Vec<Vec<u8>> {
    let record = |entries: &[eraftpb::Entry]| {
        let mut bytes = start.to_vec();
        for entry in entries {
            let entry = encode(entry);
            bytes.extend((entry.len() as u32).to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    };
    vec![record(&[]), record(&[entry(7, 3), entry(8, 3)])]
}

pub(crate) fn formats() -> Vec<Vec<u8>> {
    let text = |seen: &str| format!("skep raft log, format 1\nid 00ff00ff00ff00ff\nseen {seen}\n");
    vec![text("nothing").into(), text("123").into()]
}

pub(crate) fn snapshot_files() -> Vec<Vec<u8>> {
    let snapshot = snapshot(9);
    let metadata = encode(snapshot.get_metadata());
    let mut file = b"skepsnp\x01".to_vec();
    file.extend((metadata.len() as u32).to_le_bytes());
    file.extend((snapshot.data.len() as u64).to_le_bytes());
    file.extend([0; 4]);
    file.extend(metadata);
    file.extend_from_slice(&snapshot.data);
    vec![file]
}

/// Someone with a certificate.
pub(crate) struct Known {
    pub(crate) ca: RootCa,
    pub(crate) root: Bytes,
    pub(crate) cert: Bytes,
    pub(crate) key: Vec<u8>,
    pub(crate) tls: Tls,
}

/// The key in a key file, as plain PEM.
fn without_headers(path: &std::path::Path) -> Vec<u8> {
    let file = std::fs::read_to_string(path).unwrap();
    let lines = file
        .lines()
        .filter(|line| !line.contains(": ") && !line.is_empty());
    lines
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into()
}

pub(crate) fn identity() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(|| {
        let ca = RootCa::generate().unwrap();
        let who = Identity {
            node_id: "node".into(),
            role: Role::Manager,
            cluster_id: "cluster".into(),
        };
        let day = Duration::from_secs(24 * 3600);
        let credentials = Credentials::self_issue(&ca, &who, day).unwrap();
        // The key leaves the credentials only through the disk.
        let dir = tempfile::tempdir().unwrap();
        credentials.save(dir.path()).unwrap();
        Known {
            root: ca.cert_pem().clone(),
            cert: credentials.cert_pem().clone(),
            key: without_headers(&dir.path().join("swarm-node.key")),
            tls: Tls::new(credentials),
            ca,
        }
    });
    &KNOWN
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let token = JoinToken::generate(&identity().ca).to_string();
    let fips = token.replace("SWMTKN-1-", "SWMTKN-2-1-");
    vec![token.into(), fips.into()]
}

pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let known = identity();
    let der = |pem: &[u8]| {
        let text = String::from_utf8_lossy(pem).into_owned();
        let body: Vec<u8> = text
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with('-'))
            .flat_map(str::bytes)
            .collect();
        unbase64(&body)
    };
    vec![
        known.root.to_vec(),
        known.cert.to_vec(),
        der(&known.cert),
        [&known.cert[..], &known.root[..]].concat(),
    ]
}

fn unbase64(text: &[u8]) -> Vec<u8> {
    let digit = |byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let group = |group: &[u8]| {
        let number = group
            .iter()
            .fold(0_u32, |n, b| n << 6 | u32::from(digit(*b)));
        number.to_be_bytes()[1..].to_vec()
    };
    text.chunks(4).flat_map(group).collect()
}

pub(crate) fn keys() -> Vec<Vec<u8>> {
    let known = identity();
    vec![
        known.key.clone(),
        known
            .ca
            .key_pem()
            .map(|key| key.to_vec())
            .unwrap_or_default(),
    ]
}

pub(crate) fn csrs() -> Vec<Vec<u8>> {
    let request = CertificateRequest::generate().unwrap();
    vec![request.csr_pem().to_vec()]
}

pub(crate) fn key() -> UnlockKey {
    UnlockKey::from_bytes(&[7; 32]).unwrap()
}

pub(crate) fn data_key() -> DataKey {
    DataKey::from_bytes(&[8; 32]).unwrap()
}

pub(crate) fn unlock_keys() -> Vec<Vec<u8>> {
    let text = key().to_string();
    vec![format!(" {text}\n").into(), text.into()]
}

/// Locked and not, with keys of a log and without.
pub(crate) fn key_files() -> Vec<Vec<u8>> {
    let known = identity();
    let credentials = Credentials::from_pem(&known.root, &known.cert, &known.key).unwrap();
    let file = |key: Option<UnlockKey>, rotates: bool| {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek { key, version: 3 };
        let node_key = NodeKey::new(dir.path(), &credentials, kek).unwrap();
        node_key.save(&credentials).unwrap();
        if rotates {
            node_key.data_keys().unwrap();
            node_key.begin_rotation().unwrap();
        }
        std::fs::read(dir.path().join("swarm-node.key")).unwrap()
    };
    vec![
        file(None, false),
        file(None, true),
        file(Some(key()), false),
        file(Some(key()), true),
    ]
}

pub(crate) fn sealed_records() -> Vec<Vec<u8>> {
    vec![data_key().seal(b"data").to_vec()]
}

pub(crate) fn cfssl_answers() -> Vec<Vec<u8>> {
    let cert = String::from_utf8_lossy(&identity().cert).replace('\n', "\\n");
    vec![
        format!(r#"{{"success":true,"result":{{"certificate":"{cert}"}},"errors":[]}}"#).into(),
        r#"{"success":false,"result":null,"errors":[{"code":7,"message":"no"}]}"#.into(),
    ]
}

pub(crate) fn templates() -> Vec<Vec<u8>> {
    let texts = [
        r#"{{.Service.Name}} {{ .Node.Hostname }} {{.Task.Slot}} {{.Node.Platform.OS}}"#,
        r#"{{index .Service.Labels "tier"}} {{join "," "a" "b"}} {{/* a comment */}}"#,
        r#"{{- env "A" -}} {{secret "key"}} {{ config `file` }}"#,
        "no placeholder, }} and {",
    ];
    texts.map(Into::into).into()
}

/// A task that has a template in it.
fn task() -> v1::Task {
    let mut task = v1::Task {
        id: "task".into(),
        service_id: "service".into(),
        ..v1::Task::default()
    };
    let spec = v1::ContainerSpec {
        env: vec!["SLOT={{.Task.Slot}}".into()],
        ..v1::ContainerSpec::default()
    };
    task.spec_mut().runtime = Some(v1::task_spec::Runtime::Container(spec));
    task
}

pub(crate) fn assignments() -> Vec<Vec<u8>> {
    use v1::assignment::Item;
    let change = |item| v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: v1::assignment_change::AssignmentAction::Update.into(),
    };
    let message = v1::AssignmentsMessage {
        r#type: v1::assignments_message::Type::Complete.into(),
        results_in: "1".into(),
        changes: vec![
            change(Item::Task(task())),
            change(Item::Secret(v1::Secret::default())),
            change(Item::Config(v1::Config::default())),
        ],
        ..v1::AssignmentsMessage::default()
    };
    vec![message.encode_to_vec()]
}

pub(crate) fn state_files() -> Vec<Vec<u8>> {
    vec![
        task().encode_to_vec(),
        v1::TaskStatus {
            state: v1::TaskState::Running.into(),
            ..v1::TaskStatus::default()
        }
        .encode_to_vec(),
        br#"{"boot_id":"a","process":{"pid":7,"start_time":9}}"#.to_vec(),
        br#"[{"node_id":"a","addr":"10.0.0.1:4242"}]"#.to_vec(),
    ]
}

/// Chunks around the size of the longest piece of a line.
pub(crate) fn outputs() -> Vec<Vec<u8>> {
    let chunks = |sizes: &[u16]| {
        let mut bytes = Vec::new();
        for &size in sizes {
            bytes.extend(size.to_le_bytes());
            bytes.extend(vec![b'x'; usize::from(size)]);
        }
        bytes.push(b'\n');
        bytes
    };
    vec![
        b"\x06\x00one\ntw\x02\x00o\n".to_vec(),
        chunks(&[16384, 1]),
        chunks(&[16385, 1]),
        chunks(&[16383, 2, 16384]),
    ]
}

pub(crate) fn log_files() -> Vec<Vec<u8>> {
    vec![
        b"2026-01-02T03:04:05.600000000Z stderr F a b  c\n\
          2026-01-02T03:04:05.600000000Z stdout P part\n\
          2026-01-02T03:04:06Z stdout F \n"
            .to_vec(),
    ]
}
