//! Commands that change something, without waiting for what comes of it.

use skep_proto::v1::{NodeRole, node_spec::Availability, service_spec::Mode, task_spec::Runtime};
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

#[tokio::test]
async fn create_sends_the_spec_and_prints_the_id() {
    let fake = Fake::new(World::default());
    let line = "service create --name web --replicas 3 -e A=1 -d -- sleep 100";
    assert_eq!(swarmctl(&fake, line).await.ok(), "s1\n");
    let spec = fake.world().services[0].spec.clone().unwrap();
    assert_eq!(spec.annotations().name, "web");
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.command, ["sleep"]);
    assert_eq!(container.args, ["100"]);
    assert_eq!(fake.world().calls, ["create_service"], "detached");
}

#[tokio::test]
async fn create_can_print_the_service() {
    let fake = Fake::new(World::default());
    let line = "service create --format json --name web -d -- true";
    let json: serde_json::Value = serde_json::from_str(&swarmctl(&fake, line).await.ok()).unwrap();
    assert_eq!(json["id"], "s1");
}

#[tokio::test]
async fn update_edits_what_was_named() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        ..Default::default()
    });
    let line = "service update -d --replicas 5 --env-add A=1 --force web";
    assert_eq!(swarmctl(&fake, line).await.ok(), "web\n");
    let spec = fake.world().services[0].spec.clone().unwrap();
    assert!(matches!(&spec.mode, Some(Mode::Replicated(mode)) if mode.replicas == 5));
    assert_eq!(spec.task().force_update, 1);
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.env, ["A=1"]);
    assert_eq!(container.image, "process");
}

#[tokio::test]
async fn scale_sets_several_services() {
    let services = vec![service("s1", "web", 1), service("s2", "api", 1)];
    let fake = Fake::new(World {
        services,
        ..Default::default()
    });
    let run = swarmctl(&fake, "service scale -d web=3 nothing=1 api=0").await;
    assert_eq!(run.out, "web scaled to 3\napi scaled to 0\n");
    assert_eq!(
        run.failed(Exit::Failed),
        "Error: service nothing not found\n"
    );
    let world = fake.world();
    for (service, wanted) in world.services.iter().zip([3, 0]) {
        let mode = service.spec().mode.as_ref();
        assert!(matches!(mode, Some(Mode::Replicated(mode)) if mode.replicas == wanted));
    }
}

#[tokio::test]
async fn rm_tries_all_and_reports_each_failure() {
    let services = vec![service("s1", "web", 1), service("s2", "api", 1)];
    let fake = Fake::new(World {
        services,
        ..Default::default()
    });
    let run = swarmctl(&fake, "service rm a web b").await;
    assert_eq!(run.out, "web\n");
    let err = run.failed(Exit::Failed);
    let expected = "\
Error: service a not found
Error: service b not found
Error: 2 failures
";
    assert_eq!(err, expected);
    assert_eq!(fake.world().services.len(), 1);
}

#[tokio::test]
async fn a_node_is_drained_and_keeps_the_rest_of_its_spec() {
    let mut one = node("n1", "host-1");
    one.spec_mut()
        .annotations_mut()
        .labels
        .insert("disk".to_owned(), "ssd".to_owned());
    let fake = Fake::new(World {
        nodes: vec![one],
        ..Default::default()
    });
    let line = "node update --availability drain --label-add zone=a host-1";
    assert_eq!(swarmctl(&fake, line).await.ok(), "host-1\n");
    let spec = fake.world().nodes[0].spec.clone().unwrap();
    assert_eq!(spec.availability(), Availability::Drain);
    assert_eq!(spec.annotations().labels.len(), 2);
}

#[tokio::test]
async fn a_node_that_is_up_is_removed_by_force_only() {
    let fake = Fake::new(World {
        nodes: vec![node("n1", "host-1")],
        ..Default::default()
    });
    let err = swarmctl(&fake, "node rm host-1").await.failed(Exit::Failed);
    assert_eq!(err, "Error: node n1 is not down and can't be removed\n");
    assert_eq!(
        swarmctl(&fake, "node rm --force host-1").await.ok(),
        "host-1\n"
    );
    assert!(fake.world().nodes.is_empty());
}

#[tokio::test]
async fn managers_are_demoted() {
    let mut manager = node("n1", "host-1");
    manager.spec_mut().set_desired_role(NodeRole::Manager);
    let fake = Fake::new(World {
        nodes: vec![manager],
        ..Default::default()
    });
    assert_eq!(swarmctl(&fake, "node demote host-1").await.ok(), "host-1\n");
    let spec = fake.world().nodes[0].spec.clone().unwrap();
    assert_eq!(spec.desired_role(), NodeRole::Worker);
}
