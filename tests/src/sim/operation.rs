//! What clients do: random transactions that note what they have seen and done, so that it can be
//! compared with the history later.

use rand::{Rng, rngs::StdRng};
use skep_proto::v1::{
    Annotations, Cluster, ClusterSpec, Config, ConfigSpec, Node, RaftConfig, Task,
};
use skep_store::{By, Error, Object, Snapshot, Tx};

use super::{digest::Key, plan::Plan};

const SLOTS: u8 = 12;
const NAMES: u8 = 16;
const TASKS: u8 = 8;
pub(super) const NODES: u8 = 3;
/// More than a proposal may have.
const OVERSIZED: usize = skep_store::MAX_PROPOSAL_BYTES + 1;

/// A transaction.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Creates the cluster object, which says when snapshots are taken.
    Cluster {
        interval: u64,
        kept: u64,
    },
    Create {
        slot: u8,
        name: u8,
    },
    /// Reads an object and writes it back changed.
    Update {
        slot: u8,
    },
    /// Like an update of someone who read the object a while ago.
    Conditional {
        slot: u8,
        version: u64,
    },
    Rename {
        slot: u8,
        name: u8,
    },
    Remove {
        slot: u8,
    },
    /// Several objects at once: two configs, a task on another node, that node.
    Several {
        slots: [u8; 2],
        task: u8,
        node: u8,
    },
    RemoveTask {
        task: u8,
    },
    /// Reads only.
    Look {
        slot: u8,
        name: u8,
    },
    Oversized {
        slot: u8,
    },
}

/// What a transaction saw and did.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Versions of the objects that it read, as they were before it.
    pub(super) reads: Vec<(Key, Option<u64>)>,
    /// Who had a name.
    pub(super) names: Vec<(String, Option<String>)>,
    /// Versions that it gave, `None` for what it removed.
    pub(super) writes: Vec<(Key, Option<u64>)>,
    /// What the store did wrong.
    pub(super) wrong: Option<String>,
}

impl Operation {
    pub(super) fn draw(rng: &mut StdRng, known: impl Fn(&str) -> Option<u64>) -> Self {
        let slot = rng.random_range(0..SLOTS);
        let name = rng.random_range(0..NAMES);
        let task = rng.random_range(0..TASKS);
        match rng.random_range(0..100) {
            0..25 => Self::Create { slot, name },
            25..42 => Self::Update { slot },
            42..55 => match known(&slot_id(slot)) {
                Some(version) => Self::Conditional { slot, version },
                None => Self::Update { slot },
            },
            55..65 => Self::Rename { slot, name },
            65..72 => Self::Remove { slot },
            72..88 => Self::Several {
                slots: [slot, rng.random_range(0..SLOTS)],
                task,
                node: rng.random_range(0..NODES),
            },
            88..92 => Self::RemoveTask { task },
            _ => Self::Look { slot, name },
        }
    }

    /// One that surely writes something.
    pub(super) fn last(rng: &mut StdRng) -> Self {
        Self::Several {
            slots: [rng.random_range(0..SLOTS), rng.random_range(0..SLOTS)],
            task: rng.random_range(0..TASKS),
            node: rng.random_range(0..NODES),
        }
    }

    pub(super) fn oversized(rng: &mut StdRng) -> Self {
        let slot = rng.random_range(0..SLOTS);
        Self::Oversized { slot }
    }

