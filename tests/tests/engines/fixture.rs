//! Managers, and one engine of each version that has joined them.

use std::sync::Arc;

use skep_agent::executor::docker::{self, DockerExecutor};
use skep_proto::v1::{
    ContainerSpec, Node, Service, ServiceSpec, Task, node_spec::Availability, node_status::State,
    task_spec::Runtime,
};
use skep_tests::{
    cluster::{Cluster, eventually, spec},
    engines::{Engine, Lab, flavours},
};

pub struct Fixture {
    // In the order in which they must go.
    pub engines: Vec<Engine>,
    pub cluster: Cluster,
    pub lab: Lab,
}

impl Fixture {
    /// Three managers that take no tasks, and the engines, ready. `None` where there are no engines.
    pub async fn start() -> Option<Self> {
        let lab = Lab::open()?;
        let ips = [1, 2, 3].map(|number| lab.manager_ip(number));
        let cluster = Cluster::at(&ips).await;
        for manager in cluster.managers() {
            cluster
                .set_availability(&manager, Availability::Drain)
                .await;
        }
        let object = cluster.object().await;
        let token = &object.root_ca().join_tokens().worker;
        // A follower takes it to the leader.
        let follower = cluster.follower().await;
        let engines: Vec<_> = flavours()
            .iter()
            .map(|flavour| {
                let engine = lab.engine(flavour);
                engine.join(token, &cluster.addr(&follower));
                engine
            })
            .collect();
        for engine in &engines {
            cluster.node_is(engine.name(), State::Ready).await;
        }
        Some(Self {
            engines,
            cluster,
            lab,
        })
    }

    /// An engine that is in no swarm itself, and a worker of ours, `worker-1`, that drives it.
    pub async fn drive(&mut self) -> Engine {
        let driven = self.lab.engine(&flavours()[0]);
        let engine = docker::Engine::connect(&driven.host()).await.unwrap();
        let executor = DockerExecutor::new(engine).await.unwrap();
        self.cluster.run_by(Arc::new(executor));
        self.cluster.add("worker-1", false).await;
        self.cluster.node_is("worker-1", State::Ready).await;
        driven
    }

    /// The node object of an engine.
    pub async fn node(&self, engine: &Engine) -> Node {
        self.cluster.node_object(engine.name()).await
    }

    /// Creates a service of containers that do nothing for long.
    pub async fn sleepers(
        &self,
        name: &str,
        replicas: u64,
        change: impl Fn(&mut ServiceSpec),
    ) -> Service {
        let mut spec = spec(name, replicas, &["sleep", "100000"]);
        let container = container(&mut spec);
        container.image = self.lab.image().to_owned();
        container.stop_grace_period = Some(Default::default());
        change(&mut spec);
        self.cluster.create_service(spec).await
    }

    /// Waits until as many tasks of a service run, and as many containers for them: none more.
    pub async fn runs(&self, service: &Service, count: usize) -> Vec<Task> {
        let tasks = self.cluster.running(&service.id, count).await;
        eventually(&format!("{count} containers"), async || {
            let running: usize = self
                .engines
                .iter()
                .map(|engine| engine.containers_of(&service.id).len())
                .sum();
            (running == count).then_some(())
        })
        .await;
        tasks
    }

    /// All containers of a service, with the times at which they were started.
    pub fn containers(&self, service: &Service) -> Vec<String> {
        self.engines
            .iter()
            .flat_map(|engine| engine.containers_of(&service.id))
            .collect()
    }
}

/// The container spec of a service.
pub fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
    match &mut spec.task_mut().runtime {
        Some(Runtime::Container(container)) => container,
        other => panic!("not a container: {other:?}"),
    }
}
