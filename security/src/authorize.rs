//! Authorize.
use crate::Identity;
/// x
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// x
    pub identity: Option<Identity>,
    /// x
    pub remote_addr: String,
    /// x
    pub forwarded_by: Option<String>,
}
/// x
#[allow(unused, clippy::result_large_err)]
pub fn authorize<B>(request: &http::Request<B>, cluster_id: &str, removed: &dyn Fn(&str) -> bool) -> Result<Caller, tonic::Status> { todo!() }
/// x
#[allow(unused)]
pub fn forward_headers(caller: &Caller, headers: &mut http::HeaderMap) { todo!() }
