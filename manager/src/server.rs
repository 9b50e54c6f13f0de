//! The two doors of a manager: the TCP listener for nodes and other managers, and the control
//! socket for whoever the operating system lets in.
//!
//! Both serve the same services. What differs is who is believed ([`admission`]) and which calls
//! are taken to the leader ([`proxy`]). Reads wait until what they see is current ([`barrier`]).
//! Connections are `serving`'s.

pub mod admission;
pub mod barrier;
mod health;
mod passed_on;
pub mod proxy;
mod raft_status;
pub mod services;
mod serving;
mod unlocked;

pub use health::Health;
pub use raft_status::RaftStatusService;
pub(crate) use serving::serve;
pub(crate) use unlocked::Unlocked;
