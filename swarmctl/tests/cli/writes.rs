//! Commands that change something, without waiting for what comes of it.

use skep_proto::v1::{
    Cluster, NodeRole, node_spec::Availability, service_spec::Mode, task_spec::Runtime,
};
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

#[tokio::test]
async fn create_sends_the_spec_and_prints_the_id() {
    let fake = Fake::new(World::default());
    let line = "service create --name web --replicas 3 -e A=1 -d -- sleep 100";
    assert_eq!(swarmctl(&fake, line).await.ok(), "s1\n");
    let spec = fake.world().services[0].spec.clone().unwrap();
    assert_eq!(spec.annotations().name, "web");
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.command, ["sleep"]);
    assert_eq!(container.args, ["100"]);
    assert_eq!(fake.world().calls, ["create_service"], "detached");
}

#[tokio::test]
async fn create_can_print_the_service() {
    let fake = Fake::new(World::default());
    let line = "service create --format json --name web -d -- true";
    let json: serde_json::Value = serde_json::from_str(&swarmctl(&fake, line).await.ok()).unwrap();
    assert_eq!(json["id"], "s1");
}

#[tokio::test]
async fn update_edits_what_was_named() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        ..Default::default()
    });
    let line = "service update -d --replicas 5 --env-add A=1 --force web";
    assert_eq!(swarmctl(&fake, line).await.ok(), "web\n");
    let spec = fake.world().services[0].spec.clone().unwrap();
    assert!(matches!(&spec.mode, Some(Mode::Replicated(mode)) if mode.replicas == 5));
    assert_eq!(spec.task().force_update, 1);
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.env, ["A=1"]);
    assert_eq!(container.image, "process");
}

#[tokio::test]
async fn scale_sets_several_services() {
    let services = vec![service("s1", "web", 1), service("s2", "api", 1)];
    let fake = Fake::new(World {
        services,
        ..Default::default()
    });
    let run = swarmctl(&fake, "service scale -d web=3 nothing=1 api=0").await;
    assert_eq!(run.out, "web scaled to 3\napi scaled to 0\n");
    assert_eq!(
        run.failed(Exit::Failed),
        "Error: service nothing not found\n"
    );
    let world = fake.world();
    for (service, wanted) in world.services.iter().zip([3, 0]) {
        let mode = service.spec().mode.as_ref();
        assert!(matches!(mode, Some(Mode::Replicated(mode)) if mode.replicas == wanted));
    }
}

#[tokio::test]
async fn rm_tries_all_and_reports_each_failure() {
    let services = vec![service("s1", "web", 1), service("s2", "api", 1)];
    let fake = Fake::new(World {
        services,
        ..Default::default()
    });
    let run = swarmctl(&fake, "service rm a web b").await;
    assert_eq!(run.out, "web\n");
    let err = run.failed(Exit::Failed);
    let expected = "\
Error: service a not found
Error: service b not found
Error: 2 failures
";
    assert_eq!(err, expected);
    assert_eq!(fake.world().services.len(), 1);
}

#[tokio::test]
async fn a_node_is_drained_and_keeps_the_rest_of_its_spec() {
    let mut one = node("n1", "host-1");
    one.spec_mut()
        .annotations_mut()
        .labels
        .insert("disk".to_owned(), "ssd".to_owned());
    let fake = Fake::new(World {
        nodes: vec![one],
        ..Default::default()
    });
    let line = "node update --availability drain --label-add zone=a host-1";
    assert_eq!(swarmctl(&fake, line).await.ok(), "host-1\n");
    let spec = fake.world().nodes[0].spec.clone().unwrap();
    assert_eq!(spec.availability(), Availability::Drain);
    assert_eq!(spec.annotations().labels.len(), 2);
}

#[tokio::test]
async fn a_node_that_is_up_is_removed_by_force_only() {
    let fake = Fake::new(World {
        nodes: vec![node("n1", "host-1")],
        ..Default::default()
    });
    let err = swarmctl(&fake, "node rm host-1").await.failed(Exit::Failed);
    assert_eq!(err, "Error: node n1 is not down and can't be removed\n");
    assert_eq!(
        swarmctl(&fake, "node rm --force host-1").await.ok(),
        "host-1\n"
    );
    assert!(fake.world().nodes.is_empty());
}

#[tokio::test]
async fn managers_are_demoted_and_workers_promoted() {
    let mut manager = node("n1", "host-1");
    manager.spec_mut().set_desired_role(NodeRole::Manager);
    let fake = Fake::new(World {
        nodes: vec![manager],
        ..Default::default()
    });
    assert_eq!(swarmctl(&fake, "node demote host-1").await.ok(), "host-1\n");
    let desired = || fake.world().nodes[0].spec().desired_role();
    assert_eq!(desired(), NodeRole::Worker);
    assert_eq!(
        swarmctl(&fake, "node promote host-1").await.ok(),
        "host-1\n"
    );
    assert_eq!(desired(), NodeRole::Manager);
}

