//! What makes a cluster out of nodes.
//!
//! The control API, the proxy that takes calls to the leader, the dispatcher that holds the agents'
//! sessions, the log broker, the CA, and the reconcilers that decide. They meet in the store and nowhere else.
//! Deliberately not here: replication itself, and executing containers.

mod batch;
pub mod ca;
pub mod control;
pub mod dispatcher;
mod keys;
pub mod leader;
pub mod logbroker;
pub mod manager;
pub mod reconcile;
pub mod reconcilers;
mod roles;
pub mod secret_drivers;
pub mod server;
pub mod time;
pub mod watch;
