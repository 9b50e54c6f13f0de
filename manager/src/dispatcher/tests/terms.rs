//! Begin and end of a term.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use skep_proto::v1::{Node, TaskState, node_status::State};
use tonic::Code;

use crate::dispatcher::testing::{World, last, next, node, task, told};

#[tokio::test]
async fn the_end_of_a_term_ends_all_streams() {
    let mut world = World::two_nodes().await;
    let (id, mut session) = world.register("n1").await;
    let mut assignments = world.assignments("n1", &id).await.unwrap();
    next(&mut assignments).await.unwrap();
    world.end_term().await;

    let message = next(&mut session).await.unwrap();
    let status = message.node.as_ref().unwrap().status();
    assert_eq!(status.state(), State::Disconnected);
    assert_eq!(
        status.message,
        "node is currently trying to find new manager"
    );
    assert_eq!((&*message.session_id, message.managers.len()), (&*id, 1));
    let must_disconnect = (Code::Aborted, "node must disconnect".to_owned());
    assert_eq!(last(session).await, must_disconnect);
    assert_eq!(last(assignments).await, must_disconnect);

    let stopped = (Code::Aborted, "dispatcher is stopped".to_owned());
    assert_eq!(told(world.session("n1", &id).await.err().unwrap()), stopped);
    assert_eq!(told(world.heartbeat("n1", &id).await.unwrap_err()), stopped);
}

#[tokio::test]
async fn r43_a_term_with_a_thousand_sessions_ends_within_a_second_and_nothing_is_left_of_it() {
    let names: Vec<_> = (0..1000).map(|n| format!("n{n}")).collect();
    let mut world = World::start(Duration::ZERO, |tx| {
        for name in &names {
            tx.create(node(name, State::Unknown)).unwrap();
        }
    })
    .await;
    let mut unread = Vec::new();
    let mut waiting = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let (id, mut session) = world.register(name).await;
        let assignments = world.assignments(name, &id).await.unwrap();
        if n % 2 == 0 {
            unread.push((session, assignments));
        } else {
            waiting.push(tokio::spawn(async move {
                drop(assignments);
                let message = session.next().await.unwrap().unwrap();
                assert_eq!(message.node.unwrap().status().state(), State::Disconnected);
                last(session).await
            }));
        }
    }
    let ended = Arc::downgrade(&world.dispatcher.term().unwrap());
    let began = Instant::now();
    world.end_term().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    for told in waiting {
        assert_eq!(told.await.unwrap().1, "node must disconnect");
    }
    // The next terms come and go while some agents still have not read that theirs is over.
    for _ in 0..3 {
        world.begin_term().await;
        let began = Instant::now();
        world.end_term().await;
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    assert!(ended.strong_count() > 0, "unread streams know their term");
    drop(unread);
    assert_eq!(ended.strong_count(), 0);
}

#[tokio::test]
async fn a_new_leader_knows_nothing_of_nodes_that_are_not_down() {
    let mut world = World::start(Duration::ZERO, |tx| {
        tx.create(node("n1", State::Ready)).unwrap();
        tx.create(node("n2", State::Down)).unwrap();
    })
    .await;
    let unknown = r#"Node moved to "unknown" state due to leadership change in cluster"#;
    let status = world
        .node_status("n1", |status| status.state() == State::Unknown)
        .await;
    assert_eq!(status.message, unknown);
    assert_eq!(world.get::<Node>("n2").status().state(), State::Down);

    // The session of the old term means nothing in the new one, and the node just registers.
    let (id, _session) = world.register("n1").await;
    world.end_term().await;
    world.begin_term().await;
    let mut session = world.session("n1", &id).await.unwrap();
    assert_ne!(next(&mut session).await.unwrap().session_id, id);
    assert_eq!(world.get::<Node>("n1").status().state(), State::Ready);

    world.end_term().await;
    world.begin_term().await;
    let status = world
        .node_status("n1", |status| status.state() == State::Unknown)
        .await;
    assert_eq!(status.message, unknown);
}

#[tokio::test]
async fn reports_that_wait_when_the_term_ends_are_refused() {
    let mut world = World::two_nodes().await;
    world
        .write(|tx| tx.create(task("t1", "n1", TaskState::Assigned)).unwrap())
        .await;
    let (id, _session) = world.register("n1").await;
    world.store.follow();
    let refused = told(
        world
            .report("n1", &id, &[("t1", TaskState::Running)])
            .await
            .unwrap_err(),
    );
    let stopped = (Code::Aborted, "dispatcher is stopped".to_owned());
    assert_eq!(refused, stopped);
    assert_eq!(told(world.session("n2", "").await.err().unwrap()), stopped);
    world.end_term().await;
}
