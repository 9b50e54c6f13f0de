//! A locked `swarmd` as whoever runs it sees it, through `swarmctl`.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

#[path = "dev/wait.rs"]
mod wait;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use swarmctl::{Exit, Io, run_with};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::wait::{PATIENCE, eventually};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
                      \"swarmctl cluster unlock\" to unlock it.";

/// A manager in a directory of its own.
struct Manager {
    dir: PathBuf,
    child: Child,
}

impl Manager {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, None, &[])
    }

    fn start_with(dir: &Path, key: Option<&str>, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmd"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SWARM_") {
                command.env_remove(name);
            }
        }
        if let Some(key) = key {
            command.env("SWARM_UNLOCK_KEY", key);
        }
        let child = command
            .env("SWARM_LOG_LEVEL", "error")
            .env("SWARM_EXECUTOR", "process")
            .arg("--state-dir")
            .arg(dir)
            .args(["--listen-remote-api", "127.0.0.1:0"])
            .arg("--listen-control-api")
            .arg(dir.with_extension("sock"))
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            dir: dir.to_owned(),
            child,
        }
    }

    /// Runs `swarmctl`, with a line on its standard input.
    async fn swarmctl(&self, line: &str, input: &str) -> (Exit, String, String) {
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut io = Io {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            bars: false,
            input: Some(Box::new(io::Cursor::new(input.to_owned()))),
        };
        let socket = self.dir.with_extension("sock");
        let start = [OsString::from("swarmctl"), "--socket".into(), socket.into()];
        let words = line.split_whitespace().map(OsString::from);
        let exit = Box::pin(run_with(start.into_iter().chain(words), &mut io)).await;
        (exit, out.text(), err.text())
    }

    async fn done(&self, line: &str, input: &str) -> String {
        let (exit, out, err) = self.swarmctl(line, input).await;
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{line}: {out}");
        out
    }

    async fn refused(&self, line: &str, input: &str) -> String {
        let (exit, _, err) = self.swarmctl(line, input).await;
        assert_ne!(exit, Exit::Ok, "{line}");
        err
    }

    /// Waits until its cluster answers.
    async fn serves(&self) {
        eventually("an answer", async || {
            let (exit, out, _) = self.swarmctl("node ls", "").await;
            (exit == Exit::Ok && out.contains("Ready")).then_some(())
        })
        .await;
    }

    /// Waits until it says that it is locked.
    async fn is_locked(&self) {
        eventually("a locked node", async || {
            let (_, _, err) = self.swarmctl("node ls", "").await;
            err.contains(LOCKED).then_some(())
        })
        .await;
    }

    /// Waits until its key file is locked, and its log has settled on one key.
    async fn settled(&self, differs_from: &str) -> String {
        eventually("the key file", async || {
            let file = self.key_file();
            let one = !file.contains("pending") && !file.contains("needs-rotation");
            (one && file != differs_from && file.contains("ENCRYPTED")).then_some(file)
        })
        .await
    }

    fn key_file(&self) -> String {
        fs::read_to_string(self.dir.join("certificates/swarm-node.key")).unwrap()
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops it as a service manager does.
    async fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(!self.dir.with_extension("sock").exists());
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The one unlock key in a text.
fn key_in(text: &str) -> String {
    let mut keys = text
        .split_whitespace()
        .filter(|word| word.starts_with("SWMKEY-1-"));
    let key = keys.next().expect("a key is shown").to_owned();
    assert_eq!(keys.next(), None, "once");
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_manager_waits_for_its_key_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let manager = Manager::start(&state);
    manager.serves().await;
    let error = manager.refused("cluster unlock-key", "").await;
    assert!(error.contains("no unlock key"), "{error}");
    let error = manager.refused("cluster unlock", "SWMKEY-1-AAAA\n").await;
    assert!(error.contains("swarm is not locked"), "{error}");

    let first = key_in(&manager.done("cluster update --autolock", "").await);
    assert_eq!(
        manager.done("cluster unlock-key -q", "").await,
        format!("{first}\n")
    );
    let again = manager.done("cluster update --autolock=true", "").await;
    assert!(!again.contains("SWMKEY"), "it is shown once: {again}");
    let file = manager.settled("").await;
    manager.kill().await;

    let manager = Manager::start(&state);
    manager.is_locked().await;
    for line in ["cluster inspect", "service ls", "cluster unlock-key"] {
        assert!(manager.refused(line, "").await.contains(LOCKED), "{line}");
    }
    let other = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (input, part) in [
        (other, "invalid key provided"),
        ("hello", "does not begin with SWMKEY-1-"),
        ("", "no unlock key on standard input"),
    ] {
        let error = manager.refused("cluster unlock", input).await;
        assert!(error.contains(part), "{input}: {error}");
    }
    manager.is_locked().await;
    manager.done("cluster unlock", &format!("{first}\n")).await;
    manager.serves().await;

    let shown = manager.done("cluster unlock-key --rotate", "").await;
    let second = key_in(&shown);
    assert_ne!(second, first);
    manager.settled(&file).await;
    manager.stop().await;

    // The old key does not do any more, wherever it comes from.
    let manager = Manager::start_with(&state, Some(&first), &[]);
    manager.is_locked().await;
    let error = manager.refused("cluster unlock", &first).await;
    assert!(error.contains("invalid key provided"), "{error}");
    manager.stop().await;
    let manager = Manager::start_with(&state, Some(&second), &[]);
    manager.serves().await;
    manager.done("cluster update --autolock=false", "").await;
    eventually("a key file that is not locked", async || {
        (!manager.key_file().contains("ENCRYPTED")).then_some(())
    })
    .await;
    manager.kill().await;
    let manager = Manager::start(&state);
    manager.serves().await;
    manager.stop().await;
}

/// It is gone when it has stopped, and what starts afterwards knows nothing of a lock.
#[tokio::test(flavor = "multi_thread")]
async fn r33_a_locked_manager_stops_is_forced_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let manager = Manager::start(&state);
    manager.serves().await;
    let key = key_in(&manager.done("cluster update --autolock", "").await);
    manager.settled("").await;
    manager.stop().await;
    let manager = Manager::start(&state);
    manager.is_locked().await;
    manager.stop().await;
    let manager = Manager::start_with(&state, None, &["--force-new-cluster"]);
    manager.is_locked().await;
    manager.done("cluster unlock", &key).await;
    manager.serves().await;
    manager.stop().await;
    fs::remove_dir_all(&state).unwrap();
    let manager = Manager::start(&state);
    manager.serves().await;
    manager.stop().await;
}
