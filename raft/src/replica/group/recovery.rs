//! Groups that go on after the worst, and with other settings.

use std::collections::BTreeSet;

use super::{Group, STEPS_PER_TICK, local, save_own_snapshot};
use crate::{Ticks, force_new_cluster, log::LogStore};

/// Makes `id` the only member while all are down, and starts it.
fn force(group: &mut Group, id: u64) {
    let log = &mut group.members.get_mut(&id).unwrap().log;
    log.set_member(&local(id)).unwrap();
    force_new_cluster(log, "elsewhere:1").unwrap();
    group.start(id);
    group.replica(id).campaign_if_alone();
    group.drain(id);
}

#[test]
fn one_of_three_goes_on_alone_with_all_it_has() {
    for seed in 0..30 {
        let mut group = Group::of(seed, 3);
        for _ in 0..10 {
            group.write();
        }
        group.settle();
        for id in 1..=3 {
            group.crash(id);
        }
        let survivor = seed % 3 + 1;
        force(&mut group, survivor);
        assert_eq!(group.elect(), survivor, "seed {seed}");
        group.write();
        group.settle();
        assert_eq!(
            group.members[&survivor].members(),
            BTreeSet::from([survivor])
        );
        let replica = group.replica(survivor);
        assert_eq!(replica.members()[&survivor].addr, "elsewhere:1");
        let others: BTreeSet<u64> = (1..=3).filter(|id| *id != survivor).collect();
        assert_eq!(*replica.removed(), others);
        // It is a group like any other.
        group.network.clear();
        for id in others {
            group.members.remove(&id);
        }
        group.join(7);
        group.write();
        group.settle();
    }
}

#[test]
fn r32_one_that_has_nothing_but_a_snapshot_stays_a_member() {
    let mut group = Group::of(60, 3);
    for _ in 0..10 {
        group.write();
    }
    group.settle();
    let member = group.members.get_mut(&2).unwrap();
    save_own_snapshot(member);
    let index = member.log.load().unwrap().snapshot_index();
    while !member.log.compact(index).unwrap() {}
    assert!(member.log.load().unwrap().entries.is_empty());
    for id in 1..=3 {
        group.crash(id);
    }
    force(&mut group, 2);
    assert_eq!(group.elect(), 2);
    group.write();
    group.settle();
    assert_eq!(group.members[&2].members(), BTreeSet::from([2]));
    assert_eq!(*group.replica(2).removed(), BTreeSet::from([1, 3]));
}

#[test]
fn a_removed_member_that_comes_back_gets_no_vote() {
    let mut group = Group::of(61, 3);
    group.write();
    group.settle();
    for id in 1..=3 {
        group.crash(id);
    }
    force(&mut group, 1);
    group.write();
    let term = group.replica(1).role().term;
    // Alone it has no quorum of the old group, and the new one does not listen.
    group.start(3);
    for _ in 0..100 * STEPS_PER_TICK {
        group.step();
    }
    assert_eq!(group.leader(), Some(1));
    assert_eq!(group.replica(1).role().term, term);
    assert!(!group.replica(3).role().leads);
}

#[test]
fn a_group_with_more_patience_waits_longer_and_elects_all_the_same() {
    let ticks = Ticks {
        heartbeat: 3,
        election: 40,
    };
    let mut group = Group::of(62, 3);
    group.write();
    for id in 1..=3 {
        group.crash(id);
    }
    group.ticks = ticks;
    for id in 1..=3 {
        group.start(id);
    }
    let began = group.now;
    let leader = group.elect();
    assert!(group.now - began >= u64::from(ticks.election) * STEPS_PER_TICK);
    group.write();
    // Heartbeats every three ticks keep it in office, also over lossy links.
    group.loss = 0.2;
    let term = group.replica(leader).role().term;
    for _ in 0..500 * STEPS_PER_TICK {
        group.step();
    }
    assert_eq!(group.replica(leader).role().term, term);
    group.loss = 0.0;
    group.crash(leader);
    let died = group.now;
    group.run_until("another one leads", |group| {
        group.leader().is_some_and(|id| id != leader)
    });
    let gap = (group.now - died) / STEPS_PER_TICK;
    assert!((30..=70).contains(&gap), "{gap} ticks");
    group.write();
}
