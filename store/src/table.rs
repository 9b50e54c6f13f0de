//! Tables: objects by ID and one ordered set of index keys, both persistent maps.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    panic::resume_unwind,
    sync::Arc,
    thread,
};

use imbl::{OrdMap, OrdSet};
use skep_proto::v1::{
    Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume,
};

use crate::{By, Error, Index, Object, by::Value, text::Text};

/// All tables. A clone shares everything and costs a few pointer copies.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub(crate) nodes: Table<Node>,
    pub(crate) services: Table<Service>,
    pub(crate) tasks: Table<Task>,
    pub(crate) networks: Table<Network>,
    pub(crate) clusters: Table<Cluster>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) configs: Table<Config>,
    pub(crate) resources: Table<Resource>,
    pub(crate) extensions: Table<Extension>,
    pub(crate) volumes: Table<Volume>,
}

/// One key of the index: ordered by index, then value, then ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    index: Index,
    value: Text,
    id: Text,
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<T> {
    objects: OrdMap<Text, Arc<T>>,
    keys: OrdSet<Key>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            keys: OrdSet::new(),
        }
    }
}

/// How many neighbours on each side are asked for what can be shared: more than the tasks of a slot,
/// which keeps five old ones.
const NEIGHBOURS: usize = 8;

type Found<'a, T> = Box<dyn Iterator<Item = &'a Arc<T>> + Send + 'a>;

impl<T: Object> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.objects.get(&Text::from(id))
    }

    pub(crate) fn objects(&self) -> &OrdMap<Text, Arc<T>> {
        &self.objects
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn find<'a>(&'a self, by: By<'a>) -> Found<'a, T> {
        match by {
            By::All => Box::new(self.objects.values()),
            By::IdPrefix(prefix) => Box::new(
                self.objects
                    .range(Text::from(prefix)..)
                    .take_while(move |(id, _)| id.as_bytes().starts_with(prefix.as_bytes()))
                    .map(|(_, object)| object),
            ),
            By::Is(Index::Service, id) => self.find(By::StartsWith(
                // The key of a slot starts with the service.
                Index::Slot,
                format!("{id}\0").into(),
            )),
            By::StartsWith(Index::Service, prefix) => {
                self.find(By::StartsWith(Index::Slot, prefix))
            }
            By::Is(index, value) if index.keeps(Value::Exact(&value)) => {
                let value = Text::from(&*value);
                Box::new(
                    self.from(index, value.clone())
                        .take_while(move |key| key.index == index && key.value == value)
                        .filter_map(|key| self.objects.get(&key.id)),
                )
            }
            By::StartsWith(index, prefix) if index.is_kept() => Box::new(
                self.from(index, Text::from(&*prefix))
                    .take_while(move |key| {
                        key.index == index && key.value.as_bytes().starts_with(prefix.as_bytes())
                    })
                    .filter_map(|key| self.objects.get(&key.id)),
            ),
            By::Is(index, value) => self.search(index, move |own| *own == *value),
            By::StartsWith(index, prefix) => {
                self.search(index, move |own| own.starts_with(&*prefix))
            }
        }
    }

    fn from(&self, index: Index, value: Text) -> impl Iterator<Item = &Key> + Send + use<'_, T> {
        let id = Text::from("");
        self.keys.range(Key { index, value, id }..)
    }

    /// All objects with a value of `index` that is wanted.
    fn search<'a>(
        &'a self,
        index: Index,
        wanted: impl Fn(Cow<'_, str>) -> bool + Send + 'a,
    ) -> Found<'a, T> {
        Box::new(self.objects.values().filter(move |object| {
            let mut found = false;
            object.index(&mut |own, value| found |= own == index && wanted(value.to_str()));
            if index == Index::Custom {
                let indices = &object.annotations().indices;
                found |= indices
                    .iter()
                    .any(|own| wanted(format!("{}\0{}", own.key, own.val).into()));
            }
            found
        }))
    }

    /// Fails if an object other than `object` has its name.
    pub(crate) fn check_name(&self, object: &T) -> Result<(), Error> {
        let taken = T::UNIQUE_NAMES
            && self
                .find(By::name(object.name()))
                .any(|other| other.id() != object.id());
        if taken {
            Err(Error::NameConflict)
        } else {
            Ok(())
        }
    }

    /// Makes an object that is about to be put share what is equal with the one that it replaces, or
    /// with neighbours in the index of slots. They are few, so that it costs little where all
    /// differ, and around the slot, so that a spec that spreads over a service in whatever order is
    /// soon found.
    pub(crate) fn share(&self, object: &mut T) {
        if object.origin().is_none() {
            return;
        }
        if self.get(object.id()).is_some_and(|old| object.share(old)) {
            return;
        }
        let slot = values(object)
            .into_iter()
            .find(|(index, _)| *index == Index::Slot);
        let Some(slot) = slot else { return };
        let key = key(slot, &Text::from(object.id()));
        let before = self.keys.range(..key.clone()).rev().take(NEIGHBOURS);
        let after = self.keys.range(key..).take(NEIGHBOURS);
        before
            .chain(after)
            .filter(|neighbour| neighbour.index == Index::Slot)
            .filter_map(|neighbour| self.objects.get(&neighbour.id))
            .any(|neighbour| object.share(neighbour));
    }

    /// Puts `object` in place of the one with its ID, which is returned.
    pub(crate) fn put(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let id = Text::from(object.id());
        let old = self.objects.insert(id.clone(), object.clone());
        let new_values = values(&*object);
        let old_values = old.as_ref().map_or_else(Vec::new, |old| values(&**old));
        for value in &old_values {
            if !new_values.contains(value) {
                self.keys.remove(&key(*value, &id));
            }
        }
        for value in new_values {
            if !old_values.contains(&value) {
                self.keys.insert(key(value, &id));
            }
        }
        old
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        let id = Text::from(id);
        let old = self.objects.remove(&id)?;
        for value in values(&*old) {
            self.keys.remove(&key(value, &id));
        }
        Some(old)
    }

    /// A table of the objects of all `parts`. Of several with the same ID the last one counts.
    pub(crate) fn of(parts: Vec<Part<T>>) -> Self {
        let mut objects = Vec::new();
        let mut keys = Vec::new();
        for part in parts {
            objects.extend(part.objects);
            keys.extend(part.keys);
        }
        // What comes in order is put in several times faster.
        objects.sort_by(|(a, _), (b, _)| a.cmp(b));
        if objects.windows(2).any(|two| two[0].0 == two[1].0) {
            let mut table = Self::default();
            for (_, object) in objects {
                table.put(object);
            }
            return table;
        }
        thread::scope(|scope| {
            let keys = scope.spawn(|| {
                keys.sort_unstable();
                dense(keys).collect()
            });
            Self {
                objects: dense(objects).collect(),
                keys: keys.join().unwrap_or_else(|panic| resume_unwind(panic)),
            }
        })
    }
}

