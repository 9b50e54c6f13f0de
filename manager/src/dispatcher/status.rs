//! What agents are told when something is not done. Codes and texts are SwarmKit's.

use skep_store::Error;
use tonic::Status;

use super::registry::Refusal;

/// This manager does not lead, or not any more.
pub(super) fn stopped() -> Status {
    Status::aborted("dispatcher is stopped")
}

/// The end of every stream when the term is over.
pub(super) fn must_disconnect() -> Status {
    Status::aborted("node must disconnect")
}

/// The node was removed from the cluster. Agents know this text under this code.
pub(super) fn node_not_found() -> Status {
    Status::unknown("node not found")
}

/// Why a write of the dispatcher did not happen.
pub(super) fn from_store(error: Error) -> Status {
    match error {
        Error::LostLeadership => stopped(),
        Error::Busy => Status::unavailable(error.to_string()),
        Error::TooLarge => Status::resource_exhausted(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::TooOften(_) => Self::unavailable(text),
            Refusal::NotRegistered => Self::not_found(text),
            Refusal::InvalidSession => Self::invalid_argument(text),
        }
    }
}
