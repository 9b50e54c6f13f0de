//! How the tasks of a service are replaced, by an update and by a rollback.

use std::time::Duration;

use clap::{Args, ValueEnum};
use skep_proto::v1::{
    ServiceSpec, UpdateConfig,
    update_config::{FailureAction as WireAction, UpdateOrder},
};

use crate::spec::values;

/// Which goes first when a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The old task stops before the new one starts
    StopFirst,
    /// The new task runs before the old one stops
    StartFirst,
}

/// What happens when an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailureAction {
    /// Stop updating
    Pause,
    /// Go on
    Continue,
    /// Return to the previous spec
    Rollback,
}

/// What happens when a rollback fails; it is never rolled back itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RollbackFailureAction {
    /// Stop rolling back
    Pause,
    /// Go on
    Continue,
}

impl From<FailureAction> for WireAction {
    fn from(action: FailureAction) -> Self {
        match action {
            FailureAction::Pause => Self::Pause,
            FailureAction::Continue => Self::Continue,
            FailureAction::Rollback => Self::Rollback,
        }
    }
}

impl From<RollbackFailureAction> for WireAction {
    fn from(action: RollbackFailureAction) -> Self {
        match action {
            RollbackFailureAction::Pause => Self::Pause,
            RollbackFailureAction::Continue => Self::Continue,
        }
    }
}

/// Declares the flags of one of the two, which differ in their names and one type only.
macro_rules! rollout {
    ($(#[$doc:meta])* $flags:ident for $what:literal in $field:ident:
     $parallelism:ident, $delay:ident, $order:ident, $monitor:ident, $action:ident: $actions:ty,
     $ratio:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Args)]
        pub struct $flags {
            /// Tasks replaced at the same time, 0 for all at once [default: 1]
            #[arg(
                long,
                value_name = "N",
                help = concat!($what, ": tasks replaced at the same time, 0 for all [default: 1]")
            )]
            pub $parallelism: Option<u64>,
            /// How long to wait between tasks [default: 0s]
            #[arg(
                long,
                value_name = "TIME",
                value_parser = values::duration,
                help = concat!($what, ": how long to wait between tasks [default: 0s]")
            )]
            pub $delay: Option<Duration>,
            /// Which goes first, stopping the old or starting the new task [default: stop-first]
            #[arg(
                long,
                value_name = "ORDER",
                help = concat!($what, ": what goes first [default: stop-first]")
            )]
            pub $order: Option<Order>,
            /// How long a new task is watched for failure [default: 5s]
            #[arg(
                long,
                value_name = "TIME",
                value_parser = values::duration,
                help = concat!($what, ": how long a new task is watched for failure [default: 5s]")
            )]
            pub $monitor: Option<Duration>,
            /// What to do on failure [default: pause]
            #[arg(
                long,
                value_name = "ACTION",
                help = concat!($what, ": what to do on failure [default: pause]")
            )]
            pub $action: Option<$actions>,
            /// Share of tasks that may fail before all counts as failed [default: 0]
            #[arg(
                long,
                value_name = "RATIO",
                value_parser = values::ratio,
                help = concat!($what, ": share of tasks that may fail [default: 0]")
            )]
            pub $ratio: Option<f32>,
        }

        impl $flags {
            pub(super) fn apply(&self, spec: &mut ServiceSpec) {
                if self.$parallelism.is_none()
                    && self.$delay.is_none()
                    && self.$order.is_none()
                    && self.$monitor.is_none()
                    && self.$action.is_none()
                    && self.$ratio.is_none()
                {
                    return;
                }
                // A parallelism of 0 means all at once, but an absent configuration one at a time.
                let config = spec.$field.get_or_insert_with(|| UpdateConfig {
                    parallelism: 1,
                    ..Default::default()
                });
                if let Some(parallelism) = self.$parallelism {
                    config.parallelism = parallelism;
                }
                if let Some(delay) = self.$delay {
                    config.delay = Some(values::wire(delay));
                }
                if let Some(order) = self.$order {
                    config.order = match order {
                        Order::StopFirst => UpdateOrder::StopFirst,
                        Order::StartFirst => UpdateOrder::StartFirst,
                    }
                    .into();
                }
                if let Some(monitor) = self.$monitor {
                    config.monitor = Some(values::wire(monitor));
                }
                if let Some(action) = self.$action {
                    config.failure_action = WireAction::from(action).into();
                }
                if let Some(ratio) = self.$ratio {
                    config.max_failure_ratio = ratio;
                }
            }
        }
    };
}

rollout! {
    /// How an update goes; `None` is "not said".
    UpdateFlags for "Update" in update:
    update_parallelism, update_delay, update_order, update_monitor,
    update_failure_action: FailureAction, update_max_failure_ratio
}

rollout! {
    /// How a rollback goes; `None` is "not said".
    RollbackFlags for "Rollback" in rollback:
    rollback_parallelism, rollback_delay, rollback_order, rollback_monitor,
    rollback_failure_action: RollbackFailureAction, rollback_max_failure_ratio
}
