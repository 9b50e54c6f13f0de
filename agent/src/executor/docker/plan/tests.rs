//! Specs and the containers that they become.

use super::*;

/// A task as a manager assigns it.
fn task(change: impl FnOnce(&mut v1::Task, &mut v1::ContainerSpec)) -> v1::Task {
    let mut spec = v1::ContainerSpec {
        image: "nginx:1.27".to_owned(),
        ..Default::default()
    };
    let mut task = v1::Task {
        id: "tid".to_owned(),
        service_id: "sid".to_owned(),
        node_id: "nid".to_owned(),
        slot: 2,
        ..Default::default()
    };
    task.service_annotations_mut().name = "web".to_owned();
    change(&mut task, &mut spec);
    task.spec_mut().runtime = Some(task_spec::Runtime::Container(spec));
    task
}

fn planned(change: impl FnOnce(&mut v1::Task, &mut v1::ContainerSpec)) -> Plan {
    match Plan::new(&task(change)) {
        Ok(plan) => plan,
        Err(why) => panic!("{why}"),
    }
}

fn refused(change: impl FnOnce(&mut v1::Task, &mut v1::ContainerSpec)) -> String {
    match Plan::new(&task(change)) {
        Ok(_) => panic!("it was not refused"),
        Err(why) => why,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn api(minor_version: usize) -> ClientVersion {
    ClientVersion {
        major_version: 1,
        minor_version,
    }
}

#[test]
fn a_bare_task_leaves_all_to_image_and_engine() {
    let plan = planned(|_, _| ());
    let expected = ContainerCreateBody {
        image: Some("nginx:1.27".to_owned()),
        labels: plan.body.labels.clone(),
        host_config: Some(HostConfig::default()),
        ..Default::default()
    };
    assert_eq!(plan.body, expected);
    assert_eq!(plan.grace, 10);
    assert!(plan.check(&api(24)).is_ok());
}

#[test]
fn names_and_labels_are_dockers() {
    let plan = planned(|task, spec| {
        spec.labels = [
            ("own".to_owned(), "1".to_owned()),
            ("com.docker.swarm.task.id".to_owned(), "forged".to_owned()),
        ]
        .into();
        task.annotations_mut()
            .labels
            .insert("of-task".into(), "2".into());
    });
    assert_eq!(plan.name, "web.2.tid");
    let labels = plan.body.labels.unwrap();
    let mut labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.sort();
    assert_eq!(
        labels,
        [
            "com.docker.swarm.node.id=nid",
            "com.docker.swarm.service.id=sid",
            "com.docker.swarm.service.name=web",
            "com.docker.swarm.task.id=tid",
            "com.docker.swarm.task.name=web.2.tid",
            "com.docker.swarm.task=",
            "of-task=2",
            "own=1",
        ]
    );
    assert_eq!(planned(|task, _| task.slot = 0).name, "web.nid.tid");
    let named = planned(|task, _| task.annotations_mut().name = "own".into());
    assert_eq!(named.name, "own");
}

#[test]
fn the_process_is_as_the_spec_says() {
    let plan = planned(|_, spec| {
        spec.command = words(&["entry"]);
        spec.args = words(&["a", "b"]);
        spec.env = words(&["A=1"]);
        spec.dir = "/work".into();
        spec.user = "5:6".into();
        spec.groups = words(&["7"]);
        spec.hostname = "h".into();
        spec.tty = true;
        spec.open_stdin = true;
        spec.read_only = true;
        spec.init = Some(false);
        spec.stop_signal = "SIGQUIT".into();
        spec.stop_grace_period = Some(skep_proto::Duration {
            seconds: 1,
            nanos: 1,
        });
        spec.hosts = words(&["10.0.0.1 one  two", "bad", ""]);
        spec.dns_config = Some(v1::container_spec::DnsConfig {
            nameservers: words(&["1.1.1.1"]),
            search: words(&["local"]),
            options: words(&["ndots:2"]),
        });
    });
    let body = plan.body;
    assert_eq!(body.entrypoint, Some(words(&["entry"])));
    assert_eq!(body.cmd, Some(words(&["a", "b"])));
    assert_eq!(body.env, Some(words(&["A=1"])));
    assert_eq!(body.working_dir.as_deref(), Some("/work"));
    assert_eq!(body.user.as_deref(), Some("5:6"));
    assert_eq!(body.hostname.as_deref(), Some("h"));
    assert_eq!((body.tty, body.open_stdin), (Some(true), Some(true)));
    assert_eq!(body.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(plan.grace, 2, "no part of the grace is lost");
    let host = body.host_config.unwrap();
    assert_eq!(host.group_add, Some(words(&["7"])));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.init, Some(false));
    assert_eq!(
        host.extra_hosts,
        Some(words(&["one:10.0.0.1", "two:10.0.0.1"]))
    );
    assert_eq!(host.dns, Some(words(&["1.1.1.1"])));
    assert_eq!(host.dns_search, Some(words(&["local"])));
    assert_eq!(host.dns_options, Some(words(&["ndots:2"])));
}

#[test]
fn limits_and_security_are_passed_on() {
    let plan = planned(|task, spec| {
        spec.pids_limit = 9;
        spec.oom_score_adj = -5;
        spec.capability_add = words(&["CAP_NET_ADMIN"]);
        spec.capability_drop = words(&["ALL"]);
        spec.sysctls = [("net.core.somaxconn".to_owned(), "9".to_owned())].into();
        spec.ulimits = vec![v1::container_spec::Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: 2,
        }];
        spec.privileges = Some(v1::Privileges {
            no_new_privileges: true,
            selinux_context: Some(v1::privileges::SeLinuxContext {
                level: "s0".into(),
                ..Default::default()
            }),
            seccomp: Some(v1::privileges::SeccompOpts {
                mode: v1::privileges::seccomp_opts::SeccompMode::Custom as i32,
                profile: "{}".into(),
            }),
            apparmor: Some(v1::privileges::AppArmorOpts {
                mode: v1::privileges::app_armor_opts::AppArmorMode::Disabled as i32,
            }),
            ..Default::default()
        });
        task.spec_mut().resources = Some(v1::ResourceRequirements {
            limits: Some(v1::Resources {
                nano_cpus: 500_000_000,
                memory_bytes: 64 << 20,
                ..Default::default()
            }),
            reservations: Some(v1::Resources {
                nano_cpus: 1,
                memory_bytes: 32 << 20,
                ..Default::default()
            }),
            swap_bytes: Some(1 << 20),
            memory_swappiness: Some(0),
        });
        task.log_driver = Some(v1::Driver {
            name: "json-file".into(),
            options: [("max-size".to_owned(), "1m".to_owned())].into(),
        });
    });
    let host = plan.body.host_config.unwrap();
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.memory, Some(64 << 20));
    assert_eq!(host.memory_reservation, Some(32 << 20));
    assert_eq!(host.memory_swap, Some(65 << 20), "memory and swap together");
    assert_eq!(host.memory_swappiness, Some(0));
    assert_eq!((host.pids_limit, host.oom_score_adj), (Some(9), Some(-5)));
    assert_eq!(host.cap_add, Some(words(&["CAP_NET_ADMIN"])));
    assert_eq!(host.cap_drop, Some(words(&["ALL"])));
    assert_eq!(host.sysctls.unwrap()["net.core.somaxconn"], "9");
    assert_eq!(host.ulimits.unwrap()[0].hard, Some(2));
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(log.config.unwrap()["max-size"], "1m");
    assert_eq!(
        host.security_opt,
        Some(words(&[
            "label=level:s0",
            "seccomp={}",
            "apparmor=unconfined",
            "no-new-privileges=true"
        ]))
    );
}

