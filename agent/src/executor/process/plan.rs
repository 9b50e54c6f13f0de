//! From a task to the process it asks for, or to the reason why it cannot be had.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use skep_proto::{
    executor::PROCESS_IMAGE,
    v1::{self, container_spec::Isolation, port_config::PublishMode, task_spec},
};

use super::{
    Host,
    files::{self, File},
    health::Health,
    limits::Limits,
    logs, resources, signal, user,
};

/// How long a task may take to stop if it does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Where commands are looked for if neither the task nor the daemon says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process to start, and how to stop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    /// The whole environment: nothing is inherited but `PATH`, and that is in here.
    pub(super) env: BTreeMap<String, String>,
    pub(super) dir: PathBuf,
    pub(super) user: String,
    pub(super) stop_signal: Signal,
    pub(super) grace: Duration,
    /// How much of the output is kept, `None` for nothing.
    pub(super) logs: Option<logs::Options>,
    /// Secrets and configs.
    pub(super) files: Vec<File>,
    pub(super) groups: Vec<String>,
    pub(super) limits: Limits,
    pub(super) health: Option<Health>,
}

impl Plan {
    /// The plan of a task; the error says what of the task cannot be had here.
    pub(super) fn new(task: &v1::Task) -> Result<Self, String> {
        let spec = match &task.spec().runtime {
            Some(task_spec::Runtime::Container(spec)) => spec,
            Some(task_spec::Runtime::Attachment(_)) => {
                return Err("the process executor has no networks to attach to".to_owned());
            }
            Some(task_spec::Runtime::Generic(generic)) => {
                return Err(format!(
                    "the process executor cannot run a task of kind {:?}",
                    generic.kind
                ));
            }
            None => return Err("the task says nothing to run".to_owned()),
        };
        if !spec.image.is_empty() && spec.image != PROCESS_IMAGE {
            return Err(format!(
                "image {:?} cannot be run by the process executor: it runs commands of the host; \
                 use image {PROCESS_IMAGE:?} or a node with the docker executor",
                spec.image
            ));
        }
        let unsupported = unsupported(task, spec);
        if !unsupported.is_empty() {
            return Err(format!(
                "the process executor cannot give a task: {}; use a node with the docker executor",
                unsupported.join(", ")
            ));
        }
        let mut words = spec.command.iter().chain(&spec.args).cloned();
        let program = words
            .next()
            .filter(|program| !program.is_empty())
            .ok_or("there is no command to run: set the command or the arguments of the service")?;
        let stop_signal = match spec.stop_signal.as_str() {
            "" => Signal::TERM,
            text => signal::parse(text)
                .ok_or_else(|| format!("stop signal {text:?} is not known on this host"))?,
        };
        let plan = Self {
            program,
            args: words.collect(),
            env: environment(&task.assigned_generic_resources, &spec.env),
            // The daemon's own directory means nothing to a task.
            dir: if spec.dir.is_empty() {
                "/".into()
            } else {
                spec.dir.clone().into()
            },
            user: spec.user.clone(),
            stop_signal,
            grace: grace(spec),
            logs: logs::Options::of(task)?,
            files: files::of(spec)?,
            groups: spec.groups.clone(),
            limits: Limits::of(task, spec)?,
            health: Health::of(spec)?,
        };
        if plan.strings().any(|string| string.contains('\0')) {
            return Err("the command, environment or directory has a zero byte in it".to_owned());
        }
        Ok(plan)
    }

    /// Checks against this host what can be known before the start.
    pub(super) fn check(&self, host: &Host) -> Result<(), String> {
        user::resolve(&self.user)?;
        user::groups(&self.groups)?;
        self.limits.check()?;
        if self.needs_launcher() && host.launcher.is_none() {
            return Err(
                "limits and extra groups cannot be had: this program has no launcher for them"
                    .to_owned(),
            );
        }
        if !self.dir.is_dir() {
            return Err(format!(
                "directory {:?} does not exist on this host",
                self.dir
            ));
        }
        let found = if self.program.contains('/') {
            is_program(&self.dir.join(&self.program))
        } else {
            let path = self.env.get("PATH").map_or("", String::as_str);
            std::env::split_paths(OsStr::new(path)).any(|dir| is_program(&dir.join(&self.program)))
        };
        if !found {
            return Err(format!(
                "command {:?} was not found on this host, or is no program",
                self.program
            ));
        }
        Ok(())
    }

