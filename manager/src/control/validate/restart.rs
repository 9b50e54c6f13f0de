//! Restart policies.

use skep_proto::v1::RestartPolicy;

use super::nanos;
use crate::control::ApiError;

pub fn check(policy: Option<&RestartPolicy>) -> Result<(), ApiError> {
    let Some(policy) = policy else {
        return Ok(());
    };
    if nanos(policy.delay.as_ref()) < 0 {
        return Err(ApiError::invalid(
            "TaskSpec: restart-delay cannot be negative",
        ));
    }
    if nanos(policy.window.as_ref()) < 0 {
        return Err(ApiError::invalid(
            "TaskSpec: restart-window cannot be negative",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skep_proto::Duration;

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn times_are_not_negative() {
        let check_one = |delay: Option<(i64, i32)>, window: Option<(i64, i32)>, expected: &str| {
            let time = |(seconds, nanos)| Duration { seconds, nanos };
            let policy = RestartPolicy {
                delay: delay.map(time),
                window: window.map(time),
                ..Default::default()
            };
            assert_eq!(text(check(Some(&policy))), expected);
        };
        assert_eq!(text(check(None)), "");
        check_one(None, None, "");
        check_one(Some((0, 0)), Some((0, 0)), "");
        check_one(
            Some((-1, 0)),
            None,
            "TaskSpec: restart-delay cannot be negative",
        );
        check_one(
            Some((0, -1)),
            None,
            "TaskSpec: restart-delay cannot be negative",
        );
        check_one(
            None,
            Some((-1, 0)),
            "TaskSpec: restart-window cannot be negative",
        );
        check_one(
            Some((i64::MIN, 0)),
            None,
            "TaskSpec: restart-delay cannot be negative",
        );
    }
}