#[test]
fn a_limit_of_swap_is_checked() {
    let swap = |swap, memory| {
        move |task: &mut v1::Task, _: &mut v1::ContainerSpec| {
            task.spec_mut().resources = Some(v1::ResourceRequirements {
                limits: Some(v1::Resources {
                    memory_bytes: memory,
                    ..Default::default()
                }),
                swap_bytes: Some(swap),
                ..Default::default()
            });
        }
    };
    assert!(refused(swap(5, 0)).contains("limit of memory"));
    assert!(refused(swap(-5, 1)).contains("negative"));
    let host = planned(swap(-1, 0)).body.host_config.unwrap();
    assert_eq!(host.memory_swap, Some(-1));
}

#[test]
fn generic_resources_are_in_the_environment() {
    let plan = planned(|task, spec| {
        spec.env = words(&["A=1"]);
        let named = |kind: &str, value: &str| {
            Resource::NamedResourceSpec(v1::NamedGenericResource {
                kind: kind.into(),
                value: value.into(),
            })
        };
        let counted = Resource::DiscreteResourceSpec(v1::DiscreteGenericResource {
            kind: "ssd".into(),
            value: 3,
        });
        task.assigned_generic_resources = [named("gpu", "u1"), named("gpu", "u2"), counted]
            .map(|it| v1::GenericResource { resource: Some(it) })
            .into();
    });
    assert_eq!(
        plan.body.env,
        Some(words(&[
            "A=1",
            "DOCKER_RESOURCE_GPU=u1,u2",
            "DOCKER_RESOURCE_SSD=3"
        ]))
    );
}

