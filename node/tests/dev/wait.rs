//! Waiting for what a process does in its own time.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it is no measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Looks until `look` finds something.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
