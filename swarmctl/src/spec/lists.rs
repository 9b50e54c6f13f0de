//! The lists of a service spec. A new service is given each with one flag, `--mount`; an existing
//! one is changed with a pair of them, `--mount-add` and `--mount-rm`.

use std::collections::BTreeMap;

use clap::Args;
use skep_proto::v1::{
    ConfigReference, ContainerSpec, DiscreteGenericResource, GenericResource, Mount, PortConfig,
    SecretReference, ServiceSpec,
    container_spec::{DnsConfig, Ulimit},
    generic_resource::Resource,
};

use super::{
    container,
    mount::mount,
    port::{is_port, port},
    reference, values,
};
use crate::Error;

/// Declares the flags of both kinds from one table. A row has the names of the flag's fields
/// (for a new service, to add, to remove), the type of an entry, the name of the flag, what stands
/// for its value in the help, what an entry is removed by, how one is read, and what it is called.
macro_rules! lists {
    ($($new:ident, $add:ident, $rm:ident: $entry:ty,
       $flag:literal, $value:literal, $key:literal, $parse:expr, $noun:literal, $help:literal;)*) => {
        /// The lists of a service to create.
        #[derive(Debug, Clone, Default, Args)]
        pub struct NewLists {$(
            #[doc = $help]
            #[arg(long = $flag, value_name = $value, value_parser = $parse)]
            pub $new: Vec<$entry>,
        )*}

        /// Changes to the lists of a service. What is removed goes first.
        #[derive(Debug, Clone, Default, Args)]
        pub struct ListEdits {$(
            #[doc = concat!("Add or replace ", $noun)]
            #[arg(
                long = concat!($flag, "-add"),
                value_name = $value,
                value_parser = $parse,
                help = concat!("Add or replace ", $noun)
            )]
            pub $add: Vec<$entry>,
            #[doc = concat!("Remove ", $noun)]
            #[arg(
                long = concat!($flag, "-rm"),
                value_name = $key,
                help = concat!("Remove ", $noun)
            )]
            pub $rm: Vec<String>,
        )*}

        impl ListEdits {
            /// Whether nothing changes.
            fn is_empty(&self) -> bool {
                $(self.$add.is_empty() && self.$rm.is_empty())&&*
            }
        }

        impl From<&NewLists> for ListEdits {
            fn from(lists: &NewLists) -> Self {
                Self {$(
                    $add: lists.$new.clone(),
                    $rm: Vec::new(),
                )*}
            }
        }
    };
}

lists! {
    secrets, secret_add, secret_rm: SecretReference,
    "secret", "SECRET", "NAME", reference::secret, "a secret",
    "Secret that tasks see as a file: NAME, or source=NAME,target=FILE,uid=ID,gid=ID,mode=0444";

    configs, config_add, config_rm: ConfigReference,
    "config", "CONFIG", "NAME", reference::config, "a config",
    "Config that tasks see as a file: NAME, or source=NAME,target=FILE,uid=ID,gid=ID,mode=0444";

    mounts, mount_add, mount_rm: Mount,
    "mount", "MOUNT", "TARGET", mount, "a mount",
    "Mount: type=bind|volume|tmpfs,source=SOURCE,target=PATH,readonly and options of the type";

    ports, publish_add, publish_rm: PortConfig,
    "publish", "PORT", "TARGET[/PROTOCOL]", port, "a published port",
    "Port that leads to the tasks: published=8080,target=80,protocol=tcp,mode=host";

    container_labels, container_label_add, container_label_rm: (String, String),
    "container-label", "KEY=VALUE", "KEY", values::label, "a label of the containers",
    "Label of the containers, not of the service";

    groups, group_add, group_rm: String,
    "group", "GROUP", "GROUP", clap::builder::NonEmptyStringValueParser::new(), "a further group",
    "Further group of the processes";

    hosts, host_add, host_rm: String,
    "host", "NAME:ADDRESS", "NAME[:ADDRESS]", values::host, "a line of the hosts file",
    "Further line of the hosts file";

    dns, dns_add, dns_rm: String,
    "dns", "ADDRESS", "ADDRESS", values::address, "a name server",
    "Name server to ask instead of the node's";

    dns_options, dns_option_add, dns_option_rm: String,
    "dns-option", "OPTION", "OPTION", clap::builder::NonEmptyStringValueParser::new(),
    "an option of the resolver",
    "Option of the resolver, as in resolv.conf";

    dns_search, dns_search_add, dns_search_rm: String,
    "dns-search", "DOMAIN", "DOMAIN", clap::builder::NonEmptyStringValueParser::new(),
    "a search domain",
    "Domain in which the resolver looks for short names";

    sysctls, sysctl_add, sysctl_rm: (String, String),
    "sysctl", "KEY=VALUE", "KEY", values::pair, "a kernel parameter",
    "Kernel parameter of the containers' namespaces";

    ulimits, ulimit_add, ulimit_rm: Ulimit,
    "ulimit", "TYPE=SOFT[:HARD]", "TYPE", values::ulimit, "a limit for processes",
    "Limit for processes, for example nofile=1024:2048";

    generic_resources, generic_resource_add, generic_resource_rm: DiscreteGenericResource,
    "generic-resource", "KIND=COUNT", "KIND", values::generic_resource,
    "a reservation of user-defined resources",
    "User-defined resources reserved for each task, for example gpu=2";
}

