//! The embedded executor: tasks are processes of this host, and nothing needs to be installed.
//!
//! A task is a process group of its own. It lives on when the daemon ends: the record in the
//! task's directory and a mark in the process's environment lead the next daemon back to it.
//! There is no isolation here, and what a task asks for that a plain process cannot have is refused
//! with a reason, never silently left out.

mod cgroup;
mod controller;
mod files;
mod health;
mod launch;
mod leftovers;
mod limits;
pub(crate) mod logs;
mod look;
mod needs;
mod plan;
mod procfs;
pub(crate) mod record;
mod resources;
mod signal;
mod spawn;
mod user;

pub use self::{
    launch::{Launcher, launch},
    leftovers::end_leftovers,
};

use futures_util::stream::BoxStream;
use skep_proto::{executor, v1};

use self::{cgroup::Cgroups, controller::ProcessController};
use super::{Controller, Executor, Failure, LogLine, TaskContext};

/// Runs tasks as processes of this host.
#[derive(Clone, Debug, Default)]
pub struct ProcessExecutor {
    host: Host,
}

impl ProcessExecutor {
    /// One that can also limit tasks and give them groups. Without a launcher such tasks are refused.
    pub fn with_launcher(launcher: Launcher) -> Self {
        Self {
            host: Host {
                launcher: Some(launcher),
                ..Host::default()
            },
        }
    }
}

/// What of the host tasks are started with.
#[derive(Clone, Debug)]
struct Host {
    launcher: Option<Launcher>,
    cgroups: Cgroups,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            launcher: None,
            cgroups: Cgroups::of_host(),
        }
    }
}

impl Executor for ProcessExecutor {
    fn describe(&self, description: &mut v1::NodeDescription) {
        let plugin = |kind: &str, name: &str| v1::PluginDescription {
            r#type: kind.to_owned(),
            name: name.to_owned(),
        };
        if let Some(engine) = &mut description.engine {
            engine.plugins = vec![
                plugin(executor::PLUGIN, executor::PROCESS),
                plugin("Log", "json-file"),
                plugin("Log", "local"),
            ];
        }
    }

    fn controller(&self, context: TaskContext) -> Result<Box<dyn Controller>, Failure> {
        Ok(Box::new(ProcessController::new(self.host.clone(), context)))
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