    /// Whether something must be done to the process before it is the command.
    pub(super) fn needs_launcher(&self) -> bool {
        !(self.groups.is_empty() && self.limits.is_empty())
    }

    fn strings(&self) -> impl Iterator<Item = &str> {
        let dir = self.dir.to_str();
        let env = self
            .env
            .iter()
            .flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        let health = self.health.iter().flat_map(|health| &health.command);
        let words = self
            .args
            .iter()
            .chain(health)
            .map(String::as_str)
            .chain([self.program.as_str()]);
        words.chain(env).chain(dir)
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// How long the task may take to stop after its signal.
fn grace(spec: &v1::ContainerSpec) -> Duration {
    match &spec.stop_grace_period {
        // A negative period is none at all.
        Some(period) => Duration::try_from(*period).unwrap_or_default(),
        None => DEFAULT_GRACE,
    }
}

/// `PATH` of the daemon and the resources that are the task's, with its `K=V` over them; `K` alone
/// removes.
fn environment(resources: &[v1::GenericResource], env: &[String]) -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let mut variables = resources::variables(resources);
    variables.insert("PATH".to_owned(), path);
    for entry in env {
        match entry.split_once('=') {
            Some(("", _)) => {}
            Some((key, value)) => {
                variables.insert(key.to_owned(), value.to_owned());
            }
            None => {
                variables.remove(entry);
            }
        }
    }
    variables
}

/// What the task asks for and a plain process cannot have, as users call it.
fn unsupported(task: &v1::Task, spec: &v1::ContainerSpec) -> Vec<&'static str> {
    let resources = task.spec().resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let swap = resources.is_some_and(|resources| {
        resources.swap_bytes.is_some() || resources.memory_swappiness.is_some()
    });
    // A process binds the host's ports itself: that is a published port only if it is the same
    // one and published on this host.
    let ports = task
        .endpoint
        .iter()
        .flat_map(|endpoint| &endpoint.ports)
        .any(|port| {
            port.publish_mode() != PublishMode::Host || port.published_port != port.target_port
        });
    let dns = spec.dns_config.as_ref().is_some_and(|dns| {
        !(dns.nameservers.is_empty() && dns.search.is_empty() && dns.options.is_empty())
    });
    let privileges = spec
        .privileges
        .as_ref()
        .is_some_and(|it| *it != v1::Privileges::default());
    [
        (
            "mounts",
            !spec.mounts.is_empty() || !task.volumes.is_empty(),
        ),
        ("networks", !task.networks.is_empty()),
        (
            "published ports (but host ports equal to the target)",
            ports,
        ),
        (
            "limits of generic resources",
            limits.is_some_and(|limits| !limits.generic.is_empty()),
        ),
        ("swap settings", swap),
        ("a hostname", !spec.hostname.is_empty()),
        ("dns settings", dns),
        ("extra hosts", !spec.hosts.is_empty()),
        ("a terminal", spec.tty),
        ("an open standard input", spec.open_stdin),
        ("a read-only root", spec.read_only),
        ("privileges", privileges),
        ("an init process", spec.init == Some(true)),
        ("isolation", spec.isolation() != Isolation::Default),
        ("sysctls", !spec.sysctls.is_empty()),
        (
            "capabilities",
            !(spec.capability_add.is_empty() && spec.capability_drop.is_empty()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, asked)| asked.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(change: impl FnOnce(&mut v1::Task, &mut v1::ContainerSpec)) -> v1::Task {
        let mut spec = v1::ContainerSpec {
            command: vec!["sleep".to_owned()],
            ..Default::default()
        };
        let mut task = v1::Task::default();
        change(&mut task, &mut spec);
        task.spec_mut().runtime = Some(task_spec::Runtime::Container(spec));
        task
    }

    fn refused(change: impl FnOnce(&mut v1::Task, &mut v1::ContainerSpec)) -> String {
        Plan::new(&task(change)).unwrap_err()
    }

    #[test]
    fn command_and_args_are_one_line() {
        let plan = Plan::new(&task(|_, spec| {
            spec.image = "process".to_owned();
            spec.args = vec!["5".to_owned()];
        }))
        .unwrap();
        assert_eq!(
            (plan.program.as_str(), plan.args.as_slice()),
            ("sleep", &["5".to_owned()][..])
        );
        assert_eq!(
            (plan.stop_signal, plan.grace),
            (Signal::TERM, Duration::from_secs(10))
        );
        assert_eq!(plan.dir, PathBuf::from("/"));

        let plan = Plan::new(&task(|_, spec| {
            spec.command.clear();
            spec.args = vec!["true".to_owned()];
            spec.stop_signal = "QUIT".to_owned();
            spec.stop_grace_period = Some(skep_proto::Duration {
                seconds: 1,
                nanos: 500_000_000,
            });
        }))
        .unwrap();
        assert_eq!((plan.program.as_str(), plan.args.len()), ("true", 0));
        assert_eq!(
            (plan.stop_signal, plan.grace),
            (Signal::QUIT, Duration::from_millis(1500))
        );
    }

    #[test]
    fn the_environment_is_the_tasks_and_path() {
        let environment = |env: &[String]| environment(&[], env);
        let env = environment(&["A=1".into(), "A=2=3".into(), "=x".into(), "GONE".into()]);
        assert_eq!(env.keys().collect::<Vec<_>>(), ["A", "PATH"]);
        assert_eq!(env["A"], "2=3");
        assert!(!environment(&["PATH".into()]).contains_key("PATH"));
        assert_eq!(environment(&["PATH=/x".into()])["PATH"], "/x");
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        assert!(refused(|_, spec| spec.image = "nginx".into()).starts_with("image \"nginx\""));
        assert!(refused(|_, spec| spec.command.clear()).contains("no command"));
        assert!(refused(|_, spec| spec.stop_signal = "NOPE".into()).contains("\"NOPE\""));
        assert!(refused(|_, spec| spec.args = vec!["a\0b".into()]).contains("zero byte"));
        let volume = v1::VolumeAttachment::default();
        assert!(refused(|task, _| task.volumes.push(volume)).contains("mounts"));
        let text = refused(|_, spec| {
            spec.mounts.push(v1::Mount::default());
            spec.hostname = "h".into();
            spec.read_only = true;
        });
        for part in ["mounts", "a read-only root", "a hostname"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(Plan::new(&v1::Task::default()).is_err(), "nothing to run");
    }

    #[test]
    fn reservations_and_host_ports_are_fine() {
        let port = |mode, published| v1::PortConfig {
            target_port: 80,
            published_port: published,
            publish_mode: mode as i32,
            ..Default::default()
        };
        let with = |port| {
            task(|task, _| {
                let half = v1::Resources {
                    nano_cpus: 5,
                    memory_bytes: 5,
                    ..Default::default()
                };
                task.spec_mut().resources = Some(v1::ResourceRequirements {
                    reservations: Some(half),
                    ..Default::default()
                });
                task.endpoint = Some(v1::Endpoint {
                    ports: vec![port],
                    ..Default::default()
                });
            })
        };
        assert!(Plan::new(&with(port(PublishMode::Host, 80))).is_ok());
        assert!(Plan::new(&with(port(PublishMode::Host, 8080))).is_err());
        assert!(Plan::new(&with(port(PublishMode::Ingress, 80))).is_err());
    }

    #[test]
    fn the_host_is_checked_before_the_start() {
        let check = |change: fn(&mut v1::ContainerSpec)| {
            let plan = Plan::new(&task(|_, spec| change(spec))).unwrap();
            plan.check(&Host::default())
        };
        check(|_| ()).unwrap();
        check(|spec| spec.command = vec!["/bin/sh".into()]).unwrap();
        assert!(check(|spec| spec.command = vec!["no-such-command".into()]).is_err());
        assert!(check(|spec| spec.command = vec!["/no/such".into()]).is_err());
        assert!(check(|spec| spec.dir = "/no/such".into()).is_err());
        assert!(check(|spec| spec.user = "no-such-user".into()).is_err());
        assert!(check(|spec| spec.oom_score_adj = 5).is_err(), "no launcher");
    }
}
