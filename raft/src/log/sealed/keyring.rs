//! Where the keys of a sealed log are kept.

use skep_security::{DataKeys, NodeKey};

use crate::Error;

/// Keeps the keys of a log, durably. A key that is lost makes the log worthless, so every method
/// returns only when what it did is on disk.
pub trait Keyring: Send + Sync {
    /// The keys, made if there are none yet.
    fn keys(&self) -> Result<DataKeys, Error>;

    /// Whether another key was asked for.
    fn needs_rotation(&self) -> bool;

    /// Makes a pending key, unless there is one, and takes back that one was asked for.
    fn begin_rotation(&self) -> Result<DataKeys, Error>;

    /// Makes the pending key the current one.
    fn finish_rotation(&self) -> Result<(), Error>;
}

impl Keyring for NodeKey {
    fn keys(&self) -> Result<DataKeys, Error> {
        Ok(self.data_keys()?)
    }

    fn needs_rotation(&self) -> bool {
        NodeKey::needs_rotation(self)
    }

    fn begin_rotation(&self) -> Result<DataKeys, Error> {
        Ok(NodeKey::begin_rotation(self)?)
    }

    fn finish_rotation(&self) -> Result<(), Error> {
        Ok(NodeKey::finish_rotation(self)?)
    }
}
