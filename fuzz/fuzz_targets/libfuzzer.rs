//! All targets for cargo-fuzz; see the library.

#![no_main]

use std::sync::LazyLock;

use skep_fuzz::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SKEP_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("SKEP_FUZZ_TARGET is {name:?}, which is no target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
