//! The parameters of a service to create.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use skep_proto::v1::{Annotations, ServiceSpec, service_spec};

use super::{ListEdits, NewLists, PROCESS_IMAGE, Settings, container, env_file, values};
use crate::Error;

/// A service to create.
#[derive(Debug, Clone, Default, Args)]
pub struct NewService {
    /// Name of the service, unique in the cluster
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: String,
    /// How the number of tasks is decided
    #[arg(long, value_name = "MODE", default_value = "replicated")]
    pub mode: Mode,
    /// Environment variable of the command
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub env: Vec<String>,
    /// File with a KEY=VALUE on each line, over which --env wins; a KEY alone has its value here
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Label of the service
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub labels: Vec<(String, String)>,
    /// Where tasks may run, for example node.labels.disk==ssd
    #[arg(long = "constraint", value_name = "EXPRESSION")]
    pub constraints: Vec<String>,
    /// The other values of the service.
    #[command(flatten)]
    pub settings: Settings,
    /// Its lists.
    #[command(flatten)]
    pub lists: NewLists,
    /// Command to run and its arguments; with --image, arguments of the image's entrypoint
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "image")]
    pub command: Vec<String>,
}

/// How the number of tasks of a service is decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A given number of tasks
    #[default]
    Replicated,
    /// One task on every node that fits
    Global,
}

impl NewService {
    /// The spec of this service. Fails with [`Error::Usage`] if the parameters contradict each
    /// other.
    pub fn to_spec(&self) -> Result<ServiceSpec, Error> {
        let mut spec = ServiceSpec {
            annotations: Some(Annotations {
                name: self.name.clone(),
                labels: self.labels.iter().cloned().collect(),
                ..Default::default()
            }),
            mode: Some(match self.mode {
                Mode::Replicated => service_spec::Mode::Replicated(
                    // One task, as nothing was said; zero is a number of tasks, too.
                    skep_proto::v1::ReplicatedService { replicas: 1 },
                ),
                Mode::Global => service_spec::Mode::Global(Default::default()),
            }),
            ..Default::default()
        };
        let container = container(spec.task_mut())?;
        PROCESS_IMAGE.clone_into(&mut container.image);
        container.env = env_file::merge(&self.env_files, &self.env)?;
        match (&self.settings.container.image, self.command.split_first()) {
            (_, None) => {}
            (Some(image), Some(_)) if image != PROCESS_IMAGE => {
                container.args.clone_from(&self.command);
            }
            (_, Some((program, arguments))) => {
                container.command = vec![program.clone()];
                container.args = arguments.to_vec();
            }
        }
        if !self.constraints.is_empty() {
            let placement = spec.task_mut().placement.get_or_insert_default();
            placement.constraints.clone_from(&self.constraints);
        }
        self.settings.apply(&mut spec)?;
        ListEdits::from(&self.lists).apply(&mut spec)?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use skep_proto::v1::{
        ContainerSpec, HealthConfig, Placement, ReplicatedService, ResourceRequirements, Resources,
        RestartPolicy, TaskSpec, UpdateConfig, task_spec::Runtime,
    };

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        service: NewService,
    }

    fn parse(line: &[&str]) -> Result<NewService, clap::Error> {
        Line::try_parse_from(["create"].iter().chain(line)).map(|line| line.service)
    }

    fn spec(line: &[&str]) -> ServiceSpec {
        parse(line).unwrap().to_spec().unwrap()
    }

