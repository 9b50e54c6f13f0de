//! What replicas write, and what they go on from.

use super::{Group, save_own_snapshot};
use crate::log::LogStore;

#[test]
fn r07_a_member_that_restarts_on_a_snapshot_far_ahead_of_its_log_goes_on_from_it() {
    let mut group = Group::of(31, 3);
    group.write();
    group.settle();
    group.crash(3);
    for _ in 0..300 {
        group.write();
    }
    for id in [1, 2] {
        let applied = group.replica(id).applied();
        save_own_snapshot(group.members.get_mut(&id).unwrap());
        group.replica(id).compact(applied);
    }
    group.start(3);
    group.run_until("the snapshot is on disk", |group| {
        let loaded = group.members[&3].log.clone().load().unwrap();
        loaded.snapshot_index() > 300
    });
    group.crash(3);
    group.start(3);
    let loaded = group.members[&3].log.clone().load().unwrap();
    assert!(group.replica(3).applied() >= loaded.snapshot_index());
    group.write();
    group.settle();
}

#[test]
fn r20_a_group_that_idles_for_an_hour_writes_nothing() {
    let mut group = Group::of(32, 3);
    group.write();
    group.settle();
    group.run_until("all is written", |group| {
        let mut members = group.members.values();
        let quiet = members.all(|member| member.unwritten.is_empty());
        quiet
            && group
                .network
                .iter()
                .all(|(_, message)| message.entries.is_empty())
    });
    // 36,000 ticks of 100 ms, each in several steps.
    let mut written = 0;
    for _ in 0..36_000 {
        for _ in 0..super::STEPS_PER_TICK {
            group.step();
            let waiting = group.members.values().map(|member| member.unwritten.len());
            written += waiting.sum::<usize>();
        }
    }
    assert_eq!(written, 0);
}
