//! The plugins that a task needs on its node: volume, network and log drivers.

use skep_proto::v1::{Mount, PluginDescription, Task, mount, task_spec::Runtime};

use super::node_info::NodeInfo;

const VOLUME: &str = "Volume";
const NETWORK: &str = "Network";
const LOG: &str = "Log";

/// Plugins by type and name.
#[derive(Debug, Default)]
pub(super) struct Needed<'a> {
    volumes: Vec<&'a str>,
    networks: Vec<&'a str>,
    log: Option<&'a str>,
}

impl<'a> Needed<'a> {
    pub fn of(task: &'a Task) -> Self {
        let spec = task.spec();
        let mounts = match &spec.runtime {
            Some(Runtime::Container(container)) => container.mounts.as_slice(),
            _ => &[],
        };
        Self {
            volumes: mounts.iter().filter_map(volume_driver).collect(),
            networks: task
                .networks
                .iter()
                .filter_map(|attachment| attachment.network.as_ref()?.driver_state.as_ref())
                .map(|driver| driver.name.as_str())
                .filter(|name| !name.is_empty())
                .collect(),
            log: spec
                .log_driver
                .as_ref()
                .map(|driver| driver.name.as_str())
                // Without a name it only carries options for the engine's own default.
                .filter(|name| !matches!(*name, "" | "none")),
        }
    }

    /// Whether the node has them all. One that reports no engine is not asked.
    pub fn are_on(&self, info: &NodeInfo) -> bool {
        let description = info.node.description.as_ref();
        let Some(engine) = description.and_then(|d| d.engine.as_ref()) else {
            return true;
        };
        let has = |kind: &str, name: &str| {
            engine
                .plugins
                .iter()
                .any(|plugin| plugin.r#type == kind && is_called(plugin, name))
        };
        // Engines have not always reported their log drivers.
        let tells_logs = || engine.plugins.iter().any(|plugin| plugin.r#type == LOG);
        self.volumes.iter().all(|name| has(VOLUME, name))
            && self.networks.iter().all(|name| has(NETWORK, name))
            && self.log.is_none_or(|name| has(LOG, name) || !tells_logs())
    }
}

/// The driver that a mounted volume needs; the local one is everywhere.
fn volume_driver(mount: &Mount) -> Option<&str> {
    if mount.r#type() != mount::Type::Volume {
        return None;
    }
    let options = mount.volume_options.as_ref()?;
    let name = options.driver_config.as_ref()?.name.as_str();
    (!matches!(name, "" | "local")).then_some(name)
}

/// Whether `name` means the plugin, whose own name may carry the tag of a managed one.
fn is_called(plugin: &PluginDescription, name: &str) -> bool {
    matches!(plugin.name.strip_prefix(name), Some("" | ":latest"))
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        ContainerSpec, Driver, EngineDescription, Network, NetworkAttachment, Node,
        NodeDescription, mount::VolumeOptions,
    };

    use super::*;

    fn node(plugins: Option<&[(&str, &str)]>) -> Node {
        Node {
            description: Some(NodeDescription {
                engine: plugins.map(|plugins| EngineDescription {
                    plugins: plugins
                        .iter()
                        .map(|&(kind, name)| PluginDescription {
                            r#type: kind.to_owned(),
                            name: name.to_owned(),
                        })
                        .collect(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn driver(name: &str) -> Option<Driver> {
        Some(Driver {
            name: name.to_owned(),
            ..Default::default()
        })
    }

    fn with_volume(kind: mount::Type, name: &str) -> Task {
        let mut task = Task::default();
        task.spec_mut().runtime = Some(Runtime::Container(ContainerSpec {
            mounts: vec![Mount {
                r#type: kind.into(),
                volume_options: Some(VolumeOptions {
                    driver_config: driver(name),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }));
        task
    }

    fn with_log(name: &str) -> Task {
        let mut task = Task::default();
        task.spec_mut().log_driver = driver(name);
        task
    }

    fn with_network(name: &str) -> Task {
        Task {
            networks: vec![NetworkAttachment {
                network: Some(Network {
                    driver_state: driver(name),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn fits(task: &Task, plugins: Option<&[(&str, &str)]>) -> bool {
        Needed::of(task).are_on(&NodeInfo::new(node(plugins).into()))
    }

    #[test]
    fn volume_drivers() {
        let task = with_volume(mount::Type::Volume, "nfs");
        assert!(fits(&task, Some(&[("Volume", "nfs")])));
        assert!(fits(&task, Some(&[("Volume", "nfs:latest")])));
        assert!(!fits(&task, Some(&[("Volume", "nfs:1.0")])));
        assert!(!fits(&task, Some(&[("Volume", "nfs-other")])));
        assert!(!fits(&task, Some(&[("Log", "nfs")])));
        assert!(!fits(&task, Some(&[])));
        assert!(fits(&task, None), "a node without an engine");
        assert!(fits(&with_volume(mount::Type::Volume, "local"), Some(&[])));
        assert!(fits(&with_volume(mount::Type::Volume, ""), Some(&[])));
        assert!(fits(&with_volume(mount::Type::Bind, "nfs"), Some(&[])));
    }

    #[test]
    fn log_drivers_matter_where_the_engine_tells_them() {
        let task = with_log("fluentd");
        assert!(fits(&task, Some(&[("Log", "fluentd")])));
        assert!(!fits(&task, Some(&[("Log", "json-file")])));
        assert!(fits(&task, Some(&[("Volume", "local")])));
        for name in ["", "none"] {
            assert!(fits(&with_log(name), Some(&[("Log", "json-file")])));
        }
    }

    #[test]
    fn network_drivers() {
        let task = with_network("weave");
        assert!(fits(&task, Some(&[("Network", "weave:latest")])));
        assert!(!fits(&task, Some(&[("Network", "overlay")])));
        assert!(fits(&with_network(""), Some(&[])));
    }
}
