//! The owner of one task: performs its steps, keeps its status on disk and hands it to the
//! reporter.
//!
//! A status is on disk before anyone hears of it, so what a manager was told is never forgotten.

use std::{io, sync::Arc, time::Duration};

use skep_proto::{
    Timestamp,
    v1::{self, TaskState, task_status::RuntimeStatus},
};
use tokio::{sync::watch, time::sleep};

use super::{Outcome, Step, next};
use crate::{
    dependencies::Dependencies,
    disk_queue::DiskQueue,
    executor::{Adopted, Controller, Executor, Failure, TaskContext},
    reporter::Reporter,
    task_store::TaskStore,
};

/// How long after a temporary failure a step is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What all tasks of a node share.
pub(crate) struct Shared {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) store: TaskStore,
    pub(crate) disk: DiskQueue,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) dependencies: Dependencies,
    pub(crate) node: Arc<skep_template::Node>,
}

/// What is wanted of a task now.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) task: Arc<v1::Task>,
    pub(crate) end: End,
}

/// Wishes beyond the desired state. Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// None: the desired state rules.
    No,
    /// The agent stops its tasks.
    Stop,
    /// Nothing may be left of the task.
    Remove,
}

/// Where a task comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A manager just assigned it.
    Manager,
    /// It was here before the daemon started.
    Disk,
}

impl Order {
    fn desired(&self) -> TaskState {
        let desired = self.task.desired_state();
        if self.end == End::No {
            desired
        } else {
            desired.max(TaskState::Shutdown)
        }
    }

    fn stops(&self) -> bool {
        self.desired() >= TaskState::Shutdown
    }
}

/// What a status tells of what runs or ran.
#[derive(Default)]
struct Seen {
    container: Option<v1::ContainerStatus>,
    ports: Option<v1::PortStatus>,
}

impl Seen {
    fn of(controller: &dyn Controller) -> Self {
        Self {
            container: controller.container(),
            ports: controller.ports(),
        }
    }
}

/// The task and its owner's means.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
    id: String,
    /// The task as it is on disk.
    kept: Option<Arc<v1::Task>>,
    status: v1::TaskStatus,
    state: watch::Sender<TaskState>,
    /// As this task sees them.
    dependencies: Dependencies,
}

impl Runner {
    /// The runner of the task in `orders`, and its state as it goes.
    pub(crate) fn new(
        shared: Arc<Shared>,
        orders: watch::Receiver<Order>,
        origin: Origin,
    ) -> (Self, watch::Receiver<TaskState>) {
        let task = Arc::clone(&orders.borrow().task);
        let status = task.status().clone();
        let (state, watched) = watch::channel(status.state());
        let kept = (origin == Origin::Disk).then(|| Arc::clone(&task));
        let dependencies = shared.dependencies.clone();
        (
            Self {
                shared,
                orders,
                id: task.id.clone(),
                kept,
                status,
                state,
                dependencies,
            },
            watched,
        )
    }

    /// Runs the task until it is removed from this node.
    pub(crate) async fn run(mut self) {
        let told = self.status.state() > TaskState::Assigned;
        if told {
            self.shared.reporter.put(&self.id, self.status.clone());
        } else {
            self.accept();
        }
        if let Err(error) = self.keep().await {
            let why = format!("cannot keep the task on this node: {error}");
            self.enter(Outcome::failed(self.status.state(), why), Seen::default())
                .await;
        }
        let mut controller = self.controller().await;
        if let Some(controller) = &mut controller {
            if told {
                self.adopt(controller.as_mut()).await;
            } else if self.status.state() > TaskState::Assigned {
                self.tell();
            }
        }
        loop {
            let order = self.orders.borrow_and_update().clone();
            if order.end == End::Remove {
                return self.remove(controller).await;
            }
            if let Err(error) = self.keep().await {
                tracing::error!(task_id = self.id, %error, "cannot store a task's update");
            }
            let step = next(self.status.state(), order.desired());
            let (Some(controller), true) = (&mut controller, step != Step::Hold) else {
                if self.orders.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let Some(result) = self.perform(step, controller.as_mut()).await else {
                continue;
            };
            match result {
                Ok(outcome) => {
                    let mut outcome = outcome.pass(order.desired());
                    if outcome.state == TaskState::Shutdown && order.end == End::Stop {
                        outcome.message = "stopped with the agent of the node".to_owned();
                    }
                    self.enter(outcome, Seen::of(controller.as_ref())).await;
                }
                Err(why) => {
                    tracing::warn!(
                        task_id = self.id,
                        ?step,
                        why,
                        "a task's step is tried again"
                    );
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        _ = self.orders.changed() => {}
                    }
                }
            }
        }
    }

