//! What a group must do whatever happens.

use std::collections::BTreeSet;

use rand::Rng;

use super::{Group, save_own_snapshot};
use crate::log::LogStore;

/// Loss, delay, reordering, crashes that lose unwritten entries, elections and snapshots: whatever
/// was acknowledged is there in the end, and nobody applied anything else.
fn chaos(seed: u64) -> u64 {
    let mut group = Group::of(seed, 3 + seed % 2 * 2);
    let ids: Vec<u64> = group.members.keys().copied().collect();
    group.loss = group.rng.random_range(0.0..0.3);
    group.delay = group.rng.random_range(1..60);
    for _ in 0..4000 {
        match group.rng.random_range(0..1000) {
            0..=2 => {
                let down = ids.iter().filter(|id| group.members[id].replica.is_none());
                if down.count() < ids.len() / 2 {
                    let id = ids[group.rng.random_range(0..ids.len())];
                    if group.members[&id].replica.is_some() {
                        group.crash(id);
                    }
                }
            }
            3..=9 => {
                let id = ids[group.rng.random_range(0..ids.len())];
                if group.members[&id].replica.is_none() {
                    group.start(id);
                }
            }
            10..=11 => {
                let id = ids[group.rng.random_range(0..ids.len())];
                let member = group.members.get_mut(&id).unwrap();
                if let Some(replica) = &member.replica
                    && replica.applied() > 0
                    && member.unwritten.is_empty()
                {
                    let index = replica.applied();
                    save_own_snapshot(member);
                    let compact = index.saturating_sub(5);
                    member.log.compact(compact).unwrap();
                    group.replica(id).compact(compact);
                }
            }
            12..=60 => {
                group.propose();
            }
            61 => {
                if let Some(leader) = group.leader() {
                    let to = ids[group.rng.random_range(0..ids.len())];
                    group.replica(leader).transfer_leader(to);
                    group.drain(leader);
                }
            }
            _ => {}
        }
        group.step();
    }
    group.loss = 0.0;
    group.delay = 5;
    for id in ids {
        if group.members[&id].replica.is_none() {
            group.start(id);
        }
    }
    group.write();
    group.settle();
    for member in group.members.values() {
        let mut once = BTreeSet::new();
        assert!(member.applied.iter().all(|data| once.insert(data)));
    }
    group.trace
}

#[test]
fn no_acknowledged_write_is_lost() {
    for seed in 1000..1040 {
        chaos(seed);
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    assert_eq!(chaos(1000), chaos(1000));
}