impl ListEdits {
    /// Changes the lists of `spec`. Fails with [`Error::Usage`] if the service is of a kind that
    /// does not have one of them.
    pub fn apply(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        self.apply_generic(spec);
        self.apply_ports(spec);
        let of_containers = Self {
            publish_add: Vec::new(),
            publish_rm: Vec::new(),
            generic_resource_add: Vec::new(),
            generic_resource_rm: Vec::new(),
            ..self.clone()
        };
        if of_containers.is_empty() {
            return Ok(());
        }
        self.apply_container(container(spec.task_mut())?);
        Ok(())
    }

    fn apply_container(&self, container: &mut ContainerSpec) {
        edit(
            &mut container.secrets,
            (&self.secret_add, &self.secret_rm),
            |a, b| a.secret_name == b.secret_name && a.target == b.target,
            reference::is_secret,
        );
        edit(
            &mut container.configs,
            (&self.config_add, &self.config_rm),
            |a, b| a.config_name == b.config_name && a.target == b.target,
            reference::is_config,
        );
        edit(
            &mut container.mounts,
            (&self.mount_add, &self.mount_rm),
            |a, b| a.target == b.target,
            |mount, target| mount.target == target,
        );
        edit(
            &mut container.ulimits,
            (&self.ulimit_add, &self.ulimit_rm),
            |a, b| a.name == b.name,
            |ulimit, name| ulimit.name == name,
        );
        edit(
            &mut container.hosts,
            (&self.host_add, &self.host_rm),
            |a, b| a == b,
            is_host,
        );
        edit_words(&mut container.groups, &self.group_add, &self.group_rm);
        edit_map(
            &mut container.labels,
            &self.container_label_add,
            &self.container_label_rm,
        );
        edit_map(&mut container.sysctls, &self.sysctl_add, &self.sysctl_rm);
        let mut dns = container.dns_config.take().unwrap_or_default();
        edit_words(&mut dns.nameservers, &self.dns_add, &self.dns_rm);
        edit_words(&mut dns.options, &self.dns_option_add, &self.dns_option_rm);
        edit_words(&mut dns.search, &self.dns_search_add, &self.dns_search_rm);
        // Empty, it means what it means when it is absent.
        container.dns_config = Some(dns).filter(|dns| *dns != DnsConfig::default());
    }

