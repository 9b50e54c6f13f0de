//! The head is changed in place, and published tables take turns: what that must not change.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::{
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use skep_proto::{Timestamp, v1::Task};
use skep_store::{By, Error, Object as _, Store, Tx, testing::ManualLog};

fn leader() -> (Store, ManualLog) {
    let (store, log) = (Store::new(Timestamp::default), ManualLog::default());
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

fn on_node(tx: &Tx, node: &str) -> Vec<String> {
    let tasks = tx.find::<Task>(By::node(node));
    let mut ids: Vec<_> = tasks.map(|task| task.id.clone()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_transaction_that_fails_or_panics_leaves_nothing_behind() {
    let (store, log) = leader();
    let ready = |write: &mut dyn FnMut(&mut Tx) -> Result<(), Error>| {
        let mut write = pin!(store.update(write));
        let done = poll(write.as_mut());
        let entries = log.take(store.snapshot().index(), usize::MAX);
        store.apply(&entries).unwrap();
        match done {
            Poll::Pending => poll(write.as_mut()),
            done => done,
        }
    };
    let created = ready(&mut |tx| {
        tx.create(task("a", "old"))?;
        tx.create(task("b", "old")).map(drop)
    });
    assert_eq!(created, Poll::Ready(Ok(())));
    let break_all = |tx: &mut Tx| {
        let mut moved = Task::clone(tx.get::<Task>("a").unwrap());
        moved.node_id = "new".to_owned();
        tx.update(moved).unwrap();
        tx.remove::<Task>("a").unwrap();
        tx.create(task("a", "new")).unwrap();
        tx.create(task("c", "new")).unwrap();
        tx.remove::<Task>("b").unwrap();
    };
    let failed = ready(&mut |tx| {
        break_all(tx);
        Err(Error::NotFound)
    });
    assert_eq!(failed, Poll::Ready(Err(Error::NotFound)));
    let panics = catch_unwind(AssertUnwindSafe(|| {
        ready(&mut |tx| {
            break_all(tx);
            panic!("on purpose")
        })
    }));
    assert!(panics.is_err());
    assert!(log.is_empty());
    let seen = ready(&mut |tx| {
        assert_eq!(on_node(tx, "old"), ["a", "b"]);
        assert_eq!(on_node(tx, "new"), Vec::<String>::new());
        assert_eq!(tx.get::<Task>("a").unwrap().version(), 1);
        assert!(tx.get::<Task>("c").is_none());
        Ok(())
    });
    assert_eq!(seen, Poll::Ready(Ok(())));
}

#[test]
fn head_snapshots_and_followers_stay_alike_while_tables_take_turns() {
    let (store, log) = leader();
    let follower = Store::new(Timestamp::default);
    let mut writes = VecDeque::new();
    let mut held = VecDeque::new();
    let mut index = 0;
    // More changes than tables bear before they share their nodes anew.
    for round in 0..2500_u64 {
        for number in 0..8 {
            let id = format!("task{}", (round * 7 + number * 11) % 90);
            let node = format!("node{}", round % 5);
            let mut write = Box::pin(store.update(move |tx| {
                let Some(old) = tx.get::<Task>(&id) else {
                    return tx.create(task(&id, &node)).map(drop);
                };
                if round % 13 == number {
                    return tx.remove::<Task>(&id).map(drop);
                }
                let mut task = Task::clone(old);
                task.node_id = node;
                tx.update(task).map(drop)
            }));
            assert!(poll(write.as_mut()).is_pending());
            writes.push_back(write);
        }
        let count = (round % 17).min(writes.len() as u64) as usize;
        let entries = log.take(index, count);
        index += count as u64;
        store.apply(&entries).unwrap();
        follower.apply(&entries).unwrap();
        for mut write in writes.drain(..count) {
            assert_eq!(poll(write.as_mut()), Poll::Ready(Ok(())));
        }
        if round % 50 == 0 {
            let snapshot = store.snapshot();
            let copy = snapshot.to_wire();
            assert_eq!(copy, follower.snapshot().to_wire(), "round {round}");
            held.push_back((snapshot, copy));
        }
        if round % 110 == 0 {
            let (snapshot, copy) = held.pop_front().unwrap();
            assert_eq!(snapshot.to_wire(), copy, "a snapshot has changed");
        }
    }
    let entries = log.take(index, usize::MAX);
    store.apply(&entries).unwrap();
    follower.apply(&entries).unwrap();
    let committed = store.snapshot();
    assert_eq!(committed.to_wire(), follower.snapshot().to_wire());
    let mut all = pin!(store.update(|tx| {
        let mut head: Vec<_> = tx.find::<Task>(By::All).cloned().collect();
        let of_nodes = (0..5).flat_map(|node| {
            let node = format!("node{node}");
            tx.find::<Task>(By::node(&node))
                .cloned()
                .collect::<Vec<_>>()
        });
        let mut of_nodes: Vec<_> = of_nodes.collect();
        of_nodes.sort_by(|a, b| a.id.cmp(&b.id));
        head.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(head, of_nodes);
        Ok::<_, Error>(head)
    }));
    let Poll::Ready(Ok(head)) = poll(all.as_mut()) else {
        panic!("nothing is pending");
    };
    assert!(head.iter().eq(committed.all::<Task>()));
}
