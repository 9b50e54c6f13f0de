//! How long it takes until a task that was assigned is with its agent, in a cluster that does nothing
//! else: services of one task, one after the other, for an agent in this process.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use skep_agent::{
    Agent, Config, OnStop,
    executor::{Controller, Executor, Failure, TaskContext, null::NullExecutor},
};
use skep_proto::{
    id,
    v1::{
        Annotations, ContainerSpec, CreateServiceRequest, ListClustersRequest, ListNodesRequest,
        NodeDescription, Peer, Placement, RemoveServiceRequest, ReplicatedService, SelectBy,
        ServiceSpec, Task, TaskSpec, TaskState, WatchMessage, WatchRequest,
        control_client::ControlClient, node_spec::Availability, object::Object, select_by::By,
        service_spec::Mode, task_spec::Runtime, watch_client::WatchClient,
        watch_request::WatchEntry,
    },
};
use skep_security::{TcpDial, Tls, join};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Streaming, transport::Channel};

use crate::control;

/// Anything that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bits of `WatchActionKind`: update and remove.
const UPDATE: i32 = 2;
const REMOVE: i32 = 4;

/// Every kind of latency ends when the agent makes a controller for the task: it has received the
/// assignment then, and has the task on its disk. Microseconds.
///
/// The time at which a commit is done is known to the leader alone; the first two lie around it.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Tasks that were measured, all of them.
    pub tasks: usize,
    /// From the moment the leader began the transaction that assigned the task, by the time it has
    /// written into the task: the commit's own time is in it. Says nothing if the leader's clock is
    /// another machine's.
    pub from_write_p50_us: i64,
    /// The same.
    pub from_write_p99_us: i64,
    /// From the moment a watcher on the control socket was told of the commit: negative if the agent
    /// had it earlier.
    pub from_event_p50_us: i64,
    /// The same.
    pub from_event_p99_us: i64,
    /// From the call that creates the service: making the task, placing it and all commits are in it.
    pub from_create_p50_us: i64,
    /// The same.
    pub from_create_p99_us: i64,
}

/// When one task was where.
struct Times {
    created: SystemTime,
    written: SystemTime,
    told: SystemTime,
    taken: SystemTime,
}

/// Runs nothing and tells when it gets a task.
struct Noticing {
    taken: mpsc::UnboundedSender<(String, SystemTime)>,
}

impl Executor for Noticing {
    fn describe(&self, description: &mut NodeDescription) {
        NullExecutor.describe(description);
    }

    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        // Nobody listens any more at the end.
        let _ = self
            .taken
            .send((context.task.id.clone(), SystemTime::now()));
        NullExecutor.controller(context)
    }
}

/// Joins an agent to the cluster behind a control socket and measures `tasks` tasks. The node stays
/// in the list of nodes, as one that is down.
pub async fn measure(socket: &Path, tls: bool, tasks: usize) -> anyhow::Result<Latency> {
    let channel = control::channel(socket, tls).await?;
    let mut control = ControlClient::new(channel.clone());
    let dir = tempfile::tempdir()?;
    let (taken, notices) = mpsc::unbounded_channel();
    let (agent, node_id) = start(&mut control, dir.path(), Noticing { taken }).await?;
    let entry = WatchEntry {
        kind: "task".to_owned(),
        action: UPDATE | REMOVE,
        filters: vec![SelectBy {
            by: Some(By::NodeId(node_id.clone())),
        }],
    };
    let request = WatchRequest {
        entries: vec![entry],
        ..Default::default()
    };
    let changes = WatchClient::new(channel).watch(request).await?.into_inner();
    let mut watcher = Watcher { changes, notices };
    let mut measured = Vec::new();
    for _ in 0..tasks {
        let round = one(&mut control, &node_id, &mut watcher);
        measured.push(timeout(PATIENCE, round).await.context("a task hangs")??);
    }
    agent.stop().await;
    Ok(summary(&measured))
}

/// An agent that is registered, and its node's ID.
async fn start(
    control: &mut ControlClient<Channel>,
    state_dir: &Path,
    executor: Noticing,
) -> anyhow::Result<(Agent, String)> {
    let clusters = control.list_clusters(ListClustersRequest::default());
    let clusters = clusters.await?.into_inner().clusters;
    let cluster = clusters.first().context("there is no cluster")?;
    let token = cluster.root_ca().join_tokens().worker.parse()?;
    let nodes = control.list_nodes(ListNodesRequest::default());
    let nodes = nodes.await?.into_inner().nodes;
    let managers = nodes.into_iter().filter_map(|node| node.manager_status);
    let leader = managers.into_iter().find(|manager| manager.leader);
    let addr = leader.context("there is no leader")?.addr;
    let credentials = join::join(Arc::new(TcpDial), &addr, &token, Availability::Active).await?;
    let node_id = credentials.identity().node_id.clone();
    let agent = Agent::start(Config {
        node_id: node_id.clone(),
        state_dir: state_dir.to_owned(),
        hostname: "latency".to_owned(),
        tls: Tls::new(credentials),
        executor: Arc::new(executor),
        managers: vec![Peer {
            node_id: String::new(),
            addr,
        }],
        labels: BTreeMap::new(),
        generic_resources: Vec::new(),
        on_stop: OnStop::Stop,
    })?;
    let mut ready = agent.ready();
    timeout(PATIENCE, ready.wait_for(|ready| *ready)).await??;
    Ok((agent, node_id))
}

