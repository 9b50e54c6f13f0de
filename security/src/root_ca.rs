//! The root of trust of a cluster.
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Error, Identity};

/// x
pub const DEFAULT_NODE_CERT_EXPIRY: Duration = Duration::from_secs(2160 * 3600);

/// x
#[derive(Clone, Debug)]
pub struct RootCa {}

#[allow(missing_docs, unused)]
impl RootCa {
    pub fn generate() -> Result<Self, Error> { todo!() }
    pub fn from_pem(cert_pem: &[u8], key_pem: Option<&[u8]>) -> Result<Self, Error> { todo!() }
    pub fn cert_pem(&self) -> &Bytes { todo!() }
    pub fn key_pem(&self) -> Option<&Bytes> { todo!() }
    pub fn hash(&self) -> String { todo!() }
    pub fn issue(&self, csr_pem: &[u8], who: &Identity, validity: Duration, now: SystemTime) -> Result<Bytes, Error> { todo!() }
}
