//! One daemon: an agent and, when its certificate says so, a manager.
//!
//! This room puts the others together: it reads the command line, owns the state directory, founds
//! or joins a cluster, and starts and stops the parts. [`dev`] does that for a whole cluster on one
//! machine, as processes of their own. Deliberately not here: decisions about the cluster.

pub mod address;
pub mod args;
pub mod control_socket;
pub mod dev;
mod executor;
mod generic_resource;
pub mod leave;
mod locked;
pub mod log;
mod managing;
mod node;
mod renewal;
pub mod run;
pub mod state_dir;

pub use node::{Config, End, Error, Join, Node};
