//! Managers die, come back and are cut off; what was acknowledged stays, and tasks run on.

use std::collections::BTreeMap;

use skep_proto::v1::{CreateServiceRequest, ListServicesRequest, Task, node_spec::Availability};
use skep_tests::cluster::{Cluster, eventually, spec};
use tonic::Code;

/// What must not change for a task that was not restarted.
fn processes(tasks: &[Task]) -> BTreeMap<String, i32> {
    let pid = |task: &Task| match &task.status().runtime_status {
        Some(skep_proto::v1::task_status::RuntimeStatus::Container(container)) => container.pid,
        None => 0,
    };
    tasks
        .iter()
        .map(|task| (task.id.clone(), pid(task)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_and_a_survivor_scales_without_restarting_anything() {
    let mut cluster = Cluster::of_processes(3, 2).await;
    for manager in cluster.managers() {
        cluster
            .set_availability(&manager, Availability::Drain)
            .await;
    }
    let web = cluster.create("web", 3, &["sleep", "1000"]).await;
    let before = processes(&cluster.running(&web.id, 3).await);
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    cluster.scale(&web.id, 5).await;
    let after = processes(&cluster.running(&web.id, 5).await);
    for (task, pid) in &before {
        assert_eq!(after.get(task), Some(pid), "task {task} was restarted");
    }
    cluster.restart(&leader).await;
    cluster.all_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_managers_die_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of_processes(3, 2).await;
    for manager in cluster.managers() {
        cluster
            .set_availability(&manager, Availability::Drain)
            .await;
    }
    let web = cluster.create("web", 3, &["sleep", "1000"]).await;
    let before = processes(&cluster.running(&web.id, 3).await);
    let scaled = cluster.scale(&web.id, 4).await;
    for manager in cluster.managers() {
        cluster.kill(&manager).await;
    }
    for manager in cluster.managers() {
        cluster.restart(&manager).await;
    }
    cluster.leader().await;
    cluster.all_ready().await;
    let after = cluster.running(&web.id, 4).await;
    assert_eq!(
        after
            .iter()
            .map(|task| &task.service_id)
            .filter(|id| **id == scaled.id)
            .count(),
        4
    );
    let after = processes(&after);
    for (task, pid) in &before {
        assert_eq!(after.get(task), Some(pid), "task {task} was restarted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_a_leader_that_is_cut_off_stops_answering() {
    let cluster = Cluster::start(3, 0).await;
    let old = cluster.leader().await;
    let mut control = cluster.control_of(&old).await;
    cluster.isolate(&old);
    eventually("another leader", async || {
        let others = cluster.managers().into_iter().filter(|name| *name != old);
        others.into_iter().find(|name| {
            cluster
                .node(name)
                .manager()
                .unwrap()
                .status()
                .borrow()
                .leading
        })
    })
    .await;
    eventually("the old leader to step down", async || {
        (!cluster
            .node(&old)
            .manager()
            .unwrap()
            .status()
            .borrow()
            .leading)
            .then_some(())
    })
    .await;
    // Neither a read nor a write: it would be from a store that is behind.
    let read = control
        .list_services(ListServicesRequest::default())
        .await
        .unwrap_err();
    assert!(
        matches!(read.code(), Code::Unknown | Code::Unavailable),
        "{read}"
    );
    cluster.heal();
    eventually("the old leader to answer for the new one", async || {
        control
            .clone()
            .list_services(ListServicesRequest::default())
            .await
            .ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_a_leader_that_is_cut_off_never_answers_with_what_is_old() {
    let cluster = Cluster::start(3, 0).await;
    let old = cluster.leader().await;
    let mut control = cluster.control_of(&old).await;
    let list = ListServicesRequest::default;
    control.list_services(list()).await.unwrap();
    cluster.isolate(&old);
    // It still believes that it leads. Others may have written already for all it knows.
    let refused = control.list_services(list()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert_eq!(
        refused.message(),
        "raft: failed to process the request: node lost leader status"
    );
    let other = eventually("another leader", async || {
        let mut others = cluster.managers().into_iter().filter(|name| *name != old);
        others.find(|name| {
            let manager = cluster.node(name).manager().unwrap();
            manager.status().borrow().leading
        })
    })
    .await;
    let request = CreateServiceRequest {
        spec: Some(spec("web", 0, &["sleep", "1"])),
    };
    let mut elsewhere = cluster.control_of(&other).await;
    elsewhere.create_service(request).await.unwrap();
    let refused = control.list_services(list()).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::Unknown | Code::Unavailable),
        "{refused}"
    );
    cluster.heal();
    let listed = eventually("the old leader to answer for the new one", async || {
        control.clone().list_services(list()).await.ok()
    })
    .await;
    assert_eq!(listed.into_inner().services.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r14_without_a_quorum_the_error_says_so_and_passes_with_it() {
    let mut cluster = Cluster::start(3, 0).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let last = cluster
        .managers()
        .into_iter()
        .find(|m| *m != leader && *m != follower)
        .unwrap();
    cluster.kill(&leader).await;
    cluster.kill(&follower).await;
    let mut control = cluster.control_of(&last).await;
    let refused = eventually("a refusal that names the cause", async || {
        let status = control
            .clone()
            .list_services(ListServicesRequest::default())
            .await
            .err()?;
        status
            .message()
            .starts_with("The swarm does not have a leader.")
            .then_some(status)
    })
    .await;
    assert_eq!(refused.code(), Code::Unknown);
    cluster.restart(&leader).await;
    cluster.leader().await;
    control
        .list_services(ListServicesRequest::default())
        .await
        .unwrap();
}
