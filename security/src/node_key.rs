//! The file `swarm-node.key` of a running node: its private key, the unlock key that it is encrypted
//! with, and the keys of the manager's log.
//!
//! There is one owner of the file, which all who change it share. Every change is one atomic,
//! durable rename of the whole file, so what is in it always goes together.

mod format;
mod pkcs8;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use format::KeyFile;

use crate::{Credentials, DataKey, Error, Role, UnlockKey, credentials::files};

/// For fuzzing: reads a file and, if it is one, writes and reads it again.
///
/// # Panics
/// If what was written cannot be read.
pub(crate) fn decode(file: &[u8], unlock: Option<&UnlockKey>) {
    if let Ok(file) = KeyFile::parse(file, unlock)
        && let Ok(bytes) = file.to_bytes()
    {
        let again = KeyFile::parse(&bytes, unlock);
        assert!(again.is_ok_and(|again| again.kek == file.kek));
    }
}

/// The unlock key of a cluster at some version of the cluster object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kek {
    /// `None` while managers are not locked.
    pub key: Option<UnlockKey>,
    /// Index of the version. Of two keys the one of the higher version is right.
    pub version: u64,
}

/// What an unlock key of the cluster has changed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekChange {
    /// Nothing: it is the one in use, or older.
    None,
    /// The file is encrypted with it now.
    Replaced,
    /// The same, and the file was plain before: the keys of the log must be replaced, for they may
    /// have been read.
    Locked,
}

/// The keys of a manager's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeys {
    /// What the log is encrypted with, or some of it while there is a pending one.
    pub current: DataKey,
    /// What it is about to be encrypted with, and some of it is.
    pub pending: Option<DataKey>,
    /// There should be another key, and none has been made yet.
    pub needs_rotation: bool,
}

/// The owner of a node's key file. Clones share it.
///
/// All methods that change something write and sync files: call them off the async threads. When
/// one fails nothing has changed.
#[derive(Clone)]
pub struct NodeKey {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    state: Mutex<State>,
    /// Whether the private key was on disk in plain before it was locked.
    exposed: watch::Sender<bool>,
}

#[derive(Clone)]
struct State {
    file: KeyFile,
    /// What the node is. Only managers are locked.
    role: Role,
    /// Whether the file is on disk. Before that, changes are only remembered.
    saved: bool,
}

impl NodeKey {
    /// The key file that new credentials will have in `dir`. Nothing is written before
    /// [`Self::save`].
    ///
    /// # Errors
    /// When the private key cannot be encrypted with the unlock key.
    pub fn new(dir: &Path, credentials: &Credentials, kek: Kek) -> Result<Self, Error> {
        let file = KeyFile::new(credentials.key_pem(), kek)?;
        file.to_bytes()?;
        Ok(Self::of(dir, file, credentials.identity().role, false))
    }

    /// The key file in `dir`, as it was read.
    pub(crate) fn loaded(dir: &Path, file: KeyFile, role: Role) -> Self {
        Self::of(dir, file, role, true)
    }

