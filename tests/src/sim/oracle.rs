//! What is known to be true of the whole cluster: the committed history, and what every member must
//! agree with.
//!
//! The history is written by whoever hands out an entry first. It is replayed into a plain model that
//! shares no code with the store but the decoding of objects, and everyone else is compared with it.

mod model;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use skep_raft::Committed;

use self::model::Model;
pub(super) use self::model::{Action, Altered};
use super::{Violation, broken, digest::Key};

/// A membership change that was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberChange {
    Add(u64),
    Remove(u64),
}

#[derive(Debug)]
struct Entry {
    /// Of everything that members must agree on.
    hash: u64,
    /// Of the store after it.
    digest: u64,
    altered: Vec<Altered>,
}

/// An entry of somebody's log, by index and term.
#[derive(Debug)]
struct Logged {
    hash: u64,
    /// Term of the entry before it.
    before: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// The entry of index 1 comes first.
    history: Vec<Entry>,
    model: Model,
    /// Index of each committed transaction, by its request ID.
    requests: HashMap<u64, u64>,
    /// Index of each operation that has left its number in an object.
    operations: HashMap<u64, u64>,
    /// Operations whose client was told that they do not happen.
    refused: HashSet<u64>,
    /// Transactions whose writer was told that they have happened.
    acknowledged: BTreeSet<u64>,
    /// Index of the newest entry that someone outside knows to be committed.
    pub(super) known: u64,
    leaders: BTreeMap<u64, u64>,
    logs: HashMap<(u64, u64), Logged>,
    changes: HashMap<u64, MemberChange>,
    pub(super) members: BTreeSet<u64>,
    pub(super) removed: BTreeSet<u64>,
}

