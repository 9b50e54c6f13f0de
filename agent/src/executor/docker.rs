//! The executor that runs tasks as containers of a Docker engine on this host.
//!
//! The engine keeps what runs; this room keeps nothing beside it but the files of secrets and
//! configs. A container is found again by its labels, so neither a restart of the daemon nor a
//! call that was cut off in the middle loses one or makes a second one.

mod controller;
mod engine;
mod facts;
mod files;
mod image;
mod leftovers;
mod logs;
mod plan;
mod ports;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::stream::BoxStream;
use parking_lot::RwLock;
use skep_proto::v1;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

pub use self::engine::Engine;
use self::{controller::DockerController, facts::Facts, leftovers::Leftovers};
use super::{Controller, Executor, Failure, LogLine, TaskContext};

/// Where an engine listens unless it is told otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The label by which a task's container is found: the task's ID.
const LABEL_TASK: &str = "com.docker.swarm.task.id";
/// The label that tells whose container it is: the node's ID.
const LABEL_NODE: &str = "com.docker.swarm.node.id";
/// How often the engine is asked what it is; as often as the agent asks us.
const LOOK: Duration = Duration::from_secs(20);

/// Runs tasks as containers. Dropping it ends what it does by itself, and no container.
pub struct DockerExecutor {
    engine: Engine,
    facts: Arc<RwLock<Facts>>,
    leftovers: Leftovers,
    /// Keeps the facts fresh.
    _looking: AbortOnDropHandle<()>,
}

impl DockerExecutor {
    /// The executor of an engine. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the engine does not tell what it is.
    pub async fn new(engine: Engine) -> Result<Self, Failure> {
        let facts = Arc::new(RwLock::new(Facts::ask(&engine).await?));
        let looking = tokio::spawn(look(engine.clone(), Arc::clone(&facts)));
        Ok(Self {
            engine,
            facts,
            leftovers: Leftovers::default(),
            _looking: AbortOnDropHandle::new(looking),
        })
    }
}

async fn look(engine: Engine, facts: Arc<RwLock<Facts>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match Facts::ask(&engine).await {
            Ok(new) => *facts.write() = new,
            // The node is what it was: an engine that restarts must not change its description.
            Err(error) => tracing::warn!(%error, "the engine does not tell what it is"),
        }
    }
}

impl Executor for DockerExecutor {
    fn describe(&self, description: &mut v1::NodeDescription) {
        self.facts.read().describe(description);
    }

    fn resume(&self, node_id: &str, tasks: &[String]) {
        self.leftovers.remove(&self.engine, node_id, tasks);
    }

    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        self.leftovers.spare(&context.task.id);
        Ok(Box::new(DockerController::new(
            self.engine.clone(),
            context,
        )))
    }

    fn logs(
        &self,
        context: &TaskContext,
        options: v1::LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        Some(logs::logs(&self.engine, context, options))
    }
}
