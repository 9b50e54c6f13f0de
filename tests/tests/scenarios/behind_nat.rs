//! A manager whose connections come from another address than the one it is reached at.

use skep_tests::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_manager_behind_nat_is_known_by_what_it_advertises_also_after_a_reboot() {
    const IP: &str = "127.26.26.26";

    let mut cluster = Cluster::start(2, 0).await;
    // On the loopback the source of all connections is 127.0.0.1.
    cluster.add_at("manager-3", true, IP).await;
    let id = cluster.id("manager-3");
    let advertised = cluster
        .node("manager-3")
        .advertise_addr()
        .unwrap()
        .to_owned();
    assert!(advertised.starts_with(IP), "{advertised}");
    for round in 0..2_usize {
        cluster.kill("manager-3").await;
        cluster.restart("manager-3").await;
        cluster.create_config(&format!("c-{round}"), 10).await;
        eventually("the manager to be reached again", async || {
            (cluster.configs_at("manager-3") == round + 1).then_some(())
        })
        .await;
        for name in cluster.managers() {
            let status = cluster.node(&name).manager().unwrap().status();
            let known = status
                .borrow()
                .members
                .iter()
                .find(|m| m.node_id == id)
                .cloned();
            assert_eq!(known.unwrap().addr, advertised, "known to {name}");
        }
    }
}
