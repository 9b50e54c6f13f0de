//! What the store promises, one promise a test.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use prost::Message as _;
use skep_proto::{
    Timestamp,
    v1::{
        Annotations, Extension, IndexEntry, InternalRaftRequest, Node, Resource, Service,
        ServiceSpec, StoreSnapshot, Task, TaskState,
    },
};
use skep_store::{
    Action, By, Change, Entry, Error, Event, Image, Index, MAX_PROPOSAL_BYTES, Route, Store,
    testing::ManualLog,
};

fn leader() -> (Store, ManualLog) {
    let store = Store::new(Timestamp::default);
    let log = ManualLog::default();
    store.lead(1, Arc::new(log.clone()));
    (store, log)
}

fn task(id: &str, node: &str) -> Task {
    Task {
        id: id.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn commit_all(store: &Store, log: &ManualLog) {
    store
        .apply(&log.take(store.snapshot().index(), usize::MAX))
        .unwrap();
}

#[test]
fn transactions_are_pipelined_and_read_uncommitted_ones() {
    let (store, log) = leader();
    let mut first = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = pin!(store.update(|tx| {
        let seen = Task::clone(tx.get::<Task>("a").expect("the head has it"));
        tx.update(seen).map(drop)
    }));
    assert!(
        poll(second.as_mut()).is_pending(),
        "the second did not wait for the first"
    );
    assert_eq!(log.len(), 2);
    assert!(
        store.snapshot().get::<Task>("a").is_none(),
        "readers see only what is committed"
    );
    commit_all(&store, &log);
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
}

#[test]
fn an_error_that_follows_from_uncommitted_state_waits_for_it() {
    let (store, log) = leader();
    let mut first = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert!(
        poll(second.as_mut()).is_pending(),
        "nobody may learn of \"a\" yet"
    );
    log.lose();
    store.follow();
    assert_eq!(
        poll(second.as_mut()),
        Poll::Ready(Err(Error::LostLeadership))
    );
    assert_eq!(
        poll(first.as_mut()),
        Poll::Ready(Err(Error::LostLeadership))
    );
}

#[test]
fn a_lost_leaders_entries_still_apply_when_they_come_back() {
    let (store, log) = leader();
    let mut write = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert!(poll(write.as_mut()).is_pending());
    store.follow();
    commit_all(&store, &log);
    assert!(store.snapshot().get::<Task>("a").is_some());
}

#[test]
fn a_store_that_does_not_lead_refuses_writes() {
    let store = Store::new(Timestamp::default);
    let mut write = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert_eq!(
        poll(write.as_mut()),
        Poll::Ready(Err(Error::LostLeadership))
    );
}

#[test]
fn oversized_transactions_are_refused_and_change_nothing() {
    let (store, log) = leader();
    let mut big = task("a", "n");
    big.status_mut().message = "x".repeat(MAX_PROPOSAL_BYTES);
    let mut write = pin!(store.update(|tx| tx.create(big).map(drop)));
    assert_eq!(poll(write.as_mut()), Poll::Ready(Err(Error::TooLarge)));
    assert!(log.is_empty());
    let mut again = pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)));
    assert!(
        poll(again.as_mut()).is_pending(),
        "the head does not have it"
    );
}

#[test]
fn entries_are_what_prost_would_write() {
    let (store, log) = leader();
    let mut write = pin!(store.update(|tx| {
        tx.create(task("a", "n"))?;
        tx.create(Node {
            id: "n".to_owned(),
            ..Default::default()
        })?;
        tx.remove::<Task>("a").map(drop)
    }));
    assert!(poll(write.as_mut()).is_pending());
    let data = log.take(0, 1).remove(0).data;
    let request = InternalRaftRequest::decode(data.clone()).unwrap();
    assert_eq!(request.action.len(), 3);
    assert_eq!(request.encode_to_vec(), data);
}

#[test]
fn an_entry_that_does_not_decode_is_an_error_and_publishes_nothing() {
    let store = Store::new(Timestamp::default);
    let bad = Entry {
        index: 7,
        data: vec![0x0a, 0xff, 0xff].into(),
    };
    assert!(matches!(
        store.apply(&[bad]),
        Err(Error::Corrupt { index: 7, .. })
    ));
    assert_eq!(store.snapshot().index(), 0);
}

