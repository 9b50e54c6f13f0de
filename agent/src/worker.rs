//! The owner of all tasks of a node: turns assignments into one runner per task.
//!
//! It knows nothing of sessions. Whatever manager sends them, the assignments of a complete
//! message replace all others, and tasks that are in both go on undisturbed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use skep_proto::v1::{self, TaskState};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    assignments::{Change, Changes},
    executor::TaskContext,
    task::{
        Outcome,
        runner::{End, Order, Origin, Runner, Shared},
        updated,
    },
    task_store::{MAX_TASKS, Stored, is_safe},
};

/// Few: assignments wait in the stream, where the manager's flow control sees them.
const QUEUE: usize = 4;

/// What the worker is told.
enum Command {
    Apply(Changes),
    /// Stop everything; answers with the states to watch.
    Stop(oneshot::Sender<Vec<watch::Receiver<TaskState>>>),
    /// Answers with the tasks that are meant.
    Find(Means, oneshot::Sender<Vec<TaskContext>>),
}

/// Whether a task is meant.
type Means = Box<dyn Fn(&v1::Task) -> bool + Send>;

/// The worker's front. If the worker is gone, calls do nothing: so is the agent.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    count: watch::Receiver<usize>,
}

impl Handle {
    /// Applies an assignments message.
    pub(crate) async fn apply(&self, changes: Changes) {
        let _ = self.commands.send(Command::Apply(changes)).await;
    }

    /// Stops all tasks and waits for them; from then on none is started.
    pub(crate) async fn stop_all(&self) {
        let (answer, states) = oneshot::channel();
        let _ = self.commands.send(Command::Stop(answer)).await;
        for mut state in states.await.unwrap_or_default() {
            // An error means that the task was removed.
            let _ = state.wait_for(|state| *state >= TaskState::Complete).await;
        }
    }

    /// How many tasks are on this node, whatever their state.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// The tasks on this node that are meant, whatever their state.
    pub(crate) async fn find(
        &self,
        means: impl Fn(&v1::Task) -> bool + Send + 'static,
    ) -> Vec<TaskContext> {
        let (answer, found) = oneshot::channel();
        let command = Command::Find(Box::new(means), answer);
        let _ = self.commands.send(command).await;
        found.await.unwrap_or_default()
    }

    /// Changes with every task that comes or goes.
    pub(crate) fn watch_tasks(&self) -> watch::Receiver<usize> {
        self.count.clone()
    }
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    slots: BTreeMap<String, Slot>,
    runners: JoinSet<()>,
    /// Which task a runner is for, also if it ends by a panic.
    ids: HashMap<Id, String>,
    /// Tasks that were refused for want of room, and have a status but no runner.
    refused: BTreeSet<String>,
    count: watch::Sender<usize>,
    stopping: bool,
}

struct Slot {
    orders: watch::Sender<Order>,
    state: watch::Receiver<TaskState>,
    /// Assigned again while it is being removed.
    again: Option<v1::Task>,
}

