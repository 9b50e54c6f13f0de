//! Which secrets and configs a container sees as files, and where.

use skep_proto::v1::{self, config_reference, secret_reference};

/// Where Docker puts secrets and configs whose target is a relative path.
const SECRETS: &str = "/run/secrets";
const CONFIGS: &str = "";

/// A secret or config as a file of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct File {
    pub(in super::super) source: Source,
    /// The name that users know it by.
    pub(in super::super) name: String,
    /// Absolute path in the container.
    pub(in super::super) target: String,
    pub(in super::super) uid: u32,
    pub(in super::super) gid: u32,
    /// As chmod(2) takes it.
    pub(in super::super) mode: u32,
}

/// Where the contents come from, by ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Source {
    Secret(String),
    Config(String),
}

pub(super) fn plan(spec: &v1::ContainerSpec) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for secret in &spec.secrets {
        let name = &secret.secret_name;
        let Some(secret_reference::Target::File(target)) = &secret.target else {
            return Err(format!("secret {name:?} has no file to be shown as"));
        };
        let source = Source::Secret(secret.secret_id.clone());
        let file = file(source, name, target, SECRETS);
        files.push(file.map_err(|why| format!("secret {name:?}: {why}"))?);
    }
    for config in &spec.configs {
        let name = &config.config_name;
        let target = match &config.target {
            Some(config_reference::Target::File(target)) => target,
            // Not for the container but for its credential spec, which is refused elsewhere.
            Some(config_reference::Target::Runtime(_)) => continue,
            None => return Err(format!("config {name:?} has no file to be shown as")),
        };
        let source = Source::Config(config.config_id.clone());
        let file = file(source, name, target, CONFIGS);
        files.push(file.map_err(|why| format!("config {name:?}: {why}"))?);
    }
    Ok(files)
}

fn file(source: Source, name: &str, target: &v1::FileTarget, dir: &str) -> Result<File, String> {
    let path = match target.name.as_str() {
        "" => return Err("its target has no path".to_owned()),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{dir}/{path}"),
    };
    let number = |what, text: &str| match text {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| format!("{what} {text:?} of its target is not a number")),
    };
    Ok(File {
        source,
        name: name.to_owned(),
        target: path,
        uid: number("user", &target.uid)?,
        gid: number("group", &target.gid)?,
        mode: unix_mode(target.mode),
    })
}

/// Permissions of a file from the bits of Go's `FileMode`.
fn unix_mode(mode: u32) -> u32 {
    let special = [(23, 0o4000), (22, 0o2000), (20, 0o1000)];
    let special = special
        .into_iter()
        .filter(|(bit, _)| mode & (1 << bit) != 0)
        .fold(0, |bits, (_, special)| bits | special);
    mode & 0o777 | special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> v1::FileTarget {
        v1::FileTarget {
            name: name.to_owned(),
            mode: 0o444,
            ..Default::default()
        }
    }

    fn secret(target: v1::FileTarget) -> v1::ContainerSpec {
        v1::ContainerSpec {
            secrets: vec![v1::SecretReference {
                secret_id: "id".into(),
                secret_name: "key".into(),
                target: Some(secret_reference::Target::File(target)),
            }],
            ..Default::default()
        }
    }

    fn config(target: v1::FileTarget) -> v1::ContainerSpec {
        v1::ContainerSpec {
            configs: vec![v1::ConfigReference {
                config_id: "id".into(),
                config_name: "key".into(),
                target: Some(config_reference::Target::File(target)),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn relative_targets_have_their_usual_places() {
        let path = |spec| plan(&spec).unwrap().remove(0).target;
        assert_eq!(path(secret(target("a/b"))), "/run/secrets/a/b");
        assert_eq!(path(secret(target("/etc/key"))), "/etc/key");
        assert_eq!(path(config(target("app.conf"))), "/app.conf");
        assert_eq!(path(config(target("/etc/app"))), "/etc/app");
    }

    #[test]
    fn owners_are_numbers() {
        let owned = v1::FileTarget {
            uid: "7".into(),
            gid: "8".into(),
            ..target("a")
        };
        let file = plan(&secret(owned)).unwrap().remove(0);
        assert_eq!((file.uid, file.gid, file.mode), (7, 8, 0o444));
        let named = v1::FileTarget {
            uid: "web".into(),
            ..target("a")
        };
        let why = plan(&secret(named)).unwrap_err();
        assert!(why.contains("\"key\"") && why.contains("\"web\""), "{why}");
        assert!(plan(&config(target(""))).is_err());
    }

    #[test]
    fn modes_are_translated() {
        assert_eq!(unix_mode(0o640), 0o640);
        assert_eq!(unix_mode(1 << 23 | 1 << 20 | 1 << 31 | 0o755), 0o5755);
    }
}
