//! What a call can fail with, and how clients see it.
//!
//! The texts of the variants' fields are those that clients of a swarm know and match on.

use skep_store::Kind;
use tonic::{Code, Status};

/// Why a call of the control API failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense, whatever the state of the swarm.
    #[error("{0}")]
    InvalidArgument(String),
    /// The object is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something of that name is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The state of the swarm does not allow it now.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The swarm cannot do this, or not yet.
    #[error("{0}")]
    Unimplemented(String),
    /// The stored state is not what it must be.
    #[error("{0}")]
    Internal(String),
    /// An error that SwarmKit gives no code, so that clients see `Unknown`.
    #[error("{0}")]
    Plain(String),
    /// The transaction did not happen. Clients see `Unknown` and the store's text.
    #[error(transparent)]
    Store(#[from] skep_store::Error),
}

impl ApiError {
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// A required ID, version or spec is missing.
    pub(super) fn missing() -> Self {
        Self::invalid("invalid argument")
    }

    pub(super) fn not_found(kind: Kind, id: &str) -> Self {
        Self::NotFound(format!("{} {id} not found", kind.as_str()))
    }

    pub(super) fn unimplemented(text: impl Into<String>) -> Self {
        Self::Unimplemented(text.into())
    }

    fn code(&self) -> Code {
        match self {
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Internal(_) => Code::Internal,
            Self::Plain(_) | Self::Store(_) => Code::Unknown,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_keeps_its_text() {
        let check = |error: ApiError, code, text: &str| {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
        };
        check(
            ApiError::missing(),
            Code::InvalidArgument,
            "invalid argument",
        );
        check(
            ApiError::not_found(Kind::Node, "n1"),
            Code::NotFound,
            "node n1 not found",
        );
        check(
            ApiError::AlreadyExists("a".into()),
            Code::AlreadyExists,
            "a",
        );
        check(
            ApiError::FailedPrecondition("f".into()),
            Code::FailedPrecondition,
            "f",
        );
        check(ApiError::unimplemented("u"), Code::Unimplemented, "u");
        check(ApiError::Internal("i".into()), Code::Internal, "i");
        check(ApiError::Plain("p".into()), Code::Unknown, "p");
        check(
            skep_store::Error::OutOfSequence.into(),
            Code::Unknown,
            "update out of sequence",
        );
        check(
            skep_store::Error::LostLeadership.into(),
            Code::Unknown,
            "raft: failed to process the request: node lost leader status",
        );
    }
}
