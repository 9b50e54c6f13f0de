//! The decoders. What a decoder makes of an input is used a little, as its callers do.

use std::{
    str::{FromStr as _, from_utf8},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use skep_proto::{Timestamp, v1};
use skep_raft::testing;
use skep_security::{Credentials, Identity, JoinToken, Role, RootCa, UnlockKey};
use skep_store::{Entry, Store};

use crate::{Target, control, dispatcher, engine, logs, replica, seeds, socket};

/// All of them.
pub const TARGETS: &[Target] = &[
    target("raft_message", raft_message, seeds::messages),
    target("raft_entry", raft_entry, seeds::entries),
    target("replica", replica::run, replica::seeds),
    target("log_record", log_record, seeds::records),
    target("segment_record", segment_record, seeds::segment_records),
    target("log_format", log_format, seeds::formats),
    target("snapshot_file", snapshot_file, seeds::snapshot_files),
    target("snapshot_payload", snapshot_payload, seeds::snapshots),
    target("store_entry", store_entry, seeds::requests),
    target("join_token", join_token, seeds::tokens),
    target("certificate", certificate, seeds::certificates),
    target("private_key", private_key, seeds::keys),
    target("certificate_request", certificate_request, seeds::csrs),
    target("control_socket", socket::run, socket::seeds),
    target("control_call", control::run, control::seeds),
    target("log_publisher", logs::run, logs::seeds),
    target("dispatcher_calls", dispatcher::run, dispatcher::seeds),
    target("engine_answer", engine::run, engine::seeds),
    target("unlock_key", unlock_key, seeds::unlock_keys),
    target("key_file", key_file, seeds::key_files),
    target("sealed_record", sealed_record, seeds::sealed_records),
    target("cfssl_answer", cfssl_answer, seeds::cfssl_answers),
    target("template", skep_agent::testing::template, seeds::templates),
    target(
        "assignments",
        skep_agent::testing::assignments,
        seeds::assignments,
    ),
    target("state_files", state_files, seeds::state_files),
    target("task_output", skep_agent::testing::output, seeds::outputs),
    target("log_file", log_file, seeds::log_files),
    target("unknown_field", unknown_field, seeds::requests),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

fn raft_message(input: &[u8]) {
    testing::decode_message(&Bytes::copy_from_slice(input));
}

fn raft_entry(input: &[u8]) {
    testing::decode_entry(&Bytes::copy_from_slice(input));
}

/// With the checksum of its head made right, or nothing would get past it.
fn log_record(input: &[u8]) {
    let mut input = input.to_vec();
    if let Some((head, sum)) = input.get_mut(..28).and_then(|h| h.split_at_mut_checked(24)) {
        sum.copy_from_slice(&crc32fast::hash(head).to_le_bytes());
    }
    testing::decode_record(&Bytes::from(input));
}

fn segment_record(input: &[u8]) {
    testing::decode_segment_record(&Bytes::copy_from_slice(input));
}

fn log_format(input: &[u8]) {
    testing::decode_format(&String::from_utf8_lossy(input));
}

/// As it is, and with sizes and checksum made right.
fn snapshot_file(input: &[u8]) {
    testing::decode_snapshot_file(input);
    if input.len() < 24 {
        return;
    }
    let mut input = input.to_vec();
    let content = input.len() - 24;
    let metadata = u32::from_le_bytes([input[8], input[9], 0, 0]).min(content as u32);
    let data = content as u64 - u64::from(metadata);
    input[8..12].copy_from_slice(&metadata.to_le_bytes());
    input[12..20].copy_from_slice(&data.to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&input[..20]);
    sum.update(&input[24..]);
    input[20..24].copy_from_slice(&sum.finalize().to_le_bytes());
    testing::decode_snapshot_file(&input);
}

/// A snapshot of the leader, taken over by a store that has something already.
fn snapshot_payload(input: &[u8]) {
    let Ok(snapshot) = v1::Snapshot::decode(input) else {
        return;
    };
    let store = store();
    store.restore(7, snapshot.store.unwrap_or_default());
    let _ = store.snapshot().to_wire().encoded_len();
}

/// A committed entry, replayed twice.
fn store_entry(input: &[u8]) {
    let store = store();
    for index in 3..5 {
        let data = Bytes::copy_from_slice(input);
        if store.apply(&[Entry { index, data }]).is_err() {
            return;
        }
    }
    let _ = store.snapshot().to_wire().encoded_len();
}

fn store() -> Store {
    let store = Store::new(Timestamp::default);
    for (index, data) in (1..).zip(seeds::requests()) {
        store
            .apply(&[Entry {
                index,
                data: data.into(),
            }])
            .unwrap();
    }
    store
}

fn join_token(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    if let Ok(token) = JoinToken::from_str(text) {
        assert!(token.matches(&token.to_string()));
        let _ = (token.pins(input), format!("{token:?}"));
    }
}

fn certificate(input: &[u8]) {
    let known = seeds::identity();
    let _ = RootCa::from_pem(input, None);
    let _ = Identity::from_der(input);
    let _ = Credentials::from_pem(input, &known.cert, &known.key);
    let _ = Credentials::from_pem(&known.root, input, &known.key);
}

fn private_key(input: &[u8]) {
    let known = seeds::identity();
    let _ = RootCa::from_pem(&known.root, Some(input));
    let _ = Credentials::from_pem(&known.root, &known.cert, input);
}

fn certificate_request(input: &[u8]) {
    let who = Identity {
        node_id: "node".into(),
        role: Role::Worker,
        cluster_id: "cluster".into(),
    };
    let hour = Duration::from_secs(3600);
    let _ = seeds::identity()
        .ca
        .issue(input, &who, hour, SystemTime::UNIX_EPOCH);
}

fn unlock_key(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    if let Ok(key) = UnlockKey::from_str(text) {
        assert_eq!(key.to_string(), text.trim());
    }
}

/// With the key, and as one that should need none.
fn key_file(input: &[u8]) {
    skep_security::decode::key_file(input, Some(&seeds::key()));
    skep_security::decode::key_file(input, None);
}

/// As it is, and as one whose contents were sealed by whoever made it.
fn sealed_record(input: &[u8]) {
    let key = seeds::data_key();
    let _ = key.open(Bytes::copy_from_slice(input));
    let opened = key.open(key.seal(input));
    assert!(opened.is_ok_and(|opened| opened == input));
}

fn cfssl_answer(input: &[u8]) {
    skep_security::decode::cfssl_answer(input);
}

fn state_files(input: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    skep_agent::testing::state_files(dir.path(), input);
}

fn log_file(input: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let read = skep_agent::testing::log_file(dir.path(), input);
    let read =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), read).await });
    read.expect("a log that has ended is read to its end");
}

/// What decodes and is written again loses nothing but what is found.
fn unknown_field(input: &[u8]) {
    let Ok(request) = v1::InternalRaftRequest::decode(input) else {
        return;
    };
    let written = request.encode_to_vec();
    assert_eq!(
        skep_proto::unknown_field("InternalRaftRequest", &written),
        None
    );
    let _ = skep_proto::unknown_field("InternalRaftRequest", input);
}
