//! The life of a worker: joining, tasks, changes, losses, leaving.

use std::time::Duration;

use skep_proto::v1::{
    ResourceRequirements, Resources, Task, node_spec::Availability, node_status::State,
};
use skep_tests::cluster::eventually;

use crate::fixture::{Fixture, container};

#[tokio::test(flavor = "multi_thread")]
async fn engines_describe_themselves_and_run_what_they_are_given() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    for engine in &fixture.engines {
        let node = fixture.node(engine).await;
        assert_eq!(node.id, engine.node_id());
        assert_eq!(node.status().addr, engine.address());
        let description = node.description.as_ref().unwrap();
        let told = |format: &str| engine.docker(&["info", "--format", format]);
        assert_eq!(
            description.engine.as_ref().unwrap().engine_version,
            told("{{.ServerVersion}}")
        );
        assert_eq!(
            description.platform.as_ref().unwrap().architecture,
            told("{{.Architecture}}")
        );
        assert_eq!(
            description.platform.as_ref().unwrap().os,
            told("{{.OSType}}")
        );
        let resources = description.resources.as_ref().unwrap();
        assert_eq!(
            resources.nano_cpus / 1_000_000_000,
            told("{{.NCPU}}").parse::<i64>().unwrap()
        );
        assert_eq!(
            resources.memory_bytes,
            told("{{.MemTotal}}").parse::<i64>().unwrap()
        );
        let has = |kind: &str, name: &str| {
            let mut plugins = description.engine.as_ref().unwrap().plugins.iter();
            plugins.any(|plugin| plugin.r#type == kind && plugin.name == name)
        };
        assert!(has("Network", "overlay") && has("Volume", "local") && has("Log", "json-file"));
    }

    let each = fixture.engines.len();
    let web = fixture
        .sleepers("web", 2 * each as u64, |spec| {
            spec.task_mut().resources = Some(ResourceRequirements {
                limits: Some(Resources {
                    nano_cpus: 500_000_000,
                    memory_bytes: 64 << 20,
                    ..Default::default()
                }),
                ..Default::default()
            });
        })
        .await;
    let tasks = fixture.runs(&web, 2 * each).await;
    for engine in &fixture.engines {
        let node_id = engine.node_id();
        let own: Vec<&Task> = tasks
            .iter()
            .filter(|task| task.node_id == node_id)
            .collect();
        assert_eq!(own.len(), 2, "tasks are spread");
        for task in own {
            let name = format!("web.{}.{}", task.slot, task.id);
            let inspect = |format| engine.inspect(&name, format).unwrap();
            assert_eq!(inspect("{{.HostConfig.Memory}}"), (64 << 20).to_string());
            assert_eq!(inspect("{{.HostConfig.NanoCpus}}"), "500000000");
            assert_eq!(
                inspect("{{index .Config.Labels \"com.docker.swarm.task.id\"}}"),
                task.id
            );
        }
    }

    // Another spec replaces them, one after the other.
    let before = fixture.containers(&web);
    fixture
        .cluster
        .update(&web.id, |spec| {
            container(spec).env = vec!["COLOUR=blue".to_owned()];
        })
        .await;
    eventually("containers of the new spec", async || {
        let now = fixture.containers(&web);
        (now.len() == before.len() && !now.iter().any(|one| before.contains(one))).then_some(())
    })
    .await;
    for engine in &fixture.engines {
        for container in engine.containers_of(&web.id) {
            let id = container.split(' ').next().unwrap();
            let env = engine.inspect(id, "{{.Config.Env}}").unwrap();
            assert!(env.contains("COLOUR=blue"), "{env}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_container_is_restarted_while_leaders_die() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    let each = fixture.engines.len();
    let still = fixture.sleepers("still", 2 * each as u64, |_| ()).await;
    fixture.runs(&still, 2 * each).await;
    let before = fixture.containers(&still);
    for round in 1..=2 {
        let leader = fixture.cluster.leader().await;
        fixture.cluster.kill(&leader).await;
        // The next one works with the engines, and they are not shaken.
        let more = fixture
            .sleepers(&format!("more-{round}"), each as u64, |_| ())
            .await;
        fixture.runs(&more, each).await;
        for engine in &fixture.engines {
            fixture.cluster.node_is(engine.name(), State::Ready).await;
        }
        fixture.cluster.restart(&leader).await;
        fixture.cluster.voters_are(3).await;
    }
    assert_eq!(fixture.containers(&still), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_engine_gives_its_containers_away() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    if fixture.engines.len() < 2 {
        eprintln!("skipped: there is one engine only, and nowhere to go from it");
        return;
    }
    let each = fixture.engines.len();
    let web = fixture.sleepers("web", 2 * each as u64, |_| ()).await;
    fixture.runs(&web, 2 * each).await;
    let drained = &fixture.engines[0];
    fixture
        .cluster
        .set_availability(drained.name(), Availability::Drain)
        .await;
    eventually("an empty engine", async || {
        drained.containers_of(&web.id).is_empty().then_some(())
    })
    .await;
    fixture.runs(&web, 2 * each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r64_an_engine_that_was_cut_off_comes_back_and_nothing_runs_twice() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    fixture.cluster.set_heartbeat(Duration::from_secs(1)).await;
    let each = fixture.engines.len();
    let web = fixture.sleepers("web", 2 * each as u64, |_| ()).await;
    fixture.runs(&web, 2 * each).await;
    let cut = &fixture.engines[0];
    cut.cut();
    fixture.cluster.node_is(cut.name(), State::Down).await;
    if each > 1 {
        fixture.cluster.running(&web.id, 2 * each).await;
    }
    // What is tested is an absence of this length.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cut.heal();
    fixture.cluster.node_is(cut.name(), State::Ready).await;
    fixture.runs(&web, 2 * each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_restarted_and_another_leaves() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    fixture.cluster.set_heartbeat(Duration::from_secs(1)).await;
    let count = 2 * fixture.engines.len();
    let web = fixture.sleepers("web", count as u64, |_| ()).await;
    fixture.runs(&web, count).await;
    for engine in &mut fixture.engines {
        let id = engine.node_id();
        engine.restart();
        assert_eq!(engine.node_id(), id);
    }
    for engine in &fixture.engines {
        fixture.cluster.node_is(engine.name(), State::Ready).await;
    }
    fixture.runs(&web, count).await;

    let leaving = &fixture.engines[0];
    let node = fixture.node(leaving).await;
    leaving.docker(&["swarm", "leave"]);
    fixture.cluster.node_is(leaving.name(), State::Down).await;
    assert!(leaving.containers_of(&web.id).is_empty());
    fixture.cluster.remove_node(&node.id, false).await;
    if fixture.engines.len() > 1 {
        fixture.runs(&web, count).await;
    }
}
