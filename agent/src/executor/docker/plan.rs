//! From a task to the container it asks for, or to the reason why it cannot be had.
//!
//! Pure. What the task says becomes the engine's words; whether this engine is new enough for
//! them is told by [`Plan::check`].

mod files;
mod image;
mod mounts;
mod networks;
mod resources;
mod security;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bollard::{
    ClientVersion,
    models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig},
};
use skep_proto::v1::{self, container_spec::Isolation, generic_resource::Resource, task_spec};

pub(super) use self::{
    files::{File, Source},
    image::{Kind, Reference},
    networks::Attachment,
};
use super::{LABEL_NODE, LABEL_TASK};

/// How long a task may take to stop if it does not say, in seconds: the engine's default.
const DEFAULT_GRACE: i32 = 10;

/// A container to create, and all that must be there first.
#[derive(Clone)]
pub(super) struct Plan {
    /// The container's name, which is the task's.
    pub(super) name: String,
    pub(super) image: Reference,
    /// The credentials for the image's registry as they came: JSON in URL-safe base64. Secret.
    pub(super) registry_auth: String,
    /// All of the container but the mounts of its files.
    pub(super) body: ContainerCreateBody,
    /// Secrets and configs.
    pub(super) files: Vec<File>,
    /// Networks beside the one in `body`.
    pub(super) further: Vec<Attachment>,
    /// Seconds between the stop signal and the kill.
    pub(super) grace: i32,
    /// What needs an engine of a later version of the API than the oldest that is known.
    needs: Vec<Need>,
}

/// Something that older engines would silently leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// What users call it.
    what: &'static str,
    /// The first minor version of the API 1.x that has it.
    since: usize,
}

impl Plan {
    /// The plan of a task; the error says what of the task cannot be had from any engine.
    pub(super) fn new(task: &v1::Task) -> Result<Self, String> {
        let spec = match &task.spec().runtime {
            Some(task_spec::Runtime::Container(spec)) => spec,
            Some(task_spec::Runtime::Attachment(_)) => {
                return Err(
                    "the docker executor attaches no containers that it did not make".into(),
                );
            }
            Some(task_spec::Runtime::Generic(generic)) => {
                let kind = &generic.kind;
                return Err(format!(
                    "the docker executor cannot run a task of kind {kind:?}"
                ));
            }
            None => return Err("the task says nothing to run".into()),
        };
        if spec.isolation() != Isolation::Default {
            return Err("isolation is a setting of Windows; leave it out".into());
        }
        if !task.volumes.is_empty() {
            return Err("the docker executor has no cluster volumes".into());
        }
        let mut needs = Vec::new();
        let name = name(task);
        let networks = networks::plan(task)?;
        let mut host = HostConfig {
            mounts: some(mounts::plan(&spec.mounts, &mut needs)?),
            dns: dns(spec, |dns| &dns.nameservers),
            dns_search: dns(spec, |dns| &dns.search),
            dns_options: dns(spec, |dns| &dns.options),
            extra_hosts: some(hosts(&spec.hosts)),
            group_add: some(spec.groups.clone()),
            readonly_rootfs: spec.read_only.then_some(true),
            init: spec.init,
            cap_add: some(spec.capability_add.clone()),
            cap_drop: some(spec.capability_drop.clone()),
            sysctls: map(&spec.sysctls),
            oom_score_adj: (spec.oom_score_adj != 0).then_some(spec.oom_score_adj),
            security_opt: some(security::plan(spec.privileges.as_ref())?),
            log_config: task.log_driver.as_ref().map(log_config),
            network_mode: networks.mode,
            port_bindings: networks.ports,
            ..HostConfig::default()
        };
        resources::plan(task, spec, &mut host)?;
        let body = ContainerCreateBody {
            image: Some(spec.image.clone()),
            entrypoint: some(spec.command.clone()),
            cmd: some(spec.args.clone()),
            env: some(environment(task, spec)),
            working_dir: text(&spec.dir),
            user: text(&spec.user),
            hostname: text(&spec.hostname),
            tty: spec.tty.then_some(true),
            open_stdin: spec.open_stdin.then_some(true),
            stop_signal: text(&spec.stop_signal),
            labels: Some(labels(task, spec, &name)),
            healthcheck: spec
                .healthcheck
                .as_ref()
                .map(|check| health(check, &mut needs)),
            exposed_ports: some(networks.exposed),
            host_config: Some(host),
            networking_config: networks.first,
            ..ContainerCreateBody::default()
        };
        let pull = spec.pull_options.as_ref();
        Ok(Self {
            name,
            image: Reference::new(&spec.image)?,
            registry_auth: pull.map_or_else(String::new, |pull| pull.registry_auth.clone()),
            body,
            files: files::plan(spec)?,
            further: networks.further,
            grace: grace(spec),
            needs,
        })
    }

