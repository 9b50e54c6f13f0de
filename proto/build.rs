//! Compiles the `.proto` files in `swarmkit/` and our own in `skep/` without `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

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

/// Messages with secrets in them, whose `Debug` is in `src/hidden.rs`. Without a leading dot, a name
/// does not cover what is declared inside of the message.
const HIDING: [&str; 15] = [
    "docker.swarmkit.v1.AcceptancePolicy.RoleAdmissionPolicy.Secret",
    "docker.swarmkit.v1.CAConfig",
    "docker.swarmkit.v1.ContainerSpec.PullOptions",
    "docker.swarmkit.v1.EncryptionKey",
    "docker.swarmkit.v1.GetUnlockKeyResponse",
    "docker.swarmkit.v1.IssueNodeCertificateRequest",
    "docker.swarmkit.v1.JoinTokens",
    "docker.swarmkit.v1.MaybeEncryptedRecord",
    "docker.swarmkit.v1.ProcessRaftMessageRequest",
    "docker.swarmkit.v1.RootCA",
    "docker.swarmkit.v1.RootRotation",
    "docker.swarmkit.v1.SecretSpec",
    "docker.swarmkit.v1.StreamRaftMessageRequest",
    "skep.v1.RaftMessage",
    "skep.v1.UnlockRequest",
];

/// SwarmKit's package, and a message in it that only the generator of Rust types sees.
const PACKAGE: &str = "docker.swarmkit.v1";
const SHARED: &str = "SharedTaskSpec";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=swarmkit");
    println!("cargo:rerun-if-changed=skep");
    let theirs = FILES.iter().map(|name| format!("swarmkit/{name}.proto"));
    let own = OWN_FILES.iter().map(|name| format!("skep/{name}.proto"));
    let mut descriptors = protox::compile(theirs.chain(own), ["."])?;
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
    share_task_spec(&mut descriptors)?;
    tonic_prost_build::configure()
        // Sorted maps: the same object always has the same bytes.
        .btree_map(".")
        // Payloads (secrets, certificates, raft messages) are cloned by reference count.
        .bytes(".")
        .skip_debug(HIDING)
        .codec_path("crate::codec::OwnCodec")
        .extern_path(
            format!(".{PACKAGE}.{SHARED}"),
            "crate::Shared<crate::v1::TaskSpec>",
        )
        .compile_fds(descriptors)?;
    Ok(())
}

/// Makes the type of `Task.spec` one that tasks can share: a message that is on the wire what
/// `TaskSpec` is. The descriptors that others read keep `TaskSpec`.
fn share_task_spec(descriptors: &mut FileDescriptorSet) -> Result<(), String> {
    let mut shared = message(descriptors, "TaskSpec")?.clone();
    shared.name = Some(SHARED.to_owned());
    let task = message(descriptors, "Task")?;
    let spec = task.field.iter_mut().find(|field| field.name() == "spec");
    spec.ok_or("Task has no field spec")?.type_name = Some(format!(".{PACKAGE}.{SHARED}"));
    let mut files = descriptors.file.iter_mut();
    let file = files.find(|file| file.package() == PACKAGE);
    file.ok_or("no file of the package")?
        .message_type
        .push(shared);
    Ok(())
}

fn message<'a>(
    descriptors: &'a mut FileDescriptorSet,
    name: &str,
) -> Result<&'a mut DescriptorProto, String> {
    let files = descriptors.file.iter_mut();
    let mut messages = files
        .filter(|file| file.package() == PACKAGE)
        .flat_map(|file| &mut file.message_type);
    messages
        .find(|message| message.name() == name)
        .ok_or_else(|| format!("no message {name}"))
}
