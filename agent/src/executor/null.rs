//! An executor that runs nothing: its tasks are running until they are told to stop.
//!
//! For load generators and for tests of everything around an executor.

use std::time::SystemTime;

use futures_util::{
    future::{BoxFuture, FutureExt as _, pending, ready},
    stream::{self, BoxStream, StreamExt as _},
};
use skep_proto::{executor, v1};

use super::{Adopted, Controller, Executor, Exit, Failure, LogLine, TaskContext};

/// Makes controllers that run nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullExecutor;

impl Executor for NullExecutor {
    fn describe(&self, description: &mut v1::NodeDescription) {
        if let Some(engine) = &mut description.engine {
            engine.plugins = vec![v1::PluginDescription {
                r#type: executor::PLUGIN.to_owned(),
                name: "null".to_owned(),
            }];
        }
    }

    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        Ok(Box::new(NullController {
            task_id: context.task.id.clone(),
            stage: Stage::Created,
        }))
    }

    /// One line that names the task, as if it had been written just now.
    fn logs(
        &self,
        context: &TaskContext,
        options: v1::LogSubscriptionOptions,
    ) -> Option<BoxStream<'static, Result<LogLine, Failure>>> {
        let line = LogLine {
            timestamp: SystemTime::now().into(),
            stream: v1::LogStream::Stdout,
            data: format!("task {} runs nothing\n", context.task.id).into(),
        };
        // -1 means the last 0 lines.
        let lines = stream::iter((options.tail != -1).then_some(Ok(line)));
        Some(match options.follow {
            true => lines.chain(stream::pending()).boxed(),
            false => lines.boxed(),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Created,
    Running,
    Stopped,
}

struct NullController {
    task_id: String,
    stage: Stage,
}

impl NullController {
    fn stop(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        if self.stage == Stage::Running {
            self.stage = Stage::Stopped;
        }
        ready(Ok(())).boxed()
    }
}

impl Controller for NullController {
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }

    fn start(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.stage = Stage::Running;
        ready(Ok(())).boxed()
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, Failure>> {
        match self.stage {
            Stage::Created => {
                ready(Err(Failure::Fatal("the task was not started".to_owned()))).boxed()
            }
            Stage::Running => pending().boxed(),
            Stage::Stopped => ready(Ok(Exit {
                code: Some(0),
                reason: String::new(),
            }))
            .boxed(),
        }
    }

    fn shutdown(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.stop()
    }

    fn remove(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.stop()
    }

    fn adopt(&mut self, last: v1::TaskState) -> BoxFuture<'_, Result<Adopted, Failure>> {
        let adopted = if last >= v1::TaskState::Starting {
            self.stage = Stage::Running;
            Adopted::Running
        } else {
            Adopted::Absent
        };
        ready(Ok(adopted)).boxed()
    }

    fn container(&self) -> Option<v1::ContainerStatus> {
        (self.stage != Stage::Created).then(|| v1::ContainerStatus {
            container_id: self.task_id.clone(),
            pid: 0,
            exit_code: 0,
        })
    }
}
