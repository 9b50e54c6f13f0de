//! Mounts as they are written on the command line: `type=volume,source=data,target=/data`.

use skep_proto::v1::{
    Driver, Mount,
    mount::{
        BindOptions, Consistency, TmpfsOptions, Type, VolumeOptions, bind_options::Propagation,
    },
};

use super::{pairs, values};

const EXPECTED: &str = "expected type=bind|volume|tmpfs,source=SOURCE,target=PATH and options, \
                        separated by commas";

/// Permissions and the three bits above them; here the wire carries them as they are, and the
/// engine hands them to the file system.
const TMPFS_MODE_BITS: u32 = 0o7777;

/// A mount in the long form of docker's `--mount`.
pub fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        r#type: Type::Volume.into(),
        ..Mount::default()
    };
    // The type may come after the options that depend on it.
    let fields = pairs::flags(text)?;
    for (key, value) in &fields {
        set(&mut mount, key, value)?;
    }
    check(&mount)?;
    Ok(mount)
}

/// Takes one field in. A key without a value is a flag that is on.
fn set(mount: &mut Mount, key: &str, value: &Option<String>) -> Result<(), String> {
    let text = || {
        value
            .clone()
            .ok_or_else(|| format!("{key} has no value: {EXPECTED}"))
    };
    let flag = || match value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{key}={other}: expected true or false")),
    };
    match key {
        "type" => mount.r#type = kind(&text()?)?.into(),
        "source" | "src" => mount.source = text()?,
        "target" | "destination" | "dst" => mount.target = text()?,
        "readonly" | "ro" => mount.readonly = flag()?,
        "consistency" => mount.consistency = consistency(&text()?)?.into(),
        "bind-propagation" => bind(mount).propagation = propagation(&text()?)?.into(),
        "bind-nonrecursive" => bind(mount).nonrecursive = flag()?,
        "bind-create-src" => bind(mount).createmountpoint = flag()?,
        "bind-recursive" => {
            let value = text()?;
            recursive(bind(mount), &value)?;
        }
        "volume-nocopy" => volume(mount).nocopy = flag()?,
        "volume-subpath" => volume(mount).subpath = text()?,
        "volume-label" => {
            let (key, value) = values::label(&text()?)?;
            volume(mount).labels.insert(key, value);
        }
        "volume-driver" => driver(mount).name = text()?,
        "volume-opt" => {
            let (key, value) = values::label(&text()?)?;
            driver(mount).options.insert(key, value);
        }
        "tmpfs-size" => tmpfs(mount).size_bytes = values::memory(&text()?)?,
        "tmpfs-mode" => tmpfs(mount).mode = values::octal(&text()?, TMPFS_MODE_BITS)?,
        _ => return Err(format!("unknown key {key:?}: {EXPECTED}")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut Driver {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn kind(text: &str) -> Result<Type, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "bind" => Type::Bind,
        "volume" => Type::Volume,
        "tmpfs" => Type::Tmpfs,
        "npipe" => Type::Npipe,
        "cluster" => Type::Cluster,
        _ => return Err(format!("type={text}: expected bind, volume or tmpfs")),
    })
}

fn consistency(text: &str) -> Result<Consistency, String> {
    Ok(match text {
        "default" => Consistency::Default,
        "consistent" => Consistency::Consistent,
        "cached" => Consistency::Cached,
        "delegated" => Consistency::Delegated,
        _ => {
            return Err(format!(
                "consistency={text}: expected default, consistent, cached or delegated"
            ));
        }
    })
}

fn propagation(text: &str) -> Result<Propagation, String> {
    Ok(match text {
        "rprivate" => Propagation::Rprivate,
        "private" => Propagation::Private,
        "rshared" => Propagation::Rshared,
        "shared" => Propagation::Shared,
        "rslave" => Propagation::Rslave,
        "slave" => Propagation::Slave,
        _ => {
            return Err(format!(
                "bind-propagation={text}: expected rprivate, private, rshared, shared, rslave or \
                 slave"
            ));
        }
    })
}

/// What becomes of the mounts below the source.
fn recursive(options: &mut BindOptions, text: &str) -> Result<(), String> {
    match text {
        "enabled" => {}
        "disabled" => options.nonrecursive = true,
        "writable" => options.readonlynonrecursive = true,
        "readonly" => options.readonlyforcerecursive = true,
        _ => {
            return Err(format!(
                "bind-recursive={text}: expected enabled, disabled, writable or readonly"
            ));
        }
    }
    Ok(())
}

