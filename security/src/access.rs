//! Access.
use crate::Role;
/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, with or without a certificate.
    Anyone,
    /// Holders of a certificate of one of these roles.
    Roles(&'static [Role]),
}
/// x
#[allow(unused)]
pub fn access(path: &str) -> Option<Access> { todo!() }
