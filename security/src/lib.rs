//! Identities of a swarm: who a node is, how it proves it, and what it may call.
//!
//! A node is its certificate: the common name is the node ID, the organisational unit is the role,
//! the organisation is the cluster ID. This room makes and checks such certificates ([`RootCa`],
//! [`Credentials`]), gets one from a running cluster ([`join`]), opens and accepts mutually
//! authenticated connections with them ([`Tls`], [`tls_incoming`], [`control_incoming`]) and says
//! which role may call which RPC ([`access()`], [`authorize()`]). It also keeps the keys that encrypt
//! what a manager has on disk ([`NodeKey`], [`DataKey`], [`UnlockKey`]).
//!
//! Deliberately not here: anything about Raft or tasks, when a certificate is renewed, and the
//! server side of the CA services (they write to the store; they only sign with this room's help).

mod access;
mod authorize;
mod credentials;
mod crypto;
#[doc(hidden)]
pub mod decode;
mod dial;
mod error;
mod external_ca;
mod identity;
mod incoming;
pub mod join;
mod node_key;
mod post;
mod renew;
mod role;
mod root_ca;
mod seal;
mod sealing;
mod secret;
#[cfg(test)]
mod testing;
mod tls;
mod token;

pub use access::{Access, access};
pub use authorize::{Caller, authorize, forward_headers};
pub use credentials::{CertificateRequest, Credentials};
pub use dial::{BoxedIo, Dial, Io, TcpDial};
pub use error::Error;
pub use external_ca::{ExternalCa, ExternalCaError};
pub use identity::Identity;
pub use incoming::{ControlStream, MAX_HANDSHAKES, control_incoming, tls_incoming};
pub use node_key::{DataKeys, Kek, KekChange, NodeKey};
pub use post::post;
pub use renew::renew;
pub use role::Role;
pub use root_ca::{DEFAULT_NODE_CERT_EXPIRY, IssuerInfo, RootCa, canonical_pem};
pub use seal::SealError;
pub use sealing::Sealing;
pub use secret::{DataKey, UnlockKey};
pub use tls::{ServerName, Tls};
pub use token::JoinToken;
