//! The tasks of this node on disk: `worker/tasks/<id>/task.pb` and `status.pb`.
//!
//! The task has the status that it had here when it was stored; what it became since is in
//! `status.pb`.
//!
//! After a restart they are what the tasks resume from, before any manager is asked. Secrets and
//! configs never come here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;
use skep_proto::v1;

use crate::disk;

/// The most tasks kept on one node; more are refused.
pub(crate) const MAX_TASKS: usize = 10_000;
/// A task arrives in one message, which is smaller than this.
const MAX_FILE: u64 = 64 << 20;

/// The directory of tasks. Methods block; clones mean the same directory.
#[derive(Clone, Debug)]
pub(crate) struct TaskStore {
    root: Arc<PathBuf>,
}

/// A task found on disk.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    /// The task, with its status; `None` if the files make no sense.
    pub(crate) task: Option<v1::Task>,
}

impl TaskStore {
    /// The store under a daemon's state directory, made if it is not there.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let root = state_dir.join("worker").join("tasks");
        disk::create_dir(&root)?;
        Ok(Self {
            root: Arc::new(root),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a task.
    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Everything stored.
    pub(crate) fn load(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for entry in fs::read_dir(self.root())? {
            let Some(id) = entry?.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if !is_safe(&id) {
                continue;
            }
            let task = match self.load_one(&id) {
                Ok(task) => Some(task),
                Err(error) => {
                    tracing::error!(task_id = id, %error, "a stored task cannot be read");
                    None
                }
            };
            stored.push(Stored { id, task });
        }
        Ok(stored)
    }

    fn load_one(&self, id: &str) -> io::Result<v1::Task> {
        let read = |name: &str| disk::read(&self.dir(id).join(name), MAX_FILE);
        let bytes = read("task.pb")?.ok_or(io::ErrorKind::NotFound)?;
        let mut task = v1::Task::decode(bytes.as_slice())?;
        if task.id != id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has another task's ID",
            ));
        }
        if let Some(bytes) = read("status.pb")? {
            task.status = Some(v1::TaskStatus::decode(bytes.as_slice())?);
        }
        Ok(task)
    }

    /// Stores a task with its status here; that in the task is the manager's view.
    pub(crate) fn put_task(&self, task: &v1::Task, status: v1::TaskStatus) -> io::Result<()> {
        let dir = self.dir(&task.id);
        disk::create_dir(&dir)?;
        let task = v1::Task {
            status: Some(status),
            ..task.clone()
        };
        disk::write(&dir.join("task.pb"), &task.encode_to_vec())
    }

    /// Stores the status of a task.
    pub(crate) fn put_status(&self, id: &str, status: &v1::TaskStatus) -> io::Result<()> {
        disk::write(&self.dir(id).join("status.pb"), &status.encode_to_vec())
    }

    /// Removes a task and all in its directory.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.dir(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a task's ID, which comes from the network, can be the name of a directory.
pub(crate) fn is_safe(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !id.is_empty() && id.len() <= 64 && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use v1::TaskState;

    use super::*;

    #[test]
    fn tasks_survive_and_broken_ones_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = TaskStore::open(dir.path()).unwrap();
        let mut task = v1::Task {
            id: "t1".to_owned(),
            slot: 7,
            ..Default::default()
        };
        task.status_mut().message = "of the manager".to_owned();
        let preparing = v1::TaskStatus {
            state: TaskState::Preparing as i32,
            ..Default::default()
        };
        store.put_task(&task, preparing.clone()).unwrap();
        let running = v1::TaskStatus {
            state: TaskState::Running as i32,
            ..Default::default()
        };
        store.put_status("t1", &running).unwrap();
        store
            .put_task(
                &v1::Task {
                    id: "fresh".to_owned(),
                    ..Default::default()
                },
                preparing.clone(),
            )
            .unwrap();
        fs::create_dir(store.dir("empty")).unwrap();
        store
            .put_task(
                &v1::Task {
                    id: "torn".to_owned(),
                    ..Default::default()
                },
                v1::TaskStatus::default(),
            )
            .unwrap();
        fs::write(store.dir("torn").join("task.pb"), [0xff; 9]).unwrap();

        let store = TaskStore::open(dir.path()).unwrap();
        let mut stored = store.load().unwrap();
        stored.sort_by(|a, b| a.id.cmp(&b.id));
        let ids: Vec<_> = stored
            .iter()
            .map(|s| (s.id.as_str(), s.task.is_some()))
            .collect();
        assert_eq!(
            ids,
            [
                ("empty", false),
                ("fresh", true),
                ("t1", true),
                ("torn", false)
            ]
        );
        let fresh = stored[1].task.as_ref().unwrap();
        assert_eq!(fresh.status(), &preparing);
        let task = stored[2].task.as_ref().unwrap();
        assert_eq!((task.slot, task.status()), (7, &running));

        store.remove("t1").unwrap();
        store.remove("t1").unwrap();
        assert_eq!(store.load().unwrap().len(), 3);
    }

    #[test]
    fn no_id_leads_out_of_the_directory() {
        assert!(is_safe(&skep_proto::id::random()));
        for id in ["", ".", "..", "a/b", "/etc", "a\0", "ä", &"a".repeat(65)] {
            assert!(!is_safe(id), "{id}");
        }
    }
}
