//! What runs the tasks of a node: an executor makes one controller per task.
//!
//! The task state machine calls a controller's methods one at a time, in the order prepare, start,
//! wait, with shutdown and remove possible at any point. What a controller started outlives the
//! controller: dropping one, as happens when the daemon is killed, leaves the running thing alone,
//! and a new controller finds it again by [`Controller::adopt`].

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use skep_proto::{Timestamp, v1};

use crate::dependencies::Dependencies;

pub mod docker;
mod memory_dir;
pub mod null;
pub mod process;

/// Everything a controller is made from.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The task as first seen on this node.
    pub task: Arc<v1::Task>,
    /// The task's own directory on this node, private to the daemon. It exists as long as the
    /// task is assigned here; what is in it is removed with the task.
    pub dir: PathBuf,
    /// Secrets and configs of the node's tasks.
    pub dependencies: Dependencies,
}

/// A way to run tasks.
pub trait Executor: Send + Sync + 'static {
    /// Adds what the executor brings (plugins, its engine's version) to the node's description.
    fn describe(&self, description: &mut v1::NodeDescription) {
        let _ = description;
    }

    /// Called once, when the agent starts and before any controller is made: the node's ID, and the
    /// tasks that are on it. What the executor has of this node's other tasks is of no use to
    /// anyone any more. Must not block; called inside a tokio runtime.
    fn resume(&self, node_id: &str, tasks: &[String]) {
        let _ = (node_id, tasks);
    }

    /// The controller of a task. An error ends the task, with the reason in its status. Nothing
    /// is started or created yet, and a task that cannot be run here should still get a
    /// controller, whose [`Controller::prepare`] fails: it may have to be removed.
    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure>;

    /// What a task wrote, oldest first, as `options` ask for it: `since`, `streams`, `tail` (0 is
    /// everything, `-(n + 1)` the last n messages) and `follow`. With `follow` the stream goes on
    /// until nothing more can come; else it ends with what was there. Any number may be read beside
    /// each other and beside the controller, and dropped at any time. `None` if tasks of this
    /// executor write nothing.
    fn logs(
        &self,
        context: &TaskContext,
        options: v1::LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        let _ = (context, options);
        None
    }
}

/// A piece of what a task wrote, as a rule a line with its end.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// When it was written.
    pub timestamp: Timestamp,
    /// Where to: stdout or stderr.
    pub stream: v1::LogStream,
    /// The bytes, with the line's end if there was one.
    pub data: Bytes,
}

/// Runs one task.
///
/// The futures of `prepare`, `start` and `wait` may be dropped at any await to call `shutdown` or
/// `remove` instead; nothing may be lost by that. Each method may be called again after it failed.
pub trait Controller: Send + 'static {
    /// Makes everything ready to start, and checks that the task can be run here.
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Starts it. When this returns it runs and, with a health check, is healthy. Called again after
    /// it was dropped or found it running by [`Controller::adopt`], it only waits for the rest.
    fn start(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Waits until it ends by itself. Called again after that, it gives the same answer.
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, Failure>>;

    /// Stops it with its stop signal and, after its grace period, with force. Does nothing if it
    /// does not run. When this returns nothing of it runs.
    fn shutdown(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Ends it with force if it still runs, and removes all it left on this node outside its
    /// directory.
    fn remove(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// After a restart of the daemon: finds what an earlier controller of this task started.
    /// `last` is the last state of the task that is on disk. Called before anything else.
    fn adopt(&mut self, last: v1::TaskState) -> BoxFuture<'_, Result<Adopted, Failure>>;

    /// The status of what runs or ran, `None` if nothing was started.
    fn container(&self) -> Option<v1::ContainerStatus>;

    /// The ports of the host that lead to what runs, `None` if nothing was started or the executor
    /// publishes none.
    fn ports(&self) -> Option<v1::PortStatus> {
        None
    }
}

/// What a restart finds of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It runs, and the controller has it in its hands again.
    Running,
    /// It was never started.
    Absent,
    /// It was started and is no more; the text says what is known of its end.
    Gone(String),
}

/// How what a task ran came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, 128 + n after signal n, `None` if nobody knows.
    pub code: Option<i32>,
    /// What to tell the user if the code is not 0.
    pub reason: String,
}

impl Exit {
    /// Whether the work is done.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why a step of a task did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// May pass by itself: the step is tried again.
    #[error("{0}")]
    Temporary(String),
    /// Ends the task.
    #[error("{0}")]
    Fatal(String),
}