/// What is heard of the tasks, from both sides.
struct Watcher {
    changes: Streaming<WatchMessage>,
    notices: mpsc::UnboundedReceiver<(String, SystemTime)>,
}

impl Watcher {
    /// The next changed task, and whether it is gone.
    async fn change(&mut self) -> anyhow::Result<Vec<(Task, bool)>> {
        let message = self.changes.message().await?;
        let events = message.context("the watch has ended")?.events;
        let tasks = events.into_iter().filter_map(|event| {
            match event.object.and_then(|object| object.object) {
                Some(Object::Task(task)) => Some((task, event.action == REMOVE)),
                _ => None,
            }
        });
        Ok(tasks.collect())
    }
}

/// One task, from the creation of its service until nothing is left of it.
async fn one(
    control: &mut ControlClient<Channel>,
    node_id: &str,
    watcher: &mut Watcher,
) -> anyhow::Result<Times> {
    let request = CreateServiceRequest {
        spec: Some(spec(node_id)),
    };
    let created = SystemTime::now();
    let service = control.create_service(request).await?.into_inner().service;
    let service_id = service.context("no service in the answer")?.id;
    let (task, told) = loop {
        let changed = watcher.change().await?;
        let told = SystemTime::now();
        let ours = |task: &Task| task.service_id == service_id;
        if let Some((task, _)) = changed.into_iter().find(|(task, _)| ours(task)) {
            break (task, told);
        }
    };
    if task.status().state() != TaskState::Assigned {
        bail!("the first thing heard of the task is not that it was assigned");
    }
    let written = task.meta().updated_at.context("the task has no time")?;
    let (_, taken) = loop {
        let notice = watcher.notices.recv().await.context("the agent is gone")?;
        if notice.0 == task.id {
            break notice;
        }
    };
    control
        .remove_service(RemoveServiceRequest { service_id })
        .await?;
    loop {
        let changed = watcher.change().await?;
        if changed.iter().any(|(of, gone)| *gone && of.id == task.id) {
            break;
        }
    }
    Ok(Times {
        created,
        written: written.try_into()?,
        told,
        taken,
    })
}

fn spec(node_id: &str) -> ServiceSpec {
    let placement = Placement {
        constraints: vec![format!("node.id=={node_id}")],
        ..Default::default()
    };
    let container = ContainerSpec {
        image: "process".to_owned(),
        ..Default::default()
    };
    ServiceSpec {
        annotations: Some(Annotations {
            name: format!("latency-{}", id::random()),
            ..Default::default()
        }),
        task: Some(TaskSpec {
            runtime: Some(Runtime::Container(container)),
            placement: Some(placement),
            ..Default::default()
        }),
        mode: Some(Mode::Replicated(ReplicatedService { replicas: 1 })),
        ..Default::default()
    }
}

fn summary(measured: &[Times]) -> Latency {
    let sorted = |since: fn(&Times) -> SystemTime| {
        let mut all: Vec<_> = measured
            .iter()
            .map(|times| micros(since(times), times.taken))
            .collect();
        all.sort_unstable();
        move |share: f64| {
            let index = (all.len() as f64 * share) as usize;
            all.get(index.min(all.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        }
    };
    let written = sorted(|times| times.written);
    let told = sorted(|times| times.told);
    let created = sorted(|times| times.created);
    Latency {
        tasks: measured.len(),
        from_write_p50_us: written(0.5),
        from_write_p99_us: written(0.99),
        from_event_p50_us: told(0.5),
        from_event_p99_us: told(0.99),
        from_create_p50_us: created(0.5),
        from_create_p99_us: created(0.99),
    }
}

fn micros(from: SystemTime, to: SystemTime) -> i64 {
    match to.duration_since(from) {
        Ok(after) => after.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_end_with_the_agent_and_may_be_negative() {
        let at = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        let measured: Vec<_> = (0..100)
            .map(|n| Times {
                created: at(0),
                written: at(900),
                told: at(1100),
                taken: at(1000 + n),
            })
            .collect();
        let latency = summary(&measured);
        assert_eq!(latency.tasks, 100);
        assert_eq!(
            (latency.from_write_p50_us, latency.from_write_p99_us),
            (150, 199)
        );
        assert_eq!(
            (latency.from_event_p50_us, latency.from_event_p99_us),
            (-50, -1)
        );
        assert_eq!(
            (latency.from_create_p50_us, latency.from_create_p99_us),
            (1050, 1099)
        );
    }
}
