//! Replication of the store.
//!
//! [`Replica`] is the consensus itself, a state machine without a clock, socket or disk. [`Raft`] is
//! what a manager starts: it gives a replica those, keeps a [`skep_store::Store`] in step with the log
//! of the group and proposes what is written to it. The log lies on disk behind [`LogStore`], encrypted by [`SealedLog`].
//!
//! Deliberately not here: what a service or a task means, and who may call what (the services of
//! [`RaftService`] expect that this was decided before they are called).

mod announce;
mod codec;
mod disk;
#[doc(hidden)]
pub mod drive;
mod error;
mod force;
mod handle;
mod join;
mod log;
mod member;
mod node;
mod peer;
mod peers;
mod reader;
mod replica;
mod service;
mod settings;
mod status;
#[doc(hidden)]
pub mod testing;

pub use crate::{
    codec::Incoming,
    error::Error,
    force::force_new_cluster,
    handle::{Config, DEFAULT_TICK, Raft},
    join::request_join,
    log::{
        Batch, Keyring, Loaded, LogKind, LogStore, MemoryLog, OwnSnapshot, Rotation, SealedLog,
        SnapshotWriter, WrittenSnapshot, open_log,
    },
    member::LocalMember,
    reader::Reader,
    replica::{Append, Committed, Output, ReadIndex, Replica, ReplicaConfig, Role, SnapshotHeader},
    service::{REMOVED, RaftService},
    settings::Ticks,
    status::{Positions, Quorum, Status},
};
