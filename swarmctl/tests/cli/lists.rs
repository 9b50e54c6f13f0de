//! What lists print.

use serde_json::Value;
use skep_proto::v1::{
    EngineDescription, ManagerStatus, TaskState, list_service_statuses_response::ServiceStatus,
    node_spec::Availability, raft_member_status::Reachability,
};

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

fn two_services() -> World {
    let mut api = service("s2bbbbbbbbbbbbbbbbbbbbbbb", "api", 2);
    api.spec_mut()
        .task_mut()
        .placement
        .get_or_insert_default()
        .max_replicas = 1;
    let status = |id: &str, running_tasks| ServiceStatus {
        service_id: id.to_owned(),
        desired_tasks: 2,
        running_tasks,
        ..Default::default()
    };
    World {
        statuses: vec![status(&api.id, 1), status("s1", 2)],
        services: vec![service("s1", "web", 2), api],
        ..Default::default()
    }
}

fn nodes() -> World {
    let mut leader = node("n2", "host-2");
    leader.manager_status = Some(ManagerStatus {
        leader: true,
        ..Default::default()
    });
    leader.description.as_mut().unwrap().engine = Some(EngineDescription {
        engine_version: "0.1.0".to_owned(),
        ..Default::default()
    });
    let mut manager = node("n3", "host-10");
    manager.spec_mut().availability = Availability::Drain.into();
    manager.manager_status = Some(ManagerStatus {
        reachability: Reachability::Unreachable.into(),
        ..Default::default()
    });
    World {
        nodes: vec![manager, node("n1", "host-1"), leader],
        ..Default::default()
    }
}

#[tokio::test]
async fn services_as_a_table() {
    let fake = Fake::new(two_services());
    let expected = "\
ID             NAME   MODE         REPLICAS               IMAGE
s2bbbbbbbbbb   api    replicated   1/2 (max 1 per node)   process
s1             web    replicated   2/2                    process
";
    assert_eq!(swarmctl(&fake, "service ls").await.ok(), expected);
}

#[tokio::test]
async fn no_services_are_a_heading() {
    let fake = Fake::new(World::default());
    let out = swarmctl(&fake, "service ls").await.ok();
    assert_eq!(out, "ID   NAME   MODE   REPLICAS   IMAGE\n");
    assert_eq!(swarmctl(&fake, "service ls -q").await.ok(), "");
    assert_eq!(swarmctl(&fake, "service ls --format json").await.ok(), "");
}

#[tokio::test]
async fn ids_are_whole() {
    let fake = Fake::new(two_services());
    let out = swarmctl(&fake, "service ls -q").await.ok();
    assert_eq!(out, "s2bbbbbbbbbbbbbbbbbbbbbbb\ns1\n");
    let fake = Fake::new(nodes());
    assert_eq!(
        swarmctl(&fake, "node ls --quiet").await.ok(),
        "n1\nn2\nn3\n"
    );
}

#[tokio::test]
async fn json_is_one_object_per_line() {
    let fake = Fake::new(two_services());
    let out = swarmctl(&fake, "--format json service ls").await.ok();
    let objects: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = objects
        .iter()
        .map(|object| &object["spec"]["annotations"]["name"])
        .collect();
    assert_eq!(names, ["api", "web"]);
    assert_eq!(objects[1]["spec"]["replicated"]["replicas"], "2");
    assert_eq!(
        objects[1]["pendingDelete"], false,
        "default values are there"
    );

    let fake = Fake::new(nodes());
    let out = swarmctl(&fake, "node ls --format=json").await.ok();
    let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(first["description"]["hostname"], "host-1");
    assert_eq!(first["status"]["state"], "READY");
}

#[tokio::test]
async fn nodes_as_a_table() {
    let fake = Fake::new(nodes());
    let expected = "\
ID   HOSTNAME   STATUS   AVAILABILITY   MANAGER STATUS   ENGINE VERSION
n1   host-1     Ready    Active
n2   host-2     Ready    Active         Leader           0.1.0
n3   host-10    Ready    Drain          Unreachable
";
    assert_eq!(swarmctl(&fake, "node ls").await.ok(), expected);
}

#[tokio::test]
async fn tasks_as_a_table() {
    let mut world = World {
        services: vec![service("s1", "web", 2)],
        nodes: nodes().nodes,
        ..Default::default()
    };
    world.task("t1", 1, TaskState::Running, TaskState::Running);
    let task = world.task("t2", 2, TaskState::Pending, TaskState::Running);
    task.node_id.clear();
    task.status_mut().err = "no suitable node".to_owned();
    world
        .task("t3", 1, TaskState::Failed, TaskState::Shutdown)
        .service_id = "s2".to_owned();
    let fake = Fake::new(world);
    let expected = "\
ID   NAME    IMAGE     NODE     DESIRED STATE   CURRENT STATE   ERROR              PORTS
t1   web.1   process   host-1   Running         Running
t2   web.2   process            Running         Pending         no suitable node
";
    assert_eq!(swarmctl(&fake, "service ps web").await.ok(), expected);
    assert_eq!(
        swarmctl(&fake, "task ls --service web").await.ok(),
        expected
    );
    assert_eq!(swarmctl(&fake, "service ps s1 -q").await.ok(), "t1\nt2\n");
    assert_eq!(swarmctl(&fake, "task ls -q").await.ok(), "t1\nt2\nt3\n");
    assert_eq!(
        swarmctl(&fake, "task ls -q --node host-1").await.ok(),
        "t1\nt3\n"
    );
    assert_eq!(
        swarmctl(&fake, "task ls -q --desired-state shutdown")
            .await
            .ok(),
        "t3\n"
    );
    let json = swarmctl(&fake, "task ls --format json").await.ok();
    assert_eq!(json.lines().count(), 3);
    assert!(json.contains(r#""desiredState":"SHUTDOWN""#), "{json}");
}

#[tokio::test]
async fn a_list_may_be_larger_than_four_mebibytes() {
    let mut services = Vec::new();
    for index in 0..600 {
        let mut service = service(&format!("s{index}"), &format!("web-{index}"), 1);
        service
            .spec_mut()
            .annotations_mut()
            .labels
            .insert("big".to_owned(), "x".repeat(10_000));
        services.push(service);
    }
    let fake = Fake::new(World {
        services,
        ..Default::default()
    });
    let out = swarmctl(&fake, "service ls -q").await.ok();
    assert_eq!(out.lines().count(), 600);
    assert_eq!(out.lines().nth(10), Some("s10"), "sorted by number");
}
