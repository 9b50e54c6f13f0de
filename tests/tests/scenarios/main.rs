//! What a user sees a cluster do, on whole nodes with real sockets and mTLS.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod autolock;
mod bad_input;
mod behind_nat;
mod callers;
mod control_api;
mod failover;
mod idle;
mod joining;
mod leadership;
mod leaving;
mod logs;
mod membership;
mod promotion;
mod recovery;
mod renewal;
mod root_rotation;
mod rotation_failover;
mod secret_drivers;
mod sessions;
mod snapshots;
mod watching;
mod workers;
