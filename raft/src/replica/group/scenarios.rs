//! What a group must do in situations that everyone knows to happen.

use std::collections::BTreeSet;

use super::{Group, Member, STEPS_PER_TICK, local, own_snapshot, save_own_snapshot};
use crate::{
    Error, Loaded, ReplicaConfig,
    codec::{Incoming, Message, MessageType},
    log::LogStore,
    member::Change,
    replica::Replica,
};

#[test]
fn a_single_member_elects_itself_at_once_and_commits() {
    let mut group = Group::new(1);
    // The entry that makes it a member is applied first.
    assert_eq!(group.members[&1].members(), BTreeSet::from([1]));
    group.replica(1).campaign_if_alone();
    group.drain(1);
    assert_eq!(group.leader(), Some(1));
    group.write();
    assert_eq!(group.members[&1].applied, ["write 1"]);
}

#[test]
fn members_that_join_replay_the_log_and_learn_all_addresses() {
    let mut group = Group::new(2);
    group.write();
    for id in 2..=5 {
        group.join(id);
        group.write();
    }
    group.settle();
    for member in group.members.values() {
        let members = member.replica.as_ref().unwrap().members();
        assert_eq!(members.len(), 5);
        assert!((1..=5).all(|id| members[&id].addr == format!("host{id}:4242")));
    }
}

#[test]
fn a_new_leader_takes_over_and_the_old_one_catches_up() {
    let mut group = Group::of(3, 3);
    group.write();
    let old = group.elect();
    group.crash(old);
    group.run_until("another one leads", |group| {
        group.leader().is_some_and(|id| id != old)
    });
    group.write();
    group.start(old);
    group.write();
    group.settle();
}

#[test]
fn leadership_can_be_handed_over() {
    let mut group = Group::of(4, 3);
    group.write();
    let old = group.elect();
    let new = old % 3 + 1;
    group.replica(old).transfer_leader(new);
    group.drain(old);
    assert!(!group.replica(old).has_room(0));
    group.run_until("the new one leads", |group| group.leader() == Some(new));
    group.write();
}

#[test]
fn a_leader_without_a_quorum_stops_leading() {
    let mut group = Group::of(5, 3);
    let leader = group.elect();
    for id in 1..=3 {
        if id != leader {
            group.crash(id);
        }
    }
    group.propose().unwrap();
    group.run_until("nobody leads", |group| group.leader().is_none());
    assert_eq!(group.acknowledged.len(), 0);
}

#[test]
fn all_acknowledged_writes_survive_a_restart_of_everyone() {
    let mut group = Group::of(6, 3);
    for _ in 0..20 {
        group.write();
    }
    for id in 1..=3 {
        group.crash(id);
    }
    for id in 1..=3 {
        group.start(id);
    }
    group.elect();
    group.settle();
    group.write();
}

#[test]
fn a_removed_member_stops_and_the_rest_goes_on() {
    let mut group = Group::of(7, 3);
    let leader = group.elect();
    let victim = leader % 3 + 1;
    group.change(&Change::Remove(victim));
    assert!(group.replica(leader).removed().contains(&victim));
    assert!(!group.replica(leader).members().contains_key(&victim));
    group.crash(victim);
    group.write();
}

#[test]
fn the_last_member_goes_on_without_the_one_that_was_removed() {
    for seed in 70..90 {
        let mut group = Group::of(seed, 2);
        let leader = group.elect();
        let removed = 3 - leader;
        group.change(&Change::Remove(removed));
        group.run_until("the other one knows that it is removed", |group| {
            group.is_removed(removed)
        });
        group.crash(removed);
        group.crash(leader);
        group.start(leader);
        group.write();
    }
}

/// The last message of a leader that removes itself may be lost.
#[test]
fn the_last_member_goes_on_without_the_leader_that_removed_itself() {
    for seed in 90..130 {
        let mut group = Group::of(seed, 2);
        let leader = group.elect();
        group.write();
        group.loss = 0.4;
        group.change(&Change::Remove(leader));
        group.run_until("it is gone", |group| group.is_removed(leader));
        group.crash(leader);
        group.loss = 0.0;
        group.write();
    }
}

