//! Join.
use std::sync::Arc;

use skep_proto::v1;

use crate::{Credentials, Dial, Error, JoinToken};
/// x
#[allow(unused)]
pub async fn join(dialer: Arc<dyn Dial>, addr: &str, token: &JoinToken, availability: v1::node_spec::Availability) -> Result<Credentials, Error> { todo!() }
