//! The state directory of a node: one owner at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A state directory, locked until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Holds the lock, and the number of the process that has it.
    _lock: File,
}

/// Why a state directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "state directory {} is in use by another swarmd (process {pid}); stop that one or choose \
         another with --state-dir", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// What the other process wrote about itself.
        pid: String,
    },
    /// It cannot be made or written.
    #[error(
        "state directory {} cannot be used: {source}; make it writable or choose another with \
         --state-dir", path.display()
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It has a log but no certificate.
    #[error(
        "state directory {} has a raft log but no certificate to use it with; restore its \
         `certificates` directory, or move the state directory away to start anew", path.display()
    )]
    NoCertificate {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDir {
    /// Makes the directory if it is not there (readable by its owner only) and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path(&path))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut lock);
                return Err(Error::InUse { path, pid });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        lock.set_len(0).map_err(unusable)?;
        write!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the node's certificate, key and root are.
    pub fn certificates(&self) -> PathBuf {
        self.path.join("certificates")
    }

    /// Where a running node is told to leave.
    pub fn local_socket(&self) -> PathBuf {
        local_socket(&self.path)
    }

    /// Deletes everything that was kept, but for the lock.
    pub fn wipe(&self) -> Result<(), Error> {
        let wiped = || {
            // What needs the certificate goes before it: a start half-way through says what is wrong.
            remove(&self.raft())?;
            remove(&self.certificates())?;
            for entry in fs::read_dir(&self.path)? {
                let path = entry?.path();
                if path != lock_path(&self.path) {
                    remove(&path)?;
                }
            }
            Ok(())
        };
        wiped().map_err(|source| Error::Unusable {
            path: self.path.clone(),
            source,
        })
    }

    /// Where a manager's log is.
    pub fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// There while a manager with a certificate is being taken into its cluster: whom it asks.
    pub fn joining_mark(&self) -> PathBuf {
        self.path.join("joining")
    }

    /// There while a new cluster is being made: its log is worth nothing until the certificate is
    /// saved, so a start that finds the mark begins again.
    pub fn founding_mark(&self) -> PathBuf {
        self.path.join("founding")
    }

    /// There once the manager of this node was removed from its cluster: the certificate still calls
    /// it one, but it must not come back by that.
    pub fn removed_mark(&self) -> PathBuf {
        self.path.join("removed")
    }
}

/// The process that has locked the state directory at `path`, if one has.
pub fn owner(path: &Path) -> Option<i32> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .open(lock_path(path))
        .ok()?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => read_pid(&mut lock).parse().ok(),
        _ => None,
    }
}

/// The socket on which the node with the state directory at `path` is told to leave.
pub fn local_socket(path: &Path) -> PathBuf {
    path.join("local.sock")
}

/// Deletes a file or directory, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    path.join("swarmd.lock")
}

fn read_pid(lock: &mut File) -> String {
    let mut pid = String::new();
    // Only for a message: without it the message says less.
    let _ = lock
        .rewind()
        .and_then(|()| lock.take(20).read_to_string(&mut pid));
    pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::open(&path).unwrap();
        assert!(
            matches!(StateDir::open(&path), Err(Error::InUse { pid, .. })
            if pid == std::process::id().to_string())
        );
        assert_eq!(owner(&path), i32::try_from(std::process::id()).ok());
        drop(first);
        assert_eq!(owner(&path), None);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let err = StateDir::open(&file.join("state")).unwrap_err().to_string();
        assert!(
            err.contains("file/state") && err.contains("--state-dir"),
            "{err}"
        );
    }
}
