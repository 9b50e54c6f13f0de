//! One task's container: prepare, start, wait, stop, and find again after a restart.

use std::{path::PathBuf, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use skep_proto::v1::{self, TaskState};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{
    LABEL_TASK,
    engine::{Engine, Seen},
    files::{self, Trouble},
    image,
    plan::Plan,
    watch::{Became, gone, watch},
};
use crate::{
    dependencies::Dependencies,
    executor::{Adopted, Controller, Exit, Failure, TaskContext},
};

/// How long after a restart of the daemon a manager may take to send what tasks need: they resume
/// before there is a session.
const SESSION: Duration = Duration::from_secs(30);
/// Seconds of grace for a task of which nothing is known any more.
const UNKNOWN_GRACE: i32 = 10;

pub(super) struct DockerController {
    engine: Engine,
    task_id: String,
    dir: PathBuf,
    dependencies: Dependencies,
    /// The container to make, or why there can be none.
    plan: Result<Plan, String>,
    /// The container's ID, once it is known.
    container: Option<String>,
    /// A call that changes something at the engine. It is finished even if nobody waits for it any
    /// more, so it must be waited for: what comes next would otherwise overtake it.
    call: Option<AbortOnDropHandle<Result<Done, Failure>>>,
    status: Option<v1::ContainerStatus>,
    ports: Option<v1::PortStatus>,
    ended: Option<Exit>,
    /// When the task was taken up after a restart.
    adopted: Option<Instant>,
}

enum Done {
    Created(String),
    Started,
}

impl DockerController {
    pub(super) fn new(engine: Engine, context: TaskContext) -> Self {
        Self {
            engine,
            task_id: context.task.id.clone(),
            plan: Plan::new(&context.task),
            dir: context.dir,
            dependencies: context.dependencies,
            container: None,
            call: None,
            status: None,
            ports: None,
            ended: None,
            adopted: None,
        }
    }

    fn grace(&self) -> i32 {
        self.plan.as_ref().map_or(UNKNOWN_GRACE, |plan| plan.grace)
    }

    /// Waits for the call that is under way.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some(call) = &mut self.call else {
            return Ok(());
        };
        let done = call.await;
        self.call = None;
        match done {
            Ok(Ok(Done::Created(id))) => self.container = Some(id),
            Ok(Ok(Done::Started)) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(defect) => return Err(Failure::Fatal(format!("a call failed: {defect}"))),
        }
        Ok(())
    }

    /// The container's ID, asked of the engine if it is not known.
    async fn find(&mut self) -> Result<Option<String>, Failure> {
        if self.container.is_none() {
            let found = self.engine.labelled(LABEL_TASK, &self.task_id).await?;
            self.container = found.into_iter().find_map(|it| it.id);
        }
        Ok(self.container.clone())
    }

    async fn prepare(&mut self) -> Result<(), Failure> {
        let interrupted = self.call.is_some();
        self.settle().await?;
        if interrupted && self.container.is_some() {
            return Ok(());
        }
        let plan = self.plan.clone().map_err(Failure::Fatal)?;
        plan.check(&self.engine.api()).map_err(Failure::Fatal)?;
        for network in plan.networks() {
            if !self.engine.has_network(&network).await? {
                return Err(Failure::Fatal(format!(
                    "the engine of this node has no network {network:?}: make it with `docker \
                     network create`"
                )));
            }
        }
        image::ensure(&self.engine, &plan).await?;
        if let Some(id) = self.find().await? {
            // One that a daemon made just before it died. Nobody knows how far it got.
            self.engine.remove(&id).await?;
            self.container = None;
        }
        let mounts = self.files(&plan)?;
        let engine = self.engine.clone();
        self.call = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            create(&engine, plan, mounts).await.map(Done::Created)
        })));
        self.settle().await
    }

    /// Writes the files for secrets and configs.
    fn files(&self, plan: &Plan) -> Result<Vec<bollard::models::Mount>, Failure> {
        let written = files::write(&self.task_id, &self.dir, &plan.files, &self.dependencies);
        written.map_err(|trouble| match trouble {
            Trouble::Missing(why) if self.adopted.is_some_and(|it| it.elapsed() < SESSION) => {
                Failure::Temporary(why)
            }
            Trouble::Missing(why) | Trouble::Other(why) => Failure::Fatal(why),
        })
    }

    async fn start(&mut self) -> Result<(), Failure> {
        self.settle().await?;
        if self.find().await?.is_none() {
            self.prepare().await?;
        }
        let id = self.container.clone().ok_or_else(gone)?;
        let seen = self.engine.look(&id).await?.ok_or_else(gone)?;
        // A start that was cut off has come so far; what has ended must not run again.
        if seen.fresh {
            let (engine, id) = (self.engine.clone(), id.clone());
            self.call = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                engine.start(&id).await.map(|()| Done::Started)
            })));
            self.settle().await?;
        }
        let seen = self.engine.look(&id).await?.ok_or_else(gone)?;
        self.note(&id, &seen);
        if !seen.running || seen.health.is_none() {
            return Ok(());
        }
        match watch(&self.engine, &id, true).await? {
            Became::Healthy => Ok(()),
            // How it ended is the next step's business.
            Became::Ended(seen) => {
                self.note(&id, &seen);
                Ok(())
            }
            Became::Unhealthy => {
                let exit = self.end_unhealthy(&id).await?;
                Err(Failure::Fatal(exit.reason))
            }
        }
    }

    async fn wait(&mut self) -> Result<Exit, Failure> {
        if let Some(exit) = &self.ended {
            return Ok(exit.clone());
        }
        let not_started = || Failure::Fatal("the container was not started".to_owned());
        let id = self.container.clone().ok_or_else(not_started)?;
        match watch(&self.engine, &id, false).await? {
            Became::Ended(seen) => {
                self.note(&id, &seen);
                let exit = exit(&seen);
                self.ended = Some(exit.clone());
                Ok(exit)
            }
            Became::Unhealthy => self.end_unhealthy(&id).await,
            Became::Healthy => Err(Failure::Temporary("the container is well".to_owned())),
        }
    }

    /// Stops a container that its health check has given up.
    async fn end_unhealthy(&mut self, id: &str) -> Result<Exit, Failure> {
        self.engine.stop(id, self.grace()).await?;
        let seen = self.engine.look(id).await?.ok_or_else(gone)?;
        self.note(id, &seen);
        let exit = Exit {
            // It may well end with 0 when it is asked to; its work is not done.
            code: Some(seen.exit_code).filter(|code| *code != 0),
            reason: format!(
                "task: non-zero exit ({}): unhealthy container",
                seen.exit_code
            ),
        };
        self.ended = Some(exit.clone());
        Ok(exit)
    }

    async fn shutdown(&mut self) -> Result<(), Failure> {
        // A start that failed left nothing to stop, or what is found now.
        let _ = self.settle().await;
        let Some(id) = self.find().await? else {
            return Ok(());
        };
        if self.engine.look(&id).await?.is_some_and(|it| it.running) {
            self.engine.stop(&id, self.grace()).await?;
        }
        let Some(seen) = self.engine.look(&id).await? else {
            return Ok(());
        };
        if seen.running {
            let why = "the container was stopped but does not end";
            return Err(Failure::Temporary(why.to_owned()));
        }
        if self.status.is_some() {
            self.note(&id, &seen);
            self.ended.get_or_insert_with(|| exit(&seen));
        }
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), Failure> {
        let _ = self.settle().await;
        for container in self.engine.labelled(LABEL_TASK, &self.task_id).await? {
            if let Some(id) = container.id {
                self.engine.remove(&id).await?;
            }
        }
        files::remove(&self.task_id);
        Ok(())
    }

    async fn adopt(&mut self, last: TaskState) -> Result<Adopted, Failure> {
        self.adopted = Some(Instant::now());
        let seen = match self.find().await? {
            Some(id) => self.engine.look(&id).await?.map(|seen| (id, seen)),
            None => None,
        };
        let Some((id, seen)) = seen else {
            return Ok(if last >= TaskState::Starting {
                Adopted::Gone("the container is not known to the engine any more".to_owned())
            } else {
                Adopted::Absent
            });
        };
        if seen.fresh {
            return Ok(Adopted::Absent);
        }
        self.note(&id, &seen);
        // One that starts has yet to become healthy, which is what a start waits for.
        let starting = last < TaskState::Running && seen.running && seen.health.is_some();
        Ok(if starting {
            Adopted::Absent
        } else {
            // Also one that has ended: the engine knows how, and `wait` will tell.
            Adopted::Running
        })
    }

    fn note(&mut self, id: &str, seen: &Seen) {
        // What has ended is known by the process it was.
        let before = self.status.as_ref().map_or(0, |status| status.pid);
        self.status = Some(v1::ContainerStatus {
            container_id: id.to_owned(),
            pid: if seen.running { seen.pid } else { before },
            exit_code: seen.exit_code,
        });
        self.ports = Some(v1::PortStatus {
            ports: seen.ports.clone(),
        });
    }
}