    fn apply_ports(&self, spec: &mut ServiceSpec) {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return;
        }
        edit(
            &mut spec.endpoint.get_or_insert_default().ports,
            (&self.publish_add, &self.publish_rm),
            |a, b| {
                (a.target_port, a.protocol, a.published_port)
                    == (b.target_port, b.protocol, b.published_port)
            },
            is_port,
        );
    }

    fn apply_generic(&self, spec: &mut ServiceSpec) {
        let (add, rm) = (&self.generic_resource_add, &self.generic_resource_rm);
        if add.is_empty() && rm.is_empty() {
            return;
        }
        let add: Vec<_> = add
            .iter()
            .map(|some| GenericResource {
                resource: Some(Resource::DiscreteResourceSpec(some.clone())),
            })
            .collect();
        let resources = spec.task_mut().resources.get_or_insert_default();
        edit(
            &mut resources.reservations.get_or_insert_default().generic,
            (&add, rm),
            |a, b| kind(a) == kind(b),
            |resource, wanted| kind(resource) == wanted,
        );
    }
}

fn kind(resource: &GenericResource) -> &str {
    match &resource.resource {
        Some(Resource::DiscreteResourceSpec(some)) => &some.kind,
        Some(Resource::NamedResourceSpec(one)) => &one.kind,
        None => "",
    }
}

/// Whether a line `ADDRESS NAME…` is meant by `NAME` or `NAME:ADDRESS`.
fn is_host(line: &String, wanted: &str) -> bool {
    values::host(wanted).as_ref() == Ok(line)
        || line.split_whitespace().skip(1).any(|name| name == wanted)
}

/// Takes out what is named to be removed, then puts in what is to be added, in the place of what is
/// the same.
fn edit<T: Clone>(
    list: &mut Vec<T>,
    (add, rm): (&[T], &[String]),
    is_same: impl Fn(&T, &T) -> bool,
    is_meant: impl Fn(&T, &str) -> bool,
) {
    list.retain(|old| !rm.iter().any(|wanted| is_meant(old, wanted)));
    for new in add {
        match list.iter_mut().find(|old| is_same(old, new)) {
            Some(old) => old.clone_from(new),
            None => list.push(new.clone()),
        }
    }
}

/// The same for words.
fn edit_words(list: &mut Vec<String>, add: &[String], rm: &[String]) {
    edit(
        list,
        (add, rm),
        |a, b| a == b,
        |word, wanted| word == wanted,
    );
}

