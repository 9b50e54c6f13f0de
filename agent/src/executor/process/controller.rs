//! One task's process: start, wait, stop, and find again after a restart.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid},
};
use skep_proto::v1::{self, TaskState};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Host, files,
    health::{Checks, Verdict},
    logs::{self, Collector, Pipes},
    look::{Found, look},
    needs::Needs,
    plan::Plan,
    signal,
    spawn::{self, Held},
};
use crate::{
    dependencies::Dependencies,
    executor::{Adopted, Controller, Exit, Failure, TaskContext},
};

/// How long a killed process may take to end: one in a hanging disk access takes its time.
const KILL_TIME: Duration = Duration::from_secs(10);
/// Reported as exit code if nobody knows it: no process can exit with it.
const UNKNOWN_CODE: i32 = -1;

pub(super) struct ProcessController {
    host: Host,
    task_id: String,
    dir: PathBuf,
    dependencies: Dependencies,
    /// The process to run, or why there can be none.
    plan: Result<Plan, String>,
    stage: Stage,
    /// The number of the last process, for the status.
    pid: Option<Pid>,
    /// Keeps what it writes.
    collector: Option<Collector>,
    checks: Option<Checks>,
    /// Why it was stopped, if checks found it unhealthy.
    unhealthy: Option<String>,
}

enum Stage {
    Idle,
    /// A thread is at it; it finishes even if nobody waits any more, so it must be waited for.
    Starting(JoinHandle<Result<(Held, Option<Pipes>), String>>),
    Running(Running),
    Ended(Exit),
}

struct Running {
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: AsyncFd<OwnedFd>,
}

impl ProcessController {
    pub(super) fn new(host: Host, context: TaskContext) -> Self {
        let plan = Plan::new(&context.task);
        let health = plan.as_ref().ok().and_then(|plan| plan.health.clone());
        Self {
            host,
            task_id: context.task.id.clone(),
            dir: context.dir,
            dependencies: context.dependencies,
            plan,
            stage: Stage::Idle,
            pid: None,
            collector: None,
            checks: health.map(Checks::new),
            unhealthy: None,
        }
    }

    fn plan(&self) -> Result<&Plan, Failure> {
        self.plan
            .as_ref()
            .map_err(|reason| Failure::Fatal(reason.clone()))
    }

    fn hold(&mut self, held: Held, pipes: Option<Pipes>) -> Result<(), Failure> {
        let options = self.plan.as_ref().ok().and_then(|plan| plan.logs);
        self.collector = pipes.zip(options).and_then(|(pipes, options)| {
            // Without its output a task is still worth more than none.
            Collector::start(&self.dir, options, pipes)
                .inspect_err(|error| {
                    tracing::error!(task_id = self.task_id, %error, "cannot keep a task's output");
                })
                .ok()
        });
        let pidfd = watch(held.pidfd).map_err(|error| {
            spawn::kill_group(held.pid, Signal::KILL);
            Failure::Fatal(format!("cannot watch the process: {error}"))
        })?;
        if let Some(checks) = &mut self.checks {
            checks.begin();
        }
        self.pid = Some(held.pid);
        self.stage = Stage::Running(Running {
            pid: held.pid,
            pidfd,
        });
        Ok(())
    }

    /// Waits for a start that is under way.
    async fn finish_start(&mut self) -> Result<(), Failure> {
        let Stage::Starting(thread) = &mut self.stage else {
            return Ok(());
        };
        let started = thread.await;
        self.stage = Stage::Idle;
        let held = started.map_err(|error| Failure::Fatal(format!("the start failed: {error}")))?;
        let (held, pipes) = held.map_err(Failure::Fatal)?;
        self.hold(held, pipes)
    }

    async fn prepare(&mut self) -> Result<(), Failure> {
        let prepared = match self.plan.clone() {
            Ok(plan) => {
                let needs = self.needs(plan);
                blocking(move || Ok(needs.check().and_then(|()| needs.provide()))).await?
            }
            Err(reason) => Err(reason),
        };
        prepared.map_err(|reason| {
            self.end_log();
            Failure::Fatal(reason)
        })
    }

    async fn start(&mut self) -> Result<(), Failure> {
        if let Stage::Idle = self.stage {
            let needs = self.needs(self.plan()?.clone());
            self.stage = Stage::Starting(tokio::task::spawn_blocking(move || {
                // What was prepared may be gone if the machine was restarted since.
                if !needs.are_there() {
                    needs.provide()?;
                }
                let Needs {
                    host,
                    task_id,
                    dir,
                    plan,
                    ..
                } = &needs;
                spawn::spawn(host, task_id, dir, plan)
            }));
        }
        self.finish_start().await?;
        if let Stage::Running(_) = self.stage
            && !self.until_healthy().await?
        {
            let exit = self.collect().await?;
            if !exit.is_success() {
                return Err(Failure::Fatal(exit.reason));
            }
        }
        Ok(())
    }

