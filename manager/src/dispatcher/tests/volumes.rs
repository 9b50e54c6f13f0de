//! Reports of volumes.

use skep_proto::v1::{
    UpdateVolumeStatusRequest, Volume, VolumePublishStatus, dispatcher_server::Dispatcher as _,
    update_volume_status_request::VolumeStatusUpdate, volume_publish_status::State,
};
use tonic::{Code, Status};

use crate::dispatcher::testing::{World, from, told};

fn published(node: &str, state: State) -> VolumePublishStatus {
    VolumePublishStatus {
        node_id: node.to_owned(),
        state: state.into(),
        ..Default::default()
    }
}

async fn report(world: &World, node: &str, session: &str, volumes: &[&str]) -> Result<(), Status> {
    let updates = volumes.iter().map(|id| VolumeStatusUpdate {
        id: (*id).to_owned(),
        unpublished: true,
    });
    let request = UpdateVolumeStatusRequest {
        session_id: session.to_owned(),
        updates: updates.collect(),
    };
    let answer = world
        .dispatcher
        .update_volume_status(from(node, request))
        .await;
    answer.map(drop)
}

#[tokio::test]
async fn a_node_lets_go_of_what_it_was_told_to_and_of_nothing_else() {
    let world = World::two_nodes().await;
    let states = || {
        let volume = world.get::<Volume>("v1");
        let states = volume.publish_status.iter().map(|status| status.state());
        states.collect::<Vec<_>>()
    };
    world
        .write(|tx| {
            let volume = Volume {
                id: "v1".to_owned(),
                publish_status: vec![
                    published("n1", State::PendingNodeUnpublish),
                    published("n2", State::PendingNodeUnpublish),
                    published("n3", State::PendingNodeUnpublish),
                ],
                ..Default::default()
            };
            let in_use = Volume {
                id: "v2".to_owned(),
                publish_status: vec![published("n1", State::Published)],
                ..Default::default()
            };
            tx.create(volume).unwrap();
            tx.create(in_use).unwrap();
        })
        .await;
    let (id, _session) = world.register("n1").await;
    report(&world, "n1", &id, &["v1", "gone", "v2"])
        .await
        .unwrap();
    let (waiting, let_go) = (State::PendingNodeUnpublish, State::PendingUnpublish);
    assert_eq!(states(), [let_go, waiting, waiting]);
    let in_use = world.get::<Volume>("v2");
    assert_eq!(in_use.publish_status, [published("n1", State::Published)]);

    let index = world.store.snapshot().index();
    report(&world, "n1", &id, &["v1"]).await.unwrap();
    assert_eq!(world.store.snapshot().index(), index, "said again");
    let refused = report(&world, "n1", "x", &["v1"]).await.unwrap_err();
    let invalid = (Code::InvalidArgument, "session invalid".to_owned());
    assert_eq!(told(refused), invalid);
}
