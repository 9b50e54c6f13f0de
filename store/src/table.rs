//! Tables: objects by ID and one ordered set of index keys, both persistent maps.

use std::{borrow::Cow, sync::Arc};

use imbl::{OrdMap, OrdSet};
use skep_proto::v1::{
    Cluster, Config, Extension, Network, Node, NodeRole, Resource, Secret, Service, Task,
    TaskState, Volume, node_spec::Membership,
};

use crate::{Error, Object, object::slot_key};

/// What objects can be found by, besides their ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// The name, in lower case.
    Name,
    /// `spec.annotations.indices`, as `key NUL value`.
    Custom,
    /// Tasks of a service.
    Service,
    /// Tasks on a node.
    Node,
    /// Tasks of a slot of a service.
    Slot,
    /// Tasks by desired state.
    DesiredState,
    /// Tasks by observed state.
    TaskState,
    /// Services and tasks by runtime: `container`, `attachment` or a generic kind.
    Runtime,
    /// Services and tasks by the target of a network attachment.
    Network,
    /// Services and tasks by secret ID.
    Secret,
    /// Services and tasks by config ID.
    Config,
    /// Tasks by the ID of an attached volume.
    VolumeAttachment,
    /// Nodes by observed role.
    Role,
    /// Nodes by membership.
    Membership,
    /// Resources by extension name.
    Kind,
    /// Volumes by group.
    Group,
    /// Volumes by driver name.
    Driver,
}

/// A selection of objects of one table.
#[derive(Clone, Debug)]
pub enum By<'a> {
    /// Every object.
    All,
    /// Objects whose ID starts so.
    IdPrefix(&'a str),
    /// Objects with exactly this index value.
    Is(Index, Cow<'a, str>),
    /// Objects with an index value that starts so.
    StartsWith(Index, Cow<'a, str>),
}

impl<'a> By<'a> {
    /// By name, without regard to case.
    pub fn name(name: &str) -> Self {
        Self::Is(Index::Name, name.to_lowercase().into())
    }
    /// By the start of the name, without regard to case.
    pub fn name_prefix(prefix: &str) -> Self {
        Self::StartsWith(Index::Name, prefix.to_lowercase().into())
    }
    /// Tasks of a service.
    pub fn service(id: &'a str) -> Self {
        Self::Is(Index::Service, id.into())
    }
    /// Tasks on a node.
    pub fn node(id: &'a str) -> Self {
        Self::Is(Index::Node, id.into())
    }
    /// Tasks of a slot.
    pub fn slot(service_id: &str, slot: u64) -> Self {
        Self::Is(Index::Slot, slot_key(service_id, slot).into())
    }
    /// Tasks by desired state.
    pub fn desired_state(state: TaskState) -> Self {
        Self::Is(Index::DesiredState, state.as_str_name().into())
    }
    /// Tasks by observed state.
    pub fn task_state(state: TaskState) -> Self {
        Self::Is(Index::TaskState, state.as_str_name().into())
    }
    /// Nodes by observed role.
    pub fn role(role: NodeRole) -> Self {
        Self::Is(Index::Role, role.as_str_name().into())
    }
    /// Nodes by membership.
    pub fn membership(membership: Membership) -> Self {
        Self::Is(Index::Membership, membership.as_str_name().into())
    }
    /// Services and tasks that refer to a secret.
    pub fn secret(id: &'a str) -> Self {
        Self::Is(Index::Secret, id.into())
    }
    /// Services and tasks that refer to a config.
    pub fn config(id: &'a str) -> Self {
        Self::Is(Index::Config, id.into())
    }
    /// By a custom index entry (`annotations.indices`).
    pub fn custom(key: &str, value: &str) -> Self {
        Self::Is(Index::Custom, format!("{key}\0{value}").into())
    }
}

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
    value: Box<str>,
    id: Arc<str>,
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<T> {
    objects: OrdMap<Arc<str>, Arc<T>>,
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

impl<T: Object> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.objects.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn find<'a>(
        &'a self,
        by: By<'a>,
    ) -> Box<dyn Iterator<Item = &'a Arc<T>> + Send + 'a> {
        match by {
            By::All => Box::new(self.objects.values()),
            By::IdPrefix(prefix) => Box::new(
                self.objects
                    .range::<_, str>((
                        std::ops::Bound::Included(prefix),
                        std::ops::Bound::Unbounded,
                    ))
                    .take_while(move |(id, _)| id.starts_with(prefix))
                    .map(|(_, object)| object),
            ),
            By::Is(index, value) => Box::new(
                self.from(index, &value)
                    .take_while(move |key| key.index == index && *key.value == *value)
                    .filter_map(|key| self.objects.get(&key.id)),
            ),
            By::StartsWith(index, prefix) => Box::new(
                self.from(index, &prefix)
                    .take_while(move |key| key.index == index && key.value.starts_with(&*prefix))
                    .filter_map(|key| self.objects.get(&key.id)),
            ),
        }
    }

    fn from(&self, index: Index, value: &str) -> impl Iterator<Item = &Key> + Send + use<'_, T> {
        self.keys.range(
            Key {
                index,
                value: value.into(),
                id: Arc::from(""),
            }..,
        )
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

    /// Puts `object` in place of the one with its ID, which is returned.
    pub(crate) fn put(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let id: Arc<str> = match self.objects.get_key_value(object.id()) {
            Some((id, _)) => id.clone(),
            None => Arc::from(object.id()),
        };
        let old = self.objects.insert(id.clone(), object.clone());
        let new_keys = keys(&*object, &id);
        let old_keys = old.as_ref().map_or_else(Vec::new, |old| keys(&**old, &id));
        for key in &old_keys {
            if !new_keys.contains(key) {
                self.keys.remove(key);
            }
        }
        for key in new_keys {
            if !old_keys.contains(&key) {
                self.keys.insert(key);
            }
        }
        old
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        let old = self.objects.remove(id)?;
        for key in keys(&*old, &Arc::from(id)) {
            self.keys.remove(&key);
        }
        Some(old)
    }
}

fn keys<T: Object>(object: &T, id: &Arc<str>) -> Vec<Key> {
    let mut keys = Vec::with_capacity(8);
    let mut add = |index, value: &str| {
        keys.push(Key {
            index,
            value: value.into(),
            id: id.clone(),
        });
    };
    if !object.name().is_empty() {
        add(Index::Name, &object.name().to_lowercase());
    }
    for entry in &object.annotations().indices {
        add(Index::Custom, &format!("{}\0{}", entry.key, entry.val));
    }
    object.index(&mut add);
    keys
}