    /// Waits until the checks find the process healthy, if there are any; `false` if it ended.
    async fn until_healthy(&mut self) -> Result<bool, Failure> {
        loop {
            let verdict = match self.next_check().await? {
                Some(verdict) => verdict,
                None => return Ok(false),
            };
            match verdict {
                Verdict::Healthy => return Ok(true),
                Verdict::Unknown => {}
                Verdict::Unhealthy(why) => return Err(self.end_unhealthy(why).await),
            }
        }
    }

    /// The outcome of the next check, healthy at once without checks; `None` if the process ended.
    async fn next_check(&mut self) -> Result<Option<Verdict>, Failure> {
        let needs = self.needs(self.plan()?.clone());
        let (Stage::Running(running), Some(checks)) = (&self.stage, &mut self.checks) else {
            return Ok(Some(Verdict::Healthy));
        };
        tokio::select! {
            biased;
            ended = running.ended() => ended.map(|()| None),
            verdict = checks.next(&needs) => Ok(Some(verdict)),
        }
    }

    /// Stops a process that checks found unhealthy, as it would be stopped by order.
    async fn end_unhealthy(&mut self, why: String) -> Failure {
        self.unhealthy = Some(why.clone());
        let (signal, grace) = self.way_to_stop();
        match self.stop(signal, grace).await {
            Ok(()) => Failure::Fatal(why),
            Err(failure) => failure,
        }
    }

    fn needs(&self, plan: Plan) -> Needs {
        Needs {
            host: self.host.clone(),
            task_id: self.task_id.clone(),
            dir: self.dir.clone(),
            dependencies: self.dependencies.clone(),
            plan,
        }
    }

    async fn wait(&mut self) -> Result<Exit, Failure> {
        if let Some(why) = self.unhealthy.clone() {
            return Err(self.end_unhealthy(why).await);
        }
        match &self.stage {
            Stage::Running(_) if self.checks.is_some() => {
                while let Some(verdict) = self.next_check().await? {
                    if let Verdict::Unhealthy(why) = verdict {
                        return Err(self.end_unhealthy(why).await);
                    }
                }
                self.collect().await
            }
            Stage::Running(running) => {
                running.ended().await?;
                self.collect().await
            }
            Stage::Ended(exit) => {
                let exit = exit.clone();
                self.settle().await;
                Ok(exit)
            }
            Stage::Idle | Stage::Starting(_) => {
                Err(Failure::Fatal("the process was not started".to_owned()))
            }
        }
    }

    fn way_to_stop(&self) -> (Signal, Duration) {
        match &self.plan {
            Ok(plan) => (plan.stop_signal, plan.grace),
            Err(_) => (Signal::KILL, Duration::ZERO),
        }
    }

    async fn stop(&mut self, signal: Signal, grace: Duration) -> Result<(), Failure> {
        // A start that failed left nothing to stop.
        let _ = self.finish_start().await;
        let Stage::Running(running) = &self.stage else {
            self.settle().await;
            self.end_log();
            return Ok(());
        };
        let mut ended = false;
        if !grace.is_zero() {
            spawn::kill_group(running.pid, signal);
            ended = timeout(grace, running.ended()).await.is_ok();
        }
        if !ended {
            spawn::kill_group(running.pid, Signal::KILL);
            let killed = timeout(KILL_TIME, running.ended()).await;
            killed.map_err(|_| {
                let pid = running.pid.as_raw_nonzero();
                Failure::Temporary(format!("process {pid} was killed but does not end"))
            })??;
        }
        self.collect().await.map(drop)
    }

    /// After the end of the process: ends what is left of its group and takes its exit status.
    async fn collect(&mut self) -> Result<Exit, Failure> {
        let Stage::Running(running) = &self.stage else {
            return Err(Failure::Fatal("the process is not held".to_owned()));
        };
        let exit = match running.reap() {
            Ok(Some(status)) => {
                let mut exit = exit_of(&status);
                if !exit.is_success() && self.host.cgroups.was_killed_for_memory(&self.task_id) {
                    exit.reason += ": it used more memory than its limit";
                }
                exit
            }
            Ok(None) => return Err(Failure::Temporary("the process has not ended".to_owned())),
            // Not our child: it was started by an earlier daemon, and its number may mean
            // another process by now. The mark does not lie.
            Err(Errno::CHILD) => {
                let task_id = self.task_id.clone();
                blocking(move || spawn::kill_marked(&task_id)).await?;
                Exit {
                    code: None,
                    reason: "the exit code is unknown: the daemon that started the process was \
                             not running when it ended"
                        .to_owned(),
                }
            }
            Err(error) => return Err(Failure::Temporary(format!("cannot wait: {error}"))),
        };
        self.stage = Stage::Ended(exit.clone());
        self.settle().await;
        Ok(exit)
    }

