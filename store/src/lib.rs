//! The transactional in-memory store of a manager.
//!
//! Ten tables of objects in persistent maps. A [`Snapshot`] is an immutable view of all of them and
//! costs nothing to take. A transaction ([`Tx`]) runs on the leader's *speculative head*, is
//! proposed for replication and becomes visible when its entry is committed; the next one does not
//! wait for that. Watching hands over `(snapshot, subscription)` without a gap between the two.
//!
//! Deliberately not here: the network, the disk, clocks (one is passed in) and spawned tasks. What
//! replicates the entries only has to call [`Store::lead`], [`Store::follow`], [`Store::apply`] and
//! [`Store::restore`].

mod by;
mod change;
mod error;
mod image;
mod object;
mod snapshot;
mod spare;
mod store;
mod table;
#[doc(hidden)]
pub mod testing;
mod text;
mod tx;
mod watch;
mod wire;

pub use by::{By, Index};
pub use change::{AnyObject, Change};
pub use error::Error;
pub use image::Image;
pub use object::{Kind, Object};
pub use snapshot::Snapshot;
pub use store::{Entry, Proposal, Propose, Store};

pub use tx::Tx;
pub use watch::{Commit, Event, Route, Subscription};
pub use wire::Action;

/// Most changes that one transaction of a batch carries (SwarmKit's limit, for mixed groups).
pub const MAX_CHANGES_PER_BATCH: usize = 200;

/// Largest serialised proposal in bytes: 1.5 MiB (SwarmKit's limit, for mixed groups).
pub const MAX_PROPOSAL_BYTES: usize = 3 * 1024 * 1024 / 2;