#[test]
fn a_writer_that_goes_away_leaves_its_place_taken() {
    let (store, log) = leader();
    let write = |number: u32| {
        let new = task(&number.to_string(), "n");
        store.update(move |tx| tx.create(new).map(drop))
    };
    for number in 0..4096 {
        assert!(poll(pin!(write(number))).is_pending());
    }
    let mut one_more = pin!(write(4096));
    assert!(poll(one_more.as_mut()).is_pending());
    assert_eq!(log.len(), 4096, "it is not built before there is a place");
    store.apply(&log.take(0, 1)).unwrap();
    assert!(poll(one_more.as_mut()).is_pending());
    assert_eq!(log.len(), 4096, "4,095 were left, and this one came");
}

#[test]
fn those_who_wait_for_others_take_places_too() {
    let (store, log) = leader();
    assert!(poll(pin!(store.update(|tx| tx.create(task("a", "n")).map(drop)))).is_pending());
    for _ in 1..4096 {
        let again = store.update(|tx| tx.create(task("a", "n")).map(drop));
        assert!(poll(pin!(again)).is_pending());
    }
    assert!(poll(pin!(store.update(|tx| tx.create(task("b", "n")).map(drop)))).is_pending());
    assert_eq!(log.len(), 1, "no place for it");
}

#[test]
fn what_has_no_keys_of_its_own_is_found_all_the_same() {
    let entry = |key: &str, val: &str| IndexEntry {
        key: key.to_owned(),
        val: val.to_owned(),
    };
    let mut first = task("a", "n1");
    first.service_id = "service".to_owned();
    first.slot = 12_345;
    first.set_desired_state(TaskState::Running);
    first.status_mut().set_state(TaskState::Failed);
    first.annotations_mut().indices = vec![entry("colour", "red"), entry("size", "XL")];
    let mut second = task("b", "n2");
    second.service_id = "service2".to_owned();
    second.slot = 1;
    second.set_desired_state(TaskState::Remove);
    let image = StoreSnapshot {
        tasks: vec![second, first],
        ..Default::default()
    };
    let store = Store::new(Timestamp::default);
    store.restore(1, image);
    let snapshot = store.snapshot();
    let found = |by: By<'_>| {
        let ids = snapshot.find::<Task>(by).map(|task| &*task.id);
        ids.collect::<Vec<_>>().concat()
    };
    assert_eq!(found(By::desired_state(TaskState::Running)), "a");
    assert_eq!(found(By::desired_state(TaskState::Remove)), "b");
    assert_eq!(found(By::task_state(TaskState::Failed)), "a");
    assert_eq!(found(By::task_state(TaskState::New)), "b");
    assert_eq!(found(By::custom("colour", "red")), "a");
    assert_eq!(found(By::custom("colour", "XL")), "");
    assert_eq!(found(By::StartsWith(Index::Custom, "colour\0".into())), "a");
    assert_eq!(found(By::service("service")), "a");
    assert_eq!(found(By::service("serv")), "");
    assert_eq!(found(By::StartsWith(Index::Service, "serv".into())), "ab");
    assert_eq!(found(By::slot("service", 12_345)), "a");
    assert_eq!(found(By::slot("service", 1234)), "");
    assert_eq!(found(By::IdPrefix("")), "ab");
    assert_eq!(found(By::node("n2")), "b");
}

#[test]
fn of_two_objects_with_one_id_in_a_snapshot_the_last_one_counts() {
    let store = Store::new(Timestamp::default);
    let tasks = vec![task("a", "n1"), task("b", "n1"), task("a", "n2")];
    let twice = StoreSnapshot {
        tasks,
        ..Default::default()
    };
    store.restore(1, Image::decode(&twice.encode_to_vec()).unwrap());
    let snapshot = store.snapshot();
    assert_eq!(snapshot.count::<Task>(), 2);
    assert_eq!(snapshot.find::<Task>(By::node("n1")).count(), 1);
    assert_eq!(snapshot.find::<Task>(By::node("n2")).count(), 1);
}

