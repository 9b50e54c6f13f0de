//! Disks that take their time.

use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::support::{Cluster, HookedLog, node_object};

/// A disk on which every write waits while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap() = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |shut| *shut).unwrap());
    }
}

/// Also when the test fails: the thread of the disk must not wait for ever.
struct OpenOnDrop(Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_leader_whose_disk_stalls_hands_over_although_its_heartbeats_go_on() {
    let gate = Gate::default();
    let _open = OpenOnDrop(gate.clone());
    let disk = gate.clone();
    let mut cluster = Cluster::start_with(HookedLog::new(move || disk.pass())).await;
    cluster.add().await;
    cluster.add().await;
    cluster.write("before").await;
    cluster.everyone_has("before").await;
    assert_eq!(cluster.leader().await, 0);
    gate.set(true);
    let old = cluster.managers[0].store.clone();
    let create = |tx: &mut skep_store::Tx| tx.create(node_object("stuck")).map(drop);
    let stuck = tokio::spawn(async move { old.update::<_, skep_store::Error>(create).await });
    cluster
        .wait("another member leads", |cluster| {
            cluster.managers[1..].iter().any(|m| m.status().leading)
        })
        .await;
    // The writer is told, not kept waiting for the disk.
    let told = timeout(Duration::from_secs(10), stuck).await.unwrap();
    assert_eq!(told.unwrap(), Err(skep_store::Error::LostLeadership));
    cluster.write("meanwhile").await;
    gate.set(false);
    cluster.everyone_has("meanwhile").await;
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r23_slow_disks_under_a_thousand_writes_do_not_make_leaders_flap() {
    const SYNC: Duration = Duration::from_millis(60);
    let slow = || HookedLog::new(|| thread::sleep(SYNC));
    let mut cluster = Cluster::start_with(slow()).await;
    cluster.add_with(Some(Box::new(slow()))).await;
    cluster.add_with(Some(Box::new(slow()))).await;
    let leader = cluster.leader().await;
    let term = cluster.managers[leader].status().term;
    let store = cluster.managers[leader].store.clone();
    let writes = (0..1000).map(|number| {
        let store = store.clone();
        async move {
            let name = format!("task-{number}");
            store
                .update::<_, skep_store::Error>(|tx| tx.create(node_object(&name)).map(drop))
                .await
        }
    });
    for write in join_all(writes).await {
        write.unwrap();
    }
    cluster.everyone_has("task-999").await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(
        cluster.managers[leader].status().term,
        term,
        "there were elections"
    );
}
