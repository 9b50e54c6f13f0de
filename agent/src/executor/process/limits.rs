//! What bounds a task's process: resource limits of the kernel, the score by which it is killed for
//! memory, and control groups.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};
use skep_proto::v1;

/// The names users know, without `RLIMIT_`.
const RESOURCES: [(&str, Resource); 15] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];
/// The least CPU that the kernel gives: 1 ms of each 100.
const LEAST_CPU: i64 = 10_000_000;

/// The bounds of a task; what is `None` or empty is not bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    ulimits: Vec<(&'static str, Option<u64>, Option<u64>)>,
    oom_score_adj: Option<i64>,
    pub(super) group: GroupLimits,
}

/// What only a control group can bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupLimits {
    /// Bytes.
    pub(super) memory: Option<i64>,
    /// Billionths of a processor.
    pub(super) nano_cpus: Option<i64>,
    /// Processes and threads.
    pub(super) pids: Option<i64>,
}

impl GroupLimits {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Limits {
    /// The bounds that a task asks for.
    pub(super) fn of(task: &v1::Task, spec: &v1::ContainerSpec) -> Result<Self, String> {
        let mut ulimits = Vec::new();
        for ulimit in &spec.ulimits {
            let known = RESOURCES.iter().find(|(name, _)| *name == ulimit.name);
            let Some((name, _)) = known else {
                return Err(format!(
                    "ulimit {:?} is not known on this host",
                    ulimit.name
                ));
            };
            // Negative is unlimited.
            let (soft, hard) = (
                u64::try_from(ulimit.soft).ok(),
                u64::try_from(ulimit.hard).ok(),
            );
            if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
                return Err(format!(
                    "ulimit {name}: the soft limit is above the hard one"
                ));
            }
            ulimits.push((*name, soft, hard));
        }
        let score = spec.oom_score_adj;
        if !(-1000..=1000).contains(&score) {
            return Err(format!("oom score {score} is not between -1000 and 1000"));
        }
        let limits = task.spec().resources.as_ref();
        let limits = limits.and_then(|resources| resources.limits.as_ref());
        let positive = |amount: i64| (amount > 0).then_some(amount);
        let nano_cpus = limits.and_then(|limits| positive(limits.nano_cpus));
        if nano_cpus.is_some_and(|amount| amount < LEAST_CPU) {
            return Err("a limit of less than 0.01 CPUs cannot be kept".to_owned());
        }
        Ok(Self {
            ulimits,
            oom_score_adj: (score != 0).then_some(score),
            group: GroupLimits {
                memory: limits.and_then(|limits| positive(limits.memory_bytes)),
                nano_cpus,
                pids: positive(spec.pids_limit),
            },
        })
    }

    /// Whether there is nothing to set before the process may run.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this daemon may set them, the control group's aside.
    pub(super) fn check(&self) -> Result<(), String> {
        if geteuid().is_root() {
            return Ok(());
        }
        for (name, _, hard) in &self.ulimits {
            let own = getrlimit(resource(name)?).maximum;
            if hard.unwrap_or(u64::MAX) > own.unwrap_or(u64::MAX) {
                return Err(format!(
                    "ulimit {name} cannot be raised above the daemon's own ({}): run it as root or \
                     raise that",
                    own.unwrap_or_default()
                ));
            }
        }
        if let Some(score) = self.oom_score_adj
            && score < own_score()
        {
            return Err(format!(
                "an oom score of {score} is below the daemon's own, and only root may go lower"
            ));
        }
        Ok(())
    }

    /// Sets all but the control group for a process that does nothing yet.
    pub(super) fn apply(&self, pid: Pid) -> Result<(), String> {
        for (name, soft, hard) in &self.ulimits {
            let limit = Rlimit {
                current: *soft,
                maximum: *hard,
            };
            prlimit(Some(pid), resource(name)?, limit)
                .map_err(|error| format!("cannot set ulimit {name}: {error}"))?;
        }
        if let Some(score) = self.oom_score_adj {
            let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
            fs::write(path, score.to_string())
                .map_err(|error| format!("cannot set the oom score: {error}"))?;
        }
        Ok(())
    }
}

fn resource(name: &str) -> Result<Resource, String> {
    let known = RESOURCES.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, resource)| *resource)
        .ok_or_else(|| format!("ulimit {name:?} is not known on this host"))
}

fn own_score() -> i64 {
    let text = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut v1::ContainerSpec)) -> Result<Limits, String> {
        let mut spec = v1::ContainerSpec::default();
        change(&mut spec);
        Limits::of(&v1::Task::default(), &spec)
    }

    fn ulimit(name: &str, soft: i64, hard: i64) -> v1::container_spec::Ulimit {
        v1::container_spec::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(of(|_| ()).unwrap().is_empty());
        assert!(!of(|spec| spec.oom_score_adj = 5).unwrap().is_empty());
        assert!(of(|spec| spec.ulimits = vec![ulimit("nofile", 9, -1)]).is_ok());
        for spec in [
            ulimit("color", 1, 1),
            ulimit("nofile", 2, 1),
            ulimit("nofile", -1, 1),
        ] {
            assert!(of(|it| it.ulimits = vec![spec]).is_err());
        }
        assert!(of(|spec| spec.oom_score_adj = 1001).is_err());
    }
}