#[test]
fn a_snapshot_that_is_cut_or_damaged_is_an_error_or_another_snapshot_but_no_panic() {
    let tasks = (0..3).map(skep_store::testing::sample::task).collect();
    let wire = StoreSnapshot {
        tasks,
        ..Default::default()
    };
    let bytes = wire.encode_to_vec();
    let whole = (0..=bytes.len()).filter(|&end| Image::decode(&bytes[..end]).is_ok());
    assert_eq!(whole.count(), 4, "between two tasks, and at both ends");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] = !damaged[at];
        let ours = Image::decode(&damaged);
        let theirs = StoreSnapshot::decode(&*damaged);
        // It may have become a field that nobody knows.
        let newer = skep_proto::unknown_field("StoreSnapshot", &damaged);
        match ours {
            Err(Error::Newer { what, .. }) => assert_eq!(Some(what), newer, "byte {at}"),
            ours => assert_eq!(ours.is_ok(), theirs.is_ok(), "byte {at}"),
        }
    }
}

#[test]
fn a_service_route_hears_of_the_service_and_its_tasks() {
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        let (_, mut one) = store.watch([Route::Service("s1".to_owned())]);
        let told = |one: &mut skep_store::Subscription| one.try_next().is_some();
        for (id, service, concerned) in [("a", "s1", true), ("b", "s2", false), ("c", "", false)] {
            let mut new = task(id, "n");
            new.service_id = service.to_owned();
            store.update(|tx| tx.create(new).map(drop)).await.unwrap();
            assert_eq!(told(&mut one), concerned, "task {id}");
        }
        for (id, concerned) in [("s1", true), ("s2", false)] {
            let new = Service {
                id: id.to_owned(),
                spec: Some(ServiceSpec {
                    annotations: Some(Annotations {
                        name: id.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            };
            store.update(|tx| tx.create(new).map(drop)).await.unwrap();
            assert_eq!(told(&mut one), concerned, "service {id}");
        }
    });
}

#[test]
fn a_subscription_starts_right_after_its_snapshot() {
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        store
            .update(|tx| tx.create(task("a", "n1")).map(drop))
            .await
            .unwrap();
        let (snapshot, mut subscription) = store.watch([Route::All]);
        assert!(snapshot.get::<Task>("a").is_some());
        assert!(subscription.try_next().is_none());
        store
            .update(|tx| tx.create(task("b", "n1")).map(drop))
            .await
            .unwrap();
        let Some(Event::Commits(commits)) = subscription.try_next() else {
            panic!("no commit")
        };
        assert!(matches!(&commits[0].changes[..], [Change::Create(new)] if new.id() == "b"));
    });
}

#[test]
fn changes_that_are_published_together_are_told_apart_by_entry() {
    let (store, log) = leader();
    let (_, mut subscription) = store.watch([Route::All]);
    let mut one = Box::pin(store.update(|tx| tx.create(task("a", "n1")).map(drop)));
    let mut two = Box::pin(store.update(|tx| {
        tx.create(task("b", "n1"))?;
        tx.remove::<Task>("a").map(drop)
    }));
    assert!(poll(one.as_mut()).is_pending() && poll(two.as_mut()).is_pending());
    let mut entries = log.take(store.snapshot().index(), 2);
    let first = entries[0].index;
    // An entry that is not for the store comes in between.
    entries[1].index += 1;
    entries.insert(
        1,
        Entry {
            index: first + 1,
            data: Bytes::new(),
        },
    );
    store.apply(&entries).unwrap();
    let Some(Event::Commits(commits)) = subscription.try_next() else {
        panic!("no commit")
    };
    assert_eq!(commits.len(), 1);
    let told: Vec<_> = commits[0]
        .entries()
        .map(|(index, changes)| (index, changes.len()))
        .collect();
    assert_eq!(told, [(first, 1), (first + 2, 2)]);
    // The log tells the same, but not what was there before.
    for (entry, (_, changes)) in [&entries[0], &entries[2]]
        .into_iter()
        .zip(commits[0].entries())
    {
        let actions: Vec<_> = changes
            .iter()
            .map(|change| match change.clone() {
                Change::Create(object) => Action::Create(object),
                Change::Update { new, .. } => Action::Update(new),
                Change::Remove(object) => Action::Remove(object),
            })
            .collect();
        assert_eq!(entry.actions().unwrap(), actions);
    }
    assert_eq!(entries[1].actions().unwrap(), []);
    store.restore(50, StoreSnapshot::default());
    let Some(Event::Commits(commits)) = subscription.try_next() else {
        panic!("no commit")
    };
    let told: Vec<_> = commits[0].entries().map(|(index, _)| index).collect();
    assert_eq!(told, [50]);
}

