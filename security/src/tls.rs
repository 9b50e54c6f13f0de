//! Tls.
use std::sync::Arc;

use tonic::transport::Channel;

use crate::{Credentials, Dial, Error};
/// x
#[derive(Clone)]
pub struct Tls {}
#[allow(missing_docs, unused)]
impl Tls {
    pub fn new(credentials: Credentials) -> Self { todo!() }
    pub fn with_dialer(credentials: Credentials, dialer: Arc<dyn Dial>) -> Self { todo!() }
    pub fn current(&self) -> Arc<Credentials> { todo!() }
    pub fn replace(&self, credentials: Credentials) { todo!() }
    pub fn channel(&self, addr: &str, name: ServerName) -> Result<Channel, Error> { todo!() }
}
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerName {
    /// "swarm-manager"
    Manager,
    /// "swarm-ca"
    Ca,
}
