//! What single objects look like.

use serde_json::Value;
use skep_proto::v1::{Cluster, TaskState, UpdateStatus, update_status::UpdateState};

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

#[tokio::test]
async fn a_service_as_fields_and_as_json() {
    let mut web = service("s1", "web", 3);
    web.spec_mut()
        .annotations_mut()
        .labels
        .insert("bare".to_owned(), String::new());
    web.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted.into(),
        message: "because".to_owned(),
        ..Default::default()
    });
    let fake = Fake::new(World {
        services: vec![web],
        ..Default::default()
    });
    let expected = "\
ID:                  s1
Name:                web
Version:             10
Labels:
 bare:
Mode:                replicated
Replicas:            3
Update status:
 State:              Rollback started
 Message:            because
Container:
 Image:              process
Update:
 Parallelism:        1
 Order:              Stop first
 On failure:         Pause
 Monitor:            300ms
 Max failure ratio:  0
";
    assert_eq!(swarmctl(&fake, "service inspect web").await.ok(), expected);
    let json = swarmctl(&fake, "service inspect web --format json")
        .await
        .ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["updateStatus"]["state"], "ROLLBACK_STARTED");
    assert_eq!(json["spec"]["task"]["container"]["image"], "process");
}

#[tokio::test]
async fn a_task_a_node_and_a_cluster() {
    let mut cluster = Cluster {
        id: "c1".to_owned(),
        ..Default::default()
    };
    cluster.spec_mut().annotations_mut().name = "default".to_owned();
    cluster.root_ca_mut().join_tokens_mut().worker = "SWMTKN-1-w".to_owned();
    let mut world = World {
        nodes: vec![node("n1", "host-1")],
        clusters: vec![cluster],
        ..Default::default()
    };
    world
        .task("t1", 2, TaskState::Failed, TaskState::Shutdown)
        .status_mut()
        .err = "exit 1".to_owned();
    let fake = Fake::new(world);
    let task = swarmctl(&fake, "task inspect t1").await.ok();
    for line in [
        "Name:           web.2\n",
        " State:         Failed\n",
        " Error:         exit 1\n",
    ] {
        assert!(task.contains(line), "{line} in\n{task}");
    }
    let node = swarmctl(&fake, "node inspect host-1").await.ok();
    assert!(node.contains("Hostname:       host-1\n"), "{node}");
    let cluster = swarmctl(&fake, "cluster inspect").await.ok();
    assert!(cluster.contains("SWMTKN-1-w\n"), "{cluster}");
    for line in ["task inspect t1", "node inspect n1", "cluster inspect"] {
        let json = swarmctl(&fake, &format!("{line} --format json")).await.ok();
        assert!(
            serde_json::from_str::<Value>(&json).unwrap()["id"].is_string(),
            "{json}"
        );
    }
}
