//! Decoders of this crate that are reached only through files and connections, for fuzzing. Nothing
//! here is an interface.

use crate::{UnlockKey, external_ca, node_key};

/// Reads a node's key file, and writes what it has read.
pub fn key_file(file: &[u8], unlock: Option<&UnlockKey>) {
    node_key::decode(file, unlock);
}

/// Reads what an external CA answers.
pub fn cfssl_answer(body: &[u8]) {
    let _ = external_ca::certificate_of(body);
}
