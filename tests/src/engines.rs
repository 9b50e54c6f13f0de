//! Stock Docker engines for tests, each in a network namespace of its own: an engine knows nothing of
//! this project, and nothing of the machine but what a network cable would bring it.
//!
//! This needs root and the programs of a Docker installation. [`Lab::open`] says what is missing.

mod engine;
mod lab;
mod registry;

pub use engine::Engine;
pub use lab::{Flavour, Lab, flavours};
pub use registry::Registry;
