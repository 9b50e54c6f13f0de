//! The secrets and configs that tasks of this node use.
//!
//! They live in memory only, as long as a manager says that a task here needs them. Nothing in
//! this file writes to disk, and `Debug` shows identifiers, never contents.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::RwLock;
use skep_proto::v1;

/// Secrets and configs by their ID. Clones share the contents.
#[derive(Clone, Default)]
pub struct Dependencies {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    secrets: BTreeMap<String, Arc<v1::Secret>>,
    configs: BTreeMap<String, Arc<v1::Config>>,
}

impl Dependencies {
    /// The secret as the task sees it: one made for the task alone (a secret driver's) comes
    /// before the shared one.
    pub fn secret(&self, secret_id: &str, task_id: &str) -> Option<Arc<v1::Secret>> {
        let inner = self.inner.read();
        let own = inner.secrets.get(&format!("{secret_id}.{task_id}"));
        own.or_else(|| inner.secrets.get(secret_id)).cloned()
    }

    /// The config with this ID.
    pub fn config(&self, config_id: &str) -> Option<Arc<v1::Config>> {
        self.inner.read().configs.get(config_id).cloned()
    }

    /// Forgets everything: a complete assignment follows.
    pub(crate) fn clear(&self) {
        *self.inner.write() = Inner::default();
    }

    pub(crate) fn put_secret(&self, secret: v1::Secret) {
        self.inner
            .write()
            .secrets
            .insert(secret.id.clone(), Arc::new(secret));
    }

    /// Removes a secret, and with it the variants made for single tasks: their removal carries the
    /// plain ID.
    pub(crate) fn remove_secret(&self, id: &str) {
        let of_tasks = format!("{id}.");
        self.inner
            .write()
            .secrets
            .retain(|key, _| key != id && !key.starts_with(&of_tasks));
    }

    pub(crate) fn put_config(&self, config: v1::Config) {
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
        dependencies.clear();
        assert!(dependencies.secret("s", "t").is_none());
    }
}
