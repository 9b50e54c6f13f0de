//! The agent: a worker and its session, started and stopped as one.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use skep_proto::v1;
use skep_security::Tls;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    backoff::Backoff,
    dependencies::Dependencies,
    description, disk,
    disk_queue::DiskQueue,
    error::Error,
    executor::Executor,
    remotes::{self, Remote, Remotes},
    reporter::Reporter,
    session::{NodeInfo, Sessions},
    task::runner::Shared,
    task_store::TaskStore,
    worker::{Handle, Worker},
};

/// How long a stopping agent tries to tell a manager how its tasks ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What an agent is started with.
pub struct Config {
    /// This node's ID, as in its certificate.
    pub node_id: String,
    /// Where the agent keeps `state.json` and `worker/`; made if it is not there.
    pub state_dir: PathBuf,
    /// The hostname to tell managers.
    pub hostname: String,
    /// This node's identity and its way to dial.
    pub tls: Tls,
    /// What runs the tasks.
    pub executor: Arc<dyn Executor>,
    /// Managers to start with, besides those known from earlier sessions.
    pub managers: Vec<v1::Peer>,
    /// Engine labels: what placement constraints on `engine.labels` see.
    pub labels: BTreeMap<String, String>,
    /// User-defined resources that tasks of this node can reserve.
    pub generic_resources: Vec<v1::GenericResource>,
    /// What [`Agent::stop`] does with the tasks.
    pub on_stop: OnStop,
}

/// What becomes of the tasks of an agent that is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// They run on, and the next agent with the same state directory takes them up.
    #[default]
    Keep,
    /// They are stopped with their signal and grace period, and are over.
    Stop,
}

/// A running agent.
///
/// Dropping it ends all it spawned at once, as the death of the daemon would: tasks run on, and
/// what they were and became is on disk for the next agent.
pub struct Agent {
    /// The worker and the sessions. They end when told to stop; any other end is a defect.
    parts: JoinSet<()>,
    stop: CancellationToken,
    worker: Handle,
    reporter: Arc<Reporter>,
    session: watch::Receiver<Option<Arc<v1::SessionMessage>>>,
    ready: watch::Receiver<bool>,
    on_stop: OnStop,
}

impl Agent {
    /// Resumes the tasks on disk and starts to look for a manager. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the state directory cannot be read or written.
    pub fn start(config: Config) -> Result<Self, Error> {
        let span = tracing::info_span!("agent", node_id = config.node_id);
        let _entered = span.enter();
        disk::create_dir(&config.state_dir).map_err(|source| Error::State {
            path: config.state_dir.clone(),
            source,
        })?;
        let path = remotes::file(&config.state_dir);
        let managers = config.managers.into_iter().map(Remote::from);
        let remotes = Remotes::open(path.clone(), managers)
            .map_err(|source| Error::State { path, source })?;
        let store = TaskStore::open(&config.state_dir).map_err(|source| Error::State {
            path: config.state_dir,
            source,
        })?;
        let stored = store.load().map_err(|source| Error::State {
            path: store.root().into(),
            source,
        })?;
        tracing::info!(tasks = stored.len(), "agent starts");
        let ids: Vec<_> = stored.iter().map(|stored| stored.id.clone()).collect();
        config.executor.resume(&config.node_id, &ids);

        let reporter = Arc::new(Reporter::default());
        let stop = CancellationToken::new();
        let shared = Shared {
            executor: Arc::clone(&config.executor),
            store,
            disk: DiskQueue::default(),
            reporter: Arc::clone(&reporter),
            dependencies: Dependencies::default(),
            node: Arc::new(skep_template::Node {
                id: config.node_id,
                hostname: config.hostname.clone(),
                os: description::OS.to_owned(),
                architecture: description::architecture(),
            }),
        };
        let (worker, handle) = Worker::new(shared, stored);
        let (latest, session) = watch::channel(None);
        let (ready_sender, ready) = watch::channel(false);
        let sessions = Sessions {
            node: NodeInfo {
                hostname: config.hostname,
                labels: config.labels,
                generic_resources: config.generic_resources,
                tls: config.tls,
                executor: config.executor,
            },
            worker: handle.clone(),
            reporter: Arc::clone(&reporter),
            remotes,
            backoff: Backoff::default(),
            session_id: String::new(),
            kept: None,
            latest,
            ready: ready_sender,
        };
        let mut parts = JoinSet::new();
        parts.spawn(worker.run(stop.clone()).in_current_span());
        parts.spawn(sessions.run(stop.clone()).in_current_span());
        Ok(Self {
            parts,
            stop,
            worker: handle,
            reporter,
            session,
            ready,
            on_stop: config.on_stop,
        })
    }

    /// Ends the session, and with [`OnStop::Stop`] before it all tasks. Returns when all is done:
    /// with [`OnStop::Stop`] that takes as long as the longest grace period.
    pub async fn stop(mut self) {
        if self.on_stop == OnStop::Stop {
            self.worker.stop_all().await;
            // Nobody may be there to hear it; it is on disk all the same.
            let _ = timeout(LAST_WORDS, self.reporter.idle()).await;
        }
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
    }

    /// Ends everything for good: all tasks are stopped, whatever [`Config::on_stop`] says.
    pub async fn leave(mut self) {
        self.on_stop = OnStop::Stop;
        self.stop().await;
    }

    /// Turns true when the node was registered for the first time.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// The newest message of a session: the node's own object, the managers, the root CA.
    pub fn session(&self) -> watch::Receiver<Option<Arc<v1::SessionMessage>>> {
        self.session.clone()
    }

    /// How many tasks are on this node, whatever their state.
    pub fn task_count(&self) -> usize {
        self.worker.count()
    }

    /// Waits for a part of the agent to end by a defect, which should never come. The agent is of
    /// no use after that.
    pub async fn broken(&mut self) -> Error {
        match self.parts.join_next().await {
            Some(Err(error)) => Error::Broken(error.to_string()),
            Some(Ok(())) | None => Error::Broken("it stopped by itself".to_owned()),
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("tasks", &self.task_count())
            .finish_non_exhaustive()
    }
}
