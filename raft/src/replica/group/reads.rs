//! Reads: who may answer them, and what the log still has for them.

use super::{Group, save_own_snapshot};
use crate::{Error, ReadIndex};

impl Group {
    /// Asks a member and does what it wants done.
    fn ask(&mut self, id: u64, context: u64) -> Result<(), Error> {
        let asked = self.replica(id).read_index(context);
        self.drain(id);
        asked
    }

    fn answer(&self, id: u64, context: u64) -> Option<u64> {
        let mut found = self.reads.iter();
        found
            .find(|(member, read)| *member == id && read.context == context)
            .map(|(_, ReadIndex { index, .. })| *index)
    }
}

#[test]
fn a_single_member_may_read_at_once() {
    let mut group = Group::new(31);
    let leader = group.elect();
    group.write();
    let written = group.replica(leader).applied();
    group.ask(leader, 7).unwrap();
    assert_eq!(group.answer(leader, 7), Some(written));
}

#[test]
fn a_leader_reads_when_a_quorum_has_confirmed_it() {
    let mut group = Group::of(32, 3);
    let leader = group.elect();
    group.write();
    let written = group.replica(leader).applied();
    group.ask(leader, 1).unwrap();
    assert_eq!(group.answer(leader, 1), None, "nobody was asked yet");
    group.run_until("the read is confirmed", |group| {
        group.answer(leader, 1).is_some()
    });
    assert!(group.answer(leader, 1) >= Some(written));
    // Also when the messages that ask are lost: those of the next tick ask again.
    group.loss = 1.0;
    group.ask(leader, 2).unwrap();
    for _ in 0..10 {
        group.step();
    }
    group.loss = 0.0;
    group.run_until("the read is confirmed", |group| {
        group.answer(leader, 2).is_some()
    });
}

#[test]
fn who_does_not_lead_does_not_read() {
    let mut group = Group::of(33, 3);
    let leader = group.elect();
    assert!(matches!(
        group.ask(leader % 3 + 1, 1),
        Err(Error::NotLeader)
    ));
    // Neither does a new leader before it knows what earlier ones have committed.
    group.crash(leader);
    group.run_until("another one leads", |group| {
        group.leader().is_some_and(|id| id != leader)
    });
    let new = group.leader().unwrap();
    assert!(!group.replica(new).applied_in_term());
    assert!(matches!(group.ask(new, 2), Err(Error::NotLeader)));
    group.elect();
    group.ask(new, 3).unwrap();
    group.run_until("the read is confirmed", |group| {
        group.answer(new, 3).is_some()
    });
}

#[test]
fn r13_a_leader_that_is_cut_off_never_reads() {
    let mut group = Group::of(34, 3);
    let old = group.elect();
    group.write();
    group.isolated = Some(old);
    // It does not know yet that there is, or will be, another one.
    group.ask(old, 1).unwrap();
    group.run_until("another one leads", |group| {
        group.leader().is_some_and(|id| id != old)
    });
    let new = group.elect();
    group.write();
    let written = group.replica(new).applied();
    group.ask(new, 2).unwrap();
    group.run_until("the new leader reads", |group| {
        group.answer(new, 2).is_some()
    });
    assert!(group.answer(new, 2) >= Some(written));
    for _ in 0..1000 {
        group.step();
    }
    group.isolated = None;
    group.settle();
    assert_eq!(group.answer(old, 1), None);
}

#[test]
fn the_log_is_read_back_until_it_is_compacted() {
    let mut group = Group::new(35);
    group.elect();
    let before = group.replica(1).applied();
    for _ in 0..5 {
        group.write();
    }
    let applied = group.replica(1).applied();
    let texts = |group: &mut Group, after, through| {
        let entries = group.replica(1).entries_after(after, through).unwrap();
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        assert_eq!(
            indexes,
            (after + 1..=through.min(applied)).collect::<Vec<_>>()
        );
        let text = |entry: skep_store::Entry| String::from_utf8(entry.data.to_vec()).unwrap();
        entries.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(
        texts(&mut group, before, before + 2),
        ["write 1", "write 2"]
    );
    assert_eq!(texts(&mut group, applied - 1, u64::MAX), ["write 5"]);
    assert!(texts(&mut group, applied, u64::MAX).is_empty());
    // What is not for the store is there, but empty.
    assert_eq!(texts(&mut group, 0, 1), [""]);
    let future = group.replica(1).entries_after(u64::MAX, u64::MAX).unwrap();
    assert!(future.is_empty());

    save_own_snapshot(group.members.get_mut(&1).unwrap());
    group.replica(1).compact(before + 2);
    let gone = group.replica(1).entries_after(before + 1, applied);
    assert!(matches!(gone, Err(Error::Compacted { first }) if first == before + 3));
    assert_eq!(texts(&mut group, before + 2, before + 3), ["write 3"]);
}

#[test]
fn the_log_is_read_back_in_bounded_pieces() {
    let mut group = Group::new(36);
    group.elect();
    let before = group.replica(1).applied();
    for _ in 0..5 {
        let data = bytes::Bytes::from(vec![b'x'; 400 * 1024]);
        group.replica(1).propose(vec![data]).unwrap();
        group.drain(1);
        let last = group.replica(1).last_index();
        group.run_until("it is applied", |group| {
            group.members[&1].replica.as_ref().unwrap().applied() == last
        });
    }
    let read = |group: &mut Group, after| {
        let entries = group.replica(1).entries_after(after, u64::MAX).unwrap();
        entries.last().map(|entry| entry.index)
    };
    assert_eq!(read(&mut group, before), Some(before + 2));
    assert_eq!(read(&mut group, before + 2), Some(before + 4));
    assert_eq!(read(&mut group, before + 4), Some(before + 5));
    assert_eq!(read(&mut group, before + 5), None);
}
