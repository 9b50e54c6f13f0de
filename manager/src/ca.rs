//! The certificate authority of the cluster: who joins gets a node object and, from the signer, a
//! certificate.

mod service;
mod signer;

pub use service::{Ca, MAX_REQUEST_BYTES};
pub use signer::Signer;
