//! Secrets whose values are made by a driver: they get them on their way to the agent.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use skep_proto::v1::{AssignmentChange, AssignmentsMessage, Secret, Task, assignment::Item};
use skep_store::Snapshot;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::secret_drivers::SecretDrivers;

/// How long the drivers may take for a message; nothing else reaches the agent meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts in the values that are missing. A secret that gets none is left out: its task will fail on the
/// node and say so, and the one that takes its place asks again.
pub(super) async fn fill(
    message: &mut AssignmentsMessage,
    snapshot: &Snapshot,
    drivers: &SecretDrivers,
) {
    let deadline = Instant::now() + PATIENCE;
    let wanting_values = message.changes.iter_mut().filter_map(wanting);
    let asked = wanting_values.map(async |secret| {
        let value = timeout_at(deadline, value(secret, snapshot, drivers)).await;
        value.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    });
    let mut values = join_all(asked).await.into_iter();
    message.changes.retain_mut(|change| {
        let Some(secret) = wanting(change) else {
            return true;
        };
        let driver = secret.spec().driver.as_ref().map(|driver| &*driver.name);
        match values.next() {
            Some(Ok(value)) => {
                secret.spec_mut().data = value;
                true
            }
            Some(Err(reason)) => {
                warn!(
                    secret = secret.id,
                    driver, reason, "a secret driver gives no value"
                );
                false
            }
            None => false,
        }
    });
}

/// The secret in a change, if it lacks a value that a driver makes.
fn wanting(change: &mut AssignmentChange) -> Option<&mut Secret> {
    match change.assignment.as_mut()?.item.as_mut()? {
        Item::Secret(secret) if secret.internal && secret.spec().driver.is_some() => Some(secret),
        _ => None,
    }
}

async fn value(
    secret: &Secret,
    snapshot: &Snapshot,
    drivers: &SecretDrivers,
) -> Result<Bytes, String> {
    let task = secret.id.split_once('.').map_or("", |(_, task_id)| task_id);
    let task = snapshot.get::<Task>(task);
    let task = task.ok_or("only tasks can have secrets that a driver makes")?;
    drivers.value(secret.spec(), task).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use skep_proto::v1::{Driver, assignment_change::AssignmentAction};
    use skep_store::testing::leading;

    use super::{super::assignments::change, *};
    use crate::time;

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_does_not_answer_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join("vault.sock")).unwrap();
        let drivers = SecretDrivers::new(vec![dir.path().into()]);
        let store = leading(|| time::now().into());
        let task = Task {
            id: "t1".to_owned(),
            ..Default::default()
        };
        let created = store.update(|tx| tx.create(task.clone()).map(drop)).await;
        created.unwrap();
        let mut secret = Secret {
            id: "s1.t1".to_owned(),
            internal: true,
            ..Default::default()
        };
        secret.spec_mut().driver = Some(Driver {
            name: "vault".to_owned(),
            ..Default::default()
        });
        let changes = [Item::Secret(secret), Item::Task(task)];
        let changes = changes.map(|item| change(item, AssignmentAction::Update));
        let mut message = AssignmentsMessage {
            changes: changes.into(),
            ..Default::default()
        };
        let began = Instant::now();
        fill(&mut message, &store.snapshot(), &drivers).await;
        assert!(began.elapsed() >= PATIENCE);
        let left = message.changes.remove(0).assignment.unwrap().item.unwrap();
        assert!(matches!(left, Item::Task(_)) && message.changes.is_empty());
    }
}
