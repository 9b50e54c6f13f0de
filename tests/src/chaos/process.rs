//! A manager process as its parent sees it: started, killed, stopped, asked.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::child::{STARTED, TELL, TOKEN};

/// How long an answer of a manager that is neither stopped nor cut off may take.
const ANSWER: Duration = Duration::from_secs(60);

/// One manager, running or not.
pub struct Process {
    dir: PathBuf,
    listen: SocketAddr,
    via: Vec<(SocketAddr, SocketAddr)>,
    running: Option<Running>,
    /// Faults that have stopped it, and those that have killed it and are not over.
    stops: usize,
    kills: usize,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// One that listens on `listen` and reaches addresses `via` others.
    pub fn new(dir: PathBuf, listen: SocketAddr, via: Vec<(SocketAddr, SocketAddr)>) -> Self {
        Self {
            dir,
            listen,
            via,
            running: None,
            stops: 0,
            kills: 0,
        }
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    /// The file that it logs to.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts it. For the first time it needs to know whom to join, and the token; without, it
    /// founds a cluster. To be called on the main thread, with whose end it is killed.
    pub fn start(&mut self, join: Option<(SocketAddr, &str)>) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let log = File::options().append(true).create(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("manager");
        command.arg("--state-dir").arg(&self.dir);
        command.arg("--socket").arg(self.socket());
        command.arg("--listen").arg(self.listen.to_string());
        for (addr, door) in &self.via {
            command.arg("--via").arg(format!("{addr}={door}"));
        }
        if let Some((addr, token)) = join {
            command.arg("--join").arg(addr.to_string());
            command.env(TOKEN, token);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().context("starting a manager")?;
        let orders = child.stdin.take().context("a manager without input")?;
        let answers = child.stdout.take().context("a manager without output")?;
        self.running = Some(Running {
            child,
            orders,
            answers: BufReader::new(answers).lines(),
        });
        Ok(())
    }

    /// Waits until it has started.
    pub async fn started(&mut self) -> anyhow::Result<()> {
        let line = self.answer().await?;
        if line != STARTED {
            bail!("expected {STARTED:?} of a manager, got {line:?}");
        }
        Ok(())
    }

    /// The index that its store is at, and a digest of it.
    pub async fn tell(&mut self) -> anyhow::Result<(u64, String)> {
        let running = self.running.as_mut().context("it does not run")?;
        let order = format!("{TELL}\n");
        running.orders.write_all(order.as_bytes()).await?;
        let mut line = self.answer().await?;
        // Nobody may have waited for its start.
        if line == STARTED {
            line = self.answer().await?;
        }
        let (index, digest) = line.split_once(' ').context("an answer without a digest")?;
        Ok((index.parse()?, digest.to_owned()))
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        let running = self.running.as_mut().context("it does not run")?;
        let line = timeout(ANSWER, running.answers.next_line()).await;
        line.context("it does not answer")??.context("it has ended")
    }

    /// Kills it with SIGKILL and waits for its end. Returns whether it ran.
    pub async fn kill(&mut self) -> anyhow::Result<bool> {
        self.kills += 1;
        let Some(mut running) = self.running.take() else {
            return Ok(false);
        };
        running.child.kill().await?;
        Ok(true)
    }

    /// One fault that killed it is over: starts it again if there is no other.
    pub fn revive(&mut self) -> anyhow::Result<()> {
        self.kills -= 1;
        if self.kills > 0 {
            return Ok(());
        }
        self.start(None)?;
        if self.stops > 0 {
            self.signal(Signal::STOP)?;
        }
        Ok(())
    }

    /// Stops it with SIGSTOP. Returns whether it ran.
    pub fn stop(&mut self) -> anyhow::Result<bool> {
        self.stops += 1;
        if self.running.is_none() || self.stops > 1 {
            return Ok(false);
        }
        self.signal(Signal::STOP)?;
        Ok(true)
    }

    /// One fault that stopped it is over: lets it go on if there is no other.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.stops -= 1;
        if self.stops > 0 || self.running.is_none() {
            return Ok(());
        }
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let running = self.running.as_ref().context("it does not run")?;
        let pid = running.child.id().and_then(|id| i32::try_from(id).ok());
        // One that has ended and was not waited for still has its ID.
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// The most memory that it has taken so far, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let running = self.running.as_ref().context("it does not run")?;
        let pid = running.child.id().context("it has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        Ok(kib.context("no peak of memory is told")?.parse::<u64>()? * 1024)
    }

    /// How many lines of its log have this text.
    pub fn count(&self, text: &str) -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(self.log())?;
        Ok(log.lines().filter(|line| line.contains(text)).count())
    }

    /// Why it has ended, if it has and nobody killed it.
    pub fn ended(&mut self) -> anyhow::Result<Option<String>> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let Some(status) = running.child.try_wait()? else {
            return Ok(None);
        };
        self.running = None;
        let reason = last_line(&self.log()).unwrap_or_default();
        Ok(Some(format!(
            "{} ended ({status}): {reason}",
            self.dir.display()
        )))
    }
}

/// The last line of a log.
fn last_line(path: &Path) -> Option<String> {
    const TAIL: u64 = 4096;
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().last().map(str::to_owned)
}
