//! Update configs.

use skep_proto::v1::UpdateConfig;

use super::nanos;
use crate::control::ApiError;

pub fn check(config: Option<&UpdateConfig>) -> Result<(), ApiError> {
    let Some(config) = config else {
        return Ok(());
    };
    if nanos(config.delay.as_ref()) < 0 {
        return Err(ApiError::invalid(
            "TaskSpec: update-delay cannot be negative",
        ));
    }
    if nanos(config.monitor.as_ref()) < 0 {
        return Err(ApiError::invalid(
            "TaskSpec: update-monitor cannot be negative",
        ));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(ApiError::invalid(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
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
    fn times_and_ratio() {
        let check_one = |delay: i64, monitor: i64, max_failure_ratio: f32, expected: &str| {
            let time = |seconds| Some(Duration { seconds, nanos: 0 });
            let config = UpdateConfig {
                delay: time(delay),
                monitor: time(monitor),
                max_failure_ratio,
                ..Default::default()
            };
            assert_eq!(text(check(Some(&config))), expected);
        };
        let ratio = "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1";
        assert_eq!(text(check(None)), "");
        check_one(0, 0, 0.0, "");
        check_one(1, 1, 1.0, "");
        check_one(-1, 0, 0.0, "TaskSpec: update-delay cannot be negative");
        check_one(0, -1, 0.0, "TaskSpec: update-monitor cannot be negative");
        check_one(0, 0, -0.1, ratio);
        check_one(0, 0, 1.1, ratio);
        check_one(0, 0, f32::NAN, ratio);
    }
}
