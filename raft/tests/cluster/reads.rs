//! Reads through members on real sockets.

use std::time::Duration;

use skep_raft::Error;
use tokio::{task::JoinSet, time::timeout};

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_reads_what_was_acknowledged_and_others_do_not() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("first").await;
    let leader = cluster.leader().await;
    let manager = &cluster.managers[leader];
    let index = manager.store.snapshot().index();
    let read = manager.raft().reader().barrier().await.unwrap();
    assert!(read >= index, "{read} < {index}");
    let follower = &cluster.managers[(leader + 1) % 3];
    let refused = follower.raft().reader().barrier().await;
    assert!(matches!(refused, Err(Error::NotLeader)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_come_together_all_get_through() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let reader = cluster.managers[leader].raft().reader();
    let mut reads = JoinSet::new();
    for _ in 0..5000 {
        let reader = reader.clone();
        reads.spawn(async move { reader.barrier().await });
    }
    let reads = timeout(Duration::from_secs(30), reads.join_all()).await;
    assert!(reads.unwrap().into_iter().all(|read| read.is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_its_quorum_refuses_the_reads_that_wait() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for other in (0..3).filter(|other| *other != leader) {
        cluster.kill(other);
    }
    // Long before the deadline: it notices that it leads no more.
    let reader = cluster.managers[leader].raft().reader();
    let refused = timeout(Duration::from_secs(5), reader.barrier()).await;
    assert!(matches!(refused, Ok(Err(Error::NotLeader))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_does_not_keep_replication_running() {
    let mut cluster = Cluster::start(1).await;
    cluster.write("first").await;
    let reader = cluster.managers[0].raft().reader();
    let index = reader.barrier().await.unwrap();
    let entries = reader.entries_after(0, index).await.unwrap();
    assert_eq!(entries.last().map(|entry| entry.index), Some(index));
    cluster.kill(0);
    let read = reader.barrier().await;
    assert!(matches!(read, Err(Error::Stopped)), "{read:?}");
    let read = reader.entries_after(0, index).await;
    assert!(matches!(read, Err(Error::Stopped)), "{read:?}");
    // Its log can be opened: the thread has ended.
    cluster.restart(0).await;
    cluster.everyone_has("first").await;
}
