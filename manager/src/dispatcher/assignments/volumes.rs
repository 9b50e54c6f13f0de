//! What one session has been told of cluster volumes.
//!
//! Where a volume is published is in the volume itself: who is to have it does not depend on tasks.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1::{
    Volume, VolumeAssignment, VolumePublishStatus, assignment_change::AssignmentAction,
    volume_publish_status::State,
};

/// The last message about each volume that was told and is not over.
#[derive(Debug, Default)]
pub(super) struct Volumes(BTreeMap<String, Told>);

/// What the agent is to do, with which volume.
type Told = (AssignmentAction, VolumeAssignment);

impl Volumes {
    /// Volumes of which the agent has been told something.
    pub fn ids(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Takes note of a volume as it is now, `None` if it is gone, and says what the agent must hear
    /// of it. A removal is told with the whole volume: the agent needs it to let go.
    pub fn next(&mut self, node_id: &str, volume_id: &str, now: Option<&Volume>) -> Option<Told> {
        let now = now.and_then(|volume| wanted(volume, node_id));
        match now {
            Some(now) if self.0.get(volume_id) == Some(&now) => None,
            Some(now) => {
                self.0.insert(volume_id.to_owned(), now.clone());
                Some(now)
            }
            None => match self.0.remove(volume_id)? {
                // Taken from the node by force.
                (AssignmentAction::Update, volume) => Some((AssignmentAction::Remove, volume)),
                (AssignmentAction::Remove, _) => None,
            },
        }
    }
}

/// What the node is to do with the volume, if anything.
fn wanted(volume: &Volume, node_id: &str) -> Option<Told> {
    let mut published = volume.publish_status.iter();
    let published = published.find(|status| status.node_id == node_id)?;
    let action = match published.state() {
        State::Published => AssignmentAction::Update,
        State::PendingNodeUnpublish => AssignmentAction::Remove,
        // The turn of the plugin's other half, which runs beside a manager.
        State::PendingPublish | State::PendingUnpublish => return None,
    };
    Some((action, assignment(volume, published)))
}

fn assignment(volume: &Volume, published: &VolumePublishStatus) -> VolumeAssignment {
    let spec = volume.spec();
    let info = volume.volume_info.clone().unwrap_or_default();
    VolumeAssignment {
        id: volume.id.clone(),
        volume_id: info.volume_id,
        driver: spec.driver.clone(),
        volume_context: info.volume_context,
        publish_context: published.publish_context.clone(),
        access_mode: spec.access_mode.clone(),
        secrets: spec.secrets.clone(),
    }
}
