//! Containers of tasks that are not on this node any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{LABEL_NODE, LABEL_TASK, engine::Engine, files};
use crate::{executor::Failure, task_store::is_safe};

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The owner of the removal.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Tasks whose containers stay, as long as the removal is not done.
    spared: Arc<Mutex<Option<BTreeSet<String>>>>,
    removal: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Leftovers {
    /// Begins to remove all containers of a node but those of `tasks`, and of tasks that are
    /// spared later.
    pub(super) fn remove(&self, engine: &Engine, node_id: &str, tasks: &[String]) {
        *self.spared.lock() = Some(tasks.iter().cloned().collect());
        let (engine, node_id) = (engine.clone(), node_id.to_owned());
        let spared = Arc::clone(&self.spared);
        let removal = tokio::spawn(async move {
            while let Err(error) = remove(&engine, &node_id, &spared).await {
                tracing::warn!(%error, "cannot remove old containers yet");
                sleep(RETRY).await;
            }
            *spared.lock() = None;
        });
        *self.removal.lock() = Some(AbortOnDropHandle::new(removal));
    }

    /// A task that came meanwhile.
    pub(super) fn spare(&self, task_id: &str) {
        if let Some(spared) = self.spared.lock().as_mut() {
            spared.insert(task_id.to_owned());
        }
    }
}

async fn remove(
    engine: &Engine,
    node_id: &str,
    spared: &Mutex<Option<BTreeSet<String>>>,
) -> Result<(), Failure> {
    for container in engine.labelled(LABEL_NODE, node_id).await? {
        let labels = container.labels.unwrap_or_default();
        let (Some(id), Some(task)) = (container.id, labels.get(LABEL_TASK)) else {
            continue;
        };
        let stays = |spared: &BTreeSet<String>| spared.contains(task);
        if spared.lock().as_ref().is_none_or(stays) {
            continue;
        }
        tracing::info!(task_id = task, container = id, "removing an old container");
        engine.remove(&id).await?;
        // Whoever can use the engine can write labels.
        if is_safe(task) {
            files::remove(task);
        }
    }
    Ok(())
}
