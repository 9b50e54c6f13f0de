//! Waiting for what a process does in its own time.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long anything may take before a test gives up. Generous: it is no measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Looks until `look` finds something. A look that does not end is given up too.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}
