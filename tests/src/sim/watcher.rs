//! Watchers of a member's store. What they are told must be the committed history: all of it that
//! concerns them, in order, once. One that lags is told so and goes on from a snapshot.

use std::{collections::BTreeMap, ops::Range};

use skep_store::{AnyObject, Change, Commit, Event, Kind, Route, Snapshot, Store, Subscription};

use super::{
    Violation, broken,
    digest::{self, Key},
    operation::node_id,
    oracle::{Action, Altered, Oracle},
    scene::Scene,
    trace::Note,
};

pub(super) struct Watcher {
    member: u64,
    number: usize,
    route: Route,
    subscription: Subscription,
    /// Index up to which it knows everything that concerns it.
    index: u64,
    /// Hashes of all objects as it knows them.
    mirror: BTreeMap<Key, u64>,
}

impl Watcher {
    /// How many a member has.
    pub(super) const COUNT: usize = 3;

    pub(super) fn new(
        member: u64,
        number: usize,
        store: &Store,
        scene: &mut Scene,
    ) -> Result<Self, Violation> {
        let route = match number {
            0 => Route::All,
            1 => Route::Kind(Kind::Config),
            _ => Route::Node(node_id(0)),
        };
        let (snapshot, subscription) = store.watch([route.clone()]);
        let mut watcher = Self {
            member,
            number,
            route,
            subscription,
            index: 0,
            mirror: BTreeMap::new(),
        };
        watcher.begin(&snapshot, &scene.oracle)?;
        Ok(watcher)
    }

    /// Takes over a snapshot.
    fn begin(&mut self, snapshot: &Snapshot, oracle: &Oracle) -> Result<(), Violation> {
        self.index = snapshot.index();
        self.mirror.clear();
        digest::for_each(snapshot, |object| {
            let hash = digest::of_any(&object);
            self.mirror.insert(digest::key(&object), hash);
        });
        self.check_mirror(oracle)
    }

    fn check_mirror(&self, oracle: &Oracle) -> Result<(), Violation> {
        let sum = |sum: u64, hash: &u64| sum.wrapping_add(*hash);
        let digest = self.mirror.values().fold(0, sum);
        oracle.check_store(self.member, self.index, digest)
    }

    /// Reads what there is. `jumps` are the ranges of indexes that the store has skipped.
    pub(super) fn look(
        &mut self,
        jumps: &[(u64, u64)],
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        let watcher = self.number;
        match self.subscription.try_next() {
            None => Ok(()),
            Some(Event::Lagged(snapshot)) => {
                let index = snapshot.index();
                scene.counts.lagged += 1;
                scene.note(self.member, Note::Lagged { watcher, index });
                self.begin(&snapshot, &scene.oracle)
            }
            Some(Event::Commits(commits)) => {
                for commit in commits {
                    self.take(&commit, jumps, &scene.oracle)?;
                }
                let index = self.index;
                scene.note(self.member, Note::Watched { watcher, index });
                Ok(())
            }
        }
    }

    fn wrong<T>(&self, what: String) -> Result<T, Violation> {
        let who = format!("watcher {} of member {}: {what}", self.number, self.member);
        broken("watchers see exactly the committed history", who)
    }

    fn take(
        &mut self,
        commit: &Commit,
        jumps: &[(u64, u64)],
        oracle: &Oracle,
    ) -> Result<(), Violation> {
        let index = commit.snapshot.index();
        if index <= self.index {
            return self.wrong(format!("index {index} after {}", self.index));
        }
        let jump = jumps.iter().find(|(_, to)| *to == index);
        let begin = match jump {
            // What differs between two snapshots is told as a whole.
            Some((from, _)) => *from,
            None => self.check_changes(commit, oracle)?,
        };
        self.check_nothing_missed(begin, jumps, oracle)?;
        self.index = index;
        for change in &commit.changes {
            let (key, hash) = (
                digest::key(change.object()),
                digest::of_any(change.object()),
            );
            match change {
                Change::Remove(_) => self.mirror.remove(&key),
                Change::Create(_) | Change::Update { .. } => self.mirror.insert(key, hash),
            };
        }
        // Others are not told of everything.
        match self.route {
            Route::All => self.check_mirror(oracle),
            _ => Ok(()),
        }
    }

    /// The changes must be those of the entries that the commit names, which must be all up to its
    /// index. Returns the index before the first of them.
    fn check_changes(&self, commit: &Commit, oracle: &Oracle) -> Result<u64, Violation> {
        let mut begin = None;
        let mut next = 0;
        for (index, changes) in commit.entries() {
            begin = begin.or(index.checked_sub(1));
            if next > 0 {
                self.check_empty(next..index, oracle)?;
            }
            let altered = oracle.altered(index);
            let same = changes
                .iter()
                .zip(altered)
                .all(|(change, altered)| is(change, altered));
            if !same || changes.len() != altered.len() {
                return self.wrong(format!("{changes:?} for {altered:?} of entry {index}"));
            }
            next = index + 1;
        }
        self.check_empty(next..commit.snapshot.index() + 1, oracle)?;
        match begin {
            Some(begin) => Ok(begin),
            None => self.wrong("a commit without changes".to_owned()),
        }
    }

    fn check_empty(&self, entries: Range<u64>, oracle: &Oracle) -> Result<(), Violation> {
        for index in entries {
            if !oracle.altered(index).is_empty() {
                return self.wrong(format!("a commit lacks entry {index}"));
            }
        }
        Ok(())
    }

    /// Nothing between what it knew and `begin` concerned it.
    fn check_nothing_missed(
        &self,
        begin: u64,
        jumps: &[(u64, u64)],
        oracle: &Oracle,
    ) -> Result<(), Violation> {
        for index in self.index + 1..=begin {
            let skipped = jumps
                .iter()
                .any(|(from, to)| (*from + 1..=*to).contains(&index));
            let concerns = |altered: &Altered| self.concerns(altered);
            if !skipped && oracle.altered(index).iter().any(concerns) {
                return self.wrong(format!("was not told of entry {index}"));
            }
        }
        Ok(())
    }

    fn concerns(&self, altered: &Altered) -> bool {
        match &self.route {
            Route::Kind(kind) => altered.key.0 == *kind,
            Route::Node(node) => altered.nodes.contains(node),
            _ => true,
        }
    }

    /// Everything up to the end has been seen, as `index` is where the store is.
    pub(super) fn check_end(
        &mut self,
        index: u64,
        jumps: &[(u64, u64)],
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        self.look(jumps, scene)?;
        self.check_nothing_missed(index, jumps, &scene.oracle)
    }
}

fn is(change: &Change, altered: &Altered) -> bool {
    let action = match change {
        Change::Create(_) => Action::Create,
        Change::Update { .. } => Action::Update,
        Change::Remove(_) => Action::Remove,
    };
    let object: &AnyObject = change.object();
    action == altered.action
        && digest::key(object) == altered.key
        && digest::of_any(object) == altered.hash
}
