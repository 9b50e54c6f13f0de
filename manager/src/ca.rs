//! The certificate authority of the cluster: who joins gets a node object and, from the signer, a
//! certificate.
//!
//! Which root signs, with whose key, follows from the cluster object (`authority`). During a
//! rotation that is the new root already, while the old one is still what nodes trust; `rotation`
//! moves the nodes and ends it.

pub(crate) mod authority;
pub(crate) mod external;
pub(crate) mod rotation;
mod service;
mod signer;
pub(crate) mod trust;

pub use service::{Ca, MAX_REQUEST_BYTES};
pub use signer::Signer;