    pub(super) fn cluster(plan: &Plan) -> Self {
        Self::Cluster {
            interval: plan.snapshot_interval,
            kept: plan.entries_kept,
        }
    }

    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "cluster",
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Conditional { .. } => "conditional update",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
            Self::Several { .. } => "several",
            Self::RemoveTask { .. } => "remove task",
            Self::Look { .. } => "look",
            Self::Oversized { .. } => "oversized",
        }
    }

    /// Runs as the closure of a transaction. `number` makes what it writes its own.
    pub(super) fn run(
        &self,
        number: u64,
        data: usize,
        tx: &mut Tx,
        seen: &mut Seen,
    ) -> Result<(), Error> {
        let mut scope = Scope {
            number,
            data,
            tx,
            seen,
        };
        match self {
            Self::Cluster { interval, kept } => scope.cluster(*interval, *kept),
            Self::Create { slot, name } => scope.create_config(*slot, *name),
            Self::Update { slot } => scope.update_config(*slot, None, None),
            Self::Conditional { slot, version } => scope.update_config(*slot, None, Some(*version)),
            Self::Rename { slot, name } => scope.update_config(*slot, Some(*name), None),
            Self::Remove { slot } => scope.remove::<Config>(&slot_id(*slot)),
            Self::Several { slots, task, node } => {
                for slot in slots {
                    if scope.read::<Config>(&slot_id(*slot)).is_some() {
                        scope.update_config(*slot, None, None)?;
                    }
                }
                scope.put_task(*task, *node)
            }
            Self::RemoveTask { task } => scope.remove::<Task>(&format!("task{task}")),
            Self::Look { slot, name } => {
                scope.read::<Config>(&slot_id(*slot));
                scope.owner(&config_name(*name));
                Ok(())
            }
            Self::Oversized { slot } => {
                scope.data = OVERSIZED;
                if scope.read::<Config>(&slot_id(*slot)).is_some() {
                    return scope.update_config(*slot, None, None);
                }
                // A name that nobody else asks for.
                scope.create_config(*slot, NAMES)
            }
        }
    }
}

/// What somebody sees who reads without a transaction: some versions.
pub(super) fn look(store: &Snapshot, rng: &mut StdRng) -> [(Key, Option<u64>); 2] {
    let config = slot_id(rng.random_range(0..SLOTS));
    let task = format!("task{}", rng.random_range(0..TASKS));
    [
        version::<Config>(store, config),
        version::<Task>(store, task),
    ]
}

fn version<T: Object>(store: &Snapshot, id: String) -> (Key, Option<u64>) {
    let version = store.get::<T>(&id).map(|object| object.version());
    ((T::KIND, id), version)
}

fn slot_id(slot: u8) -> String {
    format!("config{slot}")
}

fn config_name(name: u8) -> String {
    format!("name{name}")
}

pub(super) fn node_id(node: u8) -> String {
    format!("node{node}")
}

/// A transaction that notes what it does.
struct Scope<'a> {
    number: u64,
    data: usize,
    tx: &'a mut Tx,
    seen: &'a mut Seen,
}