    /// The names of the networks that somebody must have made on the engine.
    pub(super) fn networks(&self) -> Vec<String> {
        let first = self.body.networking_config.as_ref();
        let first = first.and_then(|first| first.endpoints_config.as_ref());
        let first = first.into_iter().flat_map(HashMap::keys).cloned();
        let further = self.further.iter().map(|it| it.network.clone());
        first.chain(further).collect()
    }

    /// Whether an engine that speaks this version of the API can do it all.
    pub(super) fn check(&self, api: &ClientVersion) -> Result<(), String> {
        let missing: Vec<_> = self
            .needs
            .iter()
            .filter(|need| api.major_version == 1 && api.minor_version < need.since)
            .map(|need| format!("{} (API 1.{})", need.what, need.since))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the engine of this node speaks API 1.{} and cannot give a container: {}; upgrade it",
            api.minor_version,
            missing.join(", ")
        ))
    }
}

/// What users and the engine's tools know the task by.
fn name(task: &v1::Task) -> String {
    let own = &task.annotations().name;
    if !own.is_empty() {
        return own.clone();
    }
    let service = &task.service_annotations().name;
    match task.slot {
        0 => format!("{service}.{}.{}", task.node_id, task.id),
        slot => format!("{service}.{slot}.{}", task.id),
    }
}

/// The user's labels, and over them those by which Docker's tools know a task.
fn labels(task: &v1::Task, spec: &v1::ContainerSpec, name: &str) -> HashMap<String, String> {
    let users = spec.labels.iter().chain(&task.annotations().labels);
    let system = [
        ("com.docker.swarm.task", ""),
        (LABEL_TASK, &task.id),
        ("com.docker.swarm.task.name", name),
        (LABEL_NODE, &task.node_id),
        ("com.docker.swarm.service.id", &task.service_id),
        (
            "com.docker.swarm.service.name",
            &task.service_annotations().name,
        ),
    ];
    let system = system.map(|(key, value)| (key.to_owned(), value.to_owned()));
    users
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(system)
        .collect()
}

/// The task's environment, and the generic resources that it was given on this node.
fn environment(task: &v1::Task, spec: &v1::ContainerSpec) -> Vec<String> {
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in &task.assigned_generic_resources {
        let (kind, value) = match &resource.resource {
            Some(Resource::NamedResourceSpec(it)) => (&it.kind, it.value.clone()),
            Some(Resource::DiscreteResourceSpec(it)) => (&it.kind, it.value.to_string()),
            None => continue,
        };
        given.entry(kind.to_uppercase()).or_default().push(value);
    }
    let given = given
        .iter()
        .map(|(kind, values)| format!("DOCKER_RESOURCE_{kind}={}", values.join(",")));
    spec.env.iter().cloned().chain(given).collect()
}

/// Lines of a hosts file in the engine's form, a name and an address each.
fn hosts(lines: &[String]) -> Vec<String> {
    let entries = lines.iter().flat_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next();
        words.filter_map(move |name| address.map(|address| format!("{name}:{address}")))
    });
    entries.collect()
}

fn dns(
    spec: &v1::ContainerSpec,
    part: impl Fn(&v1::container_spec::DnsConfig) -> &Vec<String>,
) -> Option<Vec<String>> {
    some(part(spec.dns_config.as_ref()?).clone())
}

fn log_config(driver: &v1::Driver) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: text(&driver.name),
        config: map(&driver.options),
    }
}

/// What is absent comes from the image or is the engine's default.
fn health(check: &v1::HealthConfig, needs: &mut Vec<Need>) -> HealthConfig {
    let nanos = |duration: &Option<skep_proto::Duration>| {
        let duration = (*duration)?;
        let nanos = duration.seconds.saturating_mul(1_000_000_000);
        Some(nanos.saturating_add(i64::from(duration.nanos)))
    };
    let start_interval = nanos(&check.start_interval).filter(|nanos| *nanos != 0);
    if start_interval.is_some() {
        needs.push(Need {
            what: "an interval of health checks during the start",
            since: 44,
        });
    }
    HealthConfig {
        test: some(check.test.clone()),
        interval: nanos(&check.interval),
        timeout: nanos(&check.timeout),
        retries: (check.retries != 0).then_some(check.retries.into()),
        start_period: nanos(&check.start_period),
        start_interval,
    }
}

/// The grace period in whole seconds, as the engine takes it; none is cut short.
fn grace(spec: &v1::ContainerSpec) -> i32 {
    let Some(period) = &spec.stop_grace_period else {
        return DEFAULT_GRACE;
    };
    let seconds = period.seconds.saturating_add((period.nanos > 0).into());
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}

/// What is empty is left to the engine.
fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn map(values: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    let values: HashMap<_, _> = values.clone().into_iter().collect();
    (!values.is_empty()).then_some(values)
}