async fn create(
    engine: &Engine,
    plan: Plan,
    files: Vec<bollard::models::Mount>,
) -> Result<String, Failure> {
    let mut body = plan.body;
    if !files.is_empty() {
        let host = body.host_config.get_or_insert_default();
        host.mounts.get_or_insert_default().extend(files);
    }
    let id = engine.create(&plan.name, body).await?;
    for network in plan.further {
        engine.attach(&id, network).await?;
    }
    Ok(id)
}

fn exit(seen: &Seen) -> Exit {
    let code = seen.exit_code;
    let mut reason = format!("task: non-zero exit ({code})");
    if seen.oom_killed {
        reason += ": out of memory: the kernel killed it at its limit";
    }
    if !seen.error.is_empty() {
        reason = format!("{reason}: {}", seen.error);
    }
    Exit {
        code: Some(code),
        reason,
    }
}

impl Controller for DockerController {
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.prepare().boxed()
    }

    fn start(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.start().boxed()
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, Failure>> {
        self.wait().boxed()
    }

    fn shutdown(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.shutdown().boxed()
    }

    fn remove(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.remove().boxed()
    }

    fn adopt(&mut self, last: TaskState) -> BoxFuture<'_, Result<Adopted, Failure>> {
        self.adopt(last).boxed()
    }

    fn container(&self) -> Option<v1::ContainerStatus> {
        self.status.clone()
    }

    fn ports(&self) -> Option<v1::PortStatus> {
        self.ports.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_tells_why() {
        let seen = Seen {
            exit_code: 137,
            oom_killed: true,
            ..Seen::default()
        };
        assert!(exit(&seen).reason.contains("(137): out of memory"));
        assert!(exit(&Seen::default()).is_success());
        let seen = Seen {
            exit_code: 127,
            error: "no such file".into(),
            ..Seen::default()
        };
        assert_eq!(
            exit(&seen).reason,
            "task: non-zero exit (127): no such file"
        );
    }
}