/// What no single field tells.
fn check(mount: &Mount) -> Result<(), String> {
    if mount.target.is_empty() {
        return Err(format!("no target: {EXPECTED}"));
    }
    let kind = mount.r#type();
    for (given, prefix, fitting) in [
        (mount.bind_options.is_some(), "bind", Type::Bind),
        (mount.volume_options.is_some(), "volume", Type::Volume),
        (mount.tmpfs_options.is_some(), "tmpfs", Type::Tmpfs),
    ] {
        if given && kind != fitting {
            return Err(format!(
                "{prefix}-… options are for mounts of type {prefix}, this one is of type {}",
                kind.as_str_name().to_ascii_lowercase()
            ));
        }
    }
    match kind {
        Type::Bind | Type::Npipe | Type::Cluster if mount.source.is_empty() => {
            return Err(format!("no source: {EXPECTED}"));
        }
        Type::Tmpfs if !mount.source.is_empty() => {
            return Err("a mount of type tmpfs has no source".to_owned());
        }
        _ => {}
    }
    if let Some(bind) = &mount.bind_options {
        let only_readonly = bind.readonlynonrecursive || bind.readonlyforcerecursive;
        if only_readonly && !mount.readonly {
            return Err(
                "bind-recursive=writable and bind-recursive=readonly need readonly".to_owned(),
            );
        }
        // A mount that appears there later would be writable.
        if bind.readonlyforcerecursive && bind.propagation() != Propagation::Rprivate {
            return Err("bind-recursive=readonly needs bind-propagation=rprivate".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        assert_eq!(
            mount("type=bind,src=/srv,dst=/data,ro,bind-propagation=rslave"),
            Ok(Mount {
                r#type: Type::Bind.into(),
                source: "/srv".to_owned(),
                target: "/data".to_owned(),
                readonly: true,
                bind_options: Some(BindOptions {
                    propagation: Propagation::Rslave.into(),
                    ..Default::default()
                }),
                ..Default::default()
            })
        );
        let forced = mount("type=bind,src=/srv,dst=/data,readonly=1,bind-recursive=readonly");
        assert!(forced.unwrap().bind_options.unwrap().readonlyforcerecursive);
    }

    #[test]
    fn volumes() {
        let text = "target=/data,source=data,volume-nocopy,volume-label=a=b,volume-driver=nfs,\
                    \"volume-opt=o=addr=10.0.0.1,rw\",volume-subpath=x";
        assert_eq!(
            mount(text),
            Ok(Mount {
                r#type: Type::Volume.into(),
                source: "data".to_owned(),
                target: "/data".to_owned(),
                volume_options: Some(VolumeOptions {
                    nocopy: true,
                    labels: [("a".to_owned(), "b".to_owned())].into(),
                    driver_config: Some(Driver {
                        name: "nfs".to_owned(),
                        options: [("o".to_owned(), "addr=10.0.0.1,rw".to_owned())].into(),
                    }),
                    subpath: "x".to_owned(),
                }),
                ..Default::default()
            })
        );
        assert!(mount("target=/data").is_ok(), "an anonymous volume");
    }

    #[test]
    fn memory() {
        assert_eq!(
            mount("tmpfs-size=64m,tmpfs-mode=1777,type=tmpfs,target=/tmp"),
            Ok(Mount {
                r#type: Type::Tmpfs.into(),
                target: "/tmp".to_owned(),
                tmpfs_options: Some(TmpfsOptions {
                    size_bytes: 64 << 20,
                    mode: 0o1777,
                    ..Default::default()
                }),
                ..Default::default()
            })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("", "no target"),
            ("type=bind,target=/a", "no source"),
            ("type=tmpfs,source=a,target=/a", "has no source"),
            ("type=disk,target=/a", "expected bind, volume or tmpfs"),
            ("target=/a,size=3", "unknown key \"size\""),
            ("target=/a,source", "source has no value"),
            ("target=/a,ro=maybe", "expected true or false"),
            (
                "type=tmpfs,target=/a,volume-nocopy",
                "this one is of type tmpfs",
            ),
            (
                "type=bind,source=/a,target=/a,bind-recursive=writable",
                "need readonly",
            ),
            (
                "type=bind,source=/a,target=/a,ro,bind-recursive=readonly,bind-propagation=shared",
                "needs bind-propagation=rprivate",
            ),
            ("type=tmpfs,target=/a,tmpfs-size=big", "amount of memory"),
            ("type=tmpfs,target=/a,tmpfs-mode=9", "octal"),
        ] {
            let error = mount(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