    fn seconds(seconds: i64) -> Option<skep_proto::Duration> {
        Some(skep_proto::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn what_was_not_said_stays_absent() {
        let expected = ServiceSpec {
            annotations: Some(Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            task: Some(TaskSpec {
                runtime: Some(Runtime::Container(ContainerSpec {
                    image: "process".to_owned(),
                    command: vec!["sleep".to_owned()],
                    args: vec!["100".to_owned(), "--name".to_owned()],
                    ..Default::default()
                })),
                ..Default::default()
            }),
            mode: Some(service_spec::Mode::Replicated(ReplicatedService {
                replicas: 1,
            })),
            ..Default::default()
        };
        assert_eq!(
            spec(&["--name", "web", "--", "sleep", "100", "--name"]),
            expected
        );
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let spec = spec(&[
            "--name=web",
            "--replicas=3",
            "--env=A=1",
            "-e=B=2",
            "--label=tier=front",
            "-l=bare",
            "--constraint=node.role==worker",
            "--replicas-max-per-node=2",
            "--workdir=/srv",
            "--user=nobody",
            "--restart-condition=on-failure",
            "--restart-delay=1s",
            "--restart-max-attempts=4",
            "--restart-window=1m",
            "--stop-grace-period=3s",
            "--stop-signal=SIGINT",
            "--reserve-cpu=0.5",
            "--reserve-memory=64MiB",
            "--limit-cpu=2",
            "--limit-memory=1g",
            "--update-parallelism=0",
            "--update-delay=2s",
            "--update-order=start-first",
            "--update-monitor=7s",
            "--update-failure-action=rollback",
            "--update-max-failure-ratio=0.25",
            "--",
            "serve",
        ]);
        let labels = [("tier", "front"), ("bare", "")];
        let expected = ServiceSpec {
            annotations: Some(Annotations {
                name: "web".to_owned(),
                labels: labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ..Default::default()
            }),
            task: Some(TaskSpec {
                runtime: Some(Runtime::Container(ContainerSpec {
                    image: "process".to_owned(),
                    command: vec!["serve".to_owned()],
                    env: vec!["A=1".to_owned(), "B=2".to_owned()],
                    dir: "/srv".to_owned(),
                    user: "nobody".to_owned(),
                    stop_grace_period: seconds(3),
                    stop_signal: "SIGINT".to_owned(),
                    ..Default::default()
                })),
                resources: Some(ResourceRequirements {
                    limits: Some(Resources {
                        nano_cpus: 2_000_000_000,
                        memory_bytes: 1 << 30,
                        ..Default::default()
                    }),
                    reservations: Some(Resources {
                        nano_cpus: 500_000_000,
                        memory_bytes: 64 << 20,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                restart: Some(RestartPolicy {
                    condition: 1,
                    delay: seconds(1),
                    max_attempts: 4,
                    window: seconds(60),
                }),
                placement: Some(Placement {
                    constraints: vec!["node.role==worker".to_owned()],
                    max_replicas: 2,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            mode: Some(service_spec::Mode::Replicated(ReplicatedService {
                replicas: 3,
            })),
            update: Some(UpdateConfig {
                parallelism: 0,
                delay: seconds(2),
                failure_action: 2,
                monitor: seconds(7),
                max_failure_ratio: 0.25,
                order: 1,
            }),
            ..Default::default()
        };
        assert_eq!(spec, expected);
    }

    #[test]
    fn every_flag_of_a_container_reaches_its_field() {
        let spec = spec(&[
            "--name=web",
            "--image=nginx",
            "--entrypoint=sh -c 'exec nginx'",
            "-w=/srv",
            "-u=nobody",
            "--hostname={{.Task.Slot}}",
            "-t",
            "--read-only",
            "--init",
            "--limit-pids=100",
            "--oom-score-adj=-5",
            "--cap-add=NET_ADMIN",
            "--cap-drop=all",
            "--health-cmd=true",
            "--health-interval=1s",
            "--health-timeout=2s",
            "--health-retries=3",
            "--health-start-period=4s",
            "--health-start-interval=5s",
            "--memory-swap=-1",
            "--memory-swappiness=0",
            "--log-driver=json-file",
            "--log-opt=max-size=1m",
            "--rollback-parallelism=0",
            "--rollback-delay=1s",
            "--rollback-order=start-first",
            "--rollback-monitor=2s",
            "--rollback-failure-action=continue",
            "--rollback-max-failure-ratio=1",
        ]);
        let task = spec.task();
        let expected = ContainerSpec {
            image: "nginx".to_owned(),
            command: ["sh", "-c", "exec nginx"].map(str::to_owned).into(),
            dir: "/srv".to_owned(),
            user: "nobody".to_owned(),
            hostname: "{{.Task.Slot}}".to_owned(),
            tty: true,
            read_only: true,
            init: Some(true),
            pids_limit: 100,
            oom_score_adj: -5,
            capability_add: vec!["CAP_NET_ADMIN".to_owned()],
            capability_drop: vec!["ALL".to_owned()],
            healthcheck: Some(HealthConfig {
                test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
                interval: seconds(1),
                timeout: seconds(2),
                retries: 3,
                start_period: seconds(4),
                start_interval: seconds(5),
            }),
            ..Default::default()
        };
        assert_eq!(task.runtime, Some(Runtime::Container(expected)));
        let resources = task.resources.as_ref().unwrap();
        assert_eq!(resources.swap_bytes, Some(-1));
        assert_eq!(resources.memory_swappiness, Some(0));
        let driver = task.log_driver.as_ref().unwrap();
        assert_eq!(driver.name, "json-file");
        assert_eq!(driver.options["max-size"], "1m");
        assert_eq!(
            spec.rollback,
            Some(UpdateConfig {
                parallelism: 0,
                delay: seconds(1),
                failure_action: 1,
                monitor: seconds(2),
                max_failure_ratio: 1.0,
                order: 1,
            })
        );
    }

    #[test]
    fn a_policy_made_for_one_value_keeps_the_defaults_of_the_others() {
        let spec = spec(&[
            "--name=a",
            "--restart-delay=1s",
            "--update-delay=2s",
            "--",
            "true",
        ]);
        let restart = spec.task().restart.unwrap();
        assert_eq!(
            restart.condition(),
            skep_proto::v1::restart_policy::RestartCondition::Any
        );
        assert_eq!(spec.update.unwrap().parallelism, 1);
    }

    #[test]
    fn words_after_an_image_are_arguments_of_its_entrypoint() {
        let spec = spec(&["--name=a", "--image=busybox", "--", "sleep", "1"]);
        let Some(Runtime::Container(container)) = &spec.task().runtime else {
            panic!("{spec:?}")
        };
        assert_eq!(container.image, "busybox");
        assert!(container.command.is_empty());
        assert_eq!(container.args, ["sleep", "1"]);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(parse(&["--name=a"]).is_err(), "neither image nor command");
        assert!(parse(&["--", "true"]).is_err(), "no name");
        assert!(parse(&["--name=a", "--image=busybox"]).is_ok());
        let global = parse(&["--name=a", "--mode=global", "--replicas=2", "--", "true"]).unwrap();
        assert!(matches!(global.to_spec(), Err(Error::Usage(_))));
    }
}
