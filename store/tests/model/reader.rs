//! Someone who pieces a store together from its subscription.

use std::collections::BTreeMap;

use skep_proto::v1::Cluster;
use skep_store::{AnyObject, Change, Event, Kind, Route, Snapshot, Store, Subscription};

use super::plain::Plain;

/// A subscription with what its reader knows.
pub struct Reader {
    subscription: Subscription,
    objects: BTreeMap<(Kind, String), AnyObject>,
    /// The snapshot of the last commit that was read.
    snapshot: Snapshot,
    /// The last version seen of each object, also of those that are gone, and in which commit.
    versions: BTreeMap<(Kind, String), (u64, u64)>,
    /// How often it was told that it lags.
    pub lagged: usize,
}

impl Reader {
    pub fn new(store: &Store) -> Self {
        let (snapshot, subscription) = store.watch([Route::All]);
        Self {
            subscription,
            objects: objects(&snapshot),
            snapshot,
            versions: BTreeMap::new(),
            lagged: 0,
        }
    }

    /// Reads all there is, and compares.
    pub fn read(&mut self, store: &Store) {
        while let Some(event) = self.subscription.try_next() {
            match event {
                Event::Lagged(snapshot) => {
                    self.lagged += 1;
                    self.objects = objects(&snapshot);
                    self.snapshot = snapshot;
                }
                Event::Commits(commits) => {
                    for commit in commits {
                        assert!(commit.snapshot.index() > self.snapshot.index());
                        assert!(!commit.changes.is_empty());
                        self.snapshot = commit.snapshot.clone();
                        commit.changes.iter().for_each(|change| self.change(change));
                    }
                }
            }
            assert_eq!(
                self.objects,
                objects(&self.snapshot),
                "exactly what is committed"
            );
        }
        assert_eq!(Plain::of(&self.snapshot), Plain::of(&store.snapshot()));
    }

    /// Takes in a change, which must follow from what is known.
    fn change(&mut self, change: &Change) {
        let object = change.object();
        let key = (object.kind(), object.id().to_owned());
        assert_eq!(
            self.objects.get(&key),
            change.old(),
            "what was there before"
        );
        if matches!(change, Change::Remove(_)) {
            self.objects.remove(&key);
            return;
        }
        assert!(object.version() <= self.snapshot.index());
        let now = (object.version(), self.snapshot.index());
        let before = self.versions.insert(key.clone(), now);
        // A transaction may write an object twice.
        assert!(
            before.is_none_or(|before| before.0 < now.0 || before == now),
            "versions of an object never repeat"
        );
        self.objects.insert(key, object.clone());
    }
}

fn objects(snapshot: &Snapshot) -> BTreeMap<(Kind, String), AnyObject> {
    assert_eq!(snapshot.count::<Cluster>(), 0, "the model has none");
    let tasks = snapshot.all().cloned().map(AnyObject::Task);
    let configs = snapshot.all().cloned().map(AnyObject::Config);
    tasks
        .chain(configs)
        .map(|object| ((object.kind(), object.id().to_owned()), object))
        .collect()
}