/// The same for a map.
fn edit_map(map: &mut BTreeMap<String, String>, add: &[(String, String)], rm: &[String]) {
    map.retain(|key, _| !rm.contains(key));
    map.extend(add.iter().cloned());
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use skep_proto::v1::{GenericRuntimeSpec, task_spec::Runtime};

    use super::*;

    #[derive(Parser)]
    struct New {
        #[command(flatten)]
        lists: NewLists,
    }

    #[derive(Parser)]
    struct Edit {
        #[command(flatten)]
        lists: ListEdits,
    }

    fn created(line: &[&str]) -> ServiceSpec {
        let new = New::try_parse_from(["create"].iter().chain(line)).unwrap();
        let mut spec = ServiceSpec::default();
        ListEdits::from(&new.lists).apply(&mut spec).unwrap();
        spec
    }

    fn change(spec: &mut ServiceSpec, line: &[&str]) {
        let edit = Edit::try_parse_from(["update"].iter().chain(line)).unwrap();
        edit.lists.apply(spec).unwrap();
    }

    fn container_of(spec: &ServiceSpec) -> &ContainerSpec {
        match &spec.task().runtime {
            Some(Runtime::Container(container)) => container,
            other => panic!("{other:?}"),
        }
    }

    const ALL: [&str; 13] = [
        "--secret=db",
        "--config=source=conf,target=/etc/conf",
        "--mount=type=tmpfs,target=/tmp",
        "--container-label=a=1",
        "--group=wheel",
        "--host=db:10.0.0.7",
        "--dns=10.0.0.53",
        "--dns-option=ndots:2",
        "--dns-search=example.com",
        "--sysctl=net.core.somaxconn=10",
        "--ulimit=nofile=10:20",
        "--generic-resource=gpu=2",
        "--publish=published=8080,target=80,mode=host",
    ];

    #[test]
    fn every_list_of_a_new_service_reaches_its_field() {
        let spec = created(&ALL);
        let container = container_of(&spec);
        assert_eq!(container.secrets, [reference::secret("db").unwrap()]);
        let conf = reference::config("source=conf,target=/etc/conf").unwrap();
        assert_eq!(container.configs, [conf]);
        assert_eq!(container.mounts, [mount("type=tmpfs,target=/tmp").unwrap()]);
        assert_eq!(container.labels["a"], "1");
        assert_eq!(container.groups, ["wheel"]);
        assert_eq!(container.hosts, ["10.0.0.7 db"]);
        let dns = container.dns_config.as_ref().unwrap();
        assert_eq!(dns.nameservers, ["10.0.0.53"]);
        assert_eq!(dns.options, ["ndots:2"]);
        assert_eq!(dns.search, ["example.com"]);
        assert_eq!(container.sysctls["net.core.somaxconn"], "10");
        assert_eq!(container.ulimits, [values::ulimit("nofile=10:20").unwrap()]);
        let resources = spec.task().resources.as_ref().unwrap();
        let generic = &resources.reservations.as_ref().unwrap().generic;
        assert_eq!(generic.len(), 1);
        assert_eq!(kind(&generic[0]), "gpu");
        let http = port("published=8080,target=80,mode=host").unwrap();
        assert_eq!(spec.endpoint.unwrap().ports, [http]);
    }

    #[test]
    fn what_was_added_can_be_removed() {
        let mut spec = created(&ALL);
        change(
            &mut spec,
            &[
                "--secret-rm=db",
                "--config-rm=conf",
                "--mount-rm=/tmp",
                "--container-label-rm=a",
                "--group-rm=wheel",
                "--host-rm=db",
                "--dns-rm=10.0.0.53",
                "--dns-option-rm=ndots:2",
                "--dns-search-rm=example.com",
                "--sysctl-rm=net.core.somaxconn",
                "--ulimit-rm=nofile",
                "--generic-resource-rm=gpu",
                "--publish-rm=80",
            ],
        );
        assert_eq!(*container_of(&spec), ContainerSpec::default());
        let resources = spec.task().resources.as_ref().unwrap();
        let reservations = resources.reservations.as_ref().unwrap();
        assert!(reservations.generic.is_empty());
        assert!(spec.endpoint.unwrap().ports.is_empty());
    }

    #[test]
    fn additions_replace_what_is_the_same_and_keep_the_rest() {
        let mut spec = created(&[
            "--mount=target=/a,source=one",
            "--mount=target=/b,source=two",
            "--ulimit=nofile=1",
            "--generic-resource=gpu=1",
            "--secret=db",
            "--host=db:10.0.0.7",
            "--host=db:10.0.0.8",
        ]);
        change(
            &mut spec,
            &[
                "--mount-add=target=/a,source=other",
                "--ulimit-add=nofile=2",
                "--generic-resource-add=gpu=3",
                "--secret-add=db",
                "--secret-add=source=db,target=again",
                "--host-rm=db:10.0.0.7",
            ],
        );
        let container = container_of(&spec);
        let sources: Vec<_> = container.mounts.iter().map(|m| m.source.as_str()).collect();
        assert_eq!(sources, ["other", "two"]);
        assert_eq!(container.ulimits, [values::ulimit("nofile=2").unwrap()]);
        assert_eq!(container.secrets.len(), 2, "one secret in two files");
        assert_eq!(container.hosts, ["10.0.0.8 db"]);
        let resources = spec.task().resources.clone().unwrap();
        let generic = resources.reservations.unwrap().generic;
        let gpus = values::generic_resource("gpu=3").unwrap();
        assert_eq!(
            generic,
            [GenericResource {
                resource: Some(Resource::DiscreteResourceSpec(gpus))
            }]
        );
    }

    #[test]
    fn the_lists_of_a_container_need_one() {
        let runtime = Some(Runtime::Generic(GenericRuntimeSpec::default()));
        let mut spec = ServiceSpec::default();
        spec.task_mut().runtime = runtime.clone();
        change(&mut spec, &["--generic-resource-add=gpu=1"]);
        assert_eq!(spec.task().runtime, runtime);
        let edit = Edit::try_parse_from(["update", "--group-add=wheel"]).unwrap();
        assert!(matches!(edit.lists.apply(&mut spec), Err(Error::Usage(_))));
    }
}
