//! The command line against an in-process Control server on a Unix socket.

// The exception clippy.toml makes for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used)]

mod ca;
mod conflicts;
mod exit_codes;
mod fake;
mod inspect;
mod interrupt;
mod lists;
mod logs;
mod lookup;
mod payloads;
mod progress;
mod run;
mod writes;