    fn of(dir: &Path, file: KeyFile, role: Role, saved: bool) -> Self {
        Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                state: Mutex::new(State { file, role, saved }),
                exposed: watch::Sender::new(false),
            }),
        }
    }

    /// Writes `swarm-root-ca.crt`, `swarm-node.crt` and `swarm-node.key` (mode 0600) into the
    /// directory, made if needed. After a crash at any moment [`Credentials::load`] finds the old
    /// set or the new. The key of a worker is never locked.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn save(&self, credentials: &Credentials) -> Result<(), Error> {
        self.save_as(credentials, |_| {})
    }

    /// Saves the certificate that makes a worker a manager, locked with `kek` from the start.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn save_promoted(&self, credentials: &Credentials, kek: Kek) -> Result<(), Error> {
        self.save_as(credentials, |file| file.kek = kek)
    }

    fn save_as(
        &self,
        credentials: &Credentials,
        edit: impl FnOnce(&mut KeyFile),
    ) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        let mut file = state.file.clone();
        file.set_key(credentials.key_pem())?;
        edit(&mut file);
        let role = credentials.identity().role;
        if role == Role::Worker {
            file.kek = Kek::default();
        }
        files::save(credentials, &file.to_bytes()?, &self.inner.dir)?;
        *state = State {
            file,
            role,
            saved: true,
        };
        self.inner.exposed.send_replace(false);
        Ok(())
    }

    /// The unlock key in use.
    pub fn kek(&self) -> Kek {
        self.inner.state.lock().file.kek.clone()
    }

    /// Follows the cluster's unlock key. Only a newer one counts.
    ///
    /// # Errors
    /// [`Error::TwoUnlockKeys`] if there is another key of the same version, or the file cannot be
    /// written.
    pub fn set_kek(&self, new: Kek) -> Result<KekChange, Error> {
        let change = self.change(|file, role| {
            let old = &file.kek;
            // A manager that is to be a worker may follow the cluster for a moment longer.
            if role == Role::Worker || new.key == old.key || new.version < old.version {
                return Ok((false, KekChange::None));
            }
            if new.version == old.version {
                return Err(Error::TwoUnlockKeys(new.version));
            }
            let locks = old.key.is_none();
            if locks && let Some(keys) = &mut file.data_keys {
                keys.needs_rotation = true;
            }
            file.kek = new;
            let change = match locks {
                true => KekChange::Locked,
                false => KekChange::Replaced,
            };
            Ok((true, change))
        })?;
        if change == KekChange::Locked {
            self.inner.exposed.send_replace(true);
        }
        Ok(change)
    }

    /// Whether there should be another private key: this one was on disk in plain before it was
    /// locked, and may have been read.
    pub fn exposed(&self) -> watch::Receiver<bool> {
        self.inner.exposed.subscribe()
    }

    /// The keys of the log, made if there are none yet.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn data_keys(&self) -> Result<DataKeys, Error> {
        self.change(|file, _| {
            let missing = file.data_keys.is_none();
            let keys = file.data_keys.get_or_insert_with(DataKeys::generate);
            Ok((missing, keys.clone()))
        })
    }

    /// Whether the log should get another key.
    pub fn needs_rotation(&self) -> bool {
        let state = self.inner.state.lock();
        let keys = state.file.data_keys.as_ref();
        keys.is_some_and(|keys| keys.needs_rotation)
    }

    /// Makes a pending key, unless there is one already, and returns the keys.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn begin_rotation(&self) -> Result<DataKeys, Error> {
        self.change(|file, _| {
            let keys = file.data_keys.get_or_insert_with(DataKeys::generate);
            let begins = keys.pending.is_none();
            if begins {
                keys.pending = Some(DataKey::generate());
                keys.needs_rotation = false;
            }
            Ok((begins, keys.clone()))
        })
    }

    /// Makes the pending key the current one: nothing encrypted with the old one may be left.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn finish_rotation(&self) -> Result<(), Error> {
        self.change(|file, _| {
            let Some(keys) = &mut file.data_keys else {
                return Ok((false, ()));
            };
            let Some(pending) = keys.pending.take() else {
                return Ok((false, ()));
            };
            keys.current = pending;
            Ok((true, ()))
        })
    }

    /// Forgets the keys of the log, which must be gone.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn remove_data_keys(&self) -> Result<(), Error> {
        self.change(|file, _| Ok((file.data_keys.take().is_some(), ())))
    }

    /// Makes a change if `edit` says that it is one: on disk first, then here.
    fn change<T>(
        &self,
        edit: impl FnOnce(&mut KeyFile, Role) -> Result<(bool, T), Error>,
    ) -> Result<T, Error> {
        let mut state = self.inner.state.lock();
        let mut file = state.file.clone();
        let (changed, result) = edit(&mut file, state.role)?;
        if changed {
            if state.saved {
                files::save_key(&file.to_bytes()?, &self.inner.dir)?;
            }
            state.file = file;
        }
        Ok(result)
    }
}

impl DataKeys {
    fn generate() -> Self {
        Self {
            current: DataKey::generate(),
            pending: None,
            needs_rotation: false,
        }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("NodeKey")
            .field("dir", &self.inner.dir)
            .field("kek_version", &state.file.kek.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
