//! Updates that carry the version of the object they were made from.

use tonic::Status;

/// How often an update is made again from a fresh copy when somebody else was faster. Each time
/// costs two calls; more than a few in a row mean that something writes all the time.
pub(crate) const ATTEMPTS: usize = 6;

/// Whether `status` says that the object has changed since it was read. Servers give this no code
/// of its own, only this text.
pub(crate) fn is_out_of_sequence(status: &Status) -> bool {
    status.message().contains("update out of sequence")
}