    /// Removes what the task had outside its directory.
    async fn clear(&self) -> Result<(), Failure> {
        let (task_id, dir) = (self.task_id.clone(), self.dir.clone());
        let cgroups = self.host.cgroups.clone();
        blocking(move || {
            files::remove(&task_id, &dir)?;
            cgroups.remove(&task_id)
        })
        .await
    }

    /// After the end: keeps what the process has left in its pipes, and removes its secrets. May be
    /// dropped and called again.
    async fn settle(&mut self) {
        if let Some(collector) = &mut self.collector {
            collector.finish().await;
            self.collector = None;
        }
        let outside = |plan: &Plan| !(plan.files.is_empty() && plan.limits.group.is_empty());
        // What cannot be removed now is removed with the task.
        if self.plan.as_ref().is_ok_and(outside)
            && let Err(failure) = self.clear().await
        {
            tracing::warn!(task_id = self.task_id, %failure, "cannot clear a task's place yet");
        }
    }

    /// Tells those who follow the log that nothing more comes.
    fn end_log(&self) {
        if let Err(error) = logs::end(&self.dir) {
            tracing::warn!(task_id = self.task_id, %error, "cannot end a task's log");
        }
    }

    async fn adopt(&mut self, last: TaskState) -> Result<Adopted, Failure> {
        let (task_id, dir) = (self.task_id.clone(), self.dir.clone());
        let found = blocking(move || look(&task_id, &dir, last)).await?;
        match found {
            Found::Process(held, pipes) => self.hold(held, pipes).map(|()| Adopted::Running),
            Found::Nothing(adopted) => {
                if adopted != Adopted::Absent {
                    self.settle().await;
                    self.end_log();
                }
                Ok(adopted)
            }
        }
    }
}

impl Running {
    async fn ended(&self) -> Result<(), Failure> {
        match self.pidfd.readable().await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Temporary(format!(
                "cannot watch the process: {error}"
            ))),
        }
    }

    /// Takes the exit status of our child, and ends the rest of its group while the unreaped
    /// child still keeps the number of the group from meaning anything else.
    fn reap(&self) -> Result<Option<WaitIdStatus>, Errno> {
        let wait = |options| {
            let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
            waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | options)
        };
        if wait(WaitIdOptions::NOWAIT)?.is_none() {
            return Ok(None);
        }
        spawn::kill_group(self.pid, Signal::KILL);
        wait(WaitIdOptions::empty())
    }
}

#[allow(
    deprecated,
    reason = "sound here: an `OwnedFd` is always open and the same; the successor needs unsafe code"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    if let Some(code) = status.exit_status() {
        return Exit {
            code: Some(code),
            reason: format!("exited with code {code}"),
        };
    }
    match status.terminating_signal() {
        Some(number) => Exit {
            code: Some(128 + number),
            reason: format!("killed by signal {number} ({})", signal::name(number)),
        },
        None => Exit {
            code: None,
            reason: "the exit code is unknown".to_owned(),
        },
    }
}

/// Runs file and `/proc` work on a thread made for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Temporary(error.to_string())),
        Err(error) => Err(Failure::Temporary(error.to_string())),
    }
}

impl Controller for ProcessController {
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
        let (signal, grace) = self.way_to_stop();
        self.stop(signal, grace).boxed()
    }

    fn remove(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        async {
            self.stop(Signal::KILL, Duration::ZERO).await?;
            self.clear().await
        }
        .boxed()
    }

    fn adopt(&mut self, last: TaskState) -> BoxFuture<'_, Result<Adopted, Failure>> {
        self.adopt(last).boxed()
    }

    fn container(&self) -> Option<v1::ContainerStatus> {
        let pid = self.pid?;
        let exit_code = match &self.stage {
            Stage::Ended(exit) => exit.code.unwrap_or(UNKNOWN_CODE),
            Stage::Idle | Stage::Starting(_) | Stage::Running(_) => 0,
        };
        Some(v1::ContainerStatus {
            container_id: self.task_id.clone(),
            pid: pid.as_raw_nonzero().get(),
            exit_code,
        })
    }
}
