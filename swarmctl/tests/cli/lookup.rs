//! How objects are found by what the user writes.

use skep_proto::v1::Cluster;
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

fn world() -> World {
    World {
        services: vec![service("abc1", "web", 1), service("abd2", "api", 1)],
        nodes: vec![node("n1", "same"), node("n2", "same"), node("m3", "other")],
        clusters: vec![Cluster {
            id: "c1".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn by_id_name_and_unique_prefix() {
    let fake = Fake::new(world());
    for name in ["abc1", "web", "abc"] {
        let out = swarmctl(&fake, &format!("service inspect {name}"))
            .await
            .ok();
        assert!(
            out.starts_with("ID:") && out.contains("abc1"),
            "{name}: {out}"
        );
    }
    assert!(
        swarmctl(&fake, "node inspect other")
            .await
            .ok()
            .contains("m3")
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let fake = Fake::new(world());
    for kind in ["service", "node", "task", "cluster"] {
        let run = swarmctl(&fake, &format!("{kind} inspect nothing")).await;
        assert_eq!(
            run.failed(Exit::Failed),
            format!("Error: {kind} nothing not found\n")
        );
    }
}

#[tokio::test]
async fn what_is_there_twice_is_ambiguous() {
    let fake = Fake::new(world());
    let text = "Error: node same is ambiguous: 2 match, use a full ID\n";
    assert_eq!(
        swarmctl(&fake, "node inspect same")
            .await
            .failed(Exit::Failed),
        text
    );
    let text = "Error: service ab is ambiguous: 2 match, use a full ID\n";
    assert_eq!(
        swarmctl(&fake, "service rm ab").await.failed(Exit::Failed),
        text
    );
    assert_eq!(fake.count("remove_service"), 0);
}

#[tokio::test]
async fn an_error_of_the_server_is_not_an_absence() {
    let fake = Fake::new(world());
    fake.world()
        .failures
        .push_back(tonic::Status::unavailable("no leader"));
    let err = swarmctl(&fake, "service inspect web")
        .await
        .failed(Exit::Failed);
    assert_eq!(err, "Error: no leader\n");
}
