//! What transactions mean, in plain maps.

use std::collections::{BTreeMap, btree_map::Entry};

use proptest::prelude::*;
use skep_proto::v1::{Annotations, Config, ConfigSpec, Task};
use skep_store::{By, Error, MAX_PROPOSAL_BYTES, Object as _, Snapshot, Tx};

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Step {
    /// Create a task.
    Create { id: u8, node: u8 },
    /// Move a task, if it is there.
    Move { id: u8, node: u8 },
    /// Write a task that the writer knows in this version, from a snapshot.
    Write { id: u8, version: u64 },
    /// Remove a task.
    Remove { id: u8 },
    /// Create a config. Names clash, also those that differ in case.
    Name { id: u8, name: u8 },
    /// Create a task that no transaction has place for.
    Giant { id: u8 },
}

impl Step {
    pub fn any() -> impl Strategy<Value = Self> {
        let id = || 0..12_u8;
        prop_oneof![
            40 => (id(), 0..4_u8).prop_map(|(id, node)| Self::Create { id, node }),
            40 => (id(), 0..4_u8).prop_map(|(id, node)| Self::Move { id, node }),
            // The version is filled in from what is committed when the transaction starts.
            15 => id().prop_map(|id| Self::Write { id, version: 0 }),
            15 => id().prop_map(|id| Self::Remove { id }),
            20 => (id(), 0..3_u8).prop_map(|(id, name)| Self::Name { id, name }),
            1 => id().prop_map(|id| Self::Giant { id }),
        ]
    }

    /// Does it in a transaction of the store.
    pub fn run(&self, tx: &mut Tx) -> Result<(), Error> {
        match *self {
            Self::Create { id, node } => tx.create(task(id, node)).map(drop),
            Self::Move { id, node } => {
                let Some(task) = tx.get::<Task>(&task_id(id)) else {
                    return Ok(());
                };
                let mut task = Task::clone(task);
                task.node_id = node_id(node);
                task.spec_mut().force_update = spec_of(&task.node_id);
                tx.update(task).map(drop)
            }
            Self::Write { id, version } => {
                let mut task = task(id, 0);
                task.meta_mut().version_mut().index = version;
                tx.update(task).map(drop)
            }
            Self::Remove { id } => tx.remove::<Task>(&task_id(id)).map(drop),
            Self::Name { id, name } => {
                let annotations = Annotations {
                    name: config_name(id, name),
                    ..Default::default()
                };
                tx.create(Config {
                    id: config_id(id),
                    spec: Some(ConfigSpec {
                        annotations: Some(annotations),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .map(drop)
            }
            Self::Giant { id } => {
                let mut task = task(id, 0);
                task.status_mut().message = "x".repeat(MAX_PROPOSAL_BYTES);
                tx.create(task).map(drop)
            }
        }
    }
}

/// A store as plain maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plain {
    /// Node and version of each task.
    pub tasks: BTreeMap<String, (String, u64)>,
    /// Name and version of each config.
    pub configs: BTreeMap<String, (String, u64)>,
}

impl Plain {
    /// What the transaction of these steps leads to: the state after it if it writes anything, or
    /// why it does not happen.
    pub fn after(&self, steps: &[Step], version: u64) -> Result<Option<Self>, Error> {
        let mut next = self.clone();
        let mut writes = false;
        for step in steps {
            writes |= next.step(step, version)?;
        }
        if steps.iter().any(|step| matches!(step, Step::Giant { .. })) {
            return Err(Error::TooLarge);
        }
        Ok(writes.then_some(next))
    }

    /// Does it, and returns whether there was anything to write.
    fn step(&mut self, step: &Step, version: u64) -> Result<bool, Error> {
        match *step {
            Step::Create { id, node } => self.create(task_id(id), node_id(node), version),
            Step::Giant { id } => self.create(task_id(id), node_id(0), version),
            Step::Move { id, node } => {
                let task = self.tasks.get_mut(&task_id(id));
                let there = task.map(|task| *task = (node_id(node), version));
                Ok(there.is_some())
            }
            Step::Write { id, version: known } => match self.tasks.get_mut(&task_id(id)) {
                None => Err(Error::NotFound),
                Some((_, stored)) if *stored != known => Err(Error::OutOfSequence),
                Some(task) => {
                    *task = (node_id(0), version);
                    Ok(true)
                }
            },
            Step::Remove { id } => match self.tasks.remove(&task_id(id)) {
                None => Err(Error::NotFound),
                Some(_) => Ok(true),
            },
            Step::Name { id, name } => {
                let name = config_name(id, name);
                let mut names = self.configs.values();
                let taken = names.any(|(other, _)| other.eq_ignore_ascii_case(&name));
                match self.configs.entry(config_id(id)) {
                    Entry::Occupied(_) => Err(Error::Exists),
                    Entry::Vacant(_) if taken => Err(Error::NameConflict),
                    Entry::Vacant(place) => {
                        place.insert((name, version));
                        Ok(true)
                    }
                }
            }
        }
    }

    fn create(&mut self, id: String, node: String, version: u64) -> Result<bool, Error> {
        if self.tasks.contains_key(&id) {
            return Err(Error::Exists);
        }
        self.tasks.insert(id, (node, version));
        Ok(true)
    }

    /// What a snapshot holds. Fails if it finds something else by an index than by a search, or a
    /// task with the spec of another.
    pub fn of(snapshot: &Snapshot) -> Self {
        for task in snapshot.all::<Task>() {
            assert_eq!(task.spec().force_update, spec_of(&task.node_id));
        }
        let tasks: BTreeMap<_, _> = snapshot
            .all::<Task>()
            .map(|task| (task.id.clone(), (task.node_id.clone(), task.version())))
            .collect();
        for node in (0..4).map(node_id) {
            let found = snapshot.find::<Task>(By::node(&node)).map(|task| &task.id);
            let expected = tasks.iter().filter(|(_, (own, _))| *own == node);
            assert!(found.eq(expected.map(|(id, _)| id)), "by node {node}");
        }
        let configs: BTreeMap<_, _> = snapshot
            .all::<Config>()
            .map(|config| {
                let name = config.spec().annotations().name.clone();
                (config.id.clone(), (name, config.version()))
            })
            .collect();
        for (id, (name, _)) in &configs {
            let found = snapshot.find::<Config>(By::name(name));
            assert!(found.map(|config| &config.id).eq([id]), "by name {name}");
        }
        Self { tasks, configs }
    }
}

pub fn task_id(id: u8) -> String {
    format!("task{id}")
}

fn node_id(node: u8) -> String {
    format!("node{node}")
}

fn config_id(id: u8) -> String {
    format!("config{id}")
}

fn config_name(id: u8, name: u8) -> String {
    format!("{}{name}", ["Name", "nAME"][usize::from(id % 2)])
}

fn task(id: u8, node: u8) -> Task {
    let mut task = Task {
        id: task_id(id),
        node_id: node_id(node),
        service_id: "service".to_owned(),
        slot: u64::from(id),
        ..Default::default()
    };
    task.spec_mut().force_update = spec_of(&task.node_id);
    task
}

/// What tells the spec of a task on this node from others: two nodes have one alike.
fn spec_of(node_id: &str) -> u64 {
    u64::from(node_id.ends_with(['0', '1']))
}
