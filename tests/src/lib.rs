//! What crosses rooms: a cluster in one process with a network that can be cut, the scenarios that
//! run on it, the simulator, and the load generators. No product code.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test that cannot go on should stop.

pub mod chaos;
pub mod cluster;
pub mod control;
pub mod engines;
pub mod floor;
pub mod latency;
pub mod links;
pub mod plugin;
pub mod sim;
