//! Modes of services.

use skep_proto::v1::{ServiceSpec, service_spec::Mode};

use crate::control::ApiError;

pub fn check(spec: &ServiceSpec) -> Result<(), ApiError> {
    let job = match &spec.mode {
        None => return Err(ApiError::invalid("Unrecognized service mode")),
        Some(Mode::Replicated(replicated)) => {
            count("Number of replicas", replicated.replicas, "non-negative")?;
            false
        }
        Some(Mode::Global(_)) => false,
        Some(Mode::ReplicatedJob(job)) => {
            count("Maximum concurrent jobs", job.max_concurrent, "")?;
            count("Total completed jobs", job.total_completions, "")?;
            true
        }
        Some(Mode::GlobalJob(_)) => true,
    };
    if job && spec.update.is_some() {
        return Err(ApiError::invalid("Jobs may not have an update config"));
    }
    Ok(())
}

/// Clients count with signed numbers: what is negative there has the top bit set here.
fn count(what: &str, value: u64, adjective: &str) -> Result<(), ApiError> {
    if value <= i64::MAX as u64 {
        return Ok(());
    }
    Err(ApiError::invalid(if adjective.is_empty() {
        format!("{what} must not be negative")
    } else {
        format!("{what} must be {adjective}")
    }))
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        GlobalJob, GlobalService, ReplicatedJob, ReplicatedService, UpdateConfig,
    };

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn modes() {
        let check_one = |mode: Option<Mode>, update: bool, expected: &str| {
            let spec = ServiceSpec {
                mode,
                update: update.then(UpdateConfig::default),
                ..Default::default()
            };
            assert_eq!(text(check(&spec)), expected);
        };
        let replicated = |replicas| Some(Mode::Replicated(ReplicatedService { replicas }));
        let job = |max_concurrent, total_completions| {
            Some(Mode::ReplicatedJob(ReplicatedJob {
                max_concurrent,
                total_completions,
            }))
        };
        let negative = -1_i64 as u64;
        check_one(None, false, "Unrecognized service mode");
        check_one(replicated(0), true, "");
        check_one(replicated(i64::MAX as u64), false, "");
        check_one(
            replicated(negative),
            false,
            "Number of replicas must be non-negative",
        );
        check_one(Some(Mode::Global(GlobalService {})), true, "");
        check_one(job(1, 1), false, "");
        check_one(
            job(negative, 1),
            false,
            "Maximum concurrent jobs must not be negative",
        );
        check_one(
            job(1, negative),
            false,
            "Total completed jobs must not be negative",
        );
        check_one(job(1, 1), true, "Jobs may not have an update config");
        check_one(Some(Mode::GlobalJob(GlobalJob {})), false, "");
        check_one(
            Some(Mode::GlobalJob(GlobalJob {})),
            true,
            "Jobs may not have an update config",
        );
    }
}
