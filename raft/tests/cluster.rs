//! Managers in one process, on real sockets with mutual TLS and real logs on disk.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/full_disks.rs"]
mod full_disks;
#[path = "cluster/membership.rs"]
mod membership;
#[path = "cluster/reads.rs"]
mod reads;
#[path = "cluster/recovery.rs"]
mod recovery;
mod support;

use std::time::Duration;

use skep_proto::v1;
use support::{Cluster, node_object};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_reach_all_members() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.write("first").await;
    cluster.everyone_has("first").await;
    let status = cluster.managers[leader].status();
    assert_eq!(status.members.len(), 3);
    let addr = |m: &v1::RaftMember| m.addr.clone();
    let mut addresses: Vec<_> = status.members.iter().map(addr).collect();
    addresses.sort();
    assert_eq!(addresses, cluster.addresses());
    cluster
        .wait("the others are seen as reachable", |cluster| {
            let reachable = v1::raft_member_status::Reachability::Reachable;
            let members = cluster.managers[leader].status().members;
            members
                .iter()
                .all(|m| m.status().reachability() == reachable)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_writes_all_commit() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let store = cluster.managers[leader].store.clone();
    let mut writes = tokio::task::JoinSet::new();
    for i in 0..1000 {
        let store = store.clone();
        writes.spawn(async move {
            let create = |tx: &mut skep_store::Tx| tx.create(node_object(&format!("n{i:04}")));
            store.update::<_, skep_store::Error>(create).await.unwrap();
        });
    }
    timeout(Duration::from_secs(30), writes.join_all())
        .await
        .unwrap();
    assert_eq!(store.snapshot().count::<v1::Node>(), 1000);
    cluster
        .wait("all have all", |cluster| {
            let count = |m: &support::Manager| m.store.snapshot().count::<v1::Node>();
            cluster
                .managers
                .iter()
                .all(|manager| count(manager) == 1000)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_streams_gets_a_call_a_message() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_plain().await;
    cluster.add_plain().await;
    for i in 0..50 {
        cluster.write(&format!("n{i:02}")).await;
    }
    cluster.everyone_has("n49").await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_manager_takes_over_from_a_dead_leader() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let old = cluster.leader().await;
    cluster.kill(old);
    let new = cluster.leader().await;
    assert_ne!(old, new);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    cluster.restart(old).await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_restart_of_all_managers() {
    let mut cluster = Cluster::start(3).await;
    let names: Vec<String> = (0..20).map(|i| format!("write{i}")).collect();
    for name in &names {
        cluster.write(name).await;
    }
    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.restart(i).await;
    }
    for name in &names {
        cluster.everyone_has(name).await;
    }
    cluster.write("later").await;
    cluster.everyone_has("later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_manager_restarts_at_once() {
    let mut cluster = Cluster::start(1).await;
    cluster.write("kept").await;
    cluster.kill(0);
    cluster.restart(0).await;
    let leader = timeout(Duration::from_millis(900), cluster.leader()).await;
    assert_eq!(leader, Ok(0), "it must not wait for an election timeout");
    assert!(cluster.has(0, "kept"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    cluster.everyone_has("before").await;
    let old = cluster.leader().await;
    let term = cluster.managers[old].status().term;
    let raft = cluster.managers[old].raft();
    timeout(Duration::from_secs(1), raft.stop()).await.unwrap();
    assert!(raft.stopped().await.is_ok());
    // Another one leads already, without an election timeout.
    let others = (0..3).filter(|i| *i != old);
    assert!(
        others
            .clone()
            .any(|i| cluster.managers[i].status().term > term)
    );
    cluster.kill(old);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_be_transferred() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let old = cluster.leader().await;
    cluster.managers[old]
        .raft()
        .transfer_leadership()
        .await
        .unwrap();
    assert!(!cluster.managers[old].status().leading);
    let new = cluster.leader().await;
    assert_ne!(old, new);
    cluster.write("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_learns_of_it_and_ends() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    let raft_id = cluster.managers[victim].status().raft_id;
    cluster.wait_reachable(leader).await;
    let raft = cluster.managers[leader].raft();
    raft.remove(raft_id).await.unwrap();
    assert!(cluster.managers[leader].status().member(raft_id).is_none());
    let gone = raft.remove(raft_id).await.unwrap_err();
    assert!(matches!(gone, skep_raft::Error::UnknownMember));
    let victim_raft = cluster.managers[victim].raft();
    let end = timeout(Duration::from_secs(10), victim_raft.stopped())
        .await
        .unwrap();
    assert!(matches!(*end.unwrap_err(), skep_raft::Error::Removed));
    cluster.kill(victim);
    cluster.write("after").await;
    // The last two cannot be reduced while one of them is down.
    let third = 3 - leader - victim;
    let third_id = cluster.managers[third].status().raft_id;
    let own_id = cluster.managers[leader].status().raft_id;
    cluster.kill(third);
    cluster
        .wait("the loss is noticed", |cluster| {
            let status = cluster.managers[leader].status();
            !status.leading || !status.can_remove(own_id)
        })
        .await;
    let raft = cluster.managers[leader].raft();
    if cluster.managers[leader].status().leading {
        assert!(raft.remove(own_id).await.is_err());
    }
    assert_ne!(third_id, own_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_twice_gives_the_same_answer_and_a_bad_address_is_refused() {
    let mut cluster = Cluster::start(2).await;
    let leader = cluster.leader().await;
    let raft = cluster.managers[leader].raft();
    let other = 1 - leader;
    let (node_id, addr) = cluster.managers[other].identity();
    let again = raft.join(&node_id, &addr, true).await.unwrap();
    assert_eq!(again.raft_id, cluster.managers[other].status().raft_id);
    assert_eq!(again.members.len(), 2);
    assert!(again.removed_members.is_empty());
    let bad = raft.join("stranger", "nowhere", true).await.unwrap_err();
    assert_eq!(
        bad.to_string(),
        "invalid address nowhere in raft join request"
    );
    let dead = raft
        .join("stranger", "127.0.0.1:1", true)
        .await
        .unwrap_err();
    assert!(dead.to_string().starts_with(
        "could not connect to prospective new cluster member using its advertised address"
    ));
    let follower = cluster.managers[other].raft();
    let refused = follower
        .join("stranger", "127.0.0.1:1", true)
        .await
        .unwrap_err();
    assert!(matches!(refused, skep_raft::Error::NotLeader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_member_gets_a_large_snapshot_in_pieces() {
    let mut cluster = Cluster::start(2).await;
    cluster.set_raft_config(20, 0).await;
    // Seven times 1 MiB, and enough entries for snapshots.
    for i in 0..7 {
        cluster.write_large(&format!("large{i}"), 1024 * 1024).await;
    }
    for i in 0..45 {
        cluster.write(&format!("small{i}")).await;
    }
    let leader = cluster.leader().await;
    assert!(cluster.managers[leader].status().applied > 50);
    cluster.add().await;
    cluster.everyone_has("large6").await;
    cluster.everyone_has("small44").await;
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    // It restarts from that snapshot.
    cluster.kill(2);
    cluster.restart(2).await;
    cluster.everyone_has("large0").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_ends_the_member_with_the_reason() {
    let mut cluster = Cluster::start_with(support::FailingLog::default()).await;
    cluster.write("fine").await;
    let raft = cluster.managers[0].raft();
    support::FailingLog::break_disk();
    let store = cluster.managers[0].store.clone();
    let create = |tx: &mut skep_store::Tx| tx.create(node_object("lost"));
    let refused = store.update::<_, skep_store::Error>(create).await;
    assert_eq!(refused.unwrap_err(), skep_store::Error::LostLeadership);
    let end = timeout(Duration::from_secs(5), raft.stopped())
        .await
        .unwrap();
    assert!(end.unwrap_err().to_string().contains("no space left"));
    assert!(!cluster.managers[0].status().leading);
}
