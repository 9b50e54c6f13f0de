//! The files that show a task its secrets and configs.
//!
//! They lie in memory where the host has a place for that, in a directory of the task that only
//! the daemon can enter; the engine mounts each into the container, read-only.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
    },
    path::{Path, PathBuf},
};

use bollard::models::{Mount, MountType};

use super::plan::{File, Source};
use crate::dependencies::Dependencies;

/// Where memory is mounted on Linux hosts.
const PLACES: [&str; 2] = ["/run", "/dev/shm"];
/// `f_type` of a file system in memory, see statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// Why files could not be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A manager has not sent a secret or config.
    Missing(String),
    Other(String),
}

/// Writes the files of a task anew and says how to mount them. `dir` is the task's directory, for
/// hosts that have no place in memory.
///
/// Does not yield: a call that is cut off must not write behind the back of [`remove`].
pub(super) fn write(
    task_id: &str,
    dir: &Path,
    files: &[File],
    dependencies: &Dependencies,
) -> Result<Vec<Mount>, Trouble> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let dir = match PLACES.iter().find_map(|place| in_memory(Path::new(place))) {
        Some(base) => base.join(task_id),
        None => {
            tracing::warn!(
                task_id,
                "this host has no file system in memory: secrets lie on its disk as long as their \
                 task is here"
            );
            dir.join("files")
        }
    };
    let trouble = |error: io::Error| {
        Trouble::Other(format!(
            "cannot make files for secrets and configs: {error}"
        ))
    };
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(trouble(error)),
        _ => {}
    }
    let private = DirBuilder::new().mode(0o700).create(&dir);
    private.map_err(trouble)?;
    let mut mounts = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let data = match &file.source {
            Source::Secret(id) => {
                let secret = dependencies.secret(id, task_id);
                secret.map(|secret| secret.spec().data.clone())
            }
            Source::Config(id) => dependencies
                .config(id)
                .map(|config| config.spec().data.clone()),
        };
        let what = match &file.source {
            Source::Secret(_) => format!("secret {:?}", file.name),
            Source::Config(_) => format!("config {:?}", file.name),
        };
        let Some(data) = data else {
            let why = format!("{what} is not on this node: it was removed or never assigned");
            return Err(Trouble::Missing(why));
        };
        let path = dir.join(number.to_string());
        let made = make(&path, &data, file);
        made.map_err(|error| Trouble::Other(format!("cannot make a file of {what}: {error}")))?;
        mounts.push(Mount {
            target: Some(file.target.clone()),
            source: Some(path.display().to_string()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// Removes what [`write`] has written for a task in memory.
pub(super) fn remove(task_id: &str) {
    for place in PLACES {
        let dir = Path::new(place).join(own_name()).join(task_id);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(task_id, %error, "cannot remove the files of secrets and configs");
            }
            _ => {}
        }
    }
}

fn make(path: &Path, data: &[u8], file: &File) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut open = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    open.write_all(data)?;
    // Only root can give files away. Root in the container reads them whoever owns them.
    if rustix::process::geteuid().is_root() || file.uid != 0 || file.gid != 0 {
        chown(path, Some(file.uid), Some(file.gid))?;
    }
    // Last: a change of owner takes bits away.
    open.set_permissions(Permissions::from_mode(file.mode))
}

/// Our directory in a place, if files there are in memory and nobody else can reach ours.
fn in_memory(place: &Path) -> Option<PathBuf> {
    let system = rustix::fs::statfs(place).ok()?;
    if u64::try_from(system.f_type).ok()? != TMPFS {
        return None;
    }
    let dir = place.join(own_name());
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    // Everybody may write to some of these places, and could have been here first.
    let found = fs::symlink_metadata(&dir).ok()?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    (found.is_dir() && ours && found.mode() & 0o077 == 0).then_some(dir)
}

fn own_name() -> String {
    format!("skep-{}", rustix::process::geteuid().as_raw())
}
