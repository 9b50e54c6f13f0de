//! Workers of ours beside stock engines.

use std::collections::BTreeSet;

use skep_proto::v1::{
    EndpointSpec, PortConfig, Task, TaskState, TaskStatus,
    port_config::{Protocol, PublishMode},
};
use skep_tests::cluster::eventually;

use crate::fixture::{Fixture, container};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drives_an_engine_and_a_stock_one_run_the_same_service() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    let driven = fixture.drive().await;
    let node = fixture.cluster.node_object("worker-1").await;
    let description = node.description.unwrap();
    assert_eq!(
        description.engine.unwrap().engine_version,
        driven.docker(&["version", "--format", "{{.Server.Version}}"])
    );

    let count = 2 * (fixture.engines.len() + 1);
    let web = fixture.sleepers("web", count as u64, |_| ()).await;
    let tasks = fixture.cluster.running(&web.id, count).await;
    for engine in fixture.engines.iter().chain([&driven]) {
        assert_eq!(engine.containers_of(&web.id).len(), 2, "tasks are spread");
    }
    // Both name their containers alike.
    for task in tasks.iter().filter(|task| task.node_id == node.id) {
        let name = format!("web.{}.{}", task.slot, task.id);
        let label = "{{index .Config.Labels \"com.docker.swarm.service.name\"}}";
        assert_eq!(driven.inspect(&name, label).unwrap(), "web");
    }
    fixture.cluster.scale(&web.id, 0).await;
    eventually("no container", async || {
        let mut engines = fixture.engines.iter().chain([&driven]);
        engines
            .all(|engine| engine.containers_of(&web.id).is_empty())
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_tell_the_ports_of_their_hosts() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    let driven = fixture.drive().await;
    let count = fixture.engines.len() + 1;
    let port = |protocol: Protocol, target_port, published_port| PortConfig {
        protocol: protocol.into(),
        target_port,
        published_port,
        publish_mode: PublishMode::Host.into(),
        ..Default::default()
    };
    let web = fixture
        .sleepers("web", count as u64, |spec| {
            spec.endpoint = Some(EndpointSpec {
                ports: vec![
                    port(Protocol::Tcp, 80, 8080),
                    port(Protocol::Udp, 53, 8053),
                    // Whichever is free.
                    port(Protocol::Tcp, 9000, 0),
                ],
                ..Default::default()
            });
        })
        .await;
    let tasks = fixture.cluster.running(&web.id, count).await;
    let hosts: BTreeSet<_> = tasks.iter().map(|task| &task.node_id).collect();
    assert_eq!(hosts.len(), count, "a port is free once on each host");
    for engine in fixture.engines.iter().chain([&driven]) {
        let name = match engine.node_id() {
            id if id.is_empty() => fixture.cluster.node_object("worker-1").await.id,
            id => id,
        };
        let task = tasks.iter().find(|task| task.node_id == name).unwrap();
        let told = task.status().port_status.as_ref().unwrap().ports.iter();
        let told: BTreeSet<_> = told
            .map(|port| {
                assert_eq!(port.publish_mode(), PublishMode::Host);
                let protocol = port.protocol().as_str_name().to_lowercase();
                (
                    format!("{}/{protocol}", port.target_port),
                    port.published_port,
                )
            })
            .collect();
        // `80/tcp -> 0.0.0.0:8080`
        let container = format!("web.{}.{}", task.slot, task.id);
        let listed = engine.docker(&["port", &container]);
        let real: BTreeSet<_> = listed
            .lines()
            .map(|line| {
                let (target, bound) = line.split_once(" -> ").unwrap();
                let port = bound.rsplit_once(':').unwrap().1;
                (target.to_owned(), port.parse::<u32>().unwrap())
            })
            .collect();
        assert_eq!(told, real);
        let published = |target: &str| {
            let of_target = told.iter().filter(|(it, _)| it == target);
            of_target.map(|(_, port)| *port).collect::<Vec<_>>()
        };
        assert_eq!(published("80/tcp"), [8080]);
        assert_eq!(published("53/udp"), [8053]);
        assert!(published("9000/tcp").iter().all(|port| *port > 1024));
    }

    // What has ended is reached by no port.
    fixture
        .cluster
        .update(&web.id, |spec| {
            container(spec).env = vec!["COLOUR=blue".to_owned()];
        })
        .await;
    eventually("tasks that have been shut down", async || {
        let tasks = fixture.cluster.tasks(&web.id).await.ok()?;
        let shut = tasks.iter().map(Task::status);
        let shut = shut.filter(|status| status.state() == TaskState::Shutdown);
        let none = |status: &TaskStatus| {
            let ports = status.port_status.as_ref();
            ports.is_none_or(|status| status.ports.is_empty())
        };
        let shut: Vec<_> = shut.map(none).collect();
        assert!(shut.iter().all(|none| *none), "{tasks:?}");
        (shut.len() == count).then_some(())
    })
    .await;
}