/// The request ID that a serialised transaction begins with.
pub(super) fn request_id(data: &[u8]) -> Option<u64> {
    let (first, mut rest) = data.split_first()?;
    // Field 1, a varint.
    if *first != 0x08 {
        return None;
    }
    prost::encoding::decode_varint(&mut rest).ok()
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Oracle {
    /// Election safety: at most one leader in a term.
    pub(super) fn leads(&mut self, term: u64, member: u64) -> Result<(), Violation> {
        let leader = *self.leaders.entry(term).or_insert(member);
        if leader == member {
            return Ok(());
        }
        broken(
            "at most one leader in a term",
            format!("members {leader} and {member} both lead in term {term}"),
        )
    }

    /// Log matching: an entry of one index and term is the same in all logs, and so are all before
    /// it. As the same is checked of the entry before, it is enough that its term is the same.
    pub(super) fn logs(
        &mut self,
        member: u64,
        (index, term): (u64, u64),
        before: Option<u64>,
        data: &[u8],
    ) -> Result<(), Violation> {
        let hash = hash_of(data);
        let logged = self
            .logs
            .entry((index, term))
            .or_insert(Logged { hash, before });
        let same_before = match (logged.before, before) {
            (Some(known), Some(before)) => known == before,
            _ => true,
        };
        if logged.hash == hash && same_before {
            logged.before = logged.before.or(before);
            return Ok(());
        }
        broken(
            "log matching",
            format!("entry {index} of term {term} of member {member} differs from that of others"),
        )
    }

    /// A membership change is on its way.
    pub(super) fn proposes_change(&mut self, id: u64, change: MemberChange) {
        self.changes.insert(id, change);
    }

    /// State machine safety: all members apply the same entries. Returns a member that was added.
    pub(super) fn commits(
        &mut self,
        member: u64,
        committed: &Committed,
    ) -> Result<Option<u64>, Violation> {
        let Committed { index, data, .. } = committed;
        let change = skep_raft::drive::change_id(committed);
        let hash = hash_of((data, change));
        if let Some(known) = index
            .checked_sub(1)
            .and_then(|before| self.history.get(before as usize))
        {
            if known.hash == hash {
                return Ok(None);
            }
            return broken(
                "what is committed stays",
                format!("member {member} applies another entry {index} than was applied before"),
            );
        }
        if *index != self.last() + 1 {
            return broken(
                "entries are applied in order",
                format!(
                    "member {member} applies entry {index} before entry {}",
                    self.last() + 1
                ),
            );
        }
        let altered = match data.is_empty() {
            true => Vec::new(),
            false => self.transaction(*index, data)?,
        };
        let digest = self.model.digest();
        self.history.push(Entry {
            hash,
            digest,
            altered,
        });
        let change = change.and_then(|id| self.changes.get(&id).copied());
        Ok(match change {
            Some(MemberChange::Add(id)) if !self.removed.contains(&id) => {
                self.members.insert(id).then_some(id)
            }
            Some(MemberChange::Remove(id)) => {
                self.members.remove(&id);
                self.removed.insert(id);
                None
            }
            _ => None,
        })
    }

    fn transaction(&mut self, index: u64, data: &[u8]) -> Result<Vec<Altered>, Violation> {
        if let Some(request) = request_id(data)
            && let Some(before) = self.requests.insert(request, index)
        {
            return broken(
                "a transaction happens at most once",
                format!("request {request:x} is in entries {before} and {index}"),
            );
        }
        let altered = self.model.apply(index, data)?;
        for operation in altered.iter().filter_map(|altered| altered.operation) {
            let before = self.operations.insert(operation, index);
            if let Some(before) = before.filter(|before| *before != index) {
                return broken(
                    "a transaction happens at most once",
                    format!("operation {operation} is in entries {before} and {index}"),
                );
            }
            if self.refused.contains(&operation) {
                return self.happened(operation, index);
            }
        }
        Ok(altered)
    }

    fn happened<T>(&self, operation: u64, index: u64) -> Result<T, Violation> {
        broken(
            "what was refused never happens",
            format!("operation {operation} was refused and is entry {index}"),
        )
    }

    /// A client was told that its operation does not happen.
    pub(super) fn refuses(&mut self, operation: u64) -> Result<(), Violation> {
        self.refused.insert(operation);
        match self.operations.get(&operation) {
            None => Ok(()),
            Some(index) => self.happened(operation, *index),
        }
    }

    /// A writer was told that its transaction is committed. Returns the index.
    pub(super) fn acknowledges(&mut self, request: u64) -> Result<u64, Violation> {
        self.acknowledged.insert(request);
        match self.requests.get(&request) {
            Some(index) => Ok(*index),
            None => broken(
                "what is acknowledged is committed",
                format!("request {request:x} was acknowledged before it was committed"),
            ),
        }
    }

    /// Index of a transaction, if it is committed.
    pub(super) fn index_of(&self, request: u64) -> Option<u64> {
        self.requests.get(&request).copied()
    }

    /// Nothing that was acknowledged is missing in the end.
    pub(super) fn check_acknowledged(&self) -> Result<(), Violation> {
        let mut acknowledged = self.acknowledged.iter();
        match acknowledged.find(|request| !self.requests.contains_key(*request)) {
            None => Ok(()),
            Some(lost) => broken(
                "no acknowledged write is lost",
                format!("request {lost:x} was acknowledged and is not in the history"),
            ),
        }
    }

    /// How many terms had a leader.
    pub(super) fn leaderships(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Index of the last committed entry.
    pub(super) fn last(&self) -> u64 {
        self.history.len() as u64
    }

    /// A store that has applied all up to `index` must hold exactly this.
    pub(super) fn check_store(
        &self,
        member: u64,
        index: u64,
        digest: u64,
    ) -> Result<(), Violation> {
        let expected = match index {
            0 => Some(0),
            _ => self
                .history
                .get(index as usize - 1)
                .map(|entry| entry.digest),
        };
        if expected == Some(digest) {
            return Ok(());
        }
        broken(
            "the same index means the same store",
            format!("the store of member {member} differs from the history at index {index}"),
        )
    }

    /// What an entry has changed.
    pub(super) fn altered(&self, index: u64) -> &[Altered] {
        let entry = index
            .checked_sub(1)
            .and_then(|before| self.history.get(before as usize));
        entry.map_or(&[], |entry| &entry.altered)
    }

    /// Version of an object after entry `index`.
    pub(super) fn version_at(&self, key: &Key, index: u64) -> Option<u64> {
        self.model.version_at(key, index)
    }

    /// Which config has a name after entry `index`.
    pub(super) fn named_at(&self, name: &str, index: u64) -> Option<&str> {
        self.model.named_at(name, index)
    }
}