    /// Performs a step; `None` if it was left because the task shall stop now.
    async fn perform(
        &mut self,
        step: Step,
        controller: &mut dyn Controller,
    ) -> Option<Result<Outcome, String>> {
        let state = self.status.state();
        let orders = &mut self.orders;
        Some(match step {
            Step::Hold => return None,
            Step::Enter(state) => Ok(Outcome::entered(state)),
            Step::Prepare => {
                let prepare = async {
                    self.dependencies.check()?;
                    controller.prepare().await
                };
                let result = unless_stopped(orders, prepare).await?;
                Outcome::of(state, TaskState::Ready, result)
            }
            Step::Start => {
                let result = unless_stopped(orders, controller.start()).await?;
                Outcome::of(state, TaskState::Running, result)
            }
            Step::Wait => match unless_stopped(orders, controller.wait()).await? {
                Ok(exit) => Ok(Outcome::exited(&exit)),
                Err(failure) => Outcome::of(state, TaskState::Failed, Err(failure)),
            },
            // Never left: its grace period must not start again.
            Step::Shutdown => Outcome::of(state, TaskState::Shutdown, controller.shutdown().await),
        })
    }

    /// The task's controller; without one the task has failed.
    async fn controller(&mut self) -> Option<Box<dyn Controller>> {
        let task = Arc::clone(&self.orders.borrow().task);
        let task = match skep_template::expand_task(&task, &self.shared.node) {
            Ok(task) => task,
            Err(error) => {
                // Such a task was never started, and if it is over that is known already.
                if self.status.state() < TaskState::Complete {
                    let outcome = Outcome::failed(self.status.state(), error.to_string());
                    self.enter(outcome, Seen::default()).await;
                }
                return None;
            }
        };
        self.dependencies = self
            .shared
            .dependencies
            .of_task(Arc::clone(&task), Arc::clone(&self.shared.node));
        let context = TaskContext {
            task,
            dir: self.shared.store.dir(&self.id),
            dependencies: self.dependencies.clone(),
        };
        loop {
            match self.shared.executor.controller(context.clone()) {
                Ok(controller) => return Some(controller),
                Err(Failure::Fatal(err)) => {
                    let mut outcome = Outcome::failed(self.status.state(), err);
                    outcome.message = "resolving controller failed".to_owned();
                    self.enter(outcome, Seen::default()).await;
                    return None;
                }
                Err(Failure::Temporary(why)) => {
                    tracing::warn!(task_id = self.id, why, "no controller for a task yet");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Takes up what an earlier daemon left of the task.
    async fn adopt(&mut self, controller: &mut dyn Controller) {
        let state = self.status.state();
        if state <= TaskState::Accepted || state >= TaskState::Complete {
            return;
        }
        let adopted = loop {
            match controller.adopt(state).await {
                Ok(adopted) => break adopted,
                Err(Failure::Fatal(why)) => break Adopted::Gone(why),
                Err(Failure::Temporary(why)) => {
                    tracing::warn!(task_id = self.id, why, "cannot look for a task's rest yet");
                    sleep(RETRY).await;
                }
            }
        };
        match adopted {
            Adopted::Absent => {}
            // The start is gone through again, for it may wait for more than the process.
            Adopted::Running if state == TaskState::Starting => {}
            Adopted::Running if state < TaskState::Running => {
                let outcome = Outcome::entered(TaskState::Running);
                self.enter(outcome, Seen::of(controller)).await;
            }
            Adopted::Running => {}
            Adopted::Gone(why) => {
                let outcome = Outcome::failed(TaskState::Running, why);
                self.enter(outcome, Seen::of(controller)).await;
            }
        }
    }

    /// The task is in another state: on disk, then for the manager.
    async fn enter(&mut self, outcome: Outcome, seen: Seen) {
        let state = outcome.state;
        if state <= self.status.state() {
            // Nothing leads here, and a manager would not take it.
            tracing::error!(task_id = self.id, ?state, "a task's state must grow");
            return;
        }
        tracing::debug!(task_id = self.id, ?state, err = outcome.err, "task");
        self.status = status(outcome, seen);
        let (id, status) = (self.id.clone(), self.status.clone());
        if let Err(error) = self
            .blocking(move |store| store.put_status(&id, &status))
            .await
        {
            // Telling the manager is worth more than remembering.
            tracing::error!(task_id = self.id, %error, "cannot store a task's status");
        }
        self.tell();
    }

    fn tell(&self) {
        self.shared.reporter.put(&self.id, self.status.clone());
        self.state.send_replace(self.status.state());
    }

    /// A new task is taken up. The state that this leads to is stored with the task itself, and told
    /// once the task has a controller.
    fn accept(&mut self) {
        let desired = self.orders.borrow().desired();
        if let Step::Enter(state) = next(self.status.state(), desired) {
            self.status = status(Outcome::entered(state).pass(desired), Seen::default());
            self.kept = None;
        }
    }

    /// Stores the task as it is wanted now, if that is not on disk yet.
    async fn keep(&mut self) -> io::Result<()> {
        let task = Arc::clone(&self.orders.borrow().task);
        if self
            .kept
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, &task))
        {
            return Ok(());
        }
        let (stored, status) = (Arc::clone(&task), self.status.clone());
        self.blocking(move |store| store.put_task(&stored, status))
            .await?;
        self.kept = Some(task);
        Ok(())
    }

    /// Ends the task and all traces of it on this node, however long it takes.
    async fn remove(&mut self, mut controller: Option<Box<dyn Controller>>) {
        while let Err(why) = self.try_remove(controller.as_deref_mut()).await {
            tracing::warn!(task_id = self.id, why, "cannot remove a task yet");
            sleep(RETRY).await;
        }
        self.shared.reporter.forget(&self.id);
    }

    async fn try_remove(
        &mut self,
        controller: Option<&mut (dyn Controller + 'static)>,
    ) -> Result<(), String> {
        if let Some(controller) = controller {
            if self.status.state() < TaskState::Complete {
                controller
                    .shutdown()
                    .await
                    .map_err(|failure| failure.to_string())?;
            }
            controller
                .remove()
                .await
                .map_err(|failure| failure.to_string())?;
        }
        let id = self.id.clone();
        self.blocking(move |store| store.remove(&id))
            .await
            .map_err(|error| error.to_string())
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&TaskStore) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let store = self.shared.store.clone();
        self.shared.disk.run(move || work(&store)).await
    }
}

/// What is told of an outcome.
fn status(outcome: Outcome, seen: Seen) -> v1::TaskStatus {
    v1::TaskStatus {
        timestamp: Some(Timestamp::from(std::time::SystemTime::now())),
        state: outcome.state as i32,
        message: outcome.message,
        err: outcome.err,
        runtime_status: seen.container.map(RuntimeStatus::Container),
        port_status: seen.ports,
        ..Default::default()
    }
}

/// The result of `work`, `None` if the task shall stop first.
async fn unless_stopped<T>(
    orders: &mut watch::Receiver<Order>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let stopped = async {
        if orders.wait_for(Order::stops).await.is_err() {
            // The worker is gone, and this future is about to be dropped.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = stopped => None,
    }
}
