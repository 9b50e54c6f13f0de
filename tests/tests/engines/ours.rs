//! Workers of ours beside stock engines.

use std::sync::Arc;

use skep_agent::executor::docker::{self, DockerExecutor};
use skep_proto::v1::node_status::State;
use skep_tests::engines::flavours;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drives_an_engine_and_a_stock_one_run_the_same_service() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    // This engine is in no swarm: it does what our worker says.
    let driven = fixture.lab.engine(&flavours()[0]);
    let engine = docker::Engine::connect(&driven.host()).await.unwrap();
    let executor = Arc::new(DockerExecutor::new(engine).await.unwrap());
    fixture.cluster.run_by(executor.clone());
    fixture.cluster.add("worker-1", false).await;
    fixture.cluster.node_is("worker-1", State::Ready).await;
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
    skep_tests::cluster::eventually("no container", async || {
        let mut engines = fixture.engines.iter().chain([&driven]);
        engines
            .all(|engine| engine.containers_of(&web.id).is_empty())
            .then_some(())
    })
    .await;
}
