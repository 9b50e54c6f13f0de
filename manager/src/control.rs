//! The control API: what users and their tools ask of a swarm.
//!
//! Every call is checked (`validate`, pure), refused if it needs what is not there yet
//! (`unsupported`), and then is one look at a snapshot or one transaction. One file per kind of
//! object. Deliberately not here: who may call (the server in front), and doing what a spec asks
//! (the reconcilers).

mod cluster;
mod config;
mod error;
mod extension;
mod filter;
mod network;
mod node;
mod resource;
mod secret;
mod serve;
mod service;
mod task;
#[cfg(test)]
mod testing;
mod unsupported;
mod usage;
mod validate;
mod volume;

use std::{fmt, sync::Arc};

use skep_raft::Status as RaftStatus;
use skep_security::Tls;
use skep_store::{Object, Store, Tx};

pub use error::ApiError;
pub(crate) use task::name as task_name;
pub(crate) use validate::payload::secret_size as check_secret_size;

/// The server of `docker.swarmkit.v1.Control`. Clones share everything.
///
/// It answers from, and writes to, the store of this manager: on one that does not lead, writes
/// fail with the store's `LostLeadership`.
#[derive(Clone)]
pub struct Control {
    store: Store,
    raft: Arc<dyn Fn() -> RaftStatus + Send + Sync>,
    /// What external CAs are asked with.
    tls: Option<Tls>,
}

impl Control {
    /// A server on `store`. `raft` tells how replication stands on this manager; it is called for each
    /// request that needs it and must not block.
    pub fn new(store: Store, raft: impl Fn() -> RaftStatus + Send + Sync + 'static) -> Self {
        Self {
            store,
            raft: Arc::new(raft),
            tls: None,
        }
    }

    /// The same server, which can ask external CAs, with this identity.
    #[must_use]
    pub fn with_identity(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The committed object with this ID. An empty ID is a bad request.
    fn get<T: Object>(&self, id: &str) -> Result<Arc<T>, ApiError> {
        require(id)?;
        self.store
            .snapshot()
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::not_found(T::KIND, id))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Fails if a required ID is missing.
fn require(id: &str) -> Result<(), ApiError> {
    if id.is_empty() {
        Err(ApiError::missing())
    } else {
        Ok(())
    }
}

/// A copy of the object with this ID, to change within the transaction.
fn stored<T: Object>(tx: &Tx, id: &str) -> Result<T, ApiError> {
    tx.get::<T>(id)
        .map(|object| T::clone(object))
        .ok_or_else(|| ApiError::not_found(T::KIND, id))
}

/// Removes the object with this ID.
fn remove<T: Object>(tx: &mut Tx, id: &str) -> Result<(), ApiError> {
    match tx.remove::<T>(id) {
        Ok(_) => Ok(()),
        Err(skep_store::Error::NotFound) => Err(ApiError::not_found(T::KIND, id)),
        Err(err) => Err(err.into()),
    }
}
