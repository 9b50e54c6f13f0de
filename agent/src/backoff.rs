//! How long a worker waits before it tries another session.
//!
//! The bound starts at nothing, so the first attempt is immediate, and grows to
//! `min(100 ms + 2·bound, 8 s)` with each failure; the wait is uniform in `[0, bound)`. These are
//! the numbers of stock workers, so that a crowd of mixed workers spreads evenly over the time
//! after a manager's end.

use std::time::Duration;

/// What every failure adds.
const BASE: Duration = Duration::from_millis(100);
/// The most the bound grows to.
const MAX: Duration = Duration::from_secs(8);

/// The bound of the next wait.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    /// After a failure: the next wait may be longer.
    pub(crate) fn grow(&mut self) {
        self.bound = next_bound(self.bound);
    }

    /// After a success: the next attempt is immediate.
    pub(crate) fn reset(&mut self) {
        self.bound = Duration::ZERO;
    }

    /// The wait that `random`, uniform in `[0, 1)`, picks.
    pub(crate) fn wait(&self, random: f64) -> Duration {
        self.bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

/// The bound that follows `bound` after a failure.
fn next_bound(bound: Duration) -> Duration {
    (BASE + bound.min(MAX) * 2).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_published_sequence() {
        let mut bound = Duration::ZERO;
        let sequence: Vec<_> = (0..9)
            .map(|_| {
                bound = next_bound(bound);
                bound.as_millis()
            })
            .collect();
        assert_eq!(
            sequence,
            [100, 300, 700, 1500, 3100, 6300, 8000, 8000, 8000]
        );
        assert_eq!(next_bound(Duration::MAX), MAX);
    }

    #[test]
    fn waits_stay_below_the_bound_and_a_success_forgets_it() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(0.999), Duration::ZERO);
        backoff.grow();
        assert_eq!(backoff.wait(0.5), Duration::from_millis(50));
        assert!(backoff.wait(0.999) < BASE);
        backoff.reset();
        assert_eq!(backoff.wait(0.5), Duration::ZERO);
    }
}
