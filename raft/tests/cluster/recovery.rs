//! Managers that come back elsewhere, and groups that go on after the loss of their quorum.

use std::time::Duration;

use skep_raft::Error;
use tokio::time::timeout;

use crate::support::Cluster;

async fn ends_as_removed(cluster: &Cluster, manager: usize) {
    let raft = cluster.managers[manager].raft();
    let end = timeout(Duration::from_secs(20), raft.stopped()).await;
    let end = end.expect("it is told").unwrap_err();
    assert!(matches!(*end, Error::Removed), "{end}");
}

/// Nobody passes calls on to the leader here, so each has to know who all are as soon as it starts: a
/// commit index is on disk with the next entry.
async fn all_know_for_sure(cluster: &mut Cluster) {
    for name in ["one", "two"] {
        cluster.write(name).await;
        cluster.everyone_has(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_a_manager_that_comes_back_elsewhere_is_found() {
    let mut cluster = Cluster::start(3).await;
    all_know_for_sure(&mut cluster).await;
    let leader = cluster.leader().await;
    for manager in [leader, (leader + 1) % 3] {
        cluster.kill(manager);
        let name = format!("without{manager}");
        cluster.write(&name).await;
        cluster.restart_elsewhere(manager, None).await;
        cluster.all_know_the_addresses().await;
        cluster.everyone_has(&name).await;
    }
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

/// Without the one that has moved there is no quorum that could write its new address down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_the_quorum_needs_the_manager_that_has_moved() {
    let mut cluster = Cluster::start(2).await;
    for manager in [0, 1] {
        cluster.write(&format!("write{manager}")).await;
        cluster.kill(manager);
        cluster.restart_elsewhere(manager, None).await;
        cluster.all_know_the_addresses().await;
    }
    cluster.everyone_has("write1").await;
    cluster.write("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_all_managers_come_back_elsewhere_and_find_each_other_through_one() {
    let mut cluster = Cluster::start(5).await;
    all_know_for_sure(&mut cluster).await;
    // The one through which they meet is behind: it cannot lead, and nobody else knows a quorum.
    cluster.kill(0);
    cluster.write("last").await;
    for manager in 1..5 {
        cluster.kill(manager);
    }
    cluster.restart_elsewhere(0, None).await;
    let contact = cluster.addr(0);
    for manager in 1..5 {
        cluster.restart_elsewhere(manager, Some(contact)).await;
    }
    cluster.all_know_the_addresses().await;
    cluster.everyone_has("last").await;
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    // The log has it now: it holds without the contact.
    for manager in 0..5 {
        cluster.kill(manager);
    }
    for manager in 0..5 {
        cluster.restart(manager).await;
    }
    cluster.write("again").await;
    cluster.everyone_has("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_manager_is_reached_where_it_says_and_not_where_its_calls_come_from() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let manager = (leader + 1) % 3;
    cluster.kill(manager);
    // From now on it is known by the address of the forwarder before it.
    cluster.restart_behind_forwarder(manager).await;
    cluster.all_know_the_addresses().await;
    cluster.kill(manager);
    cluster.restart(manager).await;
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    cluster.all_know_the_addresses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_meanwhile_is_not_taken_in_anew_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    cluster.wait_reachable(leader).await;
    let raft_id = cluster.managers[victim].status().raft_id;
    cluster.kill(victim);
    let raft = cluster.managers[leader].raft();
    raft.remove(raft_id).await.unwrap();
    cluster.restart_elsewhere(victim, None).await;
    ends_as_removed(&cluster, victim).await;
    cluster.write("after").await;
    let status = cluster.managers[leader].status();
    assert_eq!(status.members.len(), 2);
    assert!(status.removed.contains(&raft_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_a_survivor_goes_on_alone_and_the_others_cannot_come_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.set_raft_config(20, 0).await;
    for i in 0..45 {
        cluster.write(&format!("write{i}")).await;
    }
    cluster.everyone_has("write44").await;
    for manager in 0..3 {
        cluster.kill(manager);
    }
    cluster.force(1).await;
    assert_eq!(cluster.leader().await, 1);
    for i in 0..45 {
        assert!(cluster.has(1, &format!("write{i}")));
    }
    cluster.write("alone").await;
    let status = cluster.managers[1].status();
    assert_eq!(status.members.len(), 1);
    assert_eq!(status.members[0].addr, cluster.addr(1).to_string());
    assert_eq!(status.removed.len(), 2);
    // One that comes back, and finds the survivor, is told. It changes nothing.
    let contact = cluster.addr(1);
    cluster.restart_elsewhere(0, Some(contact)).await;
    ends_as_removed(&cluster, 0).await;
    cluster.kill(0);
    assert_eq!(cluster.managers[1].status().term, status.term);
    // It restarts as what it is, and grows again.
    cluster.kill(1);
    cluster.restart(1).await;
    cluster.add().await;
    cluster.write("grown").await;
    cluster.everyone_has("grown").await;
    cluster.everyone_has("alone").await;
}
