//! Secrets and configs as files.
//!
//! A process sees the host's own files, so they are placed in a directory of the task, in memory
//! where the host has such a place, and the environment tells where: `CREDENTIALS_DIRECTORY` for
//! secrets and `CONFIGURATION_DIRECTORY` for configs, the names that systemd uses. Only the task's
//! user can enter it. It goes when the task ends.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Component, Path, PathBuf},
};

use rustix::process::{getegid, geteuid};
use skep_proto::v1::{self, FileTarget, config_reference, secret_reference};

use super::user::Ids;
use crate::{dependencies::Dependencies, executor::memory_dir};

/// The permissions of a file for which none are given.
const MODE: u32 = 0o444;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    Config,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Secret => "CREDENTIALS_DIRECTORY",
            Self::Config => "CONFIGURATION_DIRECTORY",
        }
    }
}

/// A file that a task shall find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    kind: Kind,
    id: String,
    name: String,
    /// Below the directory of its kind.
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// The files that a task's spec names; the error says which cannot be had and why.
pub(super) fn of(spec: &v1::ContainerSpec) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for secret in &spec.secrets {
        let target = secret.target.as_ref();
        let target = target.map(|secret_reference::Target::File(file)| file);
        let (id, name) = (&secret.secret_id, &secret.secret_name);
        files.push(file(Kind::Secret, id, name, target)?);
    }
    for config in &spec.configs {
        let (id, name) = (&config.config_id, &config.config_name);
        let target = match &config.target {
            Some(config_reference::Target::File(file)) => Some(file),
            Some(config_reference::Target::Runtime(_)) => {
                return Err(format!(
                    "config {name:?} is for the runtime, and a process has none: give it a file"
                ));
            }
            None => None,
        };
        files.push(file(Kind::Config, id, name, target)?);
    }
    Ok(files)
}

fn file(kind: Kind, id: &str, name: &str, target: Option<&FileTarget>) -> Result<File, String> {
    let word = kind.word();
    let path = PathBuf::from(target.map_or(name, |target| &target.name));
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return Err(format!(
            "{word} {name:?} cannot be at {path:?}: a process sees the host's own files; give a \
             relative path, which starts at ${}",
            kind.variable()
        ));
    }
    let id_of = |text: Option<&String>, own: u32| -> Result<u32, String> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(own);
        };
        let wanted: u32 = text
            .parse()
            .map_err(|_| format!("{word} {name:?}: owner {text:?} is not a number"))?;
        if geteuid().is_root() || wanted == own {
            return Ok(wanted);
        }
        // Clients send root if the user says nothing.
        if wanted == 0 {
            return Ok(own);
        }
        Err(format!(
            "{word} {name:?} cannot belong to {wanted}: only root may give files away, and the daemon \
             runs as uid {}",
            geteuid().as_raw()
        ))
    };
    let mode = target.map_or(0, |target| target.mode & 0o777);
    Ok(File {
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        path,
        uid: id_of(target.map(|target| &target.uid), geteuid().as_raw())?,
        gid: id_of(target.map(|target| &target.gid), getegid().as_raw())?,
        mode: if mode == 0 { MODE } else { mode },
    })
}

/// Where the files of a task are on a host that has no place in memory.
fn on_disk(dir: &Path) -> PathBuf {
    dir.join("files")
}

/// Places the files of a task anew; `dir` is the task's own directory. Blocks.
pub(super) fn place(
    files: &[File],
    task_id: &str,
    dir: &Path,
    dependencies: &Dependencies,
    owner: Option<Ids>,
) -> Result<(), String> {
    if files.is_empty() {
        return remove(task_id, dir).map_err(|error| format!("cannot remove old files: {error}"));
    }
    let trouble = |error| format!("cannot make files for secrets and configs: {error}");
    let root = memory_dir::make(task_id, &on_disk(dir)).map_err(trouble)?;
    if root == on_disk(dir) && owner.is_some() {
        return Err(
            "secrets and configs cannot be given to another user: neither /run nor /dev/shm is in \
             memory on this host"
                .to_owned(),
        );
    }
    give(&root, owner).map_err(trouble)?;
    for file in files {
        let (word, name) = (file.kind.word(), &file.name);
        let data = match file.kind {
            Kind::Secret => dependencies
                .secret(&file.id, task_id)
                .map(|secret| secret.spec().data.clone()),
            Kind::Config => dependencies
                .config(&file.id)
                .map(|config| config.spec().data.clone()),
        };
        let data = data.ok_or_else(|| format!("{word} {name:?} was not sent to this node"))?;
        write(&root, file, &data, owner)
            .map_err(|error| format!("cannot place {word} {name:?}: {error}"))?;
    }
    Ok(())
}

