//! Health checks: a command that is run in the task's surroundings, and what follows from its
//! outcomes, by the rules and defaults of Docker.

use std::{io::PipeReader, os::fd::OwnedFd, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal};
use skep_proto::v1;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe::Receiver,
    time::{Instant, sleep_until, timeout},
};

use super::{needs::Needs, spawn};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Less than Docker takes; so no check makes the agent spin.
const SHORTEST: Duration = Duration::from_millis(1);
/// How much of a check's output is told.
const MAX_OUTPUT: usize = 500;

/// How a task is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Health {
    /// What the spec says, `None` for no checks.
    pub(super) fn of(spec: &v1::ContainerSpec) -> Result<Option<Self>, String> {
        let Some(config) = &spec.healthcheck else {
            return Ok(None);
        };
        let words: Vec<_> = config.test.iter().map(String::as_str).collect();
        let command = match words.as_slice() {
            // What an image brings, which is nothing here.
            [] | ["NONE"] => return Ok(None),
            ["CMD", command @ ..] if !command.is_empty() => command.to_vec(),
            ["CMD-SHELL", line] => vec!["/bin/sh", "-c", line],
            _ => {
                return Err(format!(
                    "health check {words:?} makes no sense: use CMD with a command, CMD-SHELL with a \
                     line, or NONE"
                ));
            }
        };
        // Absent, zero and what is negative mean the default.
        let or = |value: Option<skep_proto::Duration>, default| {
            let value = value.and_then(|value| Duration::try_from(value).ok());
            value.filter(|value| !value.is_zero()).unwrap_or(default)
        };
        Ok(Some(Self {
            command: command.into_iter().map(str::to_owned).collect(),
            interval: or(config.interval, INTERVAL).max(SHORTEST),
            timeout: or(config.timeout, TIMEOUT).max(SHORTEST),
            start_period: or(config.start_period, Duration::ZERO),
            start_interval: or(config.start_interval, START_INTERVAL).max(SHORTEST),
            retries: u32::try_from(config.retries)
                .ok()
                .filter(|retries| *retries > 0)
                .unwrap_or(RETRIES),
        }))
    }
}

/// What is known after a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Healthy,
    Unknown,
    Unhealthy(String),
}

/// The checks of one process.
#[derive(Debug)]
pub(super) struct Checks {
    health: Health,
    /// When the process started, or was found again.
    start: Instant,
    /// When the last check ended.
    last: Instant,
    healthy_once: bool,
    failures: u32,
}

impl Checks {
    pub(super) fn new(health: Health) -> Self {
        let now = Instant::now();
        Self {
            health,
            start: now,
            last: now,
            healthy_once: false,
            failures: 0,
        }
    }

    /// The process starts now.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.health.clone());
    }

    fn starting(&self, now: Instant) -> bool {
        !self.healthy_once && now < self.start + self.health.start_period
    }

    /// Waits for the next check and performs it. May be dropped, which ends the check.
    pub(super) async fn next(&mut self, needs: &Needs) -> Verdict {
        let pause = if self.starting(self.last) {
            self.health.start_interval.min(self.health.interval)
        } else {
            self.health.interval
        };
        sleep_until(self.last + pause).await;
        let result = probe(needs, &self.health).await;
        self.last = Instant::now();
        self.judge(self.last, result)
    }

    fn judge(&mut self, now: Instant, result: Result<(), String>) -> Verdict {
        match result {
            Ok(()) => {
                self.healthy_once = true;
                self.failures = 0;
                Verdict::Healthy
            }
            Err(_) if self.starting(now) => Verdict::Unknown,
            Err(why) => {
                self.failures += 1;
                if self.failures < self.health.retries {
                    return Verdict::Unknown;
                }
                let times = self.failures;
                Verdict::Unhealthy(format!(
                    "unhealthy: {times} checks failed, the last one: {why}"
                ))
            }
        }
    }
}

/// Runs the check once; the error says how it failed.
async fn probe(needs: &Needs, health: &Health) -> Result<(), String> {
    let needs = needs.clone();
    let words = health.command.clone();
    let started = tokio::task::spawn_blocking(move || Probe::start(&needs, words)).await;
    let mut probe = started.map_err(|error| error.to_string())??;
    match timeout(health.timeout, probe.run()).await {
        Err(_) => Err(format!("it took longer than {:?}", health.timeout)),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let output = String::from_utf8_lossy(&probe.output);
            Err(format!("{status}: {}", output.trim()))
        }
    }
}

