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
    logs::{self, Collector, Pipes},
    plan::Plan,
    procfs,
    record::Record,
    signal,
    spawn::{self, Held},
};
use crate::executor::{Adopted, Controller, Exit, Failure};

/// How long a killed process may take to end: one in a hanging disk access takes its time.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How long a forked process may take to become the command it was forked for.
const EXEC_TIME: Duration = Duration::from_millis(200);
/// Reported as exit code if nobody knows it: no process can exit with it.
const UNKNOWN_CODE: i32 = -1;

pub(super) struct ProcessController {
    task_id: String,
    dir: PathBuf,
    /// The process to run, or why there can be none.
    plan: Result<Plan, String>,
    stage: Stage,
    /// The number of the last process, for the status.
    pid: Option<Pid>,
    /// Keeps what it writes.
    collector: Option<Collector>,
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
    pub(super) fn new(task: &v1::Task, dir: PathBuf) -> Self {
        let plan = Plan::new(task);
        Self {
            task_id: task.id.clone(),
            dir,
            plan,
            stage: Stage::Idle,
            pid: None,
            collector: None,
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
            Ok(plan) => blocking(move || Ok(plan.check())).await?,
            Err(reason) => Err(reason),
        };
        prepared.map_err(|reason| {
            self.end_log();
            Failure::Fatal(reason)
        })
    }

    async fn start(&mut self) -> Result<(), Failure> {
        if let Stage::Idle = self.stage {
            let (task_id, dir) = (self.task_id.clone(), self.dir.clone());
            let plan = self.plan()?.clone();
            self.stage = Stage::Starting(tokio::task::spawn_blocking(move || {
                spawn::spawn(&task_id, &dir, &plan)
            }));
        }
        self.finish_start().await
    }

    async fn wait(&mut self) -> Result<Exit, Failure> {
        match &self.stage {
            Stage::Running(running) => {
                running.ended().await?;
                self.collect().await
            }
            Stage::Ended(exit) => {
                let exit = exit.clone();
                self.finish_log().await;
                Ok(exit)
            }
            Stage::Idle | Stage::Starting(_) => {
                Err(Failure::Fatal("the process was not started".to_owned()))
            }
        }
    }

    async fn stop(&mut self, signal: Signal, grace: Duration) -> Result<(), Failure> {
        // A start that failed left nothing to stop.
        let _ = self.finish_start().await;
        let Stage::Running(running) = &self.stage else {
            self.finish_log().await;
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
            Ok(Some(status)) => exit_of(&status),
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
        self.finish_log().await;
        Ok(exit)
    }

    /// Keeps what the process has left in its pipes. May be dropped and called again.
    async fn finish_log(&mut self) {
        if let Some(collector) = &mut self.collector {
            collector.finish().await;
            self.collector = None;
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

enum Found {
    Process(Held, Option<Pipes>),
    Nothing(Adopted),
}

/// Looks for what an earlier daemon started; blocks.
fn look(task_id: &str, dir: &std::path::Path, last: TaskState) -> io::Result<Found> {
    let gone = |text: &str| Ok(Found::Nothing(Adopted::Gone(text.to_owned())));
    let Some(mut record) = Record::load(dir)? else {
        return if last >= TaskState::Running {
            gone("the process is not known on this node any more")
        } else {
            Ok(Found::Nothing(Adopted::Absent))
        };
    };
    if record.boot_id != procfs::boot_id()? {
        return gone("the process ended when the machine restarted; its exit code is unknown");
    }
    let held = match record.process {
        Some(process) => spawn::find(process),
        None => {
            let mut found = spawn::find_marked(task_id)?;
            if found.is_none() {
                // The old daemon may have died between fork and exec: the mark comes with exec.
                std::thread::sleep(EXEC_TIME);
                found = spawn::find_marked(task_id)?;
            }
            match found {
                Some((held, process)) => {
                    record.process = Some(process);
                    record.save(dir)?;
                    Some(held)
                }
                None => None,
            }
        }
    };
    if let Some(held) = held {
        return Ok(Found::Process(held, Pipes::find(dir)?));
    }
    // Its leader is gone: what is left of it must not outlive the task.
    spawn::kill_marked(task_id)?;
    gone(
        "the process ended while the daemon was not running; its exit code is unknown because \
         the daemon was not its parent any more",
    )
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
        let (signal, grace) = match &self.plan {
            Ok(plan) => (plan.stop_signal, plan.grace),
            Err(_) => (Signal::KILL, Duration::ZERO),
        };
        self.stop(signal, grace).boxed()
    }

    fn remove(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.stop(Signal::KILL, Duration::ZERO).boxed()
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