fn write(root: &Path, file: &File, data: &[u8], owner: Option<Ids>) -> io::Result<()> {
    let mut at = root.join(file.kind.dir());
    let parents = file.path.parent().into_iter().flat_map(Path::components);
    for part in [None].into_iter().chain(parents.map(Some)) {
        at.extend(part);
        match make_dir(&at, owner) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let path = root.join(file.kind.dir()).join(&file.path);
    let given = (file.uid, file.gid) != (geteuid().as_raw(), getegid().as_raw());
    let owner = given.then_some((file.uid, file.gid));
    memory_dir::write(&path, data, owner, file.mode)
}

/// Makes a directory that only `owner` can enter, and we.
fn make_dir(path: &Path, owner: Option<Ids>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    give(path, owner)
}

fn give(path: &Path, owner: Option<Ids>) -> io::Result<()> {
    owner.map_or(Ok(()), |ids| chown(path, Some(ids.uid), Some(ids.gid)))
}

/// Where the files of a task are, `None` if they are not placed.
pub(super) fn find(task_id: &str, dir: &Path) -> Option<PathBuf> {
    memory_dir::find(task_id, &on_disk(dir))
}

/// The variables that tell the task where its files are.
pub(super) fn variables(files: &[File], root: &Path) -> Vec<(&'static str, PathBuf)> {
    let kinds = [Kind::Secret, Kind::Config].into_iter();
    kinds
        .filter(|kind| files.iter().any(|file| file.kind == *kind))
        .map(|kind| (kind.variable(), root.join(kind.dir())))
        .collect()
}

/// Removes the files of a task, if there are any. Blocks.
pub(super) fn remove(task_id: &str, dir: &Path) -> io::Result<()> {
    memory_dir::remove(task_id, Some(&on_disk(dir)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn secret(name: &str, target: &str, mode: u32) -> v1::SecretReference {
        v1::SecretReference {
            secret_id: format!("id-{name}"),
            secret_name: name.to_owned(),
            target: Some(secret_reference::Target::File(FileTarget {
                name: target.to_owned(),
                uid: "0".to_owned(),
                gid: "0".to_owned(),
                mode,
            })),
        }
    }

    fn spec(secrets: &[v1::SecretReference]) -> v1::ContainerSpec {
        v1::ContainerSpec {
            secrets: secrets.to_vec(),
            configs: vec![v1::ConfigReference {
                config_id: "id-c".to_owned(),
                config_name: "c".to_owned(),
                target: None,
            }],
            ..Default::default()
        }
    }

    fn dependencies() -> Dependencies {
        let dependencies = Dependencies::default();
        let mut secret = v1::Secret {
            id: "id-s".to_owned(),
            ..Default::default()
        };
        secret.spec_mut().data = "hunter2".into();
        let mut config = v1::Config {
            id: "id-c".to_owned(),
            ..Default::default()
        };
        config.spec_mut().data = "x=1".into();
        dependencies.replace([secret], [config]);
        dependencies
    }

    #[test]
    fn files_are_private_and_go_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let task_id = skep_proto::id::random();
        let files = of(&spec(&[secret("s", "deep/s.txt", 0o400)])).unwrap();
        place(&files, &task_id, dir.path(), &dependencies(), None).unwrap();
        // Placed again, as after a failure half-way.
        place(&files, &task_id, dir.path(), &dependencies(), None).unwrap();
        let root = find(&task_id, dir.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root), 0o700);
        let variables = variables(&files, &root);
        assert_eq!(variables[0].0, "CREDENTIALS_DIRECTORY");
        let path = variables[0].1.join("deep/s.txt");
        assert_eq!(fs::read(&path).unwrap(), b"hunter2");
        assert_eq!(mode(&path), 0o400);
        assert_eq!(variables[1].0, "CONFIGURATION_DIRECTORY");
        let path = variables[1].1.join("c");
        assert_eq!(fs::read(&path).unwrap(), b"x=1");
        assert_eq!(mode(&path), 0o444);
        remove(&task_id, dir.path()).unwrap();
        assert!(!root.exists());
        assert_eq!(find(&task_id, dir.path()), None);
    }

    #[test]
    fn no_target_leads_out_of_the_directory() {
        for target in ["/etc/passwd", "../x", "a/../../x", "", ".", "./x/.."] {
            let why = of(&spec(&[secret("s", target, 0)])).unwrap_err();
            assert!(why.contains("secret \"s\""), "{why}");
        }
    }

    #[test]
    fn what_was_not_sent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let task_id = skep_proto::id::random();
        let files = of(&spec(&[secret("other", "o", 0)])).unwrap();
        let why = place(&files, &task_id, dir.path(), &dependencies(), None).unwrap_err();
        assert!(why.contains("secret \"other\""), "{why}");
        remove(&task_id, dir.path()).unwrap();
    }
}
