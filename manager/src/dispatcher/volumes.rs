//! Takes what nodes report of volumes: that they have let go of one.

use skep_proto::v1::{
    Volume, update_volume_status_request::VolumeStatusUpdate, volume_publish_status::State,
};
use skep_store::Error;
use tonic::Status;

use super::{status, term::Term};
use crate::batch::write_all;

/// Stores that the node has unpublished volumes as it was told to. What is not there, or what the
/// node was not told, is left alone.
pub(super) async fn report(
    term: &Term,
    node_id: &str,
    updates: &[VolumeStatusUpdate],
) -> Result<(), Status> {
    let unpublished: Vec<_> = updates.iter().filter(|update| update.unpublished).collect();
    let snapshot = term.store.snapshot();
    let size = |update: &&VolumeStatusUpdate| {
        let volume = snapshot.get::<Volume>(&update.id);
        volume.map_or(0, |volume| prost::Message::encoded_len(&**volume))
    };
    let write = |tx: &mut skep_store::Tx, update: &&VolumeStatusUpdate| {
        let Some(stored) = tx.get::<Volume>(&update.id) else {
            return Ok(());
        };
        let mut volume = Volume::clone(stored);
        let mut of_node = volume
            .publish_status
            .iter_mut()
            .filter(|status| status.node_id == node_id);
        let Some(published) = of_node.find(|status| status.state() == State::PendingNodeUnpublish)
        else {
            return Ok(());
        };
        published.set_state(State::PendingUnpublish);
        tx.update(volume).map(drop)
    };
    let written: Result<(), Error> = write_all(&term.store, &unpublished, size, write).await;
    written.map_err(status::from_store)
}