#[test]
fn a_leader_that_removes_itself_does_not_panic() {
    let mut group = Group::of(8, 3);
    let leader = group.elect();
    group.change(&Change::Remove(leader));
    group.run_until("it has told the others", |group| group.is_removed(leader));
    for _ in 0..100 {
        group.step();
    }
    group.crash(leader);
    group.write();
}

#[test]
fn a_member_that_is_far_behind_gets_a_snapshot() {
    let mut group = Group::of(9, 3);
    let leader = group.elect();
    let slow = leader % 3 + 1;
    group.crash(slow);
    for _ in 0..30 {
        group.write();
    }
    for id in (1..=3).filter(|id| *id != slow) {
        let member = group.members.get_mut(&id).unwrap();
        save_own_snapshot(member);
        let index = member.replica.as_ref().unwrap().applied();
        member.log.compact(index).unwrap();
        member.replica.as_mut().unwrap().compact(index);
        assert!(member.replica.as_ref().unwrap().entries() < 10);
    }
    group.start(slow);
    group.settle();
    group.write();
    group.settle();
    // It restarts from that snapshot.
    assert_eq!(group.members[&slow].members().len(), 3);
    group.crash(slow);
    group.start(slow);
    assert_eq!(group.members[&slow].members().len(), 3);
    group.write();
    group.settle();
}

#[test]
fn a_new_member_gets_a_snapshot_in_which_it_is_a_member() {
    let mut group = Group::of(14, 3);
    for _ in 0..5 {
        group.write();
    }
    // One that was taken for somebody else is still there when the member is added.
    let leader = group.elect();
    let snapshot = own_snapshot(&group.members[&leader]);
    let index = snapshot.index();
    group.replica(leader).offer(snapshot);
    group.replica(leader).compact(index);
    group.change(&Change::Add(local(4).to_wire()));
    group.members.insert(4, Member::default());
    group.start(4);
    // An offer that nobody needs is dropped after a while: this is sooner.
    for _ in 0..15 * STEPS_PER_TICK {
        group.step();
    }
    assert!(group.members[&4].members().contains(&4));
}

/// Takes a snapshot at a member, as its shell would, and drops all of the log that may be dropped.
fn snapshot_and_compact(group: &mut Group, id: u64) {
    let member = group.members.get_mut(&id).unwrap();
    save_own_snapshot(member);
    let replica = member.replica.as_mut().unwrap();
    let applied = replica.applied();
    replica.compact(applied);
}

/// Where in the network the snapshots to a member are.
fn snapshots_to(group: &Group, id: u64) -> Vec<usize> {
    let network = group.network.iter().enumerate();
    let snapshots = network
        .filter(|(_, (_, message))| message.msg_type == MessageType::MsgSnapshot)
        .filter(|(_, (_, message))| message.to == id);
    snapshots.map(|(at, _)| at).collect()
}

/// A snapshot to a member that was away, on a link that takes so long for it that snapshots are taken
/// meanwhile. Returns the group, its leader and the member.
fn slow_snapshot(seed: u64) -> (Group, u64, u64) {
    let mut group = Group::of(seed, 3);
    let leader = group.elect();
    let slow = leader % 3 + 1;
    group.crash(slow);
    for _ in 0..20 {
        group.write();
    }
    group.replica(leader).report_unreachable(slow);
    snapshot_and_compact(&mut group, leader);
    assert!(group.replica(leader).entries() < 10);
    group.start(slow);
    group.run_until("a snapshot is on its way", |group| {
        !snapshots_to(group, slow).is_empty()
    });
    let at = snapshots_to(&group, slow)[0];
    group.network[at].0 += 100_000;
    (group, leader, slow)
}

