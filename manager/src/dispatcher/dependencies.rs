//! The secrets and configs that the tasks and volumes of one session need.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1::{
    AssignmentChange, Config, ResourceType, Secret, Task, VolumeAssignment, assignment::Item,
    assignment_change::AssignmentAction, task_spec::Runtime,
};
use skep_store::Snapshot;

use super::assignments::change;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    Secret(String),
    Config(String),
    /// A secret whose value a driver makes for one task alone.
    Made {
        secret_id: String,
        task_id: String,
    },
}

/// What the agent has been given beside tasks and volumes, and for which of them, by their IDs.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
    users: BTreeMap<Dependency, BTreeSet<String>>,
    /// Those whose users have changed since the last message, and whether the agent has them.
    touched: BTreeMap<Dependency, bool>,
}

impl Dependencies {
    /// A task or volume comes. What it needs and is not there is left out: a task will fail on the
    /// node and say so.
    pub fn add(&mut self, user: &str, needed: Vec<Dependency>, snapshot: &Snapshot) {
        for dependency in needed {
            let dependency = dependency.for_user(user, snapshot);
            let had = self.users.contains_key(&dependency);
            if had || dependency.find(snapshot).is_some() {
                self.touched.entry(dependency.clone()).or_insert(had);
                self.users
                    .entry(dependency)
                    .or_default()
                    .insert(user.to_owned());
            }
        }
    }

    /// A task or volume is over or gone and needs nothing any more.
    pub fn release(&mut self, user: &str) {
        let touched = &mut self.touched;
        self.users.retain(|dependency, users| {
            if users.remove(user) && users.is_empty() {
                touched.entry(dependency.clone()).or_insert(true);
            }
            !users.is_empty()
        });
    }

    /// What the agent must be told since the last call: new ones with their data, those without a
    /// user by their ID.
    pub fn changes(&mut self, snapshot: &Snapshot) -> Vec<AssignmentChange> {
        let mut changes = Vec::new();
        for (dependency, had) in std::mem::take(&mut self.touched) {
            match (had, self.users.contains_key(&dependency)) {
                (false, true) => {
                    if let Some(item) = dependency.find(snapshot) {
                        changes.push(change(item, AssignmentAction::Update));
                    }
                }
                (true, false) => changes.push(change(dependency.id(), AssignmentAction::Remove)),
                (true, true) | (false, false) => {}
            }
        }
        changes
    }
}

impl Dependency {
    /// A driver's secret is another one for each task. Agents look for a task's own before the one that
    /// all share.
    fn for_user(self, user: &str, snapshot: &Snapshot) -> Self {
        match self {
            Self::Secret(secret_id)
                if snapshot
                    .get::<Secret>(&secret_id)
                    .is_some_and(|secret| secret.spec().driver.is_some()) =>
            {
                Self::Made {
                    secret_id,
                    task_id: user.to_owned(),
                }
            }
            other => other,
        }
    }

    /// The whole object, but for the value of one that is [made](Self::Made).
    fn find(&self, snapshot: &Snapshot) -> Option<Item> {
        match self {
            Self::Secret(id) => snapshot
                .get(id)
                .map(|secret| Item::Secret(Secret::clone(secret))),
            Self::Made { secret_id, .. } => {
                let mut secret = Secret::clone(snapshot.get(secret_id)?);
                secret.id = self.sent_id();
                secret.internal = true;
                Some(Item::Secret(secret))
            }
            Self::Config(id) => snapshot
                .get(id)
                .map(|config| Item::Config(Config::clone(config))),
        }
    }

    fn id(&self) -> Item {
        let id = self.sent_id();
        match self {
            Self::Secret(_) | Self::Made { .. } => Item::Secret(Secret {
                id,
                ..Default::default()
            }),
            Self::Config(_) => Item::Config(Config {
                id,
                ..Default::default()
            }),
        }
    }

    /// Under what ID the agent gets it. That of a [made](Self::Made) one is SwarmKit's for values that
    /// must not be used again.
    fn sent_id(&self) -> String {
        match self {
            Self::Secret(id) | Self::Config(id) => id.clone(),
            Self::Made { secret_id, task_id } => format!("{secret_id}.{task_id}"),
        }
    }
}

/// What a task needs.
pub(super) fn of_task(task: &Task) -> Vec<Dependency> {
    let spec = task.spec();
    let mut needed = Vec::new();
    if let Some(Runtime::Container(container)) = &spec.runtime {
        needed.extend(
            container
                .secrets
                .iter()
                .map(|s| Dependency::Secret(s.secret_id.clone())),
        );
        needed.extend(
            container
                .configs
                .iter()
                .map(|c| Dependency::Config(c.config_id.clone())),
        );
    }
    for reference in &spec.resource_references {
        let id = reference.resource_id.clone();
        match reference.resource_type() {
            ResourceType::Secret => needed.push(Dependency::Secret(id)),
            ResourceType::Config => needed.push(Dependency::Config(id)),
            ResourceType::Task | ResourceType::Volume => {}
        }
    }
    needed
}

/// What a node needs to mount a volume.
pub(super) fn of_volume(volume: &VolumeAssignment) -> Vec<Dependency> {
    let secrets = volume.secrets.iter();
    secrets
        .map(|secret| Dependency::Secret(secret.secret.clone()))
        .collect()
}
