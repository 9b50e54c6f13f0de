//! The secrets and configs that tasks of this node use.
//!
//! They live in memory only, as long as a manager says that a task here needs them. Nothing in
//! this file writes to disk, and `Debug` shows identifiers, never contents.

mod view;

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::RwLock;
use skep_proto::v1;

use self::view::View;
use crate::executor::Failure;

/// Secrets and configs by their ID. Clones share the contents.
///
/// Those in a [`TaskContext`](crate::executor::TaskContext) are as the task sees them: templates
/// among them are expanded.
#[derive(Clone, Default)]
pub struct Dependencies {
    inner: Arc<RwLock<Inner>>,
    view: Option<Arc<View>>,
}

#[derive(Default)]
struct Inner {
    secrets: BTreeMap<String, Arc<v1::Secret>>,
    configs: BTreeMap<String, Arc<v1::Config>>,
    /// Whether a manager has told all there is since the agent started.
    complete: bool,
}

impl Dependencies {
    /// The secret as the task sees it: one made for the task alone (a secret driver's) comes
    /// before the shared one.
    pub fn secret(&self, secret_id: &str, task_id: &str) -> Option<Arc<v1::Secret>> {
        let secret = self.raw_secret(secret_id, task_id)?;
        match &self.view {
            Some(view) => view.secret(self, secret).ok(),
            None => Some(secret),
        }
    }

    /// The config with this ID.
    pub fn config(&self, config_id: &str) -> Option<Arc<v1::Config>> {
        let config = self.raw_config(config_id)?;
        match &self.view {
            Some(view) => view.config(self, config).ok(),
            None => Some(config),
        }
    }

    /// The same, as `task` on `node` sees them.
    pub(crate) fn of_task(&self, task: Arc<v1::Task>, node: Arc<skep_template::Node>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            view: Some(Arc::new(View { task, node })),
        }
    }

    /// Whether everything is here that the task refers to, and its templates make sense. A failure
    /// says by name what is not.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.view {
            Some(view) => view.check(self),
            None => Ok(()),
        }
    }

    fn raw_secret(&self, secret_id: &str, task_id: &str) -> Option<Arc<v1::Secret>> {
        let inner = self.inner.read();
        let own = inner.secrets.get(&format!("{secret_id}.{task_id}"));
        own.or_else(|| inner.secrets.get(secret_id)).cloned()
    }

    fn raw_config(&self, config_id: &str) -> Option<Arc<v1::Config>> {
        self.inner.read().configs.get(config_id).cloned()
    }

    fn is_complete(&self) -> bool {
        self.inner.read().complete
    }

    /// Forgets everything and takes all there is: what a complete assignment lists.
    pub(crate) fn replace(
        &self,
        secrets: impl IntoIterator<Item = v1::Secret>,
        configs: impl IntoIterator<Item = v1::Config>,
    ) {
        let secrets = secrets.into_iter();
        let configs = configs.into_iter();
        *self.inner.write() = Inner {
            secrets: secrets.map(|it| (it.id.clone(), Arc::new(it))).collect(),
            configs: configs.map(|it| (it.id.clone(), Arc::new(it))).collect(),
            complete: true,
        };
    }

    /// Adds or replaces a secret, by its ID.
    pub fn put_secret(&self, secret: v1::Secret) {
        self.inner
            .write()
            .secrets
            .insert(secret.id.clone(), Arc::new(secret));
    }

    /// Removes a secret, and with it the variants made for single tasks: their removal by SwarmKit's
    /// managers carries the plain ID.
    pub(crate) fn remove_secret(&self, id: &str) {
        let of_tasks = format!("{id}.");
        self.inner
            .write()
            .secrets
            .retain(|key, _| key != id && !key.starts_with(&of_tasks));
    }

    /// Adds or replaces a config, by its ID.
    pub fn put_config(&self, config: v1::Config) {
        self.inner
            .write()
            .configs
            .insert(config.id.clone(), Arc::new(config));
    }

    pub(crate) fn remove_config(&self, id: &str) {
        self.inner.write().configs.remove(id);
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.read();
        f.debug_struct("Dependencies")
            .field("secrets", &inner.secrets.keys())
            .field("configs", &inner.configs.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, data: &'static str) -> v1::Secret {
        let mut secret = v1::Secret {
            id: id.to_owned(),
            ..Default::default()
        };
        secret.spec_mut().data = data.into();
        secret
    }

    #[test]
    fn a_task_sees_its_own_variant_first() {
        let dependencies = Dependencies::default();
        dependencies.put_secret(secret("s", "shared"));
        dependencies.put_secret(secret("s.t1", "own"));
        let data = |task| dependencies.secret("s", task).unwrap().spec().data.clone();
        assert_eq!(data("t1"), "own");
        assert_eq!(data("t2"), "shared");
        dependencies.remove_secret("s");
        assert!(dependencies.secret("s", "t1").is_none());
    }

    #[test]
    fn contents_are_not_shown() {
        let dependencies = Dependencies::default();
        dependencies.put_secret(secret("s", "hunter2"));
        let shown = format!("{dependencies:?}");
        assert!(
            shown.contains("\"s\"") && !shown.contains("hunter2"),
            "{shown}"
        );
        dependencies.replace([], []);
        assert!(dependencies.secret("s", "t").is_none());
    }
}
