//! Compiles the `.proto` files in `swarmkit/` and our own in `skep/` without `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 12] = [
    "types",
    "specs",
    "objects",
    "control",
    "dispatcher",
    "ca",
    "raft",
    "logbroker",
    "resource",
    "health",
    "watch",
    "snapshot",
];

/// Of our own package: what SwarmKit has no words for.
const OWN_FILES: [&str; 3] = ["node", "raft_status", "raft_stream"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=swarmkit");
    println!("cargo:rerun-if-changed=skep");
    let theirs = FILES.iter().map(|name| format!("swarmkit/{name}.proto"));
    let own = OWN_FILES.iter().map(|name| format!("skep/{name}.proto"));
    let descriptors = protox::compile(theirs.chain(own), ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut without_comments = descriptors.clone();
    without_comments
        .file
        .iter_mut()
        .for_each(|file| file.source_code_info = None);
    fs::write(
        out.join("descriptors.bin"),
        without_comments.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        // Sorted maps: the same object always has the same bytes.
        .btree_map(".")
        // Payloads (secrets, certificates, raft messages) are cloned by reference count.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
