//! Fuzzing of the decoders of everything that is read from disk or network: no input may make one
//! panic or take memory without bound.
//!
//! A [`Target`] is a plain function with a few valid inputs. Two things drive it: `cargo run -p
//! skep-fuzz`, which mutates those inputs from a seed and needs nothing but stable Rust, and
//! cargo-fuzz, which is guided by coverage and needs nightly Rust. Run it in the repository, on the same
//! inputs to begin with:
//!
//! ```sh
//! cargo run -p skep-fuzz -- --corpus fuzz/corpus raft_message
//! SKEP_FUZZ_TARGET=raft_message cargo +nightly fuzz run --features libfuzzer --sanitizer none \
//!     libfuzzer fuzz/corpus/raft_message
//! ```
//!
//! What either finds becomes an input of its target, so that it is tried for ever.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "seeds are made from what is known to be valid"
)]

mod control;
mod dispatcher;
mod engine;
mod logs;
mod mutate;
mod replica;
mod seeds;
mod socket;
mod targets;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

pub use targets::TARGETS;

/// Inputs are at most this long, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// A decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Decodes. Whatever it returns or does is fine but a panic.
    pub run: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// An input that made a target panic.
#[derive(Debug)]
pub struct Crash {
    /// How many inputs went well.
    pub after: u64,
    /// The input.
    pub input: Vec<u8>,
}

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

/// Runs a target on its own inputs and on mutations of them, the same ones for the same seed, until
/// `inputs` were tried or `time` is over. Returns how many were.
pub fn fuzz(target: Target, seed: u64, inputs: u64, time: Duration) -> Result<u64, Crash> {
    let seeds = (target.seeds)();
    let mut random = StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let mut tried = 0;
    while tried < inputs && started.elapsed() < time {
        let input = match seeds.get(tried as usize) {
            Some(seed) => seed.clone(),
            None => {
                let seed = &seeds[random.random_range(0..seeds.len())];
                mutate::mutate(seed.clone(), &seeds, &mut random)
            }
        };
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let after = tried;
            return Err(Crash { after, input });
        }
        tried += 1;
    }
    Ok(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_panics_on_a_few_inputs() {
        for target in TARGETS {
            let done = fuzz(*target, 1, 300, Duration::from_secs(20));
            let done = done.unwrap_or_else(|crash| panic!("{}: {crash:?}", target.name));
            assert!(done as usize >= (target.seeds)().len(), "{}", target.name);
        }
    }

    #[test]
    fn a_panic_is_found_and_told() {
        let picky = Target {
            name: "picky",
            run: |input| assert!(input.len() < 3 || input[1] != 7),
            seeds: || vec![vec![1, 2, 3, 4]],
        };
        let crash = fuzz(picky, 1, 1_000_000, Duration::from_secs(60)).unwrap_err();
        assert!(crash.after > 0 && crash.input[1] == 7);
    }
}
