//! What single objects look like.

use serde_json::Value;
use skep_proto::{
    skep::{GetRaftStatusResponse, RaftStatusMember},
    v1::{
        Cluster, ManagerStatus, Secret, TaskState, UpdateStatus, raft_member_status,
        update_status::UpdateState,
    },
};
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

#[tokio::test]
async fn a_service_as_fields_and_as_json() {
    let mut web = service("s1", "web", 3);
    web.spec_mut()
        .annotations_mut()
        .labels
        .insert("bare".to_owned(), String::new());
    web.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted.into(),
        message: "because".to_owned(),
        ..Default::default()
    });
    let fake = Fake::new(World {
        services: vec![web],
        ..Default::default()
    });
    let expected = "\
ID:                  s1
Name:                web
Version:             10
Labels:
 bare:
Mode:                replicated
Replicas:            3
Update status:
 State:              Rollback started
 Message:            because
Container:
 Image:              process
Update:
 Parallelism:        1
 Order:              Stop first
 On failure:         Pause
 Monitor:            300ms
 Max failure ratio:  0
";
    assert_eq!(swarmctl(&fake, "service inspect web").await.ok(), expected);
    let json = swarmctl(&fake, "service inspect web --format json")
        .await
        .ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["updateStatus"]["state"], "ROLLBACK_STARTED");
    assert_eq!(json["spec"]["task"]["container"]["image"], "process");
}

#[tokio::test]
async fn a_service_that_says_everything() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 3)],
        ..Default::default()
    });
    let mut secret = Secret {
        id: "x1".to_owned(),
        ..Default::default()
    };
    secret.spec_mut().annotations_mut().name = "db".to_owned();
    fake.world().secrets.push(secret);
    let line = "service update -d --secret-add source=db,target=pw,uid=33 --hostname h \
                --mount-add type=bind,source=/srv,target=/data,ro \
                --mount-add type=tmpfs,target=/tmp,tmpfs-size=64m \
                --mount-add source=v,target=/v,volume-driver=nfs --cap-drop all --init \
                --dns-add 10.0.0.1 --sysctl-add a.b=1 --ulimit-add nofile=1:2 --health-cmd check \
                --health-retries 2 --limit-pids 7 --generic-resource-add gpu=2 --memory-swap -1 \
                --log-driver syslog --log-opt tag=x --host-add db:10.0.0.7 web";
    swarmctl(&fake, line).await.ok();
    let shown = swarmctl(&fake, "service inspect web").await.ok();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<_> = shown.lines().map(words).collect();
    for expected in [
        "Hostname: h",
        "db: pw (33:0 0444)",
        "/data: bind /srv, read-only",
        "/tmp: tmpfs, 64 MiB",
        "/v: volume v, driver nfs",
        "Capabilities dropped: ALL",
        "Init: true",
        "Servers: 10.0.0.1",
        "a.b: 1",
        "nofile: 1:2",
        "Test: CMD-SHELL check",
        "Retries: 2",
        "Most processes: 7",
        "gpu: 2",
        "Memory and swap: no limit",
        "Name: syslog",
        "tag: x",
        "Hosts: 10.0.0.7 db",
    ] {
        assert!(
            shown.contains(&expected.to_owned()),
            "{expected}: {shown:#?}"
        );
    }
}

#[tokio::test]
async fn a_task_a_node_and_a_cluster() {
    let mut cluster = Cluster {
        id: "c1".to_owned(),
        ..Default::default()
    };
    cluster.spec_mut().annotations_mut().name = "default".to_owned();
    cluster.root_ca_mut().join_tokens_mut().worker = "SWMTKN-1-w".to_owned();
    let mut world = World {
        nodes: vec![node("n1", "host-1")],
        clusters: vec![cluster],
        ..Default::default()
    };
    world
        .task("t1", 2, TaskState::Failed, TaskState::Shutdown)
        .status_mut()
        .err = "exit 1".to_owned();
    let fake = Fake::new(world);
    let task = swarmctl(&fake, "task inspect t1").await.ok();
    for line in [
        "Name:           web.2\n",
        " State:         Failed\n",
        " Error:         exit 1\n",
    ] {
        assert!(task.contains(line), "{line} in\n{task}");
    }
    let node = swarmctl(&fake, "node inspect host-1").await.ok();
    assert!(node.contains("Hostname:       host-1\n"), "{node}");
    let cluster = swarmctl(&fake, "cluster inspect").await.ok();
    assert!(cluster.contains("SWMTKN-1-w\n"), "{cluster}");
    for line in ["task inspect t1", "node inspect n1", "cluster inspect"] {
        let json = swarmctl(&fake, &format!("{line} --format json")).await.ok();
        assert!(
            serde_json::from_str::<Value>(&json).unwrap()["id"].is_string(),
            "{json}"
        );
    }
}

/// A leader, and a manager that has just joined.
fn members() -> GetRaftStatusResponse {
    GetRaftStatusResponse {
        raft_id: 0xab,
        term: 7,
        leader_raft_id: 0xab,
        first_index: 501,
        last_index: 1234,
        committed_index: 1233,
        applied_index: 1232,
        snapshot_index: 1000,
        members: vec![
            RaftStatusMember {
                raft_id: 0xab,
                node_id: "n1".to_owned(),
                addr: "host-1:4242".to_owned(),
                leader: true,
                reachable: true,
                matched_index: 1234,
                ..Default::default()
            },
            RaftStatusMember {
                raft_id: 0xcd,
                node_id: "n2".to_owned(),
                addr: "host-2:4242".to_owned(),
                learner: true,
                reachable: true,
                ..Default::default()
            },
        ],
    }
}

#[tokio::test]
async fn members_show_their_votes_and_positions() {
    let mut managers = vec![node("n1", "host-1"), node("n2", "host-2")];
    for (manager, raft_id) in managers.iter_mut().zip([0xab, 0xcd]) {
        manager.manager_status = Some(ManagerStatus {
            raft_id,
            leader: raft_id == 0xab,
            reachability: raft_member_status::Reachability::Reachable.into(),
            ..Default::default()
        });
    }
    let mut cluster = Cluster {
        id: "c1".to_owned(),
        ..Default::default()
    };
    cluster.spec_mut().annotations_mut().name = "default".to_owned();
    let fake = Fake::new(World {
        nodes: managers,
        clusters: vec![cluster],
        raft: Some(members()),
        ..Default::default()
    });
    let expected = "\
RAFT ID   NODE   ADDRESS       STATUS               LOG
ab        n1     host-1:4242   leader, voter        1234
cd        n2     host-2:4242   reachable, learner   -
";
    assert_eq!(swarmctl(&fake, "cluster members").await.ok(), expected);
    let json = swarmctl(&fake, "cluster members --format json").await.ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["snapshotIndex"], "1000");
    assert_eq!(json["members"][1]["learner"], true);
    let list = swarmctl(&fake, "node ls").await.ok();
    assert!(list.contains("Reachable (learner)"), "{list}");
    let shown = swarmctl(&fake, "cluster inspect").await.ok();
    for part in [
        "501 to 1234",
        "1233",
        "1232",
        "1000",
        "n1 at host-1:4242: leader, voter",
        "n2 at host-2:4242: reachable, learner",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let shown = swarmctl(&fake, "node inspect host-1").await.ok();
    assert!(shown.contains("1234"), "{shown}");
    // A manager of another kind does without.
    fake.world().raft = None;
    let refused = swarmctl(&fake, "cluster members")
        .await
        .failed(Exit::Failed);
    assert!(refused.contains("no manager of Skep"), "{refused}");
    swarmctl(&fake, "cluster inspect").await.ok();
}
