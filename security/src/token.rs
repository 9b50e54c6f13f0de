//! Join tokens.
use crate::{Error, RootCa};
/// x
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {}
impl std::str::FromStr for JoinToken { type Err = Error; fn from_str(_: &str) -> Result<Self, Error> { todo!() } }
impl std::fmt::Display for JoinToken { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { todo!() } }
#[allow(missing_docs, unused)]
impl JoinToken {
    pub fn generate(ca: &RootCa) -> Self { todo!() }
    pub fn matches(&self, presented: &str) -> bool { todo!() }
}
