//! The calls about nodes, against a store that commits at once.

use skep_proto::v1::{control_server::Control as _, node_spec::*, *};
use tonic::Code;

use crate::control::testing::*;

fn node(id: &str, role: NodeRole, state: node_status::State) -> Node {
    Node {
        id: id.into(),
        spec: Some(NodeSpec {
            desired_role: role.into(),
            membership: Membership::Accepted.into(),
            ..Default::default()
        }),
        role: role.into(),
        status: Some(NodeStatus {
            state: state.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn worker(id: &str) -> Node {
    node(id, NodeRole::Worker, node_status::State::Down)
}

fn member(raft_id: u64, node_id: &str) -> RaftMember {
    RaftMember {
        raft_id,
        node_id: node_id.into(),
        addr: format!("{node_id}:2377"),
        status: Some(RaftMemberStatus {
            leader: raft_id == 1,
            reachability: raft_member_status::Reachability::Reachable.into(),
            ..Default::default()
        }),
    }
}

fn cluster() -> Cluster {
    Cluster {
        id: "c1".into(),
        spec: Some(ClusterSpec {
            annotations: named("default"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn remove(id: &str, force: bool) -> tonic::Request<RemoveNodeRequest> {
    ask(RemoveNodeRequest {
        node_id: id.into(),
        force,
    })
}

fn update(node: &Node, change: impl FnOnce(&mut NodeSpec)) -> UpdateNodeRequest {
    let mut spec = node.spec().clone();
    change(&mut spec);
    UpdateNodeRequest {
        node_id: node.id.clone(),
        node_version: node.meta().version,
        spec: Some(spec),
    }
}

#[tokio::test]
async fn managers_show_their_raft_status_and_it_is_not_stored() {
    let swarm = Swarm::new();
    swarm
        .put(node("m1", NodeRole::Manager, node_status::State::Ready))
        .await;
    swarm.put(worker("w1")).await;
    swarm.members.lock().push(member(1, "m1"));
    let status = ManagerStatus {
        raft_id: 1,
        addr: "m1:2377".to_owned(),
        leader: true,
        reachability: raft_member_status::Reachability::Reachable.into(),
    };
    let get = |id: &str| ask(GetNodeRequest { node_id: id.into() });
    let control = &swarm.control;
    let manager = reply(control.get_node(get("m1")).await).node.unwrap();
    assert_eq!(manager.manager_status, Some(status.clone()));
    let worker = reply(control.get_node(get("w1")).await).node.unwrap();
    assert_eq!(worker.manager_status, None);
    let listed = reply(control.list_nodes(ask(ListNodesRequest::default())).await).nodes;
    let statuses: Vec<_> = listed.into_iter().map(|node| node.manager_status).collect();
    assert_eq!(statuses, [Some(status), None]);
    assert_eq!(swarm.stored::<Node>("m1").unwrap().manager_status, None);

    assert_eq!(
        refusal(control.get_node(get("x")).await),
        (Code::NotFound, "node x not found".to_owned())
    );
    assert_eq!(
        refusal(control.get_node(get("")).await),
        (Code::InvalidArgument, "invalid argument".to_owned())
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let swarm = Swarm::new();
    let describe = |mut node: Node, hostname: &str, engine: &str, own: &str| {
        node.description = Some(NodeDescription {
            hostname: hostname.into(),
            engine: Some(EngineDescription {
                labels: [("disk".to_owned(), engine.to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        node.spec_mut().annotations = labelled("", "zone", own);
        node
    };
    let manager = node("m1", NodeRole::Manager, node_status::State::Ready);
    swarm.put(describe(manager, "Alpha", "ssd", "a")).await;
    swarm.put(describe(worker("w1"), "beta", "ssd", "b")).await;
    swarm.put(describe(worker("w2"), "beta", "hdd", "a")).await;
    let mut pending = worker("w3");
    pending.spec_mut().membership = Membership::Pending.into();
    swarm.put(pending).await;
    let list = async |change: fn(&mut list_nodes_request::Filters)| {
        let mut filters = list_nodes_request::Filters::default();
        change(&mut filters);
        let request = ListNodesRequest {
            filters: Some(filters),
        };
        let mut ids: Vec<_> = reply(swarm.control.list_nodes(ask(request)).await)
            .nodes
            .into_iter()
            .map(|node| node.id)
            .collect();
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(list(|_| {}).await, "m1 w1 w2 w3");
    assert_eq!(list(|f| f.names = vec!["beta".into()]).await, "w1 w2");
    assert_eq!(list(|f| f.names = vec!["alpha".into()]).await, "");
    assert_eq!(list(|f| f.name_prefixes = vec!["Al".into()]).await, "m1");
    assert_eq!(list(|f| f.id_prefixes = vec!["w".into()]).await, "w1 w2 w3");
    assert_eq!(
        list(|f| f.roles = vec![NodeRole::Manager.into()]).await,
        "m1"
    );
    let both: fn(&mut list_nodes_request::Filters) =
        |f| f.roles = vec![NodeRole::Manager.into(), NodeRole::Worker.into()];
    assert_eq!(list(both).await, "m1 w1 w2 w3");
    let pending: fn(&mut list_nodes_request::Filters) =
        |f| f.memberships = vec![Membership::Pending.into()];
    assert_eq!(list(pending).await, "w3");
    let ssd: fn(&mut list_nodes_request::Filters) =
        |f| f.labels = [("disk".to_owned(), "ssd".to_owned())].into();
    assert_eq!(list(ssd).await, "m1 w1");
    let zone: fn(&mut list_nodes_request::Filters) =
        |f| f.node_labels = [("zone".to_owned(), "a".to_owned())].into();
    assert_eq!(list(zone).await, "m1 w2");
}

#[tokio::test]
async fn an_update_replaces_the_spec() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let node = Node::clone(&*swarm.put(worker("w1")).await);
    let request = update(&node, |spec| spec.availability = Availability::Drain.into());
    let updated = reply(control.update_node(ask(request.clone())).await)
        .node
        .unwrap();
    assert_eq!(updated.spec, request.spec);
    assert_eq!(updated, *swarm.stored::<Node>("w1").unwrap());
    assert_eq!(
        refusal(control.update_node(ask(request)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );
    let missing = (Code::InvalidArgument, "invalid argument".to_owned());
    for request in [
        UpdateNodeRequest {
            node_id: String::new(),
            ..update(&updated, |_| {})
        },
        UpdateNodeRequest {
            node_version: None,
            ..update(&updated, |_| {})
        },
        UpdateNodeRequest {
            spec: None,
            ..update(&updated, |_| {})
        },
    ] {
        assert_eq!(refusal(control.update_node(ask(request)).await), missing);
    }
    let unknown = UpdateNodeRequest {
        node_id: "x".into(),
        ..update(&updated, |_| {})
    };
    assert_eq!(
        refusal(control.update_node(ask(unknown)).await),
        (Code::NotFound, "node x not found".to_owned())
    );
}

#[tokio::test]
async fn any_worker_can_be_promoted() {
    let swarm = Swarm::new();
    let worker = swarm.put(worker("w1")).await;
    let promote = update(&worker, |spec| spec.set_desired_role(NodeRole::Manager));
    let promoted = reply(swarm.control.update_node(ask(promote)).await);
    let promoted = promoted.node.unwrap();
    assert_eq!(promoted.spec().desired_role(), NodeRole::Manager);
    assert_eq!(promoted.role(), NodeRole::Worker, "the leader makes it one");
}

#[tokio::test]
async fn r29_a_demotion_is_refused_the_same_each_time_until_the_quorum_survives_it() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let ready = |id: &str| node(id, NodeRole::Manager, node_status::State::Ready);
    let manager = swarm.put(ready("m1")).await;
    let demote = |node: &Node| ask(update(node, |spec| spec.set_desired_role(NodeRole::Worker)));
    for _ in 0..2 {
        assert_eq!(
            refusal(control.update_node(demote(&manager)).await),
            (
                Code::FailedPrecondition,
                "attempting to demote the last manager of the swarm".to_owned()
            )
        );
    }
    let second = swarm.put(ready("m2")).await;
    for _ in 0..2 {
        assert_eq!(
            refusal(control.update_node(demote(&manager)).await),
            (
                Code::NotFound,
                "can't find manager in raft memberlist".to_owned()
            )
        );
    }
    let mut away = member(2, "m2");
    away.status_mut()
        .set_reachability(raft_member_status::Reachability::Unreachable);
    *swarm.members.lock() = vec![member(1, "m1"), away, member(3, "m3")];
    for _ in 0..2 {
        let refused = "can't remove member from the raft: this would result in a loss of quorum: \
                       of the 2 managers left 1 could be reached, and 2 must be";
        assert_eq!(
            refusal(control.update_node(demote(&manager)).await),
            (Code::FailedPrecondition, refused.to_owned())
        );
    }
    // The one that is away may go: the others are a quorum.
    let demoted = reply(control.update_node(demote(&second)).await);
    let demoted = demoted.node.unwrap();
    assert_eq!(demoted.spec().desired_role(), NodeRole::Worker);
    assert_eq!(demoted.role(), NodeRole::Manager, "until it has left");
    // Then this is the last that stays.
    assert_eq!(
        refusal(control.update_node(demote(&manager)).await).1,
        "attempting to demote the last manager of the swarm"
    );
    // As long as it has not left it can stay after all.
    let stay = update(&demoted, |spec| spec.set_desired_role(NodeRole::Manager));
    reply(control.update_node(ask(stay)).await);
}

#[tokio::test]
async fn some_nodes_cannot_be_removed() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    assert_eq!(
        refusal(control.remove_node(remove("", false)).await),
        (Code::InvalidArgument, "invalid argument".to_owned())
    );
    assert_eq!(
        refusal(control.remove_node(remove("x", false)).await),
        (Code::NotFound, "node x not found".to_owned())
    );
    swarm.put(worker("w1")).await;
    assert_eq!(
        refusal(control.remove_node(remove("w1", false)).await),
        (Code::Internal, "could not fetch cluster object".to_owned())
    );
    swarm
        .put(node("w2", NodeRole::Worker, node_status::State::Ready))
        .await;
    assert_eq!(
        refusal(control.remove_node(remove("w2", false)).await),
        (
            Code::FailedPrecondition,
            "node w2 is not down and can't be removed".to_owned()
        )
    );
    swarm
        .put(node("m1", NodeRole::Manager, node_status::State::Down))
        .await;
    swarm.members.lock().push(member(1, "m1"));
    for force in [false, true] {
        assert_eq!(
            refusal(control.remove_node(remove("m1", force)).await),
            (
                Code::FailedPrecondition,
                "node m1 is a cluster manager and is a member of the raft cluster. It must be \
                 demoted to worker before removal"
                    .to_owned()
            )
        );
    }
}

fn task(id: String, state: TaskState, padding: usize) -> Task {
    Task {
        id,
        node_id: "w1".into(),
        status: Some(TaskStatus {
            state: state.into(),
            message: "as it was".into(),
            ..Default::default()
        }),
        service_annotations: labelled("web", "padding", &"x".repeat(padding)),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_removed_node_is_barred_and_its_tasks_are_orphans() {
    let swarm = Swarm::new();
    let mut cluster = cluster();
    let expired = skep_proto::Timestamp {
        seconds: NOW.seconds - 8 * 24 * 3600,
        nanos: 0,
    };
    let barred = |expiry| BlacklistedCertificate { expiry };
    cluster.blacklisted_certificates = [
        ("old".to_owned(), barred(Some(expired))),
        ("older".to_owned(), barred(None)),
    ]
    .into();
    swarm.put(cluster).await;
    let mut node = node("w1", NodeRole::Worker, node_status::State::Ready);
    let root = skep_security::RootCa::generate().unwrap();
    let identity = skep_security::Identity {
        node_id: "w1".into(),
        role: skep_security::Role::Worker,
        cluster_id: "c1".into(),
    };
    let day = std::time::Duration::from_secs(24 * 3600);
    let credentials = skep_security::Credentials::self_issue(&root, &identity, day).unwrap();
    node.certificate_mut().certificate = credentials.cert_pem().clone();
    swarm.put(node).await;
    swarm
        .put(task("running".into(), TaskState::Running, 0))
        .await;
    swarm.put(task("new".into(), TaskState::New, 0)).await;
    swarm.put(task("failed".into(), TaskState::Failed, 0)).await;
    swarm
        .put(task("complete".into(), TaskState::Complete, 0))
        .await;
    swarm
        .put(Task {
            node_id: "elsewhere".into(),
            ..task("elsewhere".into(), TaskState::Running, 0)
        })
        .await;

    reply(swarm.control.remove_node(remove("w1", true)).await);

    assert!(swarm.stored::<Node>("w1").is_none());
    let blacklist = swarm
        .stored::<Cluster>("c1")
        .unwrap()
        .blacklisted_certificates
        .clone();
    let ids: Vec<_> = blacklist.keys().collect();
    assert_eq!(ids, ["older", "w1"]);
    let expiry = blacklist["w1"]
        .expiry
        .expect("the certificate says when it ends");
    let ends = credentials
        .expires_at()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(expiry.seconds, ends.as_secs() as i64);
    for id in ["running", "new"] {
        assert_eq!(
            swarm.stored::<Task>(id).unwrap().status,
            Some(TaskStatus {
                state: TaskState::Orphaned.into(),
                message: "Task belonged to a node that has been deleted".into(),
                timestamp: Some(NOW),
                ..Default::default()
            })
        );
    }
    for id in ["failed", "complete", "elsewhere"] {
        let task = swarm.stored::<Task>(id).unwrap();
        assert_eq!(task.status().message, "as it was", "{id}");
    }
}

#[tokio::test]
async fn a_node_without_a_certificate_is_barred_for_good() {
    let swarm = Swarm::new();
    swarm.put(cluster()).await;
    let mut node = worker("w1");
    node.certificate_mut().certificate = "no certificate".into();
    swarm.put(node).await;
    reply(swarm.control.remove_node(remove("w1", false)).await);
    let cluster = swarm.stored::<Cluster>("c1").unwrap();
    assert_eq!(cluster.blacklisted_certificates["w1"].expiry, None);
}

#[tokio::test]
async fn r21_a_node_with_more_tasks_than_fit_in_one_transaction_is_removed() {
    let swarm = Swarm::new();
    swarm.put(cluster()).await;
    swarm.put(worker("w1")).await;
    // 4 MB of unfinished tasks, and as much of finished ones that nobody touches.
    for n in 0..400 {
        swarm
            .put(task(format!("t{n}"), TaskState::Running, 10_000))
            .await;
        swarm
            .put(task(format!("u{n}"), TaskState::Failed, 10_000))
            .await;
    }
    let finished = |swarm: &Swarm| {
        let snapshot = swarm.store.snapshot();
        let tasks = snapshot.all::<Task>();
        tasks
            .filter(|task| task.status().state() == TaskState::Failed)
            .cloned()
            .collect::<Vec<_>>()
    };
    let untouched = finished(&swarm);
    let before = swarm.store.snapshot().index();
    reply(swarm.control.remove_node(remove("w1", false)).await);
    assert!(finished(&swarm) == untouched && untouched.len() == 400);
    let transactions = swarm.store.snapshot().index() - before;
    assert!((2..20).contains(&transactions), "{transactions}");
    assert!(swarm.stored::<Node>("w1").is_none());
    let orphans = swarm
        .store
        .snapshot()
        .all::<Task>()
        .filter(|task| task.status().state() == TaskState::Orphaned)
        .count();
    assert_eq!(orphans, 400);
}

#[tokio::test]
async fn a_task_as_large_as_a_transaction_does_not_hinder_the_removal() {
    let swarm = Swarm::new();
    let mut cluster = cluster();
    cluster.spec_mut().annotations = labelled("default", "padding", &"x".repeat(300_000));
    swarm.put(cluster).await;
    swarm.put(worker("w1")).await;
    swarm.put(task("a".into(), TaskState::Running, 10)).await;
    let large = skep_store::MAX_PROPOSAL_BYTES - 1000;
    swarm
        .put(task("large".into(), TaskState::Running, large))
        .await;
    reply(swarm.control.remove_node(remove("w1", false)).await);
    for id in ["a", "large"] {
        let task = swarm.stored::<Task>(id).unwrap();
        assert_eq!(task.status().state(), TaskState::Orphaned, "{id}");
    }
}
