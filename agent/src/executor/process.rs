//! The embedded executor: tasks are processes of this host, and nothing needs to be installed.
//!
//! A task is a process group of its own. It lives on when the daemon ends: the record in the
//! task's directory and a mark in the process's environment lead the next daemon back to it.
//! There is no isolation here, and what a task asks for beyond a command, its environment,
//! directory and user is refused with a reason, never silently left out.

mod controller;
mod leftovers;
mod logs;
mod plan;
mod procfs;
mod record;
mod signal;
mod spawn;
mod user;

pub use self::leftovers::end_leftovers;

use futures_util::stream::BoxStream;
use skep_proto::v1;

use self::controller::ProcessController;
use super::{Controller, Executor, Failure, LogLine, TaskContext};

/// The image name that stands for "no image: a command of the host".
pub const PROCESS_IMAGE: &str = "process";

/// Runs tasks as processes of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessExecutor;

impl Executor for ProcessExecutor {
    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        Ok(Box::new(ProcessController::new(&context.task, context.dir)))
    }

    fn logs(
        &self,
        context: &TaskContext,
        options: v1::LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        match logs::Options::of(&context.task) {
            Ok(Some(_)) => Some(logs::read(context.dir.clone(), options)),
            Ok(None) | Err(_) => None,
        }
    }
}