impl Scope<'_> {
    fn read<T: Object>(&mut self, id: &str) -> Option<T> {
        let found = self.tx.get::<T>(id).map(|object| T::clone(object));
        let key = (T::KIND, id.to_owned());
        // Its own writes are not what was there before.
        if !self.seen.writes.iter().any(|(written, _)| *written == key) {
            let version = found.as_ref().map(T::version);
            self.seen.reads.push((key, version));
        }
        found
    }

    fn owner(&mut self, name: &str) -> Option<String> {
        let owner = self.tx.find::<Config>(By::name(name)).next();
        let owner = owner.map(|config| config.id.clone());
        if self.seen.writes.is_empty() {
            self.seen.names.push((name.to_owned(), owner.clone()));
        }
        owner
    }

    fn wrote<T: Object>(&mut self, id: &str, version: Option<u64>) {
        let key = (T::KIND, id.to_owned());
        self.seen.writes.retain(|(written, _)| *written != key);
        self.seen.writes.push((key, version));
    }

    /// Notes it if the store does not do what it must.
    fn expect<R>(&mut self, result: Result<R, Error>, expected: Option<Error>) -> Result<R, Error> {
        if result.as_ref().err() != expected.as_ref() {
            let refusal = result.as_ref().err();
            self.seen.wrong = Some(format!("{refusal:?} where {expected:?} was due"));
        }
        result
    }

    fn create<T: Object>(&mut self, object: T, expected: Option<Error>) -> Result<(), Error> {
        let created = self.tx.create(object);
        let created = self.expect(created, expected)?;
        self.wrote::<T>(created.id(), Some(created.version()));
        Ok(())
    }

    fn update<T: Object>(&mut self, object: T, expected: Option<Error>) -> Result<(), Error> {
        let updated = self.tx.update(object);
        let updated = self.expect(updated, expected)?;
        self.wrote::<T>(updated.id(), Some(updated.version()));
        Ok(())
    }

    fn remove<T: Object>(&mut self, id: &str) -> Result<(), Error> {
        let expected = self.read::<T>(id).is_none().then_some(Error::NotFound);
        let removed = self.tx.remove::<T>(id);
        self.expect(removed, expected)?;
        self.wrote::<T>(id, None);
        Ok(())
    }

    fn content(&self) -> bytes::Bytes {
        let mut content = self.number.to_be_bytes().to_vec();
        content.resize(content.len() + self.data, b'x');
        content.into()
    }

    fn config(&self, id: &str, name: &str) -> Config {
        Config {
            id: id.to_owned(),
            spec: Some(ConfigSpec {
                annotations: Some(Annotations {
                    name: name.to_owned(),
                    ..Annotations::default()
                }),
                data: self.content(),
                ..ConfigSpec::default()
            }),
            ..Config::default()
        }
    }

    fn create_config(&mut self, slot: u8, name: u8) -> Result<(), Error> {
        let (id, name) = (slot_id(slot), config_name(name));
        let present = self.read::<Config>(&id).is_some();
        let expected = match self.owner(&name) {
            _ if present => Some(Error::Exists),
            Some(_) => Some(Error::NameConflict),
            None => None,
        };
        self.create(self.config(&id, &name), expected)
    }

    fn update_config(
        &mut self,
        slot: u8,
        name: Option<u8>,
        version: Option<u64>,
    ) -> Result<(), Error> {
        let id = slot_id(slot);
        let Some(found) = self.read::<Config>(&id) else {
            let updated = self.tx.update(self.config(&id, "nobody"));
            self.expect(updated, Some(Error::NotFound))?;
            return Ok(());
        };
        let old_name = found.name().to_owned();
        let name = name.map_or(old_name, config_name);
        let conflict = self.owner(&name).is_some_and(|owner| owner != id);
        let expected = match version {
            Some(version) if version != found.version() => Some(Error::OutOfSequence),
            _ => conflict.then_some(Error::NameConflict),
        };
        let mut config = self.config(&id, &name);
        config.meta = found.meta;
        if let Some(version) = version {
            config.meta_mut().version_mut().index = version;
        }
        self.update(config, expected)
    }

    /// Puts a task on a node, which is made if there is none.
    fn put_task(&mut self, task: u8, node: u8) -> Result<(), Error> {
        let node = node_id(node);
        if self.read::<Node>(&node).is_none() {
            let node = Node {
                id: node.clone(),
                ..Node::default()
            };
            self.create(node, None)?;
        }
        let id = format!("task{task}");
        match self.read::<Task>(&id) {
            Some(mut task) => {
                task.node_id = node;
                task.slot = self.number;
                self.update(task, None)
            }
            None => {
                let task = Task {
                    id,
                    node_id: node,
                    slot: self.number,
                    ..Task::default()
                };
                self.create(task, None)
            }
        }
    }

    fn cluster(&mut self, interval: u64, kept: u64) -> Result<(), Error> {
        let present = self.read::<Cluster>("cluster").is_some();
        let cluster = Cluster {
            id: "cluster".to_owned(),
            spec: Some(ClusterSpec {
                raft: Some(RaftConfig {
                    snapshot_interval: interval,
                    log_entries_for_slow_followers: kept,
                    ..RaftConfig::default()
                }),
                ..ClusterSpec::default()
            }),
            ..Cluster::default()
        };
        self.create(cluster, present.then_some(Error::Exists))
    }
}
