//! Unchanged Docker engines as workers: they join with the token and do their work.
//!
//! Each test needs root and an installed engine, and says so when it is skipped.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod content;
mod fixture;
mod identity;
mod managers;
mod ours;
mod registry;
mod work;
