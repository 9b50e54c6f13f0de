//! The tables that were published before the present ones, to make the next ones of.
//!
//! A node of a table is copied when it is changed while somebody else holds it, with the counts of
//! all objects in it, and the present snapshot holds all nodes. Who held the tables before it has
//! mostly let go of them by now. So they are brought forward in place, and two sets take turns.

use std::sync::Arc;

use crate::{Change, table::Tables};

/// Changes after which all tables share their nodes again, so that what was written once does not
/// lie in memory several times for ever. Sharing anew costs each node that is changed afterwards a
/// copy, so it must be seldom.
const SHARE_AFTER: usize = 16 * 1024;

/// See above. Empty at first, and after something else was published.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    last: Option<Last>,
    /// Changes made in place since the tables have shared all nodes.
    apart: usize,
}

/// Tables that were published, and what those after them have more.
#[derive(Debug)]
struct Last {
    tables: Arc<Tables>,
    changes: Vec<Change>,
}

impl Spare {
    /// Tables equal to the `published` ones: those of before if nobody holds them, else a copy that
    /// shares everything.
    pub(crate) fn take(&mut self, published: &Arc<Tables>) -> Arc<Tables> {
        if self.is_due() {
            *self = Self::default();
        }
        if let Some(mut last) = self.last.take()
            && let Some(tables) = Arc::get_mut(&mut last.tables)
        {
            for change in &last.changes {
                change.make(tables);
            }
            return last.tables;
        }
        published.clone()
    }

    /// `changes` have led from `tables`, which were published, to what is now.
    pub(crate) fn put(&mut self, tables: Arc<Tables>, changes: &[Change]) {
        self.apart += changes.len();
        self.last = Some(Last {
            tables,
            changes: changes.to_vec(),
        });
    }

    /// Whether it is time for all tables to share their nodes. The next [`Self::take`] does it.
    pub(crate) fn is_due(&self) -> bool {
        self.apart >= SHARE_AFTER
    }
}
