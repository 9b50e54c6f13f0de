//! Control groups: a task with limits of memory, processors or processes gets one of its own, as a
//! directory `skep/<task>` in each hierarchy that it needs, of version 1 or 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::limits::GroupLimits;

const ROOT: &str = "/sys/fs/cgroup";
/// What to do where there are no control groups for us.
const ADVICE: &str = "run swarmd as root on a host that has control groups, or leave the limit out";
/// How often a group is tried to be removed; killed processes take a moment to leave it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Microseconds over which the use of processors is counted.
const PERIOD: i64 = 100_000;

/// The hierarchies of a host.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    /// One hierarchy for everything.
    unified: bool,
}

/// One setting: the controller, its file in version 1 and in version 2, and the text.
type Setting = (&'static str, &'static str, &'static str, String);

impl Cgroups {
    /// Those of this host.
    pub(super) fn of_host() -> Self {
        Self::at(Path::new(ROOT))
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            unified: root.join("cgroup.controllers").exists(),
        }
    }

    fn base(&self, controller: &str) -> PathBuf {
        if self.unified {
            self.root.join("skep")
        } else {
            self.root.join(controller).join("skep")
        }
    }

    fn settings(&self, limits: &GroupLimits) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(bytes) = limits.memory {
            let text = bytes.to_string();
            settings.push(("memory", "memory.limit_in_bytes", "memory.max", text));
        }
        if let Some(nano_cpus) = limits.nano_cpus {
            let quota = (nano_cpus / (1_000_000_000 / PERIOD)).max(1000);
            if self.unified {
                settings.push(("cpu", "", "cpu.max", format!("{quota} {PERIOD}")));
            } else {
                settings.push(("cpu", "cpu.cfs_period_us", "", PERIOD.to_string()));
                settings.push(("cpu", "cpu.cfs_quota_us", "", quota.to_string()));
            }
        }
        if let Some(pids) = limits.pids {
            settings.push(("pids", "pids.max", "pids.max", pids.to_string()));
        }
        settings
    }

    /// Makes the groups of a task; the error says what cannot be had and what to do.
    pub(super) fn make(&self, task_id: &str, limits: &GroupLimits) -> Result<(), String> {
        for (controller, first, second, text) in self.settings(limits) {
            let dir = self.base(controller).join(task_id);
            let failed = |what: &str, error: io::Error| {
                format!(
                    "a limit of {controller} cannot be kept: cannot {what} {}: {error}; {ADVICE}",
                    dir.display()
                )
            };
            if !self.unified && !self.root.join(controller).is_dir() {
                return Err(format!(
                    "a limit of {controller} cannot be kept: this host has no such control group; \
                     {ADVICE}"
                ));
            }
            fs::create_dir_all(&dir).map_err(|error| failed("make", error))?;
            let file = if self.unified {
                self.enable(controller)
                    .map_err(|error| failed("have the controller for", error))?;
                second
            } else {
                first
            };
            fs::write(dir.join(file), text).map_err(|error| failed("set", error))?;
        }
        Ok(())
    }

    /// Version 2: lets the groups of tasks have a controller.
    fn enable(&self, controller: &str) -> io::Result<()> {
        for dir in [&self.root, &self.root.join("skep")] {
            let file = dir.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&file)?;
            if !enabled.split_whitespace().any(|it| it == controller) {
                fs::write(file, format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    /// Whether the task has groups.
    pub(super) fn has(&self, task_id: &str) -> bool {
        !self.dirs(task_id).is_empty()
    }

    fn dirs(&self, task_id: &str) -> Vec<PathBuf> {
        let controllers: &[_] = if self.unified {
            &[""]
        } else {
            &["memory", "cpu", "pids"]
        };
        let dirs = controllers.iter();
        dirs.map(|controller| self.base(controller).join(task_id))
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// Puts a process into the groups of a task.
    pub(super) fn add(&self, task_id: &str, pid: Pid) -> Result<(), String> {
        for dir in self.dirs(task_id) {
            fs::write(dir.join("cgroup.procs"), pid.as_raw_nonzero().to_string())
                .map_err(|error| format!("cannot use {}: {error}", dir.display()))?;
        }
        Ok(())
    }

    /// Whether a process of the task was killed for using too much memory.
    pub(super) fn was_killed_for_memory(&self, task_id: &str) -> bool {
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.base("memory").join(task_id).join(file));
        text.unwrap_or_default().lines().any(|line| {
            let count = line.strip_prefix("oom_kill ");
            count.is_some_and(|count| count.trim() != "0")
        })
    }

    /// Ends what is left in the groups of a task and removes them. Blocks.
    pub(super) fn remove(&self, task_id: &str) -> io::Result<()> {
        for dir in self.dirs(task_id) {
            let mut tries = 0;
            while let Err(error) = fs::remove_dir(&dir) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                tries += 1;
                if tries > TRIES {
                    return Err(error);
                }
                kill_all(&dir);
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

fn kill_all(dir: &Path) {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let pids = procs.lines().filter_map(|line| line.parse().ok());
    for pid in pids.filter(|pid| *pid > 0).filter_map(Pid::from_raw) {
        // One that is gone is what we want.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GroupLimits = GroupLimits {
        memory: Some(64 << 20),
        nano_cpus: Some(1_500_000_000),
        pids: Some(10),
    };

    fn text(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn version_1_has_a_directory_in_each_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        for controller in ["memory", "cpu", "pids"] {
            fs::create_dir(root.path().join(controller)).unwrap();
        }
        let cgroups = Cgroups::at(root.path());
        cgroups.make("t1", &LIMITS).unwrap();
        let at = |path: &str| text(root.path().join(path));
        assert_eq!(at("memory/skep/t1/memory.limit_in_bytes"), "67108864");
        assert_eq!(at("cpu/skep/t1/cpu.cfs_period_us"), "100000");
        assert_eq!(at("cpu/skep/t1/cpu.cfs_quota_us"), "150000");
        assert_eq!(at("pids/skep/t1/pids.max"), "10");
        cgroups.add("t1", rustix::process::getpid()).unwrap();
        assert_eq!(
            at("pids/skep/t1/cgroup.procs"),
            std::process::id().to_string()
        );
        let oom = root.path().join("memory/skep/t1/memory.oom_control");
        fs::write(&oom, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n").unwrap();
        assert!(!cgroups.was_killed_for_memory("t1"));
        fs::write(&oom, "under_oom 0\noom_kill 2\n").unwrap();
        assert!(cgroups.was_killed_for_memory("t1"));
    }

    #[test]
    fn version_2_has_one_for_all() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(root.path().join(name), "cpu memory pids\n").unwrap();
        fs::create_dir(root.path().join("skep")).unwrap();
        write("cgroup.controllers");
        write("cgroup.subtree_control");
        write("skep/cgroup.subtree_control");
        Cgroups::at(root.path()).make("t1", &LIMITS).unwrap();
        let at = |path: &str| text(root.path().join(path));
        assert_eq!(at("skep/t1/memory.max"), "67108864");
        assert_eq!(at("skep/t1/cpu.max"), "150000 100000");
        assert_eq!(at("skep/t1/pids.max"), "10");
    }

    #[test]
    fn a_host_without_groups_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let why = Cgroups::at(root.path()).make("t1", &LIMITS).unwrap_err();
        assert!(why.contains("memory") && why.contains(ADVICE), "{why}");
        assert_eq!(Cgroups::at(root.path()).remove("t1").ok(), Some(()));
    }
}
