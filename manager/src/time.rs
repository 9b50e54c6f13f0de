//! Points in time as decisions use them: a number, not a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_proto::Timestamp;

/// A point in time, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u128);

/// The present time of the machine. Only drivers and I/O call this, never a decision.
pub fn now() -> Time {
    Time(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos(),
    )
}

impl Time {
    /// Time passed since `earlier`, zero if that is in the future.
    pub fn saturating_since(self, earlier: Time) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration.as_nanos()))
    }
}

impl From<Timestamp> for Time {
    /// Times before 1970 become 1970: nothing in a swarm is older.
    fn from(stamp: Timestamp) -> Self {
        let seconds = u128::try_from(stamp.seconds).unwrap_or(0);
        let nanos = u128::try_from(stamp.nanos).unwrap_or(0);
        Time(seconds * 1_000_000_000 + nanos)
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Timestamp {
            seconds: i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX),
            nanos: (time.0 % 1_000_000_000) as i32,
        }
    }
}

/// A wire duration; absent, negative and unrepresentable ones are `default`.
pub fn duration_or(wire: Option<skep_proto::Duration>, default: Duration) -> Duration {
    wire.and_then(|d| Duration::try_from(d).ok())
        .unwrap_or(default)
}
