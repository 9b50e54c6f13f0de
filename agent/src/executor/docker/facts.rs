//! What the engine tells of itself and its machine, for the node's description.

use std::collections::{BTreeMap, BTreeSet};

use bollard::{
    models::{GenericResourcesInner, SystemInfo},
    query_parameters::ListPluginsOptions,
};
use skep_proto::v1::{self, generic_resource::Resource};

use super::engine::Engine;
use crate::executor::Failure;

/// The engine at some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    version: String,
    labels: BTreeMap<String, String>,
    /// Type and name. Sorted, as descriptions are compared.
    plugins: BTreeSet<(String, String)>,
    processors: i64,
    memory: i64,
    generic: Vec<v1::GenericResource>,
    architecture: String,
    os: String,
}

impl Facts {
    pub(super) async fn ask(engine: &Engine) -> Result<Self, Failure> {
        let info = engine.info().await?;
        let mut facts = Self::of(info);
        let listed = engine.docker().list_plugins(None::<ListPluginsOptions>);
        match listed.await {
            Ok(plugins) => {
                for plugin in plugins.into_iter().filter(|plugin| plugin.enabled) {
                    let kinds = plugin.config.interface.types.iter();
                    let kinds = kinds.filter_map(|it| capability(it)).map(str::to_owned);
                    let named = kinds.map(|kind| (kind, plugin.name.clone()));
                    facts.plugins.extend(named);
                }
            }
            Err(error) => tracing::debug!(%error, "the engine does not list its plugins"),
        }
        Ok(facts)
    }

    fn of(info: SystemInfo) -> Self {
        let labels = info.labels.unwrap_or_default();
        let labels = labels.iter().filter_map(|label| label.split_once('='));
        let plugins = info.plugins.unwrap_or_default();
        let named = [
            ("Volume", plugins.volume),
            ("Network", plugins.network),
            ("Log", plugins.log),
            ("Authorization", plugins.authorization),
        ];
        let named = named.into_iter().flat_map(|(kind, names)| {
            let names = names.unwrap_or_default().into_iter();
            names.map(move |name| (kind.to_owned(), name))
        });
        let generic = info.generic_resources.unwrap_or_default();
        Self {
            version: info.server_version.unwrap_or_default(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            // Its engine has it, but only a member of the swarm can use it.
            plugins: named.filter(|(_, name)| name != "overlay").collect(),
            processors: info.ncpu.unwrap_or_default(),
            memory: info.mem_total.unwrap_or_default(),
            generic: generic.into_iter().filter_map(resource).collect(),
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
        }
    }

    /// Writes it into a description, over what is known of the machine without the engine.
    pub(super) fn describe(&self, description: &mut v1::NodeDescription) {
        let engine = description.engine.get_or_insert_default();
        engine.engine_version.clone_from(&self.version);
        for (key, value) in &self.labels {
            // The node's own settings go first.
            let entry = engine.labels.entry(key.clone());
            entry.or_insert_with(|| value.clone());
        }
        let plugins = self
            .plugins
            .iter()
            .map(|(kind, name)| v1::PluginDescription {
                r#type: kind.clone(),
                name: name.clone(),
            });
        engine.plugins.extend(plugins);
        let resources = description.resources.get_or_insert_default();
        if self.processors > 0 {
            resources.nano_cpus = self.processors.saturating_mul(1_000_000_000);
        }
        if self.memory > 0 {
            resources.memory_bytes = self.memory;
        }
        let known: BTreeSet<_> = resources.generic.iter().filter_map(kind).collect();
        let new = self.generic.iter();
        let new = new.filter(|it| kind(it).is_some_and(|kind| !known.contains(&kind)));
        resources.generic.extend(new.cloned().collect::<Vec<_>>());
        let platform = description.platform.get_or_insert_default();
        if !self.architecture.is_empty() {
            platform.architecture.clone_from(&self.architecture);
        }
        if !self.os.is_empty() {
            platform.os.clone_from(&self.os);
        }
    }
}

/// The name that swarms have for the capability of a managed plugin, such as
/// `docker.volumedriver/1.0`.
fn capability(interface: &str) -> Option<&str> {
    let capability = interface.strip_prefix("docker.")?;
    let capability = capability.split('/').next()?;
    Some(match capability {
        "volumedriver" => "Volume",
        "networkdriver" => "Network",
        "logdriver" => "Log",
        other => other,
    })
}

fn resource(inner: GenericResourcesInner) -> Option<v1::GenericResource> {
    let named = inner.named_resource_spec.map(|it| {
        Resource::NamedResourceSpec(v1::NamedGenericResource {
            kind: it.kind.unwrap_or_default(),
            value: it.value.unwrap_or_default(),
        })
    });
    let counted = inner.discrete_resource_spec.map(|it| {
        Resource::DiscreteResourceSpec(v1::DiscreteGenericResource {
            kind: it.kind.unwrap_or_default(),
            value: it.value.unwrap_or_default(),
        })
    });
    let resource = Some(named.or(counted)?);
    Some(v1::GenericResource { resource })
}

fn kind(resource: &v1::GenericResource) -> Option<String> {
    Some(match resource.resource.as_ref()? {
        Resource::NamedResourceSpec(it) => it.kind.clone(),
        Resource::DiscreteResourceSpec(it) => it.kind.clone(),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::PluginsInfo;

    use super::*;

    fn info() -> SystemInfo {
        SystemInfo {
            server_version: Some("20.10".into()),
            labels: Some(vec!["disk=ssd".into(), "zone=b".into(), "odd".into()]),
            plugins: Some(PluginsInfo {
                network: Some(vec!["overlay".into(), "host".into(), "bridge".into()]),
                volume: Some(vec!["local".into()]),
                ..Default::default()
            }),
            ncpu: Some(3),
            mem_total: Some(1 << 30),
            architecture: Some("x86_64".into()),
            os_type: Some("linux".into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_node_is_what_its_engine_is() {
        let mut description = v1::NodeDescription::default();
        let engine = description.engine.get_or_insert_default();
        engine.labels.insert("zone".into(), "a".into());
        Facts::of(info()).describe(&mut description);
        let engine = description.engine.unwrap();
        assert_eq!(engine.engine_version, "20.10");
        assert_eq!(engine.labels["disk"], "ssd");
        assert_eq!(engine.labels["zone"], "a", "the node's own label stays");
        let plugins: Vec<_> = engine.plugins.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            plugins,
            ["bridge", "host", "local"],
            "overlays are not ours"
        );
        let resources = description.resources.unwrap();
        assert_eq!(resources.nano_cpus, 3_000_000_000);
        assert_eq!(resources.memory_bytes, 1 << 30);
        assert_eq!(description.platform.unwrap().architecture, "x86_64");
    }

    #[test]
    fn the_order_of_the_engines_answer_does_not_matter() {
        let mut other = info();
        let plugins = other.plugins.as_mut().unwrap();
        plugins.network.as_mut().unwrap().reverse();
        assert_eq!(Facts::of(info()), Facts::of(other));
    }

    #[test]
    fn capabilities_have_names() {
        assert_eq!(capability("docker.volumedriver/1.0"), Some("Volume"));
        assert_eq!(capability("docker.csinode/1.0"), Some("csinode"));
        assert_eq!(capability("other.volumedriver/1.0"), None);
    }
}
