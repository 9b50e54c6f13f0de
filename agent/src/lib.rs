//! A worker: it holds a session with a manager, runs the tasks it is assigned, and reports.
//!
//! [`Agent`] is the whole of it. A session is a state machine that on any trouble picks another
//! manager; the tasks know nothing of it. A task is a state machine driven by an
//! [`executor::Executor`], and what it must survive is on disk before anyone is told of it, so
//! the end of the daemon at any moment costs no task and no status.
//!
//! Deliberately not here: Raft, the store, and every decision about which tasks there should be.

mod agent;
mod assignments;
mod backoff;
mod dependencies;
mod description;
mod disk;
mod disk_queue;
mod error;
pub mod executor;
mod logs;
mod remotes;
mod reporter;
mod session;
mod task;
mod task_store;
#[doc(hidden)]
pub mod testing;
mod worker;

pub use agent::{Agent, Config, OnStop};
pub use dependencies::Dependencies;
pub use error::Error;
pub use remotes::known_managers;
