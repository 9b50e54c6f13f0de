//! Mounts in the engine's words.

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagates, MountTmpfsOptions,
    MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};
use skep_proto::v1::{
    self,
    mount::{Consistency, Type, bind_options::Propagation},
};

use super::{Need, map, text};

pub(super) fn plan(mounts: &[v1::Mount], needs: &mut Vec<Need>) -> Result<Vec<Mount>, String> {
    mounts.iter().map(|mount| one(mount, needs)).collect()
}

fn one(mount: &v1::Mount, needs: &mut Vec<Need>) -> Result<Mount, String> {
    let target = &mount.target;
    let typ = match Type::try_from(mount.r#type) {
        Ok(Type::Bind) => MountType::BIND,
        Ok(Type::Volume) => MountType::VOLUME,
        Ok(Type::Tmpfs) => MountType::TMPFS,
        Ok(Type::Npipe) => {
            return Err(format!(
                "mount {target:?}: named pipes exist on Windows only"
            ));
        }
        Ok(Type::Cluster) => {
            return Err(format!(
                "mount {target:?}: the docker executor has no cluster volumes"
            ));
        }
        Err(_) => {
            return Err(format!(
                "mount {target:?} is of a kind that is not known here"
            ));
        }
    };
    let tmpfs = mount.tmpfs_options.as_ref();
    Ok(Mount {
        target: Some(target.clone()),
        source: text(&mount.source),
        typ: Some(typ),
        read_only: mount.readonly.then_some(true),
        consistency: match mount.consistency() {
            Consistency::Default => None,
            Consistency::Consistent => Some("consistent".to_owned()),
            Consistency::Cached => Some("cached".to_owned()),
            Consistency::Delegated => Some("delegated".to_owned()),
        },
        bind_options: mount.bind_options.as_ref().map(|it| bind(it, needs)),
        volume_options: mount.volume_options.as_ref().map(|it| volume(it, needs)),
        image_options: None,
        tmpfs_options: tmpfs.map(|it| memory(it, needs)),
    })
}

fn bind(options: &v1::mount::BindOptions, needs: &mut Vec<Need>) -> MountBindOptions {
    let mut asked = |asked: bool, what, since| {
        if asked {
            needs.push(Need { what, since });
        }
        asked.then_some(true)
    };
    MountBindOptions {
        propagation: Some(match options.propagation() {
            Propagation::Rprivate => Propagates::RPRIVATE,
            Propagation::Private => Propagates::PRIVATE,
            Propagation::Rshared => Propagates::RSHARED,
            Propagation::Shared => Propagates::SHARED,
            Propagation::Rslave => Propagates::RSLAVE,
            Propagation::Slave => Propagates::SLAVE,
        }),
        non_recursive: asked(options.nonrecursive, "a mount without those below it", 40),
        create_mountpoint: asked(
            options.createmountpoint,
            "a mount whose source is made when missing",
            42,
        ),
        read_only_non_recursive: asked(
            options.readonlynonrecursive,
            "a mount that is read-only by itself alone",
            44,
        ),
        read_only_force_recursive: asked(
            options.readonlyforcerecursive,
            "a mount that is read-only with all below it",
            44,
        ),
    }
}

fn volume(options: &v1::mount::VolumeOptions, needs: &mut Vec<Need>) -> MountVolumeOptions {
    let subpath = text(&options.subpath);
    if subpath.is_some() {
        needs.push(Need {
            what: "a path within a volume",
            since: 45,
        });
    }
    let driver = options.driver_config.as_ref();
    MountVolumeOptions {
        no_copy: options.nocopy.then_some(true),
        labels: map(&options.labels),
        driver_config: driver.map(|driver| MountVolumeOptionsDriverConfig {
            name: text(&driver.name),
            options: map(&driver.options),
        }),
        subpath,
    }
}

fn memory(options: &v1::mount::TmpfsOptions, needs: &mut Vec<Need>) -> MountTmpfsOptions {
    let further = tmpfs_options(&options.options);
    if !further.is_empty() {
        needs.push(Need {
            what: "options of a mount in memory",
            since: 46,
        });
    }
    MountTmpfsOptions {
        size_bytes: (options.size_bytes != 0).then_some(options.size_bytes),
        mode: (options.mode != 0).then_some(options.mode.into()),
        options: (!further.is_empty()).then_some(further),
    }
}

/// Docker's managers store the engine's lists as JSON, others write them as on a command line.
fn tmpfs_options(text: &str) -> Vec<Vec<String>> {
    if let Ok(options) = serde_json::from_str(text) {
        return options;
    }
    let words = text.split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(|word| word.splitn(2, '=').map(str::to_owned).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_memory_come_in_two_forms() {
        let expected = [vec!["exec".to_owned()], vec!["a".into(), "b".into()]];
        assert_eq!(tmpfs_options("exec, a=b"), expected);
        assert_eq!(tmpfs_options(r#"[["exec"],["a","b"]]"#), expected);
        assert!(tmpfs_options("").is_empty());
    }

    #[test]
    fn what_no_engine_here_has_is_refused() {
        for r#type in [Type::Npipe as i32, Type::Cluster as i32, 99] {
            let mount = v1::Mount {
                r#type,
                target: "/t".into(),
                ..Default::default()
            };
            let why = plan(&[mount], &mut Vec::new()).unwrap_err();
            assert!(why.contains("\"/t\""), "{why}");
        }
    }

    #[test]
    fn options_say_what_they_need() {
        let mount = v1::Mount {
            r#type: Type::Volume as i32,
            source: "data".into(),
            volume_options: Some(v1::mount::VolumeOptions {
                nocopy: true,
                subpath: "a".into(),
                labels: [("k".to_owned(), "v".to_owned())].into(),
                driver_config: Some(v1::Driver {
                    name: "local".into(),
                    options: [("type".to_owned(), "tmpfs".to_owned())].into(),
                }),
            }),
            bind_options: Some(v1::mount::BindOptions {
                propagation: Propagation::Rslave as i32,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut needs = Vec::new();
        let planned = plan(&[mount], &mut needs).unwrap().remove(0);
        assert_eq!(needs.len(), 1);
        let volume = planned.volume_options.unwrap();
        assert_eq!(volume.no_copy, Some(true));
        assert_eq!(volume.labels.unwrap()["k"], "v");
        let driver = volume.driver_config.unwrap();
        assert_eq!(driver.options.unwrap()["type"], "tmpfs");
        let bind = planned.bind_options.unwrap();
        assert_eq!(bind.propagation, Some(Propagates::RSLAVE));
    }
}
