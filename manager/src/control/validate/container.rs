//! Container specs.

use std::collections::BTreeSet;

use skep_proto::v1::{Annotations, ContainerSpec, HealthConfig};

use super::{image, nanos};
use crate::control::ApiError;

/// Shortest duration of a health check other than 0, in nanoseconds.
const MIN_HEALTH_DURATION: i128 = 1_000_000;

/// The container of a service with these annotations, as it comes out of its templates.
pub fn check(spec: &ContainerSpec, service: &Annotations) -> Result<(), ApiError> {
    let spec = skep_template::rehearse(spec, service)
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    if spec.image.is_empty() {
        return Err(ApiError::invalid(
            "ContainerSpec: image reference must be provided",
        ));
    }
    if !image::is_reference(&spec.image) {
        return Err(ApiError::invalid(format!(
            "ContainerSpec: {:?} is not a valid repository/tag",
            spec.image
        )));
    }
    let mut targets = BTreeSet::new();
    if let Some(mount) = spec
        .mounts
        .iter()
        .find(|mount| !targets.insert(&mount.target))
    {
        return Err(ApiError::invalid(format!(
            "ContainerSpec: duplicate mount point: {}",
            mount.target
        )));
    }
    spec.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(config: &HealthConfig) -> Result<(), ApiError> {
    for (name, duration) in [
        ("Interval", &config.interval),
        ("Timeout", &config.timeout),
        ("StartPeriod", &config.start_period),
        ("StartInterval", &config.start_interval),
    ] {
        let nanos = nanos(duration.as_ref());
        if nanos != 0 && nanos < MIN_HEALTH_DURATION {
            return Err(ApiError::invalid(format!(
                "ContainerSpec: {name} in HealthConfig cannot be less than 1ms"
            )));
        }
    }
    if config.retries < 0 {
        return Err(ApiError::invalid(
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skep_proto::{Duration, v1::Mount};

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn images_and_mounts() {
        let check_one = |image: &str, targets: &[&str], expected: &str| {
            let spec = ContainerSpec {
                image: image.into(),
                mounts: targets
                    .iter()
                    .map(|&target| Mount {
                        target: target.into(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            };
            assert_eq!(text(check(&spec, &Annotations::default())), expected);
        };
        check_one("nginx:1.27", &[], "");
        check_one("", &[], "ContainerSpec: image reference must be provided");
        check_one(
            "Nginx",
            &[],
            "ContainerSpec: \"Nginx\" is not a valid repository/tag",
        );
        check_one("nginx", &["/a", "/b"], "");
        check_one(
            "nginx",
            &["/a", "/b", "/a"],
            "ContainerSpec: duplicate mount point: /a",
        );
        check_one("nginx", &["/{{.Task.Slot}}", "/{{.Node.ID}}"], "");
        check_one(
            "nginx",
            &["/{{.Task.Slot}}", "/1"],
            "ContainerSpec: duplicate mount point: /1",
        );
    }

    #[test]
    fn health_checks() {
        let ms = |count: i32| {
            Some(Duration {
                seconds: 0,
                nanos: count * 1_000_000,
            })
        };
        let short = Some(Duration {
            seconds: 0,
            nanos: 999_999,
        });
        let check_one = |config: HealthConfig, expected: &str| {
            assert_eq!(text(health(&config)), expected);
        };
        let none = HealthConfig::default();
        check_one(none.clone(), "");
        check_one(
            HealthConfig {
                interval: ms(0),
                timeout: ms(1),
                start_period: ms(2),
                start_interval: ms(3),
                retries: 3,
                test: vec!["NONE".into()],
            },
            "",
        );
        let text =
            |name: &str| format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
        let interval = HealthConfig {
            interval: short,
            ..none.clone()
        };
        check_one(interval, &text("Interval"));
        let timeout = HealthConfig {
            timeout: short,
            ..none.clone()
        };
        check_one(timeout, &text("Timeout"));
        let start_period = HealthConfig {
            start_period: short,
            ..none.clone()
        };
        check_one(start_period, &text("StartPeriod"));
        let start_interval = HealthConfig {
            start_interval: short,
            ..none.clone()
        };
        check_one(start_interval, &text("StartInterval"));
        let retries = HealthConfig {
            retries: -1,
            ..none
        };
        check_one(
            retries,
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        );
    }
}
