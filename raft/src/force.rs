//! Going on alone from a log whose group has lost its quorum.
//!
//! Everything in the log is kept, also what is not known to be committed: the commit index on disk
//! lags, so dropping what lies behind it would lose writes that were acknowledged, while an entry that
//! was never committed was never refused either. Only the removal of this very member, unless it is
//! known to be committed, is left out with all that follows it.

use std::collections::BTreeSet;

use crate::{
    Error, LocalMember,
    codec::{self, Entry, EntryType, HardState},
    log::{Batch, Loaded, LogStore},
    member::{Change, Membership},
};

/// Makes the member whose log this is the only one of its group, reached at `addr`. The others can
/// never come back under their IDs. It is one write: after a crash there is the old group or the new.
/// A member that is alone already stays as it is.
///
/// # Errors
/// [`Error::NoLog`] if nothing was ever stored, [`Error::Removed`] if the group has removed this
/// member.
pub fn force_new_cluster(log: &mut dyn LogStore, addr: &str) -> Result<(), Error> {
    let mut loaded = log.load()?;
    let mut local = loaded.member.take().ok_or(Error::NoLog)?;
    addr.clone_into(&mut local.addr);
    match forced(&loaded, &local)? {
        Some(batch) => log.append(&batch),
        None => Ok(()),
    }
}

/// What to append so that `local` is the only member. `None` if it is.
fn forced(loaded: &Loaded, local: &LocalMember) -> Result<Option<Batch>, Error> {
    loaded.check()?;
    if loaded.is_empty() {
        return Err(Error::NoLog);
    }
    let mut membership = Membership::default();
    if let Some(snapshot) = &loaded.snapshot {
        membership = Membership::from_wire(&codec::decode_snapshot(snapshot)?.membership);
    }
    if membership.removed.contains(&local.raft_id) {
        return Err(Error::Removed);
    }
    let covered = loaded.snapshot_index();
    let mut last = covered;
    // Whether a change of the members is not known to be committed.
    let mut pending = false;
    for entry in &loaded.entries {
        if entry.index <= covered {
            continue;
        }
        let committed = entry.index <= loaded.hard_state.commit;
        if entry.entry_type == EntryType::EntryConfChange {
            let (_, change) = codec::decode_change(&entry.data)?;
            pending |= !committed;
            if change == Change::Remove(local.raft_id) {
                if committed {
                    return Err(Error::Removed);
                }
                break;
            }
            membership.apply(&change);
        }
        last = entry.index;
    }
    let own = membership.members.remove(&local.raft_id);
    if !pending && membership.members.is_empty() && own.is_some_and(|own| own.addr == local.addr) {
        return Ok(None);
    }
    Ok(Some(batch(loaded, local, last, membership)))
}

