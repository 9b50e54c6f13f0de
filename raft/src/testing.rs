//! Internals for benchmarks and fuzzing of this crate. Nothing here is an interface.

use std::{ffi::OsStr, path::Path, process::Command};

use bytes::Bytes;
use raft::eraftpb::{Entry, Message};

use crate::{
    Batch, Error, Loaded, Replica, ReplicaConfig, codec,
    log::{format::Format, segments, sled, snapshot_dir},
    member::Membership,
};

/// The entries of a batch.
pub fn entries(batch: &Batch) -> &[Entry] {
    &batch.entries
}

/// Reads a message of a peer, as [`crate::RaftService`] does, and what is in it.
pub fn decode_message(bytes: &Bytes) {
    if let Ok(message) = codec::decode::<Message>(bytes) {
        let _ = codec::encode(&message);
        let _ = codec::Incoming::new(message);
    }
}

/// Reads an entry of the log and the membership change that it may hold.
pub fn decode_entry(bytes: &Bytes) {
    if let Ok(entry) = codec::decode::<Entry>(bytes)
        && let Ok((_, change)) = codec::decode_change(&entry.data)
    {
        Membership::default().apply(&change);
    }
}

/// Reads what is stored in sled as one append.
pub fn decode_record(bytes: &Bytes) {
    write_again(sled::decode_record(bytes.clone()));
}

/// Reads what is stored in a segment as one append.
pub fn decode_segment_record(bytes: &Bytes) {
    write_again(segments::decode_record(bytes.clone()));
}

fn write_again(entries: Result<Vec<Entry>, Error>) {
    for entry in entries.into_iter().flatten() {
        let _ = codec::encode(&entry);
    }
}

/// Reads the content of a snapshot file and, if it is one, what is in it.
pub fn decode_snapshot_file(bytes: &[u8]) {
    if let Ok(snapshot) = snapshot_dir::read_from(bytes, bytes.len() as u64) {
        let _ = codec::decode_snapshot(&snapshot);
    }
}

/// Reads the file that tells the format of a log.
pub fn decode_format(text: &str) {
    let _ = Format::parse(Path::new("raft"), text);
}

/// A replica that is a member of the group that these entries make, all committed in term 1.
///
/// # Panics
/// If they make none.
pub fn replica(raft_id: u64, entries: Vec<Entry>) -> Replica {
    let hard_state = codec::HardState {
        term: 1,
        commit: entries.len() as u64,
        ..codec::HardState::default()
    };
    let loaded = Loaded {
        hard_state,
        entries,
        ..Loaded::default()
    };
    let config = ReplicaConfig {
        election_ticks: 10..11,
        ..ReplicaConfig::new(raft_id)
    };
    let (mut replica, _) = Replica::new(&config, loaded).expect("the entries make a group");
    settle(&mut replica).expect("the entries can be applied");
    replica
}

/// Gives a replica a message of a peer, or a tick if there is none, and does what it wants. `false`
/// if it must not go on.
pub fn drive(replica: &mut Replica, message: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(message);
    if bytes.is_empty() {
        replica.tick();
    } else if let Ok(message) = codec::decode(&bytes)
        && let Ok(incoming) = codec::Incoming::new(message)
        && let Err(Error::Lost { .. }) = replica.step(incoming)
    {
        return false;
    }
    settle(replica).is_ok()
}

fn settle(replica: &mut Replica) -> Result<(), Error> {
    while replica.has_output() {
        let output = replica.take_output()?;
        if let Some(append) = output.append {
            replica.persisted(append.number);
        }
    }
    Ok(())
}

/// Whether a test that mounts file systems can run. Otherwise it says so and should return; with
/// `SKEP_REQUIRE_ALL=1` it fails.
pub fn may_mount(test: &str) -> bool {
    let dir = std::env::temp_dir();
    let mount = |args: &[&OsStr]| {
        let ran = Command::new(args[0]).args(&args[1..]).output();
        ran.is_ok_and(|output| output.status.success())
    };
    let dir = dir.as_os_str();
    // In a name space of its own, so that nothing is left.
    let try_it = ["unshare", "-m", "mount", "-t", "tmpfs", "none"].map(OsStr::new);
    let may = mount(&[&try_it[..], &[dir]].concat());
    assert!(
        may || std::env::var_os("SKEP_REQUIRE_ALL").is_none_or(|all| all != "1"),
        "{test} needs root, to mount file systems"
    );
    if !may {
        eprintln!("{test} is skipped: it needs root, to mount file systems");
    }
    may
}
