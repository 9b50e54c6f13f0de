//! A bridge that engines and managers are plugged into.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use tempfile::TempDir;

use super::Engine;

/// What a laboratory is made with, besides `dockerd`.
const PROGRAMS: [&str; 5] = ["docker", "ip", "nsenter", "unshare", "tar"];

/// The only program in the image that the engines run. It must need no library.
const BUSYBOX: &str = "/bin/busybox";

/// The archive of what is in it, in the laboratory's directory.
const LAYER: &str = "root.tar";

/// An installed version of the Docker engine.
#[derive(Clone, Debug)]
pub struct Flavour {
    /// A short name, for messages.
    pub name: String,
    /// Where its programs are, before those of the machine.
    pub programs: Option<PathBuf>,
}

/// The engines that are there: the machine's own and those in the directories that `SKEP_ENGINES`
/// lists, separated by colons. Each holds the `dockerd` and `containerd` of one version.
pub fn flavours() -> Vec<Flavour> {
    let own = Flavour {
        name: "installed".to_owned(),
        programs: None,
    };
    let listed = env::var_os("SKEP_ENGINES").unwrap_or_default();
    let others = env::split_paths(&listed)
        .filter(|dir| dir.join("dockerd").exists())
        .map(|dir| Flavour {
            name: dir.display().to_string(),
            programs: Some(dir),
        });
    std::iter::once(own).chain(others).collect()
}

/// A network of its own on this machine. Dropping it takes it away.
pub struct Lab {
    bridge: String,
    /// The first three bytes of its addresses, as text.
    prefix: String,
    dir: TempDir,
    /// Its ID and the archive that it is loaded from.
    image: OnceLock<(String, PathBuf)>,
    engines: AtomicU8,
}

impl Lab {
    /// A laboratory whose managers can listen on [`Lab::manager_ip`] 1 to 9. `None`, with the reason
    /// printed, where there cannot be one; with `SKEP_REQUIRE_ALL=1` in the environment that is a failure.
    pub fn open() -> Option<Self> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        if let Some(reason) = missing() {
            let required = env::var("SKEP_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "stock engines cannot be tested: {reason}");
            eprintln!("skipped: stock engines cannot be tested: {reason}");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            bridge: format!("sk{}x{count}", process::id()),
            prefix: format!("10.{}.{}", 200 + count % 50, process::id() % 256),
            dir: TempDir::new().unwrap(),
            image: OnceLock::new(),
            engines: AtomicU8::new(20),
        };
        let bridge = &lab.bridge;
        ip(&format!("link add {bridge} type bridge"));
        for number in 1..10 {
            ip(&format!(
                "address add {}/24 dev {bridge}",
                lab.manager_ip(number)
            ));
        }
        ip(&format!("link set {bridge} up"));
        lab.forward("--insert");
        Some(lab)
    }

    /// Lets engines reach each other (`--insert`), or not any more (`--delete`), on a machine that filters
    /// what goes over bridges. One that does not needs nothing.
    fn forward(&self, action: &str) {
        let bridge = &self.bridge;
        let rule = format!("{action} FORWARD --in-interface {bridge} --out-interface {bridge}");
        let _ = Command::new("iptables")
            .arg("--wait")
            .args(rule.split(' '))
            .args(["--jump", "ACCEPT"])
            .stderr(Stdio::null())
            .status();
    }

    /// An address on which a manager may listen.
    pub fn manager_ip(&self, number: u8) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Starts an engine; it has the image and is a member of no swarm.
    pub fn engine(&self, flavour: &Flavour) -> Engine {
        let number = self.engines.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}e{number}", self.bridge);
        let address = format!("{}.{number}", self.prefix);
        self.plug(&name, &address);
        let dir = self.dir.path().join(format!("e{number}"));
        let engine = Engine::start(flavour, name, &address, dir);
        match self.image.get() {
            Some((_, archive)) => {
                engine.docker(&["load", "--input", &archive.display().to_string()]);
            }
            None => {
                let _ = self.image.set(self.make_image(&engine));
            }
        }
        engine
    }

    /// The ID of an image with a shell. A service that names it so needs no registry.
    pub fn image(&self) -> &str {
        &self.image.get().expect("an engine was started").0
    }

    /// What is in that image, as a tar archive: a layer for another image.
    pub fn layer(&self) -> Vec<u8> {
        fs::read(self.dir.path().join(LAYER)).unwrap()
    }

    /// A namespace with one end of a cable, the other end of which is in the bridge.
    fn plug(&self, name: &str, address: &str) {
        let Self { bridge, prefix, .. } = self;
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {name} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("link set {name} master {bridge} up"));
        ip(&format!("-n {name} address add {address}/24 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add default via {prefix}.1"));
    }

    fn make_image(&self, engine: &Engine) -> (String, PathBuf) {
        let root = self.dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "echo", "env", "id", "kill", "ls", "sleep", "stat", "test",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let root_archive = self.dir.path().join(LAYER);
        run(Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&root_archive)
            .arg("."));
        let id = engine.docker(&["import", &root_archive.display().to_string()]);
        let archive = self.dir.path().join("image.tar");
        engine.docker(&["save", "--output", &archive.display().to_string(), &id]);
        (id, archive)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.forward("--delete");
        let _ = Command::new("ip")
            .args(["link", "delete", &self.bridge])
            .status();
    }
}

/// Why there can be no laboratory here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| env::split_paths(&path).any(|dir| dir.join(program).exists());
    for program in PROGRAMS.iter().chain(&["dockerd"]) {
        if !found(program) {
            return Some(format!("there is no {program}"));
        }
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("there is no static {BUSYBOX}"));
    }
    None
}

/// Runs `ip` with these words.
pub(super) fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

/// Runs a command that must succeed, and returns what it printed.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
