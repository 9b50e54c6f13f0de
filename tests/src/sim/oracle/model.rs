//! The store as plain maps, with the past of every object.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use skep_proto::v1::{InternalRaftRequest, StoreActionKind, store_action::Target};
use skep_store::{AnyObject, Object as _};

use crate::sim::{
    Violation, broken,
    digest::{self, Key},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Action {
    Create,
    Update,
    Remove,
}

/// A change of one object by one entry.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Altered {
    pub(in crate::sim) action: Action,
    pub(in crate::sim) key: Key,
    /// Hash of the object afterwards, or of the removed one.
    pub(in crate::sim) hash: u64,
    /// The client's operation that has written it, if it says so.
    pub(in crate::sim) operation: Option<u64>,
    /// The nodes that it concerned before and concerns now.
    pub(in crate::sim) nodes: Vec<String>,
}

/// Values with the index of the entry that made them, oldest first.
type Past<T> = Vec<(u64, Option<T>)>;

#[derive(Debug, Default)]
pub(super) struct Model {
    objects: BTreeMap<Key, AnyObject>,
    digest: u64,
    versions: HashMap<Key, Past<u64>>,
    /// Configs by name.
    names: HashMap<String, Past<String>>,
    /// The highest version that each object ever had, and the entry that gave it.
    highest: HashMap<Key, (u64, u64)>,
}

fn at<T>(past: Option<&Past<T>>, index: u64) -> Option<&T> {
    let past = past?;
    let after = past.partition_point(|(made, _)| *made <= index);
    past.get(after.checked_sub(1)?)?.1.as_ref()
}

impl Model {
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn version_at(&self, key: &Key, index: u64) -> Option<u64> {
        at(self.versions.get(key), index).copied()
    }

    pub(super) fn named_at(&self, name: &str, index: u64) -> Option<&str> {
        at(self.names.get(name), index).map(String::as_str)
    }

    /// Applies a committed transaction, each action of which must make sense.
    pub(super) fn apply(&mut self, index: u64, data: &[u8]) -> Result<Vec<Altered>, Violation> {
        let rule = "the log only holds what can be applied";
        let Ok(request) = InternalRaftRequest::decode(data) else {
            return broken(rule, format!("entry {index} does not decode"));
        };
        let mut altered = Vec::new();
        for action in request.action {
            let kind = action.action();
            let Some(object) = action.target.and_then(object) else {
                return broken(
                    rule,
                    format!("entry {index} has an action without an object"),
                );
            };
            let key = digest::key(&object);
            let old = self.objects.get(&key).cloned();
            let action = match (kind, old.is_some()) {
                (StoreActionKind::StoreActionCreate, false) => Action::Create,
                (StoreActionKind::StoreActionUpdate, true) => Action::Update,
                (StoreActionKind::StoreActionRemove, true) => Action::Remove,
                _ => {
                    let what = format!("entry {index}: {kind:?} of {key:?} makes no sense");
                    return broken(rule, what);
                }
            };
            let nodes = [old.as_ref(), Some(&object)].into_iter().flatten();
            let nodes = nodes.filter_map(digest::node).map(str::to_owned).collect();
            let hash = digest::of_any(&object);
            let operation = operation(&object).filter(|_| action != Action::Remove);
            self.put(index, action, &key, old, object)?;
            altered.push(Altered {
                action,
                key,
                hash,
                operation,
                nodes,
            });
        }
        Ok(altered)
    }

    fn put(
        &mut self,
        index: u64,
        action: Action,
        key: &Key,
        old: Option<AnyObject>,
        object: AnyObject,
    ) -> Result<(), Violation> {
        if let Some(old) = old {
            self.digest = self.digest.wrapping_sub(digest::of_any(&old));
            self.name(index, key, &old, None)?;
        }
        let version = object.version();
        if action == Action::Remove {
            self.objects.remove(key);
            self.versions
                .entry(key.clone())
                .or_default()
                .push((index, None));
            return Ok(());
        }
        let (highest, by) = self.highest.entry(key.clone()).or_default();
        // A transaction that changes an object twice gives it the same version twice.
        let grows = version > *highest || (version == *highest && *by == index);
        if !grows || version > index {
            return broken(
                "versions grow and never repeat",
                format!("entry {index} gives {key:?} version {version}, entry {by} gave {highest}"),
            );
        }
        (*highest, *by) = (version, index);
        self.name(index, key, &object, Some(key.1.clone()))?;
        self.versions
            .entry(key.clone())
            .or_default()
            .push((index, Some(version)));
        self.digest = self.digest.wrapping_add(digest::of_any(&object));
        self.objects.insert(key.clone(), object);
        Ok(())
    }

    /// Gives or takes the name of a config.
    fn name(
        &mut self,
        index: u64,
        key: &Key,
        object: &AnyObject,
        owner: Option<String>,
    ) -> Result<(), Violation> {
        let AnyObject::Config(config) = object else {
            return Ok(());
        };
        let past = self.names.entry(config.name().to_owned()).or_default();
        let present = past.last().and_then(|(_, owner)| owner.clone());
        if owner.is_some() && present.is_some() {
            return broken(
                "names are unique",
                format!("entry {index} gives {key:?} the name {:?}", config.name()),
            );
        }
        past.push((index, owner));
        Ok(())
    }
}

fn object(target: Target) -> Option<AnyObject> {
    Some(match target {
        Target::Config(object) => object.into(),
        Target::Task(object) => object.into(),
        Target::Node(object) => object.into(),
        Target::Cluster(object) => object.into(),
        // The simulator's clients write nothing else.
        _ => return None,
    })
}

/// The number that the simulator's clients leave in what they write.
fn operation(object: &AnyObject) -> Option<u64> {
    match object {
        AnyObject::Config(config) => {
            let number = config.spec().data.first_chunk()?;
            Some(u64::from_be_bytes(*number))
        }
        AnyObject::Task(task) => Some(task.slot),
        _ => None,
    }
}
