//! What a container spec says is so inside the container.

use skep_proto::v1::{self, container_spec::Ulimit, mount};

use crate::support::{bench, with};

#[tokio::test]
async fn the_process_and_its_surroundings_are_as_the_spec_says() {
    let Some(bench) = bench().await else { return };
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "of the host").unwrap();
    let line = "echo $A $DOCKER_RESOURCE_GPU; pwd; id -u; id -G; hostname; ulimit -n
        grep somehost /etc/hosts; grep '^options' /etc/resolv.conf
        touch /no 2>/dev/null || echo read-only; touch /mem/x && ls /mem
        cat /host/file; echo; touch /host/x 2>/dev/null || echo read-only
        touch /data/x && ls /data
        cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj
        grep -c 'CapBnd:.0000000000000000' /proc/self/status
        grep NoNewPrivs /proc/self/status";
    let volume = format!("skep-test-{}", skep_proto::id::random());
    let mut task = with(bench.shell(line), |spec| {
        spec.env = vec!["A=1".into()];
        spec.dir = "/tmp".into();
        spec.user = "0:8".into();
        spec.groups = vec!["9".into()];
        spec.hostname = "named".into();
        spec.read_only = true;
        spec.init = Some(true);
        spec.hosts = vec!["10.1.2.3 somehost".into()];
        spec.dns_config = Some(v1::container_spec::DnsConfig {
            nameservers: vec!["10.1.2.4".into()],
            options: vec!["ndots:3".into()],
            ..Default::default()
        });
        spec.ulimits = vec![Ulimit {
            name: "nofile".into(),
            soft: 77,
            hard: 78,
        }];
        spec.sysctls = [("net.core.somaxconn".to_owned(), "99".to_owned())].into();
        spec.oom_score_adj = 123;
        spec.capability_drop = vec!["ALL".into()];
        spec.privileges = Some(v1::Privileges {
            no_new_privileges: true,
            ..Default::default()
        });
        let of = |r#type: mount::Type, source: &str, target: &str| v1::Mount {
            r#type: r#type as i32,
            source: source.into(),
            target: target.into(),
            ..Default::default()
        };
        let bind = host.path().to_str().unwrap();
        spec.mounts = vec![
            v1::Mount {
                tmpfs_options: Some(mount::TmpfsOptions {
                    size_bytes: 1 << 20,
                    mode: 0o1777,
                    ..Default::default()
                }),
                ..of(mount::Type::Tmpfs, "", "/mem")
            },
            v1::Mount {
                readonly: true,
                ..of(mount::Type::Bind, bind, "/host")
            },
            v1::Mount {
                volume_options: Some(mount::VolumeOptions {
                    labels: [("kept".to_owned(), "yes".to_owned())].into(),
                    driver_config: Some(v1::Driver {
                        name: "local".into(),
                        options: [
                            ("type".to_owned(), "tmpfs".to_owned()),
                            ("device".to_owned(), "tmpfs".to_owned()),
                        ]
                        .into(),
                    }),
                    ..Default::default()
                }),
                ..of(mount::Type::Volume, &volume, "/data")
            },
        ];
    });
    task.assigned_generic_resources = vec![v1::GenericResource {
        resource: Some(v1::generic_resource::Resource::NamedResourceSpec(
            v1::NamedGenericResource {
                kind: "gpu".into(),
                value: "u1".into(),
            },
        )),
    }];
    let lines = bench.output(&task).await;
    let expected = [
        "1 u1",
        "/tmp",
        "0",
        "8 9",
        "named",
        "77",
        "10.1.2.3\tsomehost",
        "options ndots:3",
        "read-only",
        "x",
        "of the host",
        "read-only",
        "x",
        "99",
        "123",
        "1",
        "NoNewPrivs:\t1",
    ];
    assert_eq!(lines, expected);
    let found = bench.docker.inspect_volume(&volume).await.unwrap();
    assert_eq!(found.labels["kept"], "yes");
    assert_eq!(found.options["type"], "tmpfs");
    let options = None::<bollard::query_parameters::RemoveVolumeOptions>;
    bench.docker.remove_volume(&volume, options).await.unwrap();
}

#[tokio::test]
async fn limits_hold_and_running_out_of_memory_is_said() {
    let Some(bench) = bench().await else { return };
    let mut task = with(bench.shell("tail /dev/zero"), |spec| spec.pids_limit = 20);
    task.spec_mut().resources = Some(v1::ResourceRequirements {
        limits: Some(v1::Resources {
            memory_bytes: 16 << 20,
            nano_cpus: 500_000_000,
            ..Default::default()
        }),
        swap_bytes: Some(0),
        ..Default::default()
    });
    let mut controller = bench.started(&task).await;
    let id = controller.container().unwrap().container_id;
    let found = bench.docker.inspect_container(&id, None).await.unwrap();
    let host = found.host_config.unwrap();
    assert_eq!(host.memory, Some(16 << 20));
    assert_eq!(host.memory_swap, Some(16 << 20));
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.pids_limit, Some(20));
    let exit = controller.wait().await.unwrap();
    assert_eq!(exit.code, Some(137));
    assert!(exit.reason.contains("out of memory"), "{}", exit.reason);
    controller.remove().await.unwrap();
}
