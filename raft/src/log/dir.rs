//! The directory of a log: made if need be, held by one owner at a time, of a format that is known.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{LogKind, format::Format};
use crate::Error;

/// The directory of an open log.
#[derive(Debug)]
pub(super) struct LogDir {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// Whoever gets it finds the rest closed.
    pub(super) lock: Arc<File>,
}

impl LogDir {
    /// Opens `dir`, which is created with mode 0700 if there is none, and is of kind `new` then.
    pub(super) fn open(path: &Path, new: LogKind) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Error::log("create directory"))?;
        let open = "open";
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(Error::log(open))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::log(open)(error)),
        }
        Ok(Self {
            format: Format::open(path, new)?,
            path: path.to_owned(),
            lock: Arc::new(lock),
        })
    }

    /// What the log lacks from entry `index` on.
    pub(super) fn damaged(&self, index: u64) -> Error {
        let reason = "later ones, or the commit index, say that it was there";
        Error::damaged(&self.path, index, reason)
    }

    /// Makes durable which files are in it, and that it exists.
    pub(super) fn sync(&self) -> Result<(), Error> {
        for dir in [Some(self.path.as_path()), self.path.parent()]
            .into_iter()
            .flatten()
        {
            // A relative path of one part has the empty path as parent.
            if !dir.as_os_str().is_empty() {
                File::open(dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(Error::log("sync directory"))?;
            }
        }
        Ok(())
    }
}
