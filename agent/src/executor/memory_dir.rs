//! Where a task's secrets and configs lie while it is on this host: a directory that only the
//! daemon can enter, in memory where the host has a place for that.
//!
//! All functions block.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    },
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// Places that are in memory on most hosts, in the order of preference.
const PLACES: [&str; 2] = ["/run", "/dev/shm"];
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of the kernel's `linux/magic.h`.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Makes the directory of a task anew. It is `fallback`, which is on the disk, if there is no place
/// in memory.
///
/// Does not yield: a call that is cut off must not write behind the back of [`remove`].
pub(super) fn make(task_id: &str, fallback: &Path) -> io::Result<PathBuf> {
    remove(task_id, Some(fallback))?;
    // Never one that exists: everybody may write to some places, and could have been here first.
    let new = |dir: &Path| DirBuilder::new().mode(0o700).create(dir);
    if let Some(dir) = in_memory(task_id).find(|dir| is_memory(dir) && new(dir).is_ok()) {
        return Ok(dir);
    }
    tracing::warn!(
        task_id,
        "there is no place in memory, neither /run nor /dev/shm: secrets lie on this host's disk as \
         long as their task is here"
    );
    new(fallback)?;
    Ok(fallback.to_owned())
}

/// The directory that [`make`] has made, `None` if there is none.
pub(super) fn find(task_id: &str, fallback: &Path) -> Option<PathBuf> {
    all(task_id, Some(fallback)).find(|dir| is_ours(dir))
}

/// Removes what [`make`] has made, and all in it; without `fallback` only what is in memory. The
/// error is the first one; the others are removed nevertheless.
pub(super) fn remove(task_id: &str, fallback: Option<&Path>) -> io::Result<()> {
    let mut result = Ok(());
    for dir in all(task_id, fallback).filter(|dir| is_ours(dir)) {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                result = result.and(Err(error))
            }
            _ => {}
        }
    }
    result
}

/// Writes a new file, for `owner` (uid and gid; `None`: the daemon) with the permissions `mode`.
pub(super) fn write(
    path: &Path,
    data: &[u8],
    owner: Option<(u32, u32)>,
    mode: u32,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(data)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    // Last: a change of owner takes bits away.
    file.set_permissions(Permissions::from_mode(mode))
}

fn in_memory(task_id: &str) -> impl Iterator<Item = PathBuf> {
    let name = format!("skep-{task_id}");
    PLACES.iter().map(move |place| Path::new(place).join(&name))
}

fn all(task_id: &str, fallback: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    in_memory(task_id).chain(fallback.map(Path::to_owned))
}

/// Whether a new file at `path` would be in memory only.
fn is_memory(path: &Path) -> bool {
    let parent = path.parent().map(rustix::fs::statfs);
    let kind = parent.and_then(Result::ok).map(|it| it.f_type);
    kind.is_some_and(|kind| {
        MEMORY
            .iter()
            .any(|memory| i128::from(*memory) == i128::from(kind))
    })
}

fn is_ours(dir: &Path) -> bool {
    // Root may have given it to the task's user; others cannot.
    fs::symlink_metadata(dir)
        .is_ok_and(|it| it.is_dir() && (geteuid().is_root() || it.uid() == geteuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_private_in_memory_and_goes_without_a_trace() {
        let disk = tempfile::tempdir().unwrap();
        let fallback = disk.path().join("files");
        let task_id = skep_proto::id::random();
        assert_eq!(find(&task_id, &fallback), None);
        let dir = make(&task_id, &fallback).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        if is_memory(Path::new("/dev/shm/x")) {
            assert!(is_memory(&dir.join("x")), "{dir:?}");
            assert_ne!(dir, fallback);
        }
        write(&dir.join("x"), b"hunter2", None, 0o440).unwrap();
        assert_eq!(mode(&dir.join("x")), 0o440);
        let why = write(&dir.join("x"), b"other", None, 0o440).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(find(&task_id, &fallback), Some(dir.clone()));

        // As after a failure half-way.
        assert_eq!(make(&task_id, &fallback).unwrap(), dir);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        remove(&task_id, Some(&fallback)).unwrap();
        assert!(!dir.exists());
        assert_eq!(find(&task_id, &fallback), None);
    }

    #[test]
    fn what_others_have_put_there_is_not_entered() {
        let disk = tempfile::tempdir().unwrap();
        let fallback = disk.path().join("files");
        let theirs = disk.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("x"), "").unwrap();
        let task_id = skep_proto::id::random();
        // Where this fails we cannot make a directory either.
        in_memory(&task_id).for_each(|link| drop(symlink(&theirs, link)));
        let made = make(&task_id, &fallback);
        let found = find(&task_id, &fallback);
        let removed = remove(&task_id, Some(&fallback));
        in_memory(&task_id).for_each(|link| drop(fs::remove_file(link)));
        assert_eq!(made.unwrap(), fallback);
        assert_eq!(found, Some(fallback.clone()));
        removed.unwrap();
        assert!(!fallback.exists());
        assert!(theirs.join("x").exists());
    }
}
