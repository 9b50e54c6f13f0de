//! An immutable view of all tables.

use std::sync::Arc;

use crate::{By, Object, table::Tables};

/// All objects as they were after one committed entry. Cloning is O(1); holding one blocks nobody.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    index: u64,
    tables: Arc<Tables>,
}

impl Snapshot {
    pub(crate) fn new(index: u64, tables: Arc<Tables>) -> Self {
        Self { index, tables }
    }

    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Index of the last log entry that is in here.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The object with this ID.
    pub fn get<T: Object>(&self, id: &str) -> Option<&Arc<T>> {
        T::table(&self.tables).get(id)
    }

    /// All objects of a kind that `by` selects, in no promised order.
    pub fn find<'a, T: Object>(&'a self, by: By<'a>) -> impl Iterator<Item = &'a Arc<T>> + Send {
        T::table(&self.tables).find(by)
    }

    /// All objects of a kind, ordered by ID.
    pub fn all<T: Object>(&self) -> impl Iterator<Item = &Arc<T>> + Send {
        self.find(By::All)
    }

    /// How many objects of a kind there are.
    pub fn count<T: Object>(&self) -> usize {
        T::table(&self.tables).len()
    }
}