#[tokio::test]
async fn update_changes_the_whole_of_a_container() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        ..Default::default()
    });
    let line = "service update -d --hostname h --tty --read-only --init=false --limit-pids 5 \
                --cap-add net_admin --health-cmd check --health-retries 2 --log-driver syslog \
                --mount-add type=tmpfs,target=/tmp --rollback-order start-first web";
    swarmctl(&fake, line).await.ok();
    let spec = fake.world().services[0].spec.clone().unwrap();
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.hostname, "h");
    assert!(container.tty && container.read_only);
    assert_eq!(container.init, Some(false));
    assert_eq!(container.pids_limit, 5);
    assert_eq!(container.capability_add, ["CAP_NET_ADMIN"]);
    let health = container.healthcheck.as_ref().unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "check"]);
    assert_eq!(health.retries, 2);
    assert_eq!(container.mounts[0].target, "/tmp");
    assert_eq!(spec.task().log_driver.as_ref().unwrap().name, "syslog");
    assert_eq!(spec.rollback.unwrap().parallelism, 1);
    let line = "service update -d --no-healthcheck --mount-rm /tmp --cap-drop net_admin web";
    swarmctl(&fake, line).await.ok();
    let spec = fake.world().services[0].spec.clone().unwrap();
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        panic!("{spec:?}")
    };
    assert_eq!(container.healthcheck.as_ref().unwrap().test, ["NONE"]);
    assert!(container.mounts.is_empty() && container.capability_add.is_empty());
    assert_eq!(container.hostname, "h", "not named");
}

#[tokio::test]
async fn a_wrong_value_is_told_with_its_flag_and_the_form() {
    let fake = Fake::new(World::default());
    for (flag, form) in [
        ("--limit-memory=512Q", "512M or 64MiB"),
        ("--limit-cpu=-1", "a number of CPUs such as 0.5"),
        ("--ulimit=nofile", "TYPE=SOFT[:HARD]"),
        ("--mount=type=bind,source=/a", "no target"),
        ("--secret=source=a,mode=9", "octal"),
        ("--generic-resource=gpu", "KIND=COUNT"),
        ("--host=db", "NAME:ADDRESS"),
        ("--dns=resolver", "an IP address"),
        ("--sysctl=a", "KEY=VALUE"),
        ("--cap-add=a-b", "CAP_NET_ADMIN"),
        ("--oom-score-adj=2000", "-1000..=1000"),
    ] {
        let line = format!("service create -d --name a {flag} -- true");
        let err = swarmctl(&fake, &line).await.failed(Exit::Usage);
        let name = flag.split_once('=').unwrap().0;
        assert!(err.contains(name) && err.contains(form), "{flag}: {err}");
    }
    let line = "service create -d --name a --no-healthcheck --health-retries 1 -- true";
    let err = swarmctl(&fake, line).await.failed(Exit::Usage);
    assert!(err.contains("--no-healthcheck"), "{err}");
    let line = "service create -d --name a --entrypoint sh -- true";
    let err = swarmctl(&fake, line).await.failed(Exit::Usage);
    assert!(err.contains("--entrypoint is for images"), "{err}");
    assert!(fake.world().calls.is_empty());
}

#[tokio::test]
async fn rollback_asks_for_the_previous_spec() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        ..Default::default()
    });
    assert_eq!(
        swarmctl(&fake, "service rollback -d web").await.ok(),
        "web\n"
    );
    assert_eq!(fake.world().rollbacks, 1);
}

#[tokio::test]
async fn the_cluster_is_changed_and_new_tokens_are_shown() {
    let mut cluster = Cluster {
        id: "c1".to_owned(),
        ..Default::default()
    };
    cluster.meta_mut().version_mut().index = 10;
    cluster.spec_mut().annotations_mut().name = "default".to_owned();
    cluster.spec_mut().raft_mut().election_tick = 10;
    let fake = Fake::new(World {
        clusters: vec![cluster],
        conflicts: 1,
        ..Default::default()
    });
    let line = "cluster update --cert-expiry 2h --dispatcher-heartbeat 7s --task-history-limit 2 \
                --snapshot-interval 99 --rotate-join-token worker";
    let out = swarmctl(&fake, line).await.ok();
    assert!(out.starts_with("default\n"), "{out}");
    assert!(out.contains("new-worker-token"), "{out}");
    assert!(!out.contains("manager"), "{out}");
    assert_eq!(fake.count("update_cluster"), 2);
    let spec = fake.world().clusters[0].spec.clone().unwrap();
    assert_eq!(spec.ca_config().node_cert_expiry.unwrap().seconds, 7200);
    assert_eq!(spec.dispatcher().heartbeat_period.unwrap().seconds, 7);
    assert_eq!(spec.orchestration().task_history_retention_limit, 2);
    assert_eq!(spec.raft().snapshot_interval, 99);
    assert_eq!(spec.raft().election_tick, 10, "not named");
}
