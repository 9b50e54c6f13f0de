//! The wire contract of a swarm.
//!
//! Messages and services of the gRPC package `docker.swarmkit.v1`, generated from our own
//! `.proto` files in `swarmkit/`, and the identifiers used on that wire. There is no logic here:
//! what a message means is decided in the rooms above.

pub mod access;
mod codec;
pub mod executor;
mod hidden;
pub mod id;
mod shared;
mod unknown;

/// Messages, clients and servers of the package `docker.swarmkit.v1`.
#[allow(missing_docs, deprecated, clippy::all)]
pub mod v1 {
    tonic::include_proto!("docker.swarmkit.v1");
}

/// Messages, clients and servers of our own package `skep.v1`.
#[allow(missing_docs, clippy::all)]
pub mod skep {
    tonic::include_proto!("skep.v1");
}

/// The compiled descriptors of everything in [`v1`] and [`skep`], an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use prost_types::{Any, Duration, Timestamp};
pub use shared::Shared;
pub use unknown::unknown_field;
