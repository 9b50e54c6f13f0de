//! Registration, the session stream and heartbeats.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use skep_proto::v1::{
    Cluster, HeartbeatRequest, Node, Peer, SessionRequest, dispatcher_server::Dispatcher as _,
    node_status::State,
};
use tonic::{Code, Request};

use crate::dispatcher::testing::{World, description, from, last, member, next, node, peers, told};

#[tokio::test]
async fn a_node_registers_and_learns_all_it_needs() {
    let world = World::two_nodes().await;
    let mut session = world.session("n1", "").await.unwrap();
    let stored = world.get::<Node>("n1");
    assert_eq!(
        stored.status().state(),
        State::Ready,
        "stored before the answer"
    );
    assert_eq!(
        (&*stored.status().addr, &*stored.status().message),
        ("192.0.2.7", "")
    );
    assert_eq!(stored.description, Some(description("n1")));

    let message = next(&mut session).await.unwrap();
    assert_eq!(message.session_id.len(), 25);
    assert_eq!(message.node.as_ref(), Some(&*stored));
    let manager = Peer {
        node_id: "m1".to_owned(),
        addr: "10.0.0.1:4242".to_owned(),
    };
    assert_eq!(peers(&message), [(manager, 10)]);
    assert_eq!(message.network_bootstrap_keys[0].lamport_time, 7);
    assert_eq!(message.root_ca, "root");
}

#[tokio::test]
async fn every_change_that_concerns_the_node_is_told_whole() {
    let world = World::two_nodes().await;
    let (id, mut session) = world.register("n1").await;

    world.change::<Node>("n2", |node| node.role = 1).await;
    world.change::<Node>("n1", |node| node.role = 1).await;
    let message = next(&mut session).await.unwrap();
    assert_eq!(message.node.unwrap().role, 1);

    world
        .change::<Cluster>("c1", |cluster| cluster.root_ca_mut().ca_cert = "new".into())
        .await;
    assert_eq!(next(&mut session).await.unwrap().root_ca, "new");

    world.members.send_replace(vec![]);
    assert!(
        session.next().now_or_never().is_none(),
        "no managers are no news"
    );
    world
        .members
        .send_replace(vec![member("m1", "a:1"), member("m2", "b:2")]);
    let message = next(&mut session).await.unwrap();
    assert_eq!(message.managers.len(), 2);
    assert_eq!(message.session_id, id);
    assert_eq!(message.root_ca, "new");
    assert_eq!(message.node.unwrap().role, 1);
}

#[tokio::test]
async fn resuming_keeps_the_session_and_writes_nothing() {
    let world = World::two_nodes().await;
    let (id, old) = world.register("n1").await;
    let index = world.store.snapshot().index();
    let mut session = world.session("n1", &id).await.unwrap();
    assert_eq!(next(&mut session).await.unwrap().session_id, id);
    for _ in 0..10 {
        world.heartbeat("n1", &id).await.unwrap();
    }
    assert_eq!(world.store.snapshot().index(), index, "no write");
    assert_eq!(
        last(old).await,
        (Code::InvalidArgument, "session invalid".to_owned())
    );
}

#[tokio::test]
async fn a_changed_description_is_stored_and_an_unknown_address_kept() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    let request = SessionRequest {
        description: Some(description("new")),
        session_id: id,
    };
    let mut request = from("n1", request);
    request
        .extensions_mut()
        .get_mut::<skep_security::Caller>()
        .unwrap()
        .remote_addr
        .clear();
    let _session = world.dispatcher.session(request).await.unwrap();
    let stored = world.get::<Node>("n1");
    assert_eq!(stored.description, Some(description("new")));
    assert_eq!(stored.status().addr, "192.0.2.7");
}

#[tokio::test]
async fn a_new_registration_replaces_the_session() {
    let world = World::two_nodes().await;
    let (old_id, old) = world.register("n1").await;
    let assignments = world.assignments("n1", &old_id).await.unwrap();
    let (new_id, _session) = world.register("n1").await;
    assert_ne!(old_id, new_id);
    let invalid = (Code::InvalidArgument, "session invalid".to_owned());
    assert_eq!(last(old).await, invalid);
    assert_eq!(last(assignments).await, invalid);
    assert_eq!(
        told(world.heartbeat("n1", &old_id).await.unwrap_err()),
        invalid
    );
    world.heartbeat("n1", &new_id).await.unwrap();
}

#[tokio::test]
async fn calls_without_a_valid_session_are_refused() {
    let world = World::two_nodes().await;
    let not_registered = (Code::NotFound, "node not registered".to_owned());
    assert_eq!(
        told(world.heartbeat("n1", "x").await.unwrap_err()),
        not_registered
    );
    let (_, _session) = world.register("n1").await;
    let invalid = (Code::InvalidArgument, "session invalid".to_owned());
    assert_eq!(told(world.heartbeat("n1", "").await.unwrap_err()), invalid);
    assert_eq!(
        told(world.assignments("n1", "x").await.err().unwrap()),
        invalid
    );
    assert_eq!(
        told(world.report("n1", "x", &[]).await.unwrap_err()),
        invalid
    );
    assert_eq!(
        told(world.report("n2", "x", &[]).await.unwrap_err()),
        not_registered
    );
}

