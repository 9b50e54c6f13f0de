//! How a container is asked whether it is healthy.

use std::time::Duration;

use clap::{Args, value_parser};
use skep_proto::v1::{ContainerSpec, HealthConfig};

use crate::spec::values;

/// The health check of a container; `None` is "not said".
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct HealthFlags {
    /// Command of a shell that fails if the container is not healthy; empty for the image's
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// How long to wait between two checks [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub health_interval: Option<Duration>,
    /// How long a check may take [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub health_timeout: Option<Duration>,
    /// Failures in a row that make a container unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(0..))]
    pub health_retries: Option<i32>,
    /// How long after the start failures do not count [default: the image's, or 0s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub health_start_period: Option<Duration>,
    /// How long to wait between two checks in that time
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub health_start_interval: Option<Duration>,
    /// Do not check, not even as the image wants it
    #[arg(long, conflicts_with_all = [
        "health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period",
        "health_start_interval",
    ])]
    pub no_healthcheck: bool,
}

impl HealthFlags {
    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn apply(&self, container: &mut ContainerSpec) {
        if self.no_healthcheck {
            container.healthcheck = Some(HealthConfig {
                test: vec!["NONE".to_owned()],
                ..Default::default()
            });
            return;
        }
        let health = container.healthcheck.get_or_insert_default();
        if let Some(command) = &self.health_cmd {
            health.test = match command.as_str() {
                "" => Vec::new(),
                command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
        }
        for (place, said) in [
            (&mut health.interval, self.health_interval),
            (&mut health.timeout, self.health_timeout),
            (&mut health.start_period, self.health_start_period),
            (&mut health.start_interval, self.health_start_interval),
        ] {
            if let Some(said) = said {
                *place = Some(values::wire(said));
            }
        }
        if let Some(retries) = self.health_retries {
            health.retries = retries;
        }
    }
}
