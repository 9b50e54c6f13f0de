//! Changes of the log's tree that are made together.

use crate::Error;

/// Keys, and what they are set to or that they are removed.
#[derive(Debug, Default)]
pub(super) struct Writes(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Writes {
    pub(super) fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.0.push((key.to_vec(), Some(value)));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.0.push((key.to_vec(), None));
    }

    /// Makes all changes or none.
    pub(super) fn apply(mut self, tree: &sled::Tree) -> Result<(), Error> {
        let applied = match self.0.pop() {
            None => return Ok(()),
            // sled puts something before a batch, and waits for the disk between the two.
            Some((key, Some(value))) if self.0.is_empty() => tree.insert(key, value).map(drop),
            last => {
                let mut batch = sled::Batch::default();
                for (key, value) in self.0.into_iter().chain(last) {
                    match value {
                        Some(value) => batch.insert(key, value),
                        None => batch.remove(key),
                    }
                }
                tree.apply_batch(batch)
            }
        };
        applied.map_err(Error::log("write"))
    }
}