/// Some objects of a table that is being made, with their keys.
#[derive(Debug)]
pub(crate) struct Part<T> {
    objects: Vec<(Text, Arc<T>)>,
    keys: Vec<Key>,
    /// The last object of each origin that shares nothing with the one before.
    origins: HashMap<(Text, u64), Arc<T>>,
}

impl<T: Object> Part<T> {
    pub(crate) fn with_capacity(objects: usize) -> Self {
        Self {
            objects: Vec::with_capacity(objects),
            // A task that runs has two.
            keys: Vec::with_capacity(2 * objects),
            origins: HashMap::new(),
        }
    }

    pub(crate) fn push(&mut self, mut object: Arc<T>) {
        self.share(&mut object);
        let id = Text::from(object.id());
        let keys = values(&*object).into_iter().map(|value| key(value, &id));
        self.keys.extend(keys);
        self.objects.push((id, object));
    }

    /// Makes the object share what is equal with an earlier one of the same origin.
    fn share(&mut self, object: &mut Arc<T>) {
        let Some((id, version)) = object.origin() else {
            return;
        };
        match self.origins.entry((Text::from(id), version)) {
            Entry::Vacant(entry) => {
                entry.insert(object.clone());
            }
            Entry::Occupied(mut entry) => {
                let shares = Arc::get_mut(object).is_some_and(|own| own.share(entry.get()));
                if !shares {
                    entry.insert(object.clone());
                }
            }
        }
    }
}

/// Ordered items in the order in which they make a dense tree: every second one, then the others.
/// Where all comes in order, full nodes are split and their first half stays half empty: the second
/// round fills it.
fn dense<I>(items: Vec<I>) -> impl Iterator<Item = I> {
    let mut later = Vec::with_capacity(items.len() / 2);
    let mut first = Vec::with_capacity(items.len().div_ceil(2));
    for (at, item) in items.into_iter().enumerate() {
        [&mut first, &mut later][at % 2].push(item);
    }
    first.into_iter().chain(later)
}

fn key((index, value): (Index, Value<'_>), id: &Text) -> Key {
    Key {
        index,
        value: value.to_text(),
        id: id.clone(),
    }
}

/// The values of an object that the table has keys for.
fn values<T: Object>(object: &T) -> Vec<(Index, Value<'_>)> {
    // The task with most of them: name, node, slot and both states.
    let mut values = Vec::with_capacity(5);
    if !object.name().is_empty() {
        values.push((Index::Name, Value::NoCase(object.name())));
    }
    object.index(&mut |index, value| {
        if index.keeps(value) {
            values.push((index, value));
        }
    });
    values
}
