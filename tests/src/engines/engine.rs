//! One stock engine: its daemon, its cable, its command line.

use std::{
    env, fs,
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Flavour, lab};

/// How long a daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine. Dropping it removes its containers, stops it and takes its network away.
pub struct Engine {
    flavour: Flavour,
    /// Of its host, its namespace and its cable.
    name: String,
    address: String,
    dir: PathBuf,
    daemon: Option<Child>,
}

impl Engine {
    pub(super) fn start(flavour: &Flavour, name: String, address: &str, dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let mut engine = Self {
            flavour: flavour.clone(),
            name,
            address: address.to_owned(),
            dir,
            daemon: None,
        };
        engine.launch();
        engine
    }

    fn launch(&mut self) {
        let at = |file: &str| self.dir.join(file).display().to_string();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        // The storage driver that mounts nothing, so that nothing is left mounted.
        let daemon = format!(
            "hostname {} && exec dockerd --data-root {} --exec-root {} --pidfile {} -H unix://{} \
             --storage-driver vfs --insecure-registry {}/24",
            self.name,
            at("data"),
            at("run"),
            at("pid"),
            at("sock"),
            self.address,
        );
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{}", self.name))
            .args(["unshare", "--uts", "sh", "-c", &daemon])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(programs) = &self.flavour.programs {
            let path = env::var_os("PATH").unwrap_or_default();
            let dirs = std::iter::once(programs.clone()).chain(env::split_paths(&path));
            command.env("PATH", env::join_paths(dirs).unwrap());
        }
        self.daemon = Some(command.spawn().unwrap());
        let start = Instant::now();
        while self
            .try_docker(&["version", "--format", "{{.Server.Version}}"])
            .is_err()
        {
            let exited = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(
                exited.is_none() && start.elapsed() < PATIENCE,
                "no engine: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The name of its host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its API is, as the command line takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("sock").display())
    }

    /// Its IP address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs the stock command line against it. Fails the test if that fails.
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args)
            .unwrap_or_else(|err| panic!("{}: docker {args:?}: {err}", self.flavour.name))
    }

    /// Runs the stock command line against it; the error is what it printed.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .args(["--host", &self.host()])
            .args(args)
            .env("DOCKER_CONFIG", &self.dir)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Joins a swarm, by the command that a user would type.
    pub fn join(&self, token: &str, addr: &str) {
        self.docker(&["swarm", "join", "--token", token, addr]);
    }

    /// The ID of the node that it is in its swarm.
    pub fn node_id(&self) -> String {
        self.docker(&["info", "--format", "{{.Swarm.NodeID}}"])
    }

    /// Containers that run on it, as `ID started-at`, of the tasks of one service.
    pub fn containers_of(&self, service_id: &str) -> Vec<String> {
        let filter = format!("label=com.docker.swarm.service.id={service_id}");
        let ids = self.docker(&["ps", "--no-trunc", "--quiet", "--filter", &filter]);
        let mut all: Vec<_> = ids
            .lines()
            // One may end meanwhile.
            .filter_map(|id| self.inspect(id, "{{.Id}} {{.State.StartedAt}}"))
            .collect();
        all.sort();
        all
    }

    /// A property of a container, if there is such a container.
    pub fn inspect(&self, container: &str, format: &str) -> Option<String> {
        self.try_docker(&["inspect", "--format", format, container])
            .ok()
    }

    /// Pulls its cable.
    pub fn cut(&self) {
        lab::ip(&format!("link set {} down", self.name));
    }

    /// Plugs its cable in again.
    pub fn heal(&self) {
        lab::ip(&format!("link set {} up", self.name));
    }

    /// Stops its daemon in order and starts it again.
    pub fn restart(&mut self) {
        self.restart_with(|_| ());
    }

    /// Does something to it while its daemon is stopped.
    pub fn restart_with(&mut self, change: impl FnOnce(&Self)) {
        self.stop();
        change(self);
        self.launch();
    }

    /// A file of its identity in its swarm, such as `swarm-node.crt`. Empty if there is none.
    pub fn identity_file(&self, name: &str) -> String {
        fs::read_to_string(self.identity().join(name)).unwrap_or_default()
    }

    /// Replaces such a file.
    pub fn set_identity_file(&self, name: &str, content: &str) {
        fs::write(self.identity().join(name), content).unwrap();
    }

    fn identity(&self) -> PathBuf {
        self.dir.join("data/swarm/certificates")
    }

    /// What its daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = Pid::from_raw(daemon.id().cast_signed()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        while daemon.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                daemon.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("{} logged last:\n{}", self.name, last.join("\n"));
        }
        // What it leaves running outlives it.
        let _ = self.try_docker(&["swarm", "leave", "--force"]);
        if let Ok(ids) = self.try_docker(&["ps", "--all", "--quiet"])
            && !ids.is_empty()
        {
            let mut remove = vec!["rm", "--force"];
            remove.extend(ids.lines());
            let _ = self.try_docker(&remove);
        }
        self.stop();
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}
