//! What a bad peer, or a change of leaders, must not do to the others.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use skep_proto::v1::{Config, raft_member_status::Reachability};
use skep_tests::cluster::{Cluster, configs::config_of, eventually};
use tokio::{task::JoinSet, time::timeout};

/// The leader and its two followers.
async fn three(cluster: &Cluster) -> (String, String, String) {
    let leader = cluster.leader().await;
    let mut others = cluster.managers();
    others.retain(|name| *name != leader);
    let bad = others.pop().unwrap();
    (leader, others.pop().unwrap(), bad)
}

/// Writes until `enough`, and checks that the bad peer has cost nobody anything.
async fn goes_on(cluster: &Cluster, leader: &str, good: &str, enough: impl Fn() -> bool) {
    let (dialled, term) = (
        cluster.links().dialled(leader, good),
        cluster.term_at(leader),
    );
    let mut slowest = Duration::ZERO;
    let mut number = 0;
    let start = Instant::now();
    while !enough() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the peer is not noticed"
        );
        let before = Instant::now();
        cluster
            .create_config(&format!("{leader}-{number}"), 100)
            .await;
        slowest = slowest.max(before.elapsed());
        number += 1;
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert_eq!(
        cluster.links().dialled(leader, good),
        dialled,
        "connections were closed"
    );
    assert_eq!(cluster.term_at(leader), term, "there was an election");
    eventually("the good follower to be level", async || {
        (cluster.configs_at(good) == cluster.configs_at(leader)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_peer_that_refuses_connections_costs_the_others_nothing() {
    let mut cluster = Cluster::start(3, 0).await;
    let (leader, good, bad) = three(&cluster).await;
    cluster.create_config("first", 100).await;
    cluster.kill(&bad).await;
    let before = cluster.links().dialled(&leader, &bad);
    goes_on(&cluster, &leader, &good, || {
        cluster.links().dialled(&leader, &bad) >= before + 5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_peer_that_does_not_answer_costs_the_others_nothing() {
    let cluster = Cluster::start(3, 0).await;
    let (leader, good, bad) = three(&cluster).await;
    cluster.create_config("first", 100).await;
    let bad_id = cluster.id(&bad);
    cluster.isolate(&bad);
    let status = cluster.node(&leader).manager().unwrap().status();
    goes_on(&cluster, &leader, &good, || {
        let status = status.borrow();
        let bad = status
            .members
            .iter()
            .find(|member| member.node_id == bad_id);
        bad.unwrap().status().reachability() == Reachability::Unreachable
    })
    .await;
    cluster.heal();
    eventually("the bad peer to be level", async || {
        (cluster.configs_at(&bad) == cluster.configs_at(&leader)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_writers_get_an_answer_while_leadership_moves_at_any_moment() {
    const WRITERS: usize = 24;
    const ANSWER: Duration = Duration::from_secs(30);
    static STOP: AtomicBool = AtomicBool::new(false);

    let cluster = Cluster::start(3, 0).await;
    let mut writers = JoinSet::new();
    for (writer, manager) in (0..WRITERS).zip(cluster.managers().iter().cycle()) {
        let mut control = cluster.control_of(manager).await;
        writers.spawn(async move {
            let (mut done, mut refused) = (Vec::new(), 0_usize);
            for number in 0.. {
                if STOP.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("c-{writer}-{number}");
                let write = control.create_config(config_of(&name, 10));
                match timeout(ANSWER, write).await.expect("an answer, whichever") {
                    Ok(_) => done.push(name),
                    Err(_) => refused += 1,
                }
            }
            (done, refused)
        });
    }
    let mut leaders = BTreeSet::new();
    for _ in 0..12 {
        let leader = cluster.leader().await;
        let term = cluster.term_at(&leader).0;
        // Refused if it leads no more: then someone else does.
        let _ = cluster.transfer().await;
        eventually("a leader of a later term", async || {
            let leader = cluster.leader().await;
            (cluster.term_at(&leader).0 > term).then_some(())
        })
        .await;
        leaders.insert(leader);
    }
    assert!(leaders.len() > 1, "{leaders:?}");
    STOP.store(true, Ordering::Relaxed);
    let (mut done, mut refused) = (Vec::new(), 0);
    for (own, failed) in writers.join_all().await {
        done.extend(own);
        refused += failed;
    }
    assert!(
        done.len() > WRITERS,
        "{} done, {refused} refused",
        done.len()
    );
    let leader = cluster.leader().await;
    cluster.create_config("last", 10).await;
    let snapshot = cluster.node(&leader).manager().unwrap().store().snapshot();
    let stored: BTreeSet<_> = snapshot
        .all::<Config>()
        .map(|config| config.spec().annotations().name.clone())
        .collect();
    let lost: Vec<_> = done.iter().filter(|name| !stored.contains(*name)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        done.len()
    );
}
