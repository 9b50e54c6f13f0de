//! Volumes that come to nodes and that nodes let go of.

use skep_proto::v1::{
    AssignmentsMessage, Driver, Secret, UpdateVolumeStatusRequest, Volume, VolumeAssignment,
    VolumeInfo, VolumePublishStatus, VolumeSecret, assignment::Item,
    dispatcher_server::Dispatcher as _, update_volume_status_request::VolumeStatusUpdate,
    volume_publish_status::State,
};
use tonic::{Code, Status};

use super::assignments::items;
use crate::dispatcher::testing::{AssignmentsStream, World, from, next, told};

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

/// A volume that needs a secret, where it is published.
fn volume(id: &str, publish_status: Vec<VolumePublishStatus>) -> Volume {
    let mut volume = Volume {
        id: id.to_owned(),
        publish_status,
        volume_info: Some(VolumeInfo {
            volume_id: format!("disk-{id}"),
            volume_context: [("pool".to_owned(), "fast".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = volume.spec_mut();
    spec.annotations_mut().name = id.to_owned();
    spec.driver = Some(Driver {
        name: "csi".to_owned(),
        ..Default::default()
    });
    spec.secrets = vec![VolumeSecret {
        key: "password".to_owned(),
        secret: "s1".to_owned(),
    }];
    volume
}

/// What `n1` gets of [`volume`] `v1`.
fn assignment(place: &str) -> VolumeAssignment {
    VolumeAssignment {
        id: "v1".to_owned(),
        volume_id: "disk-v1".to_owned(),
        driver: Some(Driver {
            name: "csi".to_owned(),
            ..Default::default()
        }),
        volume_context: [("pool".to_owned(), "fast".to_owned())].into(),
        publish_context: [("device".to_owned(), place.to_owned())].into(),
        access_mode: None,
        secrets: vec![VolumeSecret {
            key: "password".to_owned(),
            secret: "s1".to_owned(),
        }],
    }
}

fn first_volume(message: &AssignmentsMessage) -> VolumeAssignment {
    let items = message.changes.iter();
    let mut items = items.filter_map(|change| change.assignment.clone()?.item);
    let volume = items.find_map(|item| match item {
        Item::Volume(volume) => Some(volume),
        _ => None,
    });
    volume.expect("a volume")
}

async fn world_with_secret() -> World {
    let world = World::two_nodes().await;
    world
        .write(|tx| {
            let mut secret = Secret {
                id: "s1".to_owned(),
                ..Default::default()
            };
            secret.spec_mut().data = "hush".into();
            tx.create(secret).unwrap();
        })
        .await;
    world
}

async fn complete(world: &World, node: &str) -> (Vec<String>, AssignmentsStream) {
    let (id, _session) = world.register(node).await;
    let mut stream = world.assignments(node, &id).await.unwrap();
    let message = next(&mut stream).await.unwrap();
    (items(&message), stream)
}

#[tokio::test]
async fn a_published_volume_comes_with_its_secrets_and_goes_when_it_must() {
    let world = world_with_secret().await;
    let (nothing, mut stream) = complete(&world, "n1").await;
    assert_eq!(nothing, Vec::<String>::new());
    let (_, mut other) = complete(&world, "n2").await;

    world
        .write(|tx| {
            let waiting = vec![published("n1", State::PendingPublish)];
            tx.create(volume("v1", waiting)).unwrap();
        })
        .await;
    let publish = |state: State| {
        move |volume: &mut Volume| {
            let here = &mut volume.publish_status[0];
            here.publish_context = [("device".to_owned(), "/dev/x".to_owned())].into();
            here.set_state(state);
        }
    };
    world.change("v1", publish(State::Published)).await;
    let message = next(&mut stream).await.unwrap();
    assert_eq!(items(&message), ["+v1", "+s1"]);
    assert_eq!(first_volume(&message), assignment("/dev/x"));

    // Labels are nothing to the node.
    world
        .change::<Volume>("v1", |volume| {
            let labels = &mut volume.spec_mut().annotations_mut().labels;
            labels.insert("a".to_owned(), "b".to_owned());
        })
        .await;
    world
        .change("v1", publish(State::PendingNodeUnpublish))
        .await;
    let message = next(&mut stream).await.unwrap();
    assert_eq!(items(&message), ["-v1", "-s1"]);
    assert_eq!(first_volume(&message), assignment("/dev/x"), "all of it");

    // Whatever the other node was sent before this would come first.
    let told_other = vec![published("n2", State::Published)];
    world
        .write(|tx| tx.create(volume("v2", told_other)).map(drop).unwrap())
        .await;
    let message = next(&mut other).await.unwrap();
    assert_eq!(message.applies_to, "1");
    assert_eq!(items(&message), ["+v2", "+s1"]);
}

#[tokio::test]
async fn a_new_session_hears_of_its_volumes_in_the_first_message() {
    let world = world_with_secret().await;
    world
        .write(|tx| {
            let states = [
                ("v1", State::PendingPublish),
                ("v2", State::Published),
                ("v3", State::PendingNodeUnpublish),
                ("v4", State::PendingUnpublish),
            ];
            for (id, state) in states {
                let here = vec![published("n2", State::Published), published("n1", state)];
                tx.create(volume(id, here)).unwrap();
            }
        })
        .await;
    let (here, _stream) = complete(&world, "n1").await;
    assert_eq!(here, ["+v2", "-v3", "+s1"]);
    let (there, _stream) = complete(&world, "n2").await;
    assert_eq!(there, ["+v1", "+v2", "+v3", "+v4", "+s1"]);
}

#[tokio::test]
async fn a_volume_that_is_removed_by_force_is_taken_from_its_node() {
    let world = world_with_secret().await;
    world
        .write(|tx| {
            let here = vec![published("n1", State::Published)];
            tx.create(volume("v1", here)).unwrap();
        })
        .await;
    let (here, mut stream) = complete(&world, "n1").await;
    assert_eq!(here, ["+v1", "+s1"]);
    world.write(|tx| tx.remove::<Volume>("v1").unwrap()).await;
    let message = next(&mut stream).await.unwrap();
    assert_eq!(items(&message), ["-v1", "-s1"]);
    assert_eq!(first_volume(&message).volume_id, "disk-v1");
}