#[test]
fn a_health_check_is_in_nanoseconds_and_says_what_it_needs() {
    let duration = |seconds| Some(skep_proto::Duration { seconds, nanos: 5 });
    let plan = planned(|_, spec| {
        spec.healthcheck = Some(v1::HealthConfig {
            test: words(&["CMD", "true"]),
            interval: duration(2),
            retries: 4,
            start_interval: duration(1),
            ..Default::default()
        });
    });
    let check = plan.body.healthcheck.clone().unwrap();
    assert_eq!(check.test, Some(words(&["CMD", "true"])));
    assert_eq!(check.interval, Some(2_000_000_005));
    assert_eq!((check.timeout, check.retries), (None, Some(4)));
    let why = plan.check(&api(41)).unwrap_err();
    assert!(
        why.contains("during the start (API 1.44)") && why.contains("speaks API 1.41"),
        "{why}"
    );
    assert!(plan.check(&api(44)).is_ok());
}

fn attachment(name: &str, driver: &str, predefined: bool) -> v1::NetworkAttachment {
    let mut network = v1::Network {
        driver_state: Some(v1::Driver {
            name: driver.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let annotations = network.spec_mut().annotations_mut();
    annotations.name = name.into();
    if predefined {
        let label = ("com.docker.swarm.predefined".to_owned(), "true".to_owned());
        annotations.labels = [label].into();
    }
    v1::NetworkAttachment {
        network: Some(network),
        aliases: vec!["alias".into()],
        ..Default::default()
    }
}

#[test]
fn networks_are_the_engines_own() {
    let plan = planned(|task, _| task.networks = vec![attachment("host", "host", true)]);
    assert!(plan.body.networking_config.is_none(), "it knows no aliases");
    let host = plan.body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("host"));

    let plan = planned(|task, _| {
        task.networks = vec![
            attachment("one", "bridge", false),
            attachment("two", "macvlan", false),
        ];
    });
    assert_eq!(plan.networks(), words(&["one", "two"]));
    let first = plan.body.networking_config.unwrap();
    let first = &first.endpoints_config.unwrap()["one"];
    assert_eq!(first.aliases, Some(words(&["alias"])));
    assert_eq!(plan.further[0].network, "two");

    for driver in ["overlay", ""] {
        let why = refused(|task, _| task.networks = vec![attachment("net", driver, false)]);
        assert!(why.contains("\"net\" is an overlay"), "{why}");
    }
}

#[test]
fn ports_are_published_on_the_host_or_not_at_all() {
    use v1::port_config::{Protocol, PublishMode};
    let port = |mode: PublishMode, published_port| v1::PortConfig {
        protocol: Protocol::Udp as i32,
        target_port: 53,
        published_port,
        publish_mode: mode as i32,
        ..Default::default()
    };
    let with = |ports| {
        move |task: &mut v1::Task, _: &mut v1::ContainerSpec| {
            task.endpoint = Some(v1::Endpoint {
                ports,
                ..Default::default()
            });
        }
    };
    let ports = vec![port(PublishMode::Host, 5353), port(PublishMode::Host, 0)];
    let body = planned(with(ports)).body;
    assert_eq!(body.exposed_ports, Some(words(&["53/udp"])));
    let bindings = body.host_config.unwrap().port_bindings.unwrap();
    let bindings = bindings["53/udp"].clone().unwrap();
    assert_eq!(bindings[0].host_port.as_deref(), Some("5353"));
    assert_eq!(bindings[1].host_port, None, "the engine chooses");
    let why = refused(with(vec![port(PublishMode::Ingress, 53)]));
    assert!(why.contains("routing mesh"), "{why}");
}

#[test]
fn what_no_engine_here_has_is_refused_by_name() {
    assert!(refused(|_, spec| spec.image.clear()).contains("no image"));
    let why = refused(|_, spec| spec.isolation = Isolation::Hyperv as i32);
    assert!(why.contains("isolation"), "{why}");
    let why = refused(|task, _| task.volumes = vec![v1::VolumeAttachment::default()]);
    assert!(why.contains("cluster volumes"), "{why}");
    let why = refused(|_, spec| {
        spec.privileges = Some(v1::Privileges {
            credential_spec: Some(v1::privileges::CredentialSpec::default()),
            ..Default::default()
        });
    });
    assert!(why.contains("credential spec"), "{why}");
    let mut generic = task(|_, _| ());
    generic.spec_mut().runtime = Some(task_spec::Runtime::Generic(v1::GenericRuntimeSpec {
        kind: "vm".into(),
        payload: None,
    }));
    assert!(Plan::new(&generic).is_err_and(|why| why.contains("\"vm\"")));
    assert!(Plan::new(&v1::Task::default()).is_err(), "nothing to run");
}
