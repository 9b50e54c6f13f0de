//! The broker between clients and nodes, without a network.

mod world;

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use skep_proto::v1::{
    LogMessage, LogSelector, LogSubscriptionOptions, PublishLogsMessage, SubscribeLogsRequest,
    Task, TaskState,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use self::world::*;
use super::{board::MAX_SUBSCRIPTIONS, subscribing};

#[tokio::test]
async fn a_selector_must_say_something() {
    let world = World::new(&[]).await;
    for (selector, text) in [
        (None, "log selector must be provided"),
        (
            Some(LogSelector::default()),
            "log selector must not be empty",
        ),
    ] {
        let request = SubscribeLogsRequest {
            selector,
            options: None,
        };
        let refused = subscribing::stream(world.broker.term().unwrap(), request);
        let expected = (Code::InvalidArgument, text.to_owned());
        assert_eq!(told(refused.err().unwrap()), expected);
    }
    assert!(world.is_empty());
}

#[tokio::test]
async fn it_ends_when_every_node_is_through() {
    let world = World::new(&[
        ("t1", "s1", "n1", TaskState::Running),
        ("t2", "s1", "n2", TaskState::Failed),
        ("t3", "s1", "n3", TaskState::Starting),
        ("t4", "s2", "n4", TaskState::Running),
    ])
    .await;
    let mut nodes: Vec<_> = ["n1", "n2", "n3", "n4"]
        .map(|node| world.listen(node))
        .into();
    let client = world.subscribe(service("s1"), false);
    let first = next(&mut nodes[0]).await;
    assert_eq!(next(&mut nodes[1]).await, first);
    assert_eq!(first.selector, Some(service("s1")));
    assert_eq!(
        first.options,
        Some(LogSubscriptionOptions::default()),
        "agents count on them"
    );
    assert!(!first.close);
    for stranger in &mut nodes[2..] {
        assert!(
            stranger.next().now_or_never().is_none(),
            "nothing runs there"
        );
    }

    let (n1, n2) = (world.publish("n1"), world.publish("n2"));
    n1.send(lines(&first.id, "n1", &["a", "b"])).await;
    n1.end(close(&first.id)).await.unwrap();
    // With its last words, and without a word that they are.
    n2.send(lines(&first.id, "n2", &["c"])).await;
    drop(n2.sender);
    n2.call.await.unwrap().unwrap();
    let (mut lines, error) = rest(client).await;
    lines.sort();
    assert_eq!(
        (lines, error),
        (vec!["a".into(), "b".into(), "c".into()], None)
    );

    let over = next(&mut nodes[0]).await;
    assert_eq!((&over.id, over.close), (&first.id, true));
    assert!(over.options.is_some() && over.selector.is_some());
    drop(nodes);
    assert!(world.is_empty());
}

#[tokio::test]
async fn r48_a_dead_node_is_a_warning_and_no_reason_to_wait() {
    let world = World::new(&[
        ("t1", "s1", "n1", TaskState::Running),
        ("t2", "s1", "dead", TaskState::Running),
        ("t3", "s1", "dying", TaskState::Running),
        ("t4", "s1", "cut-off", TaskState::Running),
        ("t5", "s2", "", TaskState::Pending),
    ])
    .await;
    let (mut n1, mut dying, mut cut_off) = (
        world.listen("n1"),
        world.listen("dying"),
        world.listen("cut-off"),
    );
    let selector = LogSelector {
        service_ids: vec!["s1".to_owned()],
        task_ids: vec!["t5".to_owned(), "gone".to_owned()],
        ..Default::default()
    };
    let client = world.subscribe(selector, false);
    let id = next(&mut n1).await.id;
    next(&mut dying).await;
    next(&mut cut_off).await;
    let publisher = world.publish("n1");
    publisher.send(lines(&id, "n1", &["here"])).await;
    publisher.end(close(&id)).await.unwrap();
    drop(dying);
    let publisher = world.publish("cut-off");
    publisher.send(lines(&id, "cut-off", &["half"])).await;
    let reset = Status::cancelled("the connection is gone");
    publisher.sender.send(Err(reset)).await.unwrap();
    publisher.ended().await.unwrap_err();
    let (mut lines, error) = rest(client).await;
    lines.sort();
    assert_eq!(lines, ["half", "here"]);
    let reasons = "node cut-off disconnected unexpectedly, node dead is not available, node dying \
                   disconnected unexpectedly, task t5 has not been scheduled";
    assert_eq!(error, warning(reasons));
}

#[tokio::test]
async fn a_call_that_is_dropped_counts_as_cut_off() {
    let world = World::new(&[("t1", "s1", "n1", TaskState::Running)]).await;
    let mut n1 = world.listen("n1");
    let mut client = world.subscribe(service("s1"), false);
    let id = next(&mut n1).await.id;
    let publisher = world.publish("n1");
    publisher.send(lines(&id, "n1", &["half"])).await;
    assert_eq!(texts(&next(&mut client).await), ["half"]);
    publisher.call.abort();
    let reasons = "node n1 disconnected unexpectedly";
    assert_eq!(rest(client).await, (vec![], warning(reasons)));
}

#[tokio::test]
async fn selected_nodes_and_tasks_are_waited_for_too() {
    let world = World::new(&[("t1", "s1", "n1", TaskState::Preparing)]).await;
    let (mut n1, mut n2) = (world.listen("n1"), world.listen("n2"));
    let selector = LogSelector {
        task_ids: vec!["t1".to_owned()],
        node_ids: vec!["n2".to_owned()],
        ..Default::default()
    };
    let client = world.subscribe(selector, false);
    let id = next(&mut n1).await.id;
    assert_eq!(next(&mut n2).await.id, id);
    world.publish("n1").end(close(&id)).await.unwrap();
    world.publish("n2").end(close(&id)).await.unwrap();
    assert_eq!(rest(client).await, (vec![], None));
    assert_eq!(
        rest(world.subscribe(service("nobody"), false)).await,
        (vec![], None),
        "nothing to wait for"
    );
}

#[tokio::test]
async fn following_goes_on_with_tasks_that_come_later() {
    let world = World::new(&[("t1", "s1", "n1", TaskState::Assigned)]).await;
    let mut n1 = world.listen("n1");
    let mut client = world.subscribe(service("s1"), true);
    let id = next(&mut n1).await.id;
    // It says that it is through, and is not believed: more may come.
    let publisher = world.publish("n1");
    publisher.send(lines(&id, "n1", &["one"])).await;
    publisher.end(close(&id)).await.unwrap();
    assert_eq!(texts(&next(&mut client).await), ["one"]);
    assert!(client.next().now_or_never().is_none());

    let mut n2 = world.listen("n2");
    world.create("t2", "s1", "", TaskState::New).await;
    world
        .write(|tx| {
            let mut task = Task::clone(tx.get::<Task>("t2").unwrap());
            task.node_id = "n2".to_owned();
            tx.update(task).unwrap();
        })
        .await;
    let waiting = tokio::spawn(async move { (next(&mut client).await, client) });
    assert_eq!(next(&mut n2).await.id, id);
    let publisher = world.publish("n2");
    publisher.send(lines(&id, "n2", &["two"])).await;
    let (message, mut client) = waiting.await.unwrap();
    assert_eq!(texts(&message), ["two"]);

    // A node that was away is told again, and one that comes for the first time is told.
    world.create("t3", "s1", "n3", TaskState::Running).await;
    drop(n2);
    assert!(client.next().now_or_never().is_none());
    assert_eq!(next(&mut world.listen("n2")).await.id, id);
    assert_eq!(next(&mut world.listen("n3")).await.id, id);
    drop(client);
    let over = next(&mut n1).await;
    assert_eq!((over.id, over.close), (id, true));
    publisher.ended().await.expect("nobody wants more");
}

#[tokio::test]
async fn what_is_published_wrongly_is_refused() {
    let world = World::new(&[("t1", "s1", "n1", TaskState::Running)]).await;
    let (mut n1, _n2) = (world.listen("n1"), world.listen("n2"));
    let client = world.subscribe(service("s1"), true);
    let id = next(&mut n1).await.id;
    let refused = async |node: &str, first: Option<PublishLogsMessage>, last| {
        let publisher = world.publish(node);
        if let Some(first) = first {
            publisher.send(first).await;
        }
        told(publisher.end(last).await.unwrap_err())
    };
    let unknown = (Code::NotFound, "unknown subscription ID".to_owned());
    let missing = (Code::InvalidArgument, "missing subscription ID".to_owned());
    let different = (
        Code::InvalidArgument,
        "different subscription IDs in the same session".to_owned(),
    );
    let impostor = (
        Code::PermissionDenied,
        "invalid NodeID: expected=n1;received=n2".to_owned(),
    );
    let ours = Some(lines(&id, "n1", &["x"]));
    assert_eq!(refused("n1", None, lines("", "n1", &[])).await, missing);
    assert_eq!(refused("n1", None, close("x")).await, unknown);
    assert_eq!(
        refused("n2", None, close(&id)).await,
        unknown,
        "it was never asked"
    );
    assert_eq!(refused("n1", ours.clone(), close("x")).await, different);
    assert_eq!(refused("n1", ours.clone(), close("")).await, missing);
    assert_eq!(
        refused("n1", ours.clone(), lines(&id, "n2", &["x"])).await,
        impostor
    );
    let nobody = PublishLogsMessage {
        messages: vec![LogMessage::default()],
        ..lines(&id, "n1", &[])
    };
    assert_eq!(
        refused("n1", ours, nobody).await.1,
        "invalid NodeID: expected=n1;received="
    );
    let open: Vec<_> = [(); 2].map(|()| world.publish("n1")).into();
    for publisher in &open {
        publisher.send(lines(&id, "n1", &[])).await;
        publisher.send(lines(&id, "n1", &[])).await;
    }
    let (code, _) = refused("n1", None, lines(&id, "n1", &[])).await;
    assert_eq!(code, Code::ResourceExhausted);
    drop(client);
}

#[tokio::test]
async fn a_flood_for_a_client_that_does_not_read_holds_up_nobody_else() {
    let world = World::new(&[("t1", "s1", "n1", TaskState::Running)]).await;
    let mut n1 = world.listen("n1");
    let unread = world.subscribe(service("s1"), false);
    let flooded = next(&mut n1).await.id;
    let flood = world.publish("n1");
    let line = "x".repeat(100_000);
    let mut taken = 0;
    while timeout(
        Duration::from_millis(200),
        flood.sender.send(Ok(lines(&flooded, "n1", &[&line]))),
    )
    .await
    .is_ok()
    {
        taken += 1;
        assert!(taken < 30, "nothing bounds what waits");
    }
    let client = world.subscribe(service("s1"), false);
    let id = next(&mut n1).await.id;
    let publisher = world.publish("n1");
    publisher.send(lines(&id, "n1", &["other"])).await;
    publisher.end(close(&id)).await.unwrap();
    assert_eq!(rest(client).await, (vec!["other".to_owned()], None));
    // Whoever reads late misses nothing.
    let late = tokio::spawn(rest(unread));
    flood.end(close(&flooded)).await.unwrap();
    assert_eq!(late.await.unwrap().0.len(), taken);
}

#[tokio::test]
async fn too_many_subscriptions_are_refused() {
    let world = World::new(&[]).await;
    let open: Vec<_> = (0..MAX_SUBSCRIPTIONS)
        .map(|_| world.subscribe(service("s1"), true))
        .collect();
    let request = SubscribeLogsRequest {
        selector: Some(service("s1")),
        options: None,
    };
    let term = world.broker.term().unwrap();
    let refused = subscribing::stream(term, request);
    assert_eq!(refused.err().unwrap().code(), Code::ResourceExhausted);
    drop(open);
    assert!(world.is_empty());
}

#[tokio::test]
async fn the_end_of_a_term_ends_all_streams() {
    let mut world = World::new(&[("t1", "s1", "n1", TaskState::Running)]).await;
    let mut n1 = world.listen("n1");
    let client = world.subscribe(service("s1"), false);
    let id = next(&mut n1).await.id;
    let publisher = world.publish("n1");
    publisher.send(lines(&id, "n1", &["x"])).await;
    world.running = None;
    let stopped = (Code::Aborted, "log broker is stopped".to_owned());
    assert_eq!(rest(client).await.1, Some(stopped.clone()));
    let end = n1.next().await.unwrap().unwrap_err();
    assert_eq!(told(end), stopped);
    assert!(n1.next().await.is_none());
    assert_eq!(told(publisher.ended().await.unwrap_err()), stopped);
    assert_eq!(told(world.broker.term().err().unwrap()), stopped);

    world.running = Some(world.broker.begin());
    let before = world.running.replace(world.broker.begin());
    drop(before);
    assert!(world.broker.term().is_ok(), "an older term ends alone");
}

#[tokio::test]
async fn r47_subscriptions_and_nodes_that_come_and_go_at_random_leave_nothing_behind() {
    let nodes: Vec<_> = (0..5).map(|n| format!("n{n}")).collect();
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        // The last one never listens.
        let tasks: Vec<_> = nodes
            .iter()
            .map(|node| (format!("t-{node}"), node))
            .collect();
        let tasks: Vec<_> = tasks
            .iter()
            .map(|(id, node)| (&**id, "s1", &***node, TaskState::Running))
            .collect();
        let world = World::new(&tasks).await;
        let mut clients = Vec::new();
        let mut listening = Vec::new();
        let mut publishers: Vec<Publisher> = Vec::new();
        let mut known = vec!["nonsense".to_owned()];
        for _ in 0..300 {
            let node = nodes[..4].choose(&mut random).unwrap();
            match random.random_range(0..9) {
                0 => clients.push(world.subscribe(service("s1"), random.random())),
                1 if !clients.is_empty() => {
                    let client = clients.swap_remove(random.random_range(0..clients.len()));
                    drop(client);
                }
                2 => listening.push(world.listen(node)),
                3 if !listening.is_empty() => {
                    drop(listening.swap_remove(random.random_range(0..listening.len())));
                }
                4 => publishers.push(world.publish(node)),
                5 if !publishers.is_empty() => {
                    let publisher =
                        publishers.swap_remove(random.random_range(0..publishers.len()));
                    match random.random() {
                        true => drop(publisher.sender),
                        false => publisher.call.abort(),
                    }
                }
                6 => {
                    for publisher in &publishers {
                        let id = known.choose(&mut random).unwrap();
                        let _ = publisher.sender.try_send(Ok(lines(id, node, &["x"])));
                    }
                }
                7 => {
                    for stream in &mut listening {
                        while let Some(Some(Ok(message))) = stream.next().now_or_never() {
                            known.push(message.id);
                        }
                    }
                }
                _ => {
                    clients
                        .retain_mut(|client| !matches!(client.next().now_or_never(), Some(None)));
                    tokio::task::yield_now().await;
                }
            }
        }
        // Who is left and reads comes to an end: no node is there any more.
        drop(listening);
        let last = world.subscribe(service("s1"), false);
        assert!(rest(last).await.1.is_some());
        drop(clients);
        for publisher in publishers {
            drop(publisher.sender);
            let _ = timeout(PATIENCE, publisher.call).await.expect("it hangs");
        }
        assert!(world.is_empty(), "seed {seed}");
    }
}
