//! Managers that are far behind, or new, get the state as a snapshot, however large and slow.

use std::time::{Duration, Instant};

use skep_tests::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_manager_that_got_a_snapshot_restarts_from_it_and_from_nothing_older() {
    let mut cluster = Cluster::start(3, 0).await;
    cluster.set_snapshots(20, 2).await;
    let late = cluster.follower().await;
    let before = cluster.index_at(&late);
    cluster.kill(&late).await;
    for number in 0..100 {
        cluster.create_config(&format!("c-{number}"), 100).await;
    }
    cluster.restart(&late).await;
    eventually("the late manager to be level", async || {
        (cluster.configs_at(&late) == 100).then_some(())
    })
    .await;
    // With nobody to talk to it has what is on its own disk, and that is the snapshot.
    cluster.kill(&late).await;
    cluster.isolate(&late);
    cluster.restart(&late).await;
    let (index, configs) = (cluster.index_at(&late), cluster.configs_at(&late));
    assert!(index >= before + 50, "at {index}, was at {before} long ago");
    assert!(configs >= 50, "{configs} configs");
    cluster.heal();
    cluster.create_config("last", 100).await;
    eventually("the late manager to be level again", async || {
        (cluster.configs_at(&late) == 101).then_some(())
    })
    .await;
}

/// A state of so many configs of 500 kB reaches a new manager over a link of so many bytes a second.
async fn joins_over_a_slow_link(configs: usize, bytes_per_second: u32) {
    const SIZE: usize = 500_000;
    let mut cluster = Cluster::start(1, 0).await;
    cluster.set_snapshots(3, 1).await;
    for number in 0..configs {
        cluster.create_config(&format!("c-{number}"), SIZE).await;
    }
    cluster
        .links()
        .slow("manager-1", "manager-2", bytes_per_second);
    let start = Instant::now();
    cluster.add("manager-2", true).await;
    eventually("the new manager to have it all", async || {
        (cluster.configs_at("manager-2") == configs).then_some(())
    })
    .await;
    // The link was that slow indeed.
    let least = Duration::from_secs((configs * SIZE) as u64) / bytes_per_second;
    assert!(
        start.elapsed() >= least,
        "{:?} < {least:?}",
        start.elapsed()
    );
    // It was no member in name only: with it, writes go on.
    cluster.create_config("last", 10).await;
    eventually("the last write on the new manager", async || {
        (cluster.configs_at("manager-2") == configs + 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_a_state_of_5_mib_joins_over_half_a_mbyte_a_second() {
    joins_over_a_slow_link(11, 500_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_a_state_of_50_mib_joins_over_5_mbyte_a_second() {
    joins_over_a_slow_link(106, 5_000_000).await;
}
