//! The agent from outside: its executors with real processes, and the whole of it against
//! managers over mTLS.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, also outside of test functions"
)]

mod dispatcher;
mod executors;
mod given;
mod health;
mod kill;
mod limits;
mod logs;
mod node;
mod process;
mod publishing;
mod support;
