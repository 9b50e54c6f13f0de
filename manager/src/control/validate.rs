//! What a request must look like, whatever the state of the swarm. Pure functions, one file per
//! part of a spec; each returns the first thing that is wrong.

pub(super) mod cluster;
mod container;
mod endpoint;
mod generic;
mod image;
mod mode;
pub(super) mod name;
pub(super) mod payload;
mod placement;
mod references;
mod resources;
mod restart;
mod task;
mod update;

use skep_proto::{Duration, v1::ServiceSpec};

use super::ApiError;

/// A service spec.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), ApiError> {
    name::dns(&spec.annotations().name)?;
    task::check(spec.task(), spec.annotations())?;
    mode::check(spec)?;
    update::check(spec.update.as_ref())?;
    endpoint::check(spec.endpoint.as_ref())
}

/// A duration in nanoseconds; absent is 0.
fn nanos(duration: Option<&Duration>) -> i128 {
    duration.map_or(0, |d| {
        i128::from(d.seconds) * 1_000_000_000 + i128::from(d.nanos)
    })
}