#[tokio::test]
async fn the_session_of_another_node_is_good_for_nothing() {
    let world = World::two_nodes().await;
    let (own, _session) = world.register("n1").await;
    let (foreign, mut theirs) = world.register("n2").await;
    let invalid = (Code::InvalidArgument, "session invalid".to_owned());
    assert_eq!(
        told(world.heartbeat("n1", &foreign).await.unwrap_err()),
        invalid
    );
    assert_eq!(
        told(world.assignments("n1", &foreign).await.err().unwrap()),
        invalid
    );
    assert_eq!(
        told(world.report("n1", &foreign, &[]).await.unwrap_err()),
        invalid
    );
    // To resume it is to register anew, as oneself.
    let mut session = world.session("n1", &foreign).await.unwrap();
    let message = next(&mut session).await.unwrap();
    assert_eq!(message.node.unwrap().id, "n1");
    assert!(message.session_id != foreign && message.session_id != own);
    assert!(theirs.next().now_or_never().is_none(), "theirs lives on");
    world.heartbeat("n2", &foreign).await.unwrap();
}

#[tokio::test]
async fn a_caller_without_identity_is_refused() {
    let world = World::two_nodes().await;
    let request = Request::new(HeartbeatRequest::default());
    let refused = world.dispatcher.heartbeat(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_node_that_is_not_stored_is_not_found() {
    let world = World::two_nodes().await;
    let not_found = (Code::Unknown, "node not found".to_owned());
    assert_eq!(
        told(world.session("n3", "").await.err().unwrap()),
        not_found
    );

    let (id, session) = world.register("n1").await;
    world.write(|tx| tx.remove::<Node>("n1").unwrap()).await;
    assert_eq!(
        last(session).await,
        not_found,
        "also while it has a session"
    );
    assert_eq!(
        world.heartbeat("n1", &id).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn the_fourth_registration_at_once_is_refused() {
    let world = World::two_nodes().await;
    for _ in 0..3 {
        drop(world.register("n1").await);
    }
    let refused = told(world.session("n1", "").await.err().unwrap());
    let text = "node n1 exceeded rate limit count of registrations".to_owned();
    assert_eq!(refused, (Code::Unavailable, text));
    drop(world.register("n2").await);
}

#[tokio::test]
async fn heartbeats_come_around_the_configured_period() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    for _ in 0..100 {
        let period = world.heartbeat("n1", &id).await.unwrap();
        assert!(
            period.as_secs_f64() >= 4.5 && period.as_secs_f64() <= 5.5,
            "{period:?}"
        );
    }
}

#[tokio::test]
async fn a_silent_node_is_down_until_it_registers_again() {
    let world = World::start(Duration::from_millis(200), |tx| {
        tx.create(node("n1", State::Unknown)).unwrap();
        tx.create(node("n2", State::Unknown)).unwrap();
    })
    .await;
    let (id, session) = world.register("n1").await;
    let status = world
        .node_status("n1", |status| status.state() == State::Down)
        .await;
    assert_eq!(status.message, "heartbeat failure");
    let not_registered = (Code::NotFound, "node not registered".to_owned());
    assert_eq!(last(session).await, not_registered);
    assert_eq!(
        told(world.heartbeat("n1", &id).await.unwrap_err()),
        not_registered
    );

    let status = world
        .node_status("n2", |status| status.state() == State::Down)
        .await;
    assert_eq!(
        status.message,
        r#"heartbeat failure for node in "unknown" state"#
    );

    // From here on it may be as silent as it likes.
    world
        .change::<Cluster>("c1", |cluster| cluster.spec_mut().dispatcher = None)
        .await;
    let mut session = world.session("n1", &id).await.unwrap();
    assert_ne!(next(&mut session).await.unwrap().session_id, id);
    assert_eq!(world.get::<Node>("n1").status().state(), State::Ready);
    assert_eq!(world.get::<Node>("n1").status().message, "");
}

#[tokio::test]
async fn a_node_that_came_later_is_watched_too() {
    let world = World::start(Duration::from_millis(50), |_| {}).await;
    world
        .write(|tx| tx.create(node("n1", State::Unknown)).unwrap())
        .await;
    let _session = world.session("n1", "").await.unwrap();
    world
        .node_status("n1", |status| status.state() == State::Down)
        .await;
}

#[tokio::test]
async fn a_node_that_tells_too_much_is_refused_and_keeps_its_session() {
    let world = World::two_nodes().await;
    let (id, mut session) = world.register("n1").await;
    let stored = world.get::<Node>("n1");
    let mut huge = description("n1");
    huge.hostname = "x".repeat(300 * 1024);
    for session_id in ["", &id] {
        let request = SessionRequest {
            description: Some(huge.clone()),
            session_id: session_id.to_owned(),
        };
        let refused = world.dispatcher.session(from("n1", request)).await;
        assert_eq!(refused.err().unwrap().code(), Code::ResourceExhausted);
    }
    assert_eq!(world.get::<Node>("n1"), stored);
    assert!(session.next().now_or_never().is_none(), "its session lives");
    world.heartbeat("n1", &id).await.unwrap();
}

#[tokio::test]
async fn r20_a_node_that_registers_as_it_is_stored_costs_no_write() {
    let world = World::two_nodes().await;
    let (id, _session) = world.register("n1").await;
    let index = world.store.snapshot().index();
    let _resumed = world.session("n1", &id).await.unwrap();
    let _anew = world.session("n1", "").await.unwrap();
    assert_eq!(world.store.snapshot().index(), index);
}