#[test]
fn a_node_route_hears_of_its_own_tasks_only_also_of_those_that_leave() {
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        let (_, mut one) = store.watch([Route::Node("n1".to_owned())]);
        store
            .update(|tx| tx.create(task("a", "n2")).map(drop))
            .await
            .unwrap();
        assert!(one.try_next().is_none());
        store
            .update(|tx| tx.create(task("b", "n1")).map(drop))
            .await
            .unwrap();
        assert!(matches!(one.try_next(), Some(Event::Commits(commits)) if commits.len() == 1));
        store
            .update(|tx| {
                let mut moved = Task::clone(tx.get::<Task>("b").ok_or(Error::NotFound)?);
                moved.node_id = "n2".to_owned();
                tx.update(moved).map(drop)
            })
            .await
            .unwrap();
        assert!(matches!(one.try_next(), Some(Event::Commits(commits)) if commits.len() == 1));
    });
}

#[test]
fn r41_a_subscriber_that_never_reads_costs_bounded_memory_and_is_told() {
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        let (_, mut subscription) = store.watch([Route::All]);
        for number in 0..2000 {
            let new = task(&format!("task{number}"), "n");
            store.update(|tx| tx.create(new).map(drop)).await.unwrap();
        }
        let Some(Event::Lagged(snapshot)) = subscription.try_next() else {
            panic!("not told")
        };
        assert_eq!(snapshot.count::<Task>(), 2000);
        assert!(subscription.try_next().is_none(), "level again");
        store
            .update(|tx| tx.create(task("last", "n")).map(drop))
            .await
            .unwrap();
        assert!(matches!(subscription.try_next(), Some(Event::Commits(_))));
    });
}

#[test]
fn r18_a_restored_snapshot_tells_watchers_only_of_what_differs() {
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        for id in ["same", "changed", "gone"] {
            store
                .update(|tx| tx.create(task(id, "n")).map(drop))
                .await
                .unwrap();
        }
        let (snapshot, mut subscription) = store.watch([Route::All]);
        let mut wire = snapshot.to_wire();
        wire.tasks.retain(|task| task.id != "gone");
        wire.tasks
            .iter_mut()
            .filter(|t| t.id == "changed")
            .for_each(|t| t.slot = 9);
        wire.tasks.push(task("new", "n"));
        store.restore(50, wire);
        let Some(Event::Commits(commits)) = subscription.try_next() else {
            panic!("no commit")
        };
        let mut told: Vec<_> = commits[0].changes.iter().map(|c| c.object().id()).collect();
        told.sort_unstable();
        assert_eq!(told, ["changed", "gone", "new"]);
        assert_eq!(store.snapshot().index(), 50);
    });
}

#[test]
fn resources_need_their_extension_and_extensions_stay_while_needed() {
    fn annotations(name: &str) -> Option<Annotations> {
        Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        })
    }
    let store = skep_store::testing::leading(Timestamp::default);
    futures(async {
        let resource = Resource {
            id: "r".to_owned(),
            kind: "Kind".to_owned(),
            annotations: annotations("one"),
            ..Default::default()
        };
        let extension = Extension {
            id: "e".to_owned(),
            annotations: annotations("Kind"),
            ..Default::default()
        };
        let early = resource.clone();
        let refused = store.update(|tx| tx.create(early).map(drop)).await;
        assert_eq!(refused, Err(Error::UnregisteredKind));
        store
            .update(|tx| tx.create(extension.clone()).map(drop))
            .await
            .unwrap();
        store
            .update(|tx| tx.create(resource).map(drop))
            .await
            .unwrap();
        let changed = store
            .update(|tx| {
                tx.update(Extension::clone(tx.get("e").ok_or(Error::NotFound)?))
                    .map(drop)
            })
            .await;
        assert_eq!(changed, Err(Error::ImmutableExtension));
        let removed = store
            .update(|tx| tx.remove::<Extension>("e").map(drop))
            .await;
        assert_eq!(removed, Err(Error::ExtensionInUse));
    });
}

/// Runs a test that waits for the store's own thread.
fn futures(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test);
}