/// A running check; dropping it ends it with all it started.
struct Probe {
    child: tokio::process::Child,
    group: Pid,
    pipe: Receiver,
    output: Vec<u8>,
}

impl Probe {
    /// Must be called within the runtime, on a thread that may block.
    fn start(needs: &Needs, words: Vec<String>) -> Result<Self, String> {
        let Needs {
            host,
            task_id,
            dir,
            plan,
            ..
        } = needs;
        let start = spawn::Start::new(host, task_id, dir, plan, words)?;
        let failed = |error: std::io::Error| start.failed(&error.to_string());
        let (mut command, socket) = start.command()?;
        let (reader, writer): (PipeReader, _) = std::io::pipe().map_err(failed)?;
        command
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        let pipe = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?;
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn().map_err(failed)?;
        drop(command);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let group = pid
            .and_then(Pid::from_raw)
            .ok_or("the check ended before it began")?;
        let probe = Self {
            child,
            group,
            pipe,
            output: Vec::new(),
        };
        start.release(group, socket)?;
        Ok(probe)
    }

    async fn run(&mut self) -> std::io::Result<ExitStatus> {
        let mut chunk = vec![0; 4096];
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                read = self.pipe.read(&mut chunk), if open => match read {
                    Ok(read @ 1..) => {
                        let room = MAX_OUTPUT - self.output.len();
                        self.output.extend_from_slice(&chunk[..read.min(room)]);
                    }
                    _ => open = false,
                },
                status = self.child.wait() => return status,
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Once the leader is reaped its number may mean others, and a check that ends by itself has
        // ended what it started.
        if self.child.id().is_some() {
            spawn::kill_group(self.group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        test: &[&str],
        change: impl FnOnce(&mut v1::HealthConfig),
    ) -> Result<Option<Health>, String> {
        let mut config = v1::HealthConfig {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            ..Default::default()
        };
        change(&mut config);
        Health::of(&v1::ContainerSpec {
            healthcheck: Some(config),
            ..Default::default()
        })
    }

    #[test]
    fn tests_are_commands_or_lines() {
        let command = |test: &[&str]| of(test, |_| ()).map(|it| it.map(|it| it.command));
        assert_eq!(Health::of(&v1::ContainerSpec::default()), Ok(None));
        assert_eq!(command(&[]), Ok(None));
        assert_eq!(command(&["NONE"]), Ok(None));
        assert_eq!(command(&["CMD", "true"]), Ok(Some(vec!["true".to_owned()])));
        let shell = command(&["CMD-SHELL", "a | b"]).unwrap().unwrap();
        assert_eq!(shell, ["/bin/sh", "-c", "a | b"]);
        for test in [
            &["CMD"][..],
            &["true"],
            &["CMD-SHELL"],
            &["CMD-SHELL", "a", "b"],
        ] {
            assert!(command(test).is_err(), "{test:?}");
        }
    }

    #[tokio::test]
    async fn failures_count_after_the_start_and_only_in_a_row() {
        let health = of(&["CMD", "x"], |config| {
            config.start_period = Some(skep_proto::Duration {
                seconds: 100,
                nanos: 0,
            });
            config.retries = 2;
        });
        let mut checks = Checks::new(health.unwrap().unwrap());
        let early = checks.start + Duration::from_secs(50);
        let late = checks.start + Duration::from_secs(101);
        let no = || Err("no".to_owned());
        for _ in 0..5 {
            assert_eq!(checks.judge(early, no()), Verdict::Unknown);
        }
        assert_eq!(checks.judge(late, no()), Verdict::Unknown);
        assert_eq!(checks.judge(late, Ok(())), Verdict::Healthy);
        assert_eq!(checks.judge(late, no()), Verdict::Unknown);
        let Verdict::Unhealthy(why) = checks.judge(late, no()) else {
            panic!("twice")
        };
        assert!(why.contains("unhealthy") && why.ends_with("no"), "{why}");
    }

    #[tokio::test]
    async fn once_healthy_the_start_is_over() {
        let health = of(&["CMD", "x"], |config| {
            config.start_period = Some(skep_proto::Duration {
                seconds: 100,
                nanos: 0,
            });
            config.retries = 1;
        });
        let mut checks = Checks::new(health.unwrap().unwrap());
        let early = checks.start + Duration::from_secs(50);
        assert_eq!(checks.judge(early, Ok(())), Verdict::Healthy);
        let verdict = checks.judge(early, Err("no".to_owned()));
        assert!(matches!(verdict, Verdict::Unhealthy(_)));
    }
}
