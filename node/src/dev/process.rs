//! One `swarmd` process of a development cluster.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use skep_agent::executor::process::end_leftovers;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::layout::Member;
use crate::{
    args::{Log, LogFormat},
    state_dir,
};

/// How long a node may take to stop its tasks and itself before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// Settings of a node by the environment. Those of the user's shell are for other nodes.
const SETTINGS: [&str; 8] = [
    "SWARM_STATE_DIR",
    "SWARM_JOIN_ADDR",
    "SWARM_JOIN_TOKEN",
    "SWARM_LISTEN_REMOTE_API",
    "SWARM_ADVERTISE_ADDR",
    "SWARM_SOCKET",
    "SWARM_HOSTNAME",
    "SWARM_EXECUTOR",
];

/// How a node ended.
pub struct Ended {
    /// Which one, how, and why.
    pub what: String,
    /// What starts it again.
    pub command: String,
}

/// A started node.
pub struct Process {
    name: String,
    dir: PathBuf,
    manager: bool,
    log: PathBuf,
    /// How to start it again by hand.
    command: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `member`, which joins at an address with a token if it has not been in a cluster.
    pub fn spawn(
        member: &Member,
        join: Option<(String, &str)>,
        bare: bool,
        log: &Log,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(member.dir())
            .with_context(|| format!("making {}", member.dir().display()))?;
        let program = std::env::current_exe().context("finding this program")?;
        let path = |path: &Path| path.display().to_string();
        let mut args = vec!["--state-dir".to_owned(), path(member.dir())];
        let mut add = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        add("--hostname", member.name());
        add("--on-stop", "stop");
        add("--executor", "process");
        // A worker has no use for them, but tries the places that it is to have as a manager.
        let any_port = || "127.0.0.1:0".to_owned();
        add(
            "--listen-remote-api",
            &member.listen().unwrap_or_else(any_port),
        );
        add("--listen-control-api", &path(member.socket()));
        if bare && member.is_manager() {
            add("--availability", "drain");
        }
        let command = [path(&program)]
            .iter()
            .chain(&args)
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" ");
        let log_path = member.dir().join("swarmd.log");
        let output = File::options()
            .append(true)
            .create(true)
            .open(&log_path)
            .with_context(|| format!("opening {}", log_path.display()))?;
        let mut child = Command::new(program);
        child.args(&args).arg("--exit-with-parent");
        for setting in SETTINGS {
            child.env_remove(setting);
        }
        if let Some((addr, token)) = join {
            // Not on the command line, which everyone on the machine can read.
            child
                .env("SWARM_JOIN_ADDR", addr)
                .env("SWARM_JOIN_TOKEN", token);
        }
        child
            .env("SWARM_LOG_LEVEL", &log.log_level)
            .env(
                "SWARM_LOG_FORMAT",
                match log.log_format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                },
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is for us alone: the order in which nodes stop is ours.
            .process_group(0);
        let child = child.spawn().context("starting a node")?;
        Ok(Self {
            name: member.name().to_owned(),
            dir: member.dir().to_owned(),
            manager: member.is_manager(),
            log: log_path,
            command,
            child,
            status: None,
        })
    }

    /// Whether it was started as a manager.
    pub fn is_manager(&self) -> bool {
        self.manager
    }

    /// Whether its end has been told.
    pub fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Waits for its end and tells of it.
    pub async fn ended(&mut self) -> Ended {
        let what = match self.child.wait().await {
            Ok(status) => self.told(status),
            Err(err) => format!("{} cannot be watched: {err}", self.name),
        };
        Ended {
            what,
            command: self.command.clone(),
        }
    }

    fn told(&mut self, status: ExitStatus) -> String {
        self.status = Some(status);
        let reason = last_line(&self.log)
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        let reason = if status.code().is_some() {
            reason
        } else {
            String::new()
        };
        format!("{} ended ({status}){reason}", self.name)
    }

    /// Stops it, also if someone has started it again since, and what it has left running.
    pub async fn stop(&mut self) {
        if let Some(pid) = self.pid() {
            // It may be gone already.
            let _ = kill_process(pid, Signal::TERM);
            if timeout(GRACE, self.gone(pid)).await.is_err() {
                let _ = kill_process(pid, Signal::KILL);
                let _ = timeout(GRACE, self.gone(pid)).await;
            }
        }
        self.end_tasks();
    }

    /// Kills it, also if someone has started it again since, and what it has left running.
    pub async fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::KILL);
            let _ = timeout(GRACE, self.gone(pid)).await;
        }
        self.end_tasks();
    }

    /// The process that runs the node now.
    fn pid(&self) -> Option<Pid> {
        let started = self.child.id().and_then(|id| i32::try_from(id).ok());
        started
            .or_else(|| state_dir::owner(&self.dir))
            .and_then(Pid::from_raw)
    }

    fn end_tasks(&self) {
        if let Err(err) = end_leftovers(&self.dir) {
            tracing::error!(%err, "tasks of {} may be left", self.name);
        }
    }

    async fn gone(&mut self, pid: Pid) {
        // Ours has to be waited for, or it stays as a zombie. The status is of no interest.
        let _ = self.child.wait().await;
        let mut pause = Duration::from_millis(10);
        let patience = Instant::now() + GRACE;
        while state_dir::owner(&self.dir) == Some(pid.as_raw_nonzero().get())
            && test_kill_process(pid).is_ok()
            && Instant::now() < patience
        {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}

/// `word` as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The last line of a log, without its colours. It says why a daemon ended.
fn last_line(path: &Path) -> Option<String> {
    const TAIL: u64 = 4096;
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("/a/b-c_1:2"), "/a/b-c_1:2");
        assert_eq!(quoted("/my cluster/it's"), r"'/my cluster/it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
