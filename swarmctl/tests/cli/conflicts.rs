//! Updates of objects that somebody else changes at the same time.

use skep_proto::v1::service_spec::Mode;
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

#[tokio::test]
async fn an_update_is_made_again_from_a_fresh_copy() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        conflicts: 2,
        meddle: Some(|service| {
            service
                .spec_mut()
                .annotations_mut()
                .labels
                .insert("theirs".into(), "1".into());
        }),
        ..Default::default()
    });
    let line = "service update -d --replicas 2 --force web";
    assert_eq!(swarmctl(&fake, line).await.ok(), "web\n");
    assert_eq!(fake.count("update_service"), 3);
    let spec = fake.world().services[0].spec.clone().unwrap();
    assert!(
        spec.annotations().labels.contains_key("theirs"),
        "their change is kept"
    );
    assert!(matches!(&spec.mode, Some(Mode::Replicated(mode)) if mode.replicas == 2));
    assert_eq!(spec.task().force_update, 1, "edited once");
}

#[tokio::test]
async fn it_gives_up_after_five_retries() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        conflicts: 100,
        ..Default::default()
    });
    let err = swarmctl(&fake, "service update -d --replicas 2 web")
        .await
        .failed(Exit::Failed);
    assert_eq!(err, "Error: update out of sequence\n");
    assert_eq!(fake.count("update_service"), 6);
}

#[tokio::test]
async fn nodes_are_updated_in_the_same_way() {
    let fake = Fake::new(World {
        nodes: vec![node("n1", "host-1")],
        conflicts: 1,
        ..Default::default()
    });
    swarmctl(&fake, "node update --availability pause host-1")
        .await
        .ok();
    assert_eq!(fake.count("update_node"), 2);
}
