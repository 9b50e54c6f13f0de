//! A cluster in which nothing happens writes nothing.

use std::time::Duration;

use skep_tests::cluster::{Cluster, eventually};

/// Longer than anything that looks again and again: heartbeats, and the agents at their own machine.
const IDLE: Duration = Duration::from_secs(22);
const HEARTBEAT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn r20_an_idle_cluster_writes_nothing_to_its_log() {
    let cluster = Cluster::start(3, 2).await;
    cluster.set_heartbeat(HEARTBEAT).await;
    let web = cluster.create("web", 3, &["sleep", "1000"]).await;
    cluster.running(&web.id, 3).await;
    let indices = || -> Vec<u64> {
        let managers = cluster.managers();
        managers.iter().map(|name| cluster.index_at(name)).collect()
    };
    // What came with the start and the service is over when two looks a heartbeat apart agree.
    let quiet = eventually("the end of all writes", async || {
        let before = indices();
        tokio::time::sleep(HEARTBEAT * 2).await;
        (indices() == before).then_some(before)
    })
    .await;
    let leader = cluster.leader().await;
    let terms = cluster.term_at(&leader);
    tokio::time::sleep(IDLE).await;
    assert_eq!(indices(), quiet, "something was written");
    assert_eq!(cluster.term_at(&leader), terms, "there was an election");
}
