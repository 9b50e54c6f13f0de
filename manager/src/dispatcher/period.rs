//! How often a node has to give a sign of life.

use std::time::Duration;

use skep_proto::v1::Cluster;

use crate::time::duration_or;

/// The period of a cluster that has none set (SwarmKit's number).
const DEFAULT: Duration = Duration::from_secs(5);

/// Most that a chosen period differs from the configured one (SwarmKit's number). It spreads the
/// heartbeats of nodes that came at the same moment.
const MAX_JITTER: Duration = Duration::from_millis(500);

/// Bounds of what is configured: below, heartbeats would be all that a manager does; above, sums
/// of periods could overflow.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(24 * 60 * 60));

/// Periods without a heartbeat after which a registered node is down.
pub(super) const GRACE: u32 = 3;

/// Periods that a node of the term before has to register with a new leader.
pub(super) const GRACE_UNKNOWN: u32 = 6;

/// The period that the cluster is configured to have. Never zero: agents would spin.
pub(super) fn configured(cluster: Option<&Cluster>) -> Duration {
    let wire = cluster.and_then(|cluster| cluster.spec().dispatcher().heartbeat_period);
    match duration_or(wire, DEFAULT) {
        Duration::ZERO => DEFAULT,
        period => period.clamp(BOUNDS.0, BOUNDS.1),
    }
}

/// A period around `period`, as `random` from 0 to 1 says. The spread is that of a quarter of
/// the period if it is so short that [`MAX_JITTER`] would be more.
pub(super) fn chosen(period: Duration, random: f64) -> Duration {
    let jitter = MAX_JITTER.min(period / 4);
    period - jitter + (jitter * 2).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{ClusterSpec, DispatcherConfig};

    use super::*;

    fn cluster(millis: u64) -> Cluster {
        let dispatcher = DispatcherConfig {
            heartbeat_period: Duration::from_millis(millis).try_into().ok(),
        };
        Cluster {
            spec: Some(ClusterSpec {
                dispatcher: Some(dispatcher),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_period_is_the_configured_one_and_never_zero() {
        assert_eq!(configured(None), DEFAULT);
        assert_eq!(configured(Some(&Cluster::default())), DEFAULT);
        assert_eq!(configured(Some(&cluster(0))), DEFAULT);
        assert_eq!(configured(Some(&cluster(200))), Duration::from_millis(200));
        assert_eq!(configured(Some(&cluster(u64::from(u32::MAX)))), BOUNDS.1);
    }

    #[test]
    fn the_spread_is_half_a_second_and_less_for_short_periods() {
        let seconds = Duration::from_secs_f64;
        assert_eq!(chosen(seconds(5.0), 0.0), seconds(4.5));
        assert_eq!(chosen(seconds(5.0), 1.0), seconds(5.5));
        assert_eq!(chosen(seconds(2.0), 0.0), seconds(1.5));
        assert_eq!(chosen(seconds(0.4), 0.0), seconds(0.3));
        assert_eq!(chosen(seconds(0.4), 1.0), seconds(0.5));
    }
}