/// The changes, committed in a term of their own: no other member has entries of it.
fn batch(loaded: &Loaded, local: &LocalMember, last: u64, others: Membership) -> Batch {
    let term = loaded.hard_state.term + 1;
    // A member that did not know of itself yet, or had no vote, first gets one: the last one with a
    // vote cannot be removed.
    let mut changes = vec![Change::Add(local.to_wire())];
    let gone: BTreeSet<u64> = others.members.into_keys().collect();
    changes.extend(gone.into_iter().map(Change::Remove));
    let mut entries = Vec::with_capacity(changes.len());
    for (index, change) in (last + 1..).zip(&changes) {
        entries.push(Entry {
            entry_type: EntryType::EntryConfChange,
            index,
            term,
            data: codec::encode_change(index, change),
            ..Entry::default()
        });
    }
    Batch {
        snapshot: None,
        key: None,
        hard_state: Some(HardState {
            term,
            commit: last + entries.len() as u64,
            ..HardState::default()
        }),
        entries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MemoryLog;

    fn local(raft_id: u64) -> LocalMember {
        LocalMember {
            raft_id,
            node_id: format!("node{raft_id}"),
            addr: format!("host{raft_id}:1"),
            ..LocalMember::default()
        }
    }

    fn change(index: u64, change: &Change) -> Entry {
        Entry {
            entry_type: EntryType::EntryConfChange,
            index,
            term: 1,
            data: codec::encode_change(index, change),
            ..Entry::default()
        }
    }

    fn write(index: u64) -> Entry {
        Entry {
            index,
            term: 1,
            data: format!("write {index}").into(),
            ..Entry::default()
        }
    }

    /// The log of member 1 with these entries, the first `commit` of which are known to be committed.
    fn log(commit: u64, entries: Vec<Entry>) -> MemoryLog {
        let mut log = MemoryLog::default();
        log.set_member(&local(1)).unwrap();
        let hard_state = HardState {
            term: 4,
            vote: 2,
            commit,
            ..HardState::default()
        };
        log.append(&Batch {
            entries,
            hard_state: Some(hard_state),
            ..Batch::default()
        })
        .unwrap();
        log
    }

    fn three_members() -> Vec<Entry> {
        (1..=3)
            .map(|id| change(id, &Change::Add(local(id).to_wire())))
            .collect()
    }

    /// The members in the end, and how far the log goes.
    fn outcome(log: &mut MemoryLog) -> (Membership, u64) {
        let loaded = log.load().unwrap();
        loaded.check().unwrap();
        assert_eq!(
            loaded.hard_state.commit,
            loaded.last_index(),
            "all is committed"
        );
        assert_eq!(loaded.hard_state.vote, 0);
        let mut membership = Membership::default();
        for entry in &loaded.entries {
            if entry.entry_type == EntryType::EntryConfChange {
                membership.apply(&codec::decode_change(&entry.data).unwrap().1);
            }
        }
        (membership, loaded.last_index())
    }

    #[test]
    fn all_others_are_removed_and_every_write_is_kept() {
        let mut entries = three_members();
        entries.extend((4..=9).map(write));
        let mut log = log(5, entries);
        force_new_cluster(&mut log, "elsewhere:1").unwrap();
        let (membership, last) = outcome(&mut log);
        assert_eq!(membership.members.len(), 1);
        assert_eq!(membership.members[&1].addr, "elsewhere:1");
        assert_eq!(membership.removed, BTreeSet::from([2, 3]));
        assert_eq!(last, 12);
        assert_eq!(log.load().unwrap().entries[8], write(9));
        assert_eq!(log.load().unwrap().hard_state.term, 5);
        // Doing it again changes nothing, another address is one more change.
        force_new_cluster(&mut log, "elsewhere:1").unwrap();
        assert_eq!(outcome(&mut log).1, 12);
        force_new_cluster(&mut log, "third:1").unwrap();
        let (membership, last) = outcome(&mut log);
        assert_eq!(
            (membership.members[&1].addr.as_str(), last),
            ("third:1", 13)
        );
    }

    #[test]
    fn one_that_did_not_know_of_itself_yet_becomes_a_member() {
        let entries = (2..=3).map(|id| change(id - 1, &Change::Add(local(id).to_wire())));
        let mut log = log(2, entries.collect());
        force_new_cluster(&mut log, "host1:1").unwrap();
        let (membership, _) = outcome(&mut log);
        assert!(membership.members.keys().eq(&[1]));
    }

    #[test]
    fn a_removal_that_may_not_have_happened_is_left_out() {
        let mut entries = three_members();
        entries.extend([write(4), change(5, &Change::Remove(1)), write(6)]);
        let mut unsure = log(4, entries.clone());
        force_new_cluster(&mut unsure, "host1:1").unwrap();
        let (membership, last) = outcome(&mut unsure);
        assert!(membership.members.keys().eq(&[1]) && !membership.removed.contains(&1));
        assert_eq!(last, 7);
        let refused = force_new_cluster(&mut log(5, entries), "host1:1").unwrap_err();
        assert!(matches!(refused, Error::Removed));
    }

    #[test]
    fn a_removal_of_others_that_is_not_known_to_be_committed_gets_so() {
        let mut entries = three_members();
        entries.extend([change(4, &Change::Remove(2)), change(5, &Change::Remove(3))]);
        let mut log = log(3, entries);
        force_new_cluster(&mut log, "host1:1").unwrap();
        let (membership, _) = outcome(&mut log);
        assert!(membership.members.keys().eq(&[1]));
        assert_eq!(membership.removed, BTreeSet::from([2, 3]));
    }

    #[test]
    fn without_a_log_there_is_nothing_to_go_on_from() {
        let mut empty = MemoryLog::default();
        let refused = force_new_cluster(&mut empty, "host1:1").unwrap_err();
        assert!(matches!(refused, Error::NoLog));
        // It was taken in, but nothing has reached it yet.
        empty.set_member(&local(1)).unwrap();
        let refused = force_new_cluster(&mut empty, "host1:1").unwrap_err();
        assert!(matches!(refused, Error::NoLog));
    }
}
