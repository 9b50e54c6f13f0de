//! Which errors say that a write did not happen and never will, and which leave it open.
//!
//! This is the contract that the check of a run rests on, so it is a list of what is known to be
//! definite; all else is open. Definite is what a leader decided after it looked at the request or
//! at its (committed) state, and what was turned away before anything was proposed. Open is
//! everything that can be said while an entry is on its way through the log:
//!
//! | answer | why |
//! |---|---|
//! | lost leadership | the entry may be on a quorum already; the next leader then commits it |
//! | unavailable, cancelled, internal | transport: the request may have arrived before it broke |
//! | deadline exceeded, no answer at all | bytes that wait in a cut link arrive when it is healed |
//! | resource exhausted, permission denied | also made up by a client from what HTTP/2 says |
//! | out of range | a client's word for an answer that is too large: the write is done |

use tonic::{Code, Status};

/// Errors without a code of their own, by how their text begins.
const REFUSALS: [&str; 4] = [
    // The object was changed since.
    "update out of sequence",
    // Not proposed: it exceeds the limit, or too much waits already.
    "raft: raft message is too large",
    "too many writes are waiting to be replicated",
    // A manager kept the request until it gave up finding someone to send it to.
    "The swarm does not have a leader.",
];

/// Whether the write that was answered so did not happen and never will.
pub fn is_definite(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => true,
        _ => REFUSALS
            .iter()
            .any(|text| status.message().starts_with(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decisions_are_definite() {
        for refused in [
            Status::invalid_argument("invalid argument"),
            Status::already_exists("config a already exists"),
            Status::not_found("could not find config x"),
            Status::unknown("update out of sequence"),
            Status::unknown("raft: raft message is too large and can't be sent"),
            Status::resource_exhausted("too many writes are waiting to be replicated; try again"),
            Status::unknown("The swarm does not have a leader. It's possible that too few"),
        ] {
            assert!(is_definite(&refused), "{refused}");
        }
        for open in [
            Status::unknown("raft: failed to process the request: node lost leader status"),
            Status::unknown("raft: failed to process the request: node is stopped"),
            Status::unavailable("connection error"),
            Status::unavailable("update out of"),
            Status::deadline_exceeded("no answer"),
            Status::cancelled("h2"),
            Status::internal("h2 protocol error"),
            Status::resource_exhausted("h2 protocol error: enhance your calm"),
            Status::out_of_range("decoded message length too large"),
        ] {
            assert!(!is_definite(&open), "{open}");
        }
    }
}
