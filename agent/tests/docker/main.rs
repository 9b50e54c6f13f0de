//! The docker executor against a real engine: the one whose unix socket is in `SKEP_TEST_DOCKER`.
//!
//! Without it these tests say so and pass, or fail if `SKEP_REQUIRE_ALL` is 1. They need a busybox
//! that is linked statically (Debian: busybox-static) and no registry.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, also outside of test functions"
)]

mod files;
mod health;
mod image;
mod life;
mod logs;
mod settings;
mod support;
