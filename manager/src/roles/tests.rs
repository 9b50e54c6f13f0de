//! The role manager on a store that commits at once and a group that is made up.

use parking_lot::Mutex;
use skep_proto::v1::{NodeRole, NodeSpec, RaftMember, raft_member_status::Reachability};
use skep_store::testing;
use tokio::sync::mpsc;

use super::*;
use crate::time;

fn node(id: &str, role: NodeRole, desired: NodeRole) -> Node {
    Node {
        id: id.to_owned(),
        role: role.into(),
        spec: Some(NodeSpec {
            desired_role: desired.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Members 1 to n of nodes m1 to mn; member 1 leads, and those of `away` cannot be reached.
fn group(size: u64, away: &[u64]) -> RaftStatus {
    let member = |raft_id: u64| {
        let mut member = RaftMember {
            raft_id,
            node_id: format!("m{raft_id}"),
            ..Default::default()
        };
        let status = member.status_mut();
        status.leader = raft_id == 1;
        status.set_reachability(match away.contains(&raft_id) {
            true => Reachability::Unreachable,
            false => Reachability::Reachable,
        });
        member
    };
    RaftStatus {
        raft_id: 1,
        leading: true,
        members: (1..=size).map(member).collect(),
        ..RaftStatus::default()
    }
}

async fn plan(nodes: &[(&str, NodeRole, NodeRole)], raft: &RaftStatus) -> (Vec<String>, Plan) {
    let store = testing::leading(|| time::now().into());
    for (id, role, desired) in nodes {
        let node = node(id, *role, *desired);
        store
            .update::<_, Error>(|tx| tx.create(node).map(drop))
            .await
            .unwrap();
    }
    let plan = decide(&store.snapshot(), raft);
    let roles = plan
        .roles
        .iter()
        .map(|node| format!("{} {}", node.id, node.role().as_str_name()));
    (roles.collect(), plan)
}

use NodeRole::{Manager as M, Worker as W};

#[tokio::test]
async fn what_is_as_it_should_be_is_left_alone() {
    let nodes = [("m1", M, M), ("m2", M, M), ("m3", M, M), ("w1", W, W)];
    let (_, plan) = plan(&nodes, &group(3, &[])).await;
    assert_eq!(plan, Plan::default());
}

#[tokio::test]
async fn a_demoted_manager_leaves_and_is_a_worker_then() {
    let nodes = [("m1", M, M), ("m2", M, W), ("m3", M, M)];
    let (roles, first) = plan(&nodes, &group(3, &[])).await;
    assert_eq!((roles.len(), first.remove), (0, Some(2)));
    let mut left = group(3, &[]);
    left.members.remove(1);
    let (roles, second) = plan(&nodes, &left).await;
    assert_eq!((roles, second.remove), (vec!["m2 WORKER".to_owned()], None));
}

#[tokio::test]
async fn r29_whatever_was_stored_first_the_rest_is_done() {
    // It is called a worker already, and is a member still.
    let nodes = [("m1", M, M), ("m2", W, W), ("m3", M, M)];
    let (roles, plan) = plan(&nodes, &group(3, &[])).await;
    assert_eq!((roles.len(), plan.remove), (0, Some(2)));
}

#[tokio::test]
async fn nobody_leaves_at_the_price_of_the_quorum() {
    let nodes = [("m1", M, M), ("m2", M, W), ("m3", M, M)];
    let (_, blocked) = plan(&nodes, &group(3, &[3])).await;
    assert_eq!(blocked.remove, None);
    let refused = blocked.refused.unwrap();
    assert_eq!((refused.reachable, refused.left, refused.needed), (1, 2, 2));
    // Another one may go all the same.
    let nodes = [("m1", M, M), ("m2", M, W), ("m3", M, W)];
    let (_, other) = plan(&nodes, &group(3, &[3])).await;
    assert_eq!(other.remove, Some(3));
    // The last one stays.
    let (_, last) = plan(&[("m1", M, W)], &group(1, &[])).await;
    assert_eq!((last.remove, last.refused.is_some()), (None, true));
}

#[tokio::test]
async fn the_leader_is_the_last_to_leave() {
    let nodes = [("m1", M, W), ("m2", M, W), ("m3", M, M)];
    let (_, both) = plan(&nodes, &group(3, &[])).await;
    assert_eq!(both.remove, Some(2));
    let mut left = group(3, &[]);
    left.members.remove(1);
    let (_, own) = plan(&nodes, &left).await;
    assert_eq!(own.remove, Some(1));
}

#[tokio::test]
async fn the_member_of_a_removed_node_leaves() {
    let nodes = [("m1", M, M), ("m3", M, M)];
    let (_, plan) = plan(&nodes, &group(3, &[])).await;
    assert_eq!(plan.remove, Some(2));
}

#[tokio::test]
async fn who_is_to_be_a_manager_is_called_one() {
    let (roles, _) = plan(&[("m1", M, M), ("w1", W, M)], &group(1, &[])).await;
    assert_eq!(roles, ["w1 MANAGER"]);
}

/// Fails as often as it is told to, then removes.
struct Fake {
    status: watch::Sender<RaftStatus>,
    failures: Mutex<usize>,
    asked: mpsc::UnboundedSender<u64>,
}

impl Group for Fake {
    fn remove(&self, raft_id: u64) -> BoxFuture<'_, Result<(), RaftError>> {
        self.asked.send(raft_id).unwrap();
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Box::pin(async { Err(RaftError::NotLeader) });
        }
        self.status
            .send_modify(|status| status.members.retain(|member| member.raft_id != raft_id));
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_is_tried_again_and_the_role_follows() {
    let store = testing::leading(|| time::now().into());
    for node in [node("m1", M, M), node("m2", M, W)] {
        store
            .update::<_, Error>(|tx| tx.create(node).map(drop))
            .await
            .unwrap();
    }
    let (sender, status) = watch::channel(group(2, &[]));
    let (asked, mut asks) = mpsc::unbounded_channel();
    let fake = Arc::new(Fake {
        status: sender,
        failures: Mutex::new(2),
        asked,
    });
    let running = tokio::spawn(run(store.clone(), fake, status));
    for _ in 0..3 {
        assert_eq!(asks.recv().await, Some(2));
    }
    let (mut snapshot, mut subscription) = store.watch([Route::Kind(Kind::Node)]);
    while snapshot.get::<Node>("m2").unwrap().role() != W {
        subscription.next().await;
        snapshot = store.snapshot();
    }
    assert_eq!(snapshot.get::<Node>("m1").unwrap().role(), M);
    running.abort();
    assert!(asks.try_recv().is_err());
}

#[test]
fn what_changes_no_role_wakes_nobody() {
    let of = |desired| AnyObject::Node(Arc::new(node("n", W, desired)));
    let mut busy = node("n", W, W);
    busy.status_mut().addr = "10.0.0.7".to_owned();
    let busy = AnyObject::Node(Arc::new(busy));
    let update = |old, new| concerns_roles(&Change::Update { old, new });
    assert!(!update(of(W), busy));
    assert!(update(of(W), of(M)));
    assert!(concerns_roles(&Change::Create(of(W))) && concerns_roles(&Change::Remove(of(W))));
}