impl Worker {
    /// A worker that resumes what was stored.
    pub(crate) fn new(shared: Shared, stored: Vec<Stored>) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (count, counted) = watch::channel(0);
        let handle = Handle {
            commands: sender,
            count: counted,
        };
        let mut worker = Self {
            shared: Arc::new(shared),
            commands,
            slots: BTreeMap::new(),
            runners: JoinSet::new(),
            ids: HashMap::new(),
            refused: BTreeSet::new(),
            count,
            stopping: false,
        };
        for Stored { id, task } in stored {
            match task {
                Some(task) => worker.run_task(task, Origin::Disk, End::No),
                None => {
                    // Nobody knows what it was, but a process of it may still run.
                    let mut task = v1::Task {
                        id,
                        ..Default::default()
                    };
                    task.status_mut().state = TaskState::Starting as i32;
                    worker.run_task(task, Origin::Disk, End::Remove);
                }
            }
        }
        (worker, handle)
    }

    /// Runs until told to stop; what runs then goes on without us.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.runners.join_next_with_id() => self.ended(ended),
                command = self.commands.recv() => match command {
                    Some(Command::Apply(changes)) => self.apply(changes),
                    Some(Command::Stop(answer)) => {
                        let _ = answer.send(self.stop_all());
                    }
                    Some(Command::Find(means, answer)) => {
                        let _ = answer.send(self.find(&means));
                    }
                    None => break,
                },
            }
        }
        self.runners.shutdown().await;
    }

    fn apply(&mut self, changes: Changes) {
        let dependencies = &self.shared.dependencies;
        let (mut secrets, mut configs) = (changes.secrets, changes.configs);
        if changes.complete {
            // At once: a task that is being prepared must never see the gap.
            dependencies.replace(
                secrets.drain(..).filter_map(Change::into_put),
                configs.drain(..).filter_map(Change::into_put),
            );
        }
        for change in secrets {
            match change {
                Change::Put(secret) => dependencies.put_secret(secret),
                Change::Remove(secret) => dependencies.remove_secret(&secret.id),
            }
        }
        for change in configs {
            match change {
                Change::Put(config) => dependencies.put_config(config),
                Change::Remove(config) => dependencies.remove_config(&config.id),
            }
        }
        if changes.complete {
            self.retain(&changes.tasks);
        }
        for change in changes.tasks {
            match change {
                Change::Put(task) => self.put(task),
                Change::Remove(task) => self.remove(&task.id),
            }
        }
    }

    /// Removes all tasks that a complete message does not list.
    fn retain(&mut self, changes: &[Change<v1::Task>]) {
        let listed: BTreeSet<&str> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(task) => Some(task.id.as_str()),
                Change::Remove(_) => None,
            })
            .collect();
        let ids = self.slots.keys().chain(&self.refused);
        let gone: Vec<_> = ids
            .filter(|id| !listed.contains(id.as_str()))
            .cloned()
            .collect();
        for id in gone {
            self.remove(&id);
        }
    }

    fn put(&mut self, task: v1::Task) {
        if !is_safe(&task.id) {
            tracing::error!(
                task_id = task.id,
                "a manager assigned a task with a malformed ID"
            );
            return;
        }
        if let Some(slot) = self.slots.get_mut(&task.id) {
            if slot.orders.borrow().end == End::Remove {
                slot.again = Some(task);
                return;
            }
            slot.orders
                .send_modify(|order| order.task = Arc::new(updated(&order.task, task)));
        } else if self.stopping {
            // It stays assigned, and is run by the next agent or elsewhere.
        } else if self.slots.len() >= MAX_TASKS {
            let why = format!("this node holds {MAX_TASKS} tasks already");
            let Outcome {
                state,
                message,
                err,
            } = Outcome::failed(task.status().state(), why);
            let status = v1::TaskStatus {
                state: state as i32,
                message,
                err,
                ..Default::default()
            };
            self.shared.reporter.put(&task.id, status);
            self.refused.insert(task.id);
        } else {
            self.refused.remove(&task.id);
            self.run_task(task, Origin::Manager, End::No);
        }
    }

    fn remove(&mut self, id: &str) {
        if self.refused.remove(id) {
            self.shared.reporter.forget(id);
        }
        if let Some(slot) = self.slots.get_mut(id) {
            slot.again = None;
            slot.orders.send_modify(|order| order.end = End::Remove);
        }
    }

    fn find(&self, means: &Means) -> Vec<TaskContext> {
        let tasks = self.slots.iter().filter_map(|(id, slot)| {
            let task = Arc::clone(&slot.orders.borrow().task);
            means(&task).then(|| TaskContext {
                task,
                dir: self.shared.store.dir(id),
                dependencies: self.shared.dependencies.clone(),
            })
        });
        tasks.collect()
    }

    fn stop_all(&mut self) -> Vec<watch::Receiver<TaskState>> {
        self.stopping = true;
        for slot in self.slots.values() {
            slot.orders
                .send_modify(|order| order.end = order.end.max(End::Stop));
        }
        self.slots.values().map(|slot| slot.state.clone()).collect()
    }

    fn run_task(&mut self, task: v1::Task, origin: Origin, end: End) {
        let id = task.id.clone();
        let (orders, ordered) = watch::channel(Order {
            task: Arc::new(task),
            end,
        });
        let (runner, state) = Runner::new(Arc::clone(&self.shared), ordered, origin);
        let handle = self.runners.spawn(runner.run().in_current_span());
        self.ids.insert(handle.id(), id.clone());
        self.slots.insert(
            id,
            Slot {
                orders,
                state,
                again: None,
            },
        );
        self.count.send_replace(self.slots.len());
    }

    /// A runner ended: its task is removed.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let runner = match &ended {
            Ok((runner, ())) => *runner,
            Err(error) => error.id(),
        };
        let Some(id) = self.ids.remove(&runner) else {
            return;
        };
        if let Err(error) = ended {
            tracing::error!(task_id = id, %error, "the runner of a task ended by a defect");
        }
        let again = self.slots.remove(&id).and_then(|slot| slot.again);
        self.count.send_replace(self.slots.len());
        if let Some(task) = again {
            self.put(task);
        }
    }
}