#[test]
fn r08_one_snapshot_is_enough_however_long_it_takes_while_writes_go_on() {
    let (mut group, leader, slow) = slow_snapshot(15);
    for _ in 0..5 {
        for _ in 0..10 {
            group.write();
        }
        snapshot_and_compact(&mut group, leader);
    }
    assert_eq!(group.elect(), leader);
    let at = snapshots_to(&group, slow);
    assert_eq!(at.len(), 1, "and not another one");
    group.network[at[0]].0 = group.now + 1;
    group.run_until("it has arrived", |group| {
        group.members[&slow].applied.len() >= 20
    });
    // Also while it catches up.
    for _ in 0..5 {
        group.write();
        snapshot_and_compact(&mut group, leader);
        assert!(snapshots_to(&group, slow).is_empty());
    }
    group.settle();
    // Nobody needs anything any more.
    group.run_until("the leader knows that", |group| {
        let replica = group.members[&leader].replica.as_ref().unwrap();
        replica.matched(slow) == replica.last_index()
    });
    snapshot_and_compact(&mut group, leader);
    assert!(group.replica(leader).entries() < 10);
}

#[test]
fn nothing_is_held_back_for_a_member_that_is_gone_again() {
    let (mut group, leader, slow) = slow_snapshot(16);
    group.crash(slow);
    let at = snapshots_to(&group, slow)[0];
    group.network[at].0 = group.now + 1;
    for _ in 0..20 {
        group.write();
    }
    snapshot_and_compact(&mut group, leader);
    assert!(group.replica(leader).entries() < 10);
    group.start(slow);
    group.settle();
}

#[test]
fn a_member_whose_disk_was_lost_says_so() {
    let mut group = Group::of(10, 3);
    group.write();
    group.settle();
    let leader = group.elect();
    let victim = leader % 3 + 1;
    let acknowledged = group.replica(leader).matched(victim);
    let mut blank = Replica::new(&ReplicaConfig::new(victim), Loaded::default())
        .unwrap()
        .0;
    let heartbeat = Message {
        msg_type: MessageType::MsgHeartbeat,
        from: leader,
        to: victim,
        term: group.replica(leader).role().term,
        commit: acknowledged,
        ..Message::default()
    };
    assert!(matches!(
        blank.step(Incoming::new(heartbeat).unwrap()),
        Err(Error::Lost { last: 0, .. })
    ));
}

#[test]
fn nobody_stands_for_election_before_a_snapshot_is_on_disk() {
    let mut group = Group::of(11, 3);
    let leader = group.elect();
    let slow = leader % 3 + 1;
    // It knows all members, and has nothing to write before it answers.
    group.write();
    group.settle();
    group.crash(slow);
    for _ in 0..5 {
        group.write();
    }
    // The leader does not count on it any more.
    for _ in 0..30 * STEPS_PER_TICK {
        group.step();
    }
    for id in (1..=3).filter(|id| *id != slow) {
        let applied = group.replica(id).applied();
        group.replica(id).compact(applied);
    }
    group.stalled = Some(slow);
    group.start(slow);
    group.run_until("a snapshot is being written", |group| {
        let mut writes = group.members[&slow].unwritten.iter();
        writes.any(|write| write.batch.snapshot.is_some())
    });
    // For longer than an election timeout.
    for _ in 0..100 {
        group.replica(slow).tick();
        group.drain(slow);
    }
    assert!(!group.replica(slow).role().leads);
    group.stalled = None;
    group.settle();
}

#[test]
fn a_single_member_does_not_lead_again_before_its_entries_are_on_disk() {
    let mut group = Group::new(12);
    group.elect();
    group.propose().unwrap();
    let term = group.replica(1).role().term;
    let intruder = Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 9,
        to: 1,
        term: term + 1,
        ..Message::default()
    };
    let intruder = Incoming::new(intruder).unwrap();
    group.replica(1).step(intruder).unwrap();
    group.drain(1);
    for _ in 0..100 {
        group.replica(1).tick();
        group.replica(1).campaign_if_alone();
        group.drain(1);
    }
    assert!(!group.replica(1).role().leads);
    group.write();
}
