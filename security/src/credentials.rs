//! Credentials.
use std::{path::Path, time::Duration};

use bytes::Bytes;
use skep_proto::v1;

use crate::{Error, Identity, RootCa};
/// x
#[derive(Debug)]
pub struct Credentials {}
#[allow(missing_docs, unused)]
impl Credentials {
    pub fn from_pem(root_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, Error> { todo!() }
    pub fn self_issue(ca: &RootCa, who: &Identity, validity: Duration) -> Result<Self, Error> { todo!() }
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> { todo!() }
    pub fn save(&self, dir: &Path) -> Result<(), Error> { todo!() }
    pub fn identity(&self) -> &Identity { todo!() }
    pub fn root_pem(&self) -> &Bytes { todo!() }
    pub fn cert_pem(&self) -> &Bytes { todo!() }
    pub fn tls_info(&self) -> v1::NodeTlsInfo { todo!() }
    pub fn expires_at(&self) -> std::time::SystemTime { todo!() }
    pub fn valid_from(&self) -> std::time::SystemTime { todo!() }
}
