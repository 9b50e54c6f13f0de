//! Engines that are made managers, beside managers of ours.

use std::time::Duration;

use skep_proto::v1::{ListServicesRequest, node_status::State};
use skep_tests::{
    cluster::eventually,
    engines::{Engine, flavours},
};

use crate::fixture::Fixture;

impl Fixture {
    /// Makes the engines managers.
    async fn promote(&self) {
        let ours = self.cluster.managers().len();
        for engine in &self.engines {
            self.cluster.promote(engine.name()).await;
        }
        self.cluster.voters_are(ours + self.engines.len()).await;
    }

    /// Waits until there are as many managers, whoever leads them.
    async fn managers_are(&self, count: usize) {
        eventually(&format!("{count} managers"), async || {
            let nodes = self.cluster.node_objects().await.ok()?;
            let managers = nodes.iter().filter(|node| node.manager_status.is_some());
            (managers.count() == count).then_some(())
        })
        .await;
    }

    /// Creates a service by the command line of an engine, and waits until it runs.
    async fn create_by(&self, engine: &Engine, name: &str) {
        let create = "service create --detach --no-resolve-image --replicas 2 --name";
        let mut words: Vec<_> = create.split(' ').collect();
        words.extend([name, self.lab.image(), "sleep", "100000"]);
        eventually("a leader that takes a service", async || {
            // One that was made by a call that seemed to fail is there as well.
            let made = engine.try_docker(&words);
            let there = |text: &String| text.contains("already exists");
            (made.is_ok() || made.as_ref().is_err_and(there)).then_some(())
        })
        .await;
        let filter = format!("name={name}");
        let list = [
            "service",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Replicas}}",
        ];
        eventually("a service that runs", async || {
            (engine.try_docker(&list).ok()? == "2/2").then_some(())
        })
        .await;
    }
}

/// The hosts of the managers that an engine knows, and the one of the leader.
fn managers(engine: &Engine) -> Option<(usize, String)> {
    let format = "{{.Hostname}} {{.ManagerStatus}}";
    let listed = engine
        .try_docker(&["node", "ls", "--format", format])
        .ok()?;
    let managers: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| !status.is_empty())
        .collect();
    let leader = managers.iter().find(|(_, status)| *status == "Leader")?.0;
    Some((managers.len(), leader.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_become_managers_and_workers_again() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    // Nobody is given up while there is no leader: a stock member waits for ten seconds.
    fixture.cluster.set_heartbeat(Duration::from_secs(30)).await;
    let each = fixture.engines.len();
    let still = fixture.sleepers("still", each as u64, |_| ()).await;
    fixture.runs(&still, each).await;
    let containers = fixture.containers(&still);
    // The log does not begin with the first entry any more.
    fixture.cluster.set_snapshots(10, 2).await;
    for number in 0..30 {
        fixture
            .cluster
            .create_config(&format!("c{number}"), 10)
            .await;
    }
    fixture.promote().await;
    for engine in &fixture.engines {
        eventually("all managers", async || {
            (managers(engine)?.0 == 3 + each).then_some(())
        })
        .await;
        fixture
            .create_by(engine, &format!("by-{}", engine.name()))
            .await;
    }

    let leader = fixture.cluster.leader().await;
    fixture.cluster.kill(&leader).await;
    let more = fixture.sleepers("more", each as u64, |_| ()).await;
    fixture.runs(&more, each).await;
    for engine in &fixture.engines {
        fixture
            .create_by(engine, &format!("again-by-{}", engine.name()))
            .await;
    }
    fixture.cluster.restart(&leader).await;
    // An engine may lead from now on.
    fixture.managers_are(3 + each).await;

    for engine in &fixture.engines {
        fixture.cluster.demote(engine.name()).await;
    }
    fixture.managers_are(3).await;
    for engine in &fixture.engines {
        let format = "{{.Swarm.ControlAvailable}} {{.Swarm.LocalNodeState}}";
        eventually("a worker that knows of no trouble", async || {
            let info = engine.try_docker(&["info", "--format", format]).ok()?;
            (info == "false active").then_some(())
        })
        .await;
        fixture.cluster.node_is(engine.name(), State::Ready).await;
    }
    assert_eq!(fixture.containers(&still), containers);
    let last = fixture.sleepers("last", each as u64, |_| ()).await;
    fixture.runs(&last, each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_leads_and_a_manager_of_ours_follows_and_leads_again() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    fixture.cluster.set_heartbeat(Duration::from_secs(30)).await;
    while fixture.engines.len() < 2 {
        let engine = fixture.lab.engine(&flavours()[0]);
        let object = fixture.cluster.object().await;
        let token = &object.root_ca().join_tokens().worker;
        engine.join(token, &fixture.cluster.addr("manager-1"));
        fixture.cluster.node_is(engine.name(), State::Ready).await;
        fixture.engines.push(engine);
    }
    let still = fixture.sleepers("still", 2, |_| ()).await;
    fixture.runs(&still, 2).await;
    let containers = fixture.containers(&still);
    fixture.promote().await;
    let ours = fixture.cluster.leader().await;
    for name in fixture.cluster.managers() {
        if name != ours {
            fixture.cluster.demote(&name).await;
            fixture.cluster.steps_down(&name).await;
        }
    }
    fixture.cluster.voters_are(3).await;

    fixture.cluster.kill(&ours).await;
    let leader = eventually("an engine that leads", async || {
        let leader = managers(&fixture.engines[0])?.1;
        fixture
            .engines
            .iter()
            .position(|engine| engine.name() == leader)
    })
    .await;
    let (leader, other) = (&fixture.engines[leader], &fixture.engines[1 - leader]);
    fixture.create_by(leader, "under-an-engine").await;

    fixture.cluster.restart(&ours).await;
    let leader_id = leader.node_id();
    eventually("what was written meanwhile", async || {
        let status = fixture.cluster.node(&ours).manager()?.status();
        let led_by = status.borrow().leader.clone()?.node_id;
        let mut control = fixture.cluster.control_of(&ours).await;
        let services = control.list_services(ListServicesRequest::default());
        let services = services.await.ok()?.into_inner().services;
        let mut names = services
            .iter()
            .map(|service| &service.spec().annotations().name);
        (led_by == leader_id && names.any(|name| name == "under-an-engine")).then_some(())
    })
    .await;

    // Whoever remains elects one of them, as a rule ours: it asks for votes more often.
    for _ in 0..5 {
        let status = fixture.cluster.node(&ours).manager().unwrap().status();
        if status.borrow().leading {
            break;
        }
        let led_by = status.borrow().leader.clone().map(|leader| leader.node_id);
        let engines = fixture.engines.iter();
        for engine in engines.filter(|engine| Some(engine.node_id()) == led_by) {
            engine.cut();
            eventually("another leader", async || {
                let leader = status.borrow().leader.clone()?.node_id;
                (Some(leader) != led_by).then_some(())
            })
            .await;
            engine.heal();
        }
    }
    eventually("the manager of ours as the leader", async || {
        let known = |engine| managers(engine).is_some_and(|(_, name)| name == ours);
        (known(leader) && known(other)).then_some(())
    })
    .await;
    fixture.create_by(leader, "under-ours").await;
    assert_eq!(fixture.containers(&still), containers);
}
