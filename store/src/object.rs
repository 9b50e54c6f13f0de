//! What an object must tell the store about itself: its table, name and index keys.

use std::sync::Arc;

use prost::Message;
use skep_proto::v1::{
    Annotations, Cluster, Config, Extension, Meta, Network, NetworkAttachmentConfig, Node,
    Resource, Secret, Service, ServiceSpec, Task, TaskSpec, Volume, task_spec::Runtime,
};

use crate::{
    AnyObject, Index,
    by::Value::{self, Exact, NoCase, Slot},
    table::{Table, Tables},
};

/// The table an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Node,
    Service,
    Task,
    Network,
    Cluster,
    Secret,
    Config,
    Resource,
    Extension,
    Volume,
}

impl Kind {
    /// The word for it in messages and watch requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Network => "network",
            Self::Cluster => "cluster",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Resource => "resource",
            Self::Extension => "extension",
            Self::Volume => "volume",
        }
    }
}

/// A message that has a table of its own.
pub trait Object: Message + Clone + Default + PartialEq + Send + Sync + 'static {
    /// The table.
    const KIND: Kind;
    /// Field number of this kind in `StoreAction.target`.
    const ACTION_TAG: u32;
    /// Whether no two objects may have the same name.
    const UNIQUE_NAMES: bool;

    /// The object's ID.
    fn id(&self) -> &str;
    /// Version and times.
    fn meta(&self) -> &Meta;
    /// Version and times, to change.
    fn meta_mut(&mut self) -> &mut Meta;
    /// The name under which users know it; empty when it has none.
    fn name(&self) -> &str;
    /// `annotations` of the object or of its spec.
    fn annotations(&self) -> &Annotations;
    /// Calls `add` for every index value besides name and custom ones.
    #[doc(hidden)]
    fn index<'a>(&'a self, add: &mut dyn FnMut(Index, Value<'a>));

    /// The object in an [`AnyObject`].
    fn wrap(self: Arc<Self>) -> AnyObject;
    /// The object out of an [`AnyObject`].
    fn peel(any: &AnyObject) -> Option<&Arc<Self>>;
    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self>;
    #[doc(hidden)]
    fn table_mut(tables: &mut Tables) -> &mut Table<Self>;

    /// What it is a copy of in part: objects with equal origins have equal parts, and can share
    /// them. An ID and a version; `None` for kinds that share nothing.
    #[doc(hidden)]
    fn origin(&self) -> Option<(&str, u64)> {
        None
    }
    /// Gives up what it has alike with `other` for the copy of that, if there is such a part.
    #[doc(hidden)]
    fn share(&mut self, _other: &Self) -> bool {
        false
    }

    /// `meta.version.index`, 0 when absent.
    fn version(&self) -> u64 {
        self.meta().version().index
    }
}

macro_rules! object {
    ($kind:ident, $table:ident, tag $tag:literal, unique $unique:literal,
     name |$n:ident| $name:expr, annotations |$a:ident| $annotations:expr,
     index |$i:ident, $add:ident| $index:block $(, $($more:tt)*)?) => {
        impl Object for $kind {
            const KIND: Kind = Kind::$kind;
            const ACTION_TAG: u32 = $tag;
            const UNIQUE_NAMES: bool = $unique;

            fn id(&self) -> &str {
                &self.id
            }
            fn meta(&self) -> &Meta {
                $kind::meta(self)
            }
            fn meta_mut(&mut self) -> &mut Meta {
                $kind::meta_mut(self)
            }
            fn name(&self) -> &str {
                let $n = self;
                $name
            }
            fn annotations(&self) -> &Annotations {
                let $a = self;
                $annotations
            }
            fn index<'a>(&'a self, $add: &mut dyn FnMut(Index, Value<'a>)) {
                let $i = self;
                $index
            }
            fn wrap(self: Arc<Self>) -> AnyObject {
                AnyObject::$kind(self)
            }
            fn peel(any: &AnyObject) -> Option<&Arc<Self>> {
                match any {
                    AnyObject::$kind(object) => Some(object),
                    _ => None,
                }
            }
            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$table
            }
            fn table_mut(tables: &mut Tables) -> &mut Table<Self> {
                &mut tables.$table
            }
            $($($more)*)?
        }
    };
}

object!(Node, nodes, tag 2, unique false,
name |node| node.description.as_ref().map_or("", |d| &d.hostname),
annotations |node| node.spec().annotations(),
index |node, add| {
    add(Index::Role, Exact(node.role().as_str_name()));
    add(Index::Membership, Exact(node.spec().membership().as_str_name()));
});

object!(Service, services, tag 3, unique true,
name |service| &service.spec().annotations().name,
annotations |service| service.spec().annotations(),
index |service, add| {
    let spec = service.spec();
    index_task_spec(spec.task(), add);
    index_networks(service_networks(spec), add);
});

object!(Task, tasks, tag 4, unique false,
name |task| &task.annotations().name,
annotations |task| task.annotations(),
index |task, add| {
    index_task_spec(task.spec(), add);
    if !task.service_id.is_empty() {
        add(Index::Slot, Slot(&task.service_id, task.slot));
    }
    if !task.node_id.is_empty() {
        add(Index::Node, Exact(&task.node_id));
    }
    add(Index::DesiredState, Exact(task.desired_state().as_str_name()));
    add(Index::TaskState, Exact(task.status().state().as_str_name()));
    for attachment in &task.volumes {
        add(Index::VolumeAttachment, Exact(&attachment.id));
    }
},
fn origin(&self) -> Option<(&str, u64)> {
    let version = self.spec_version.as_ref();
    Some((&self.service_id, version.map_or(0, |version| version.index)))
}
fn share(&mut self, other: &Self) -> bool {
    match (&mut self.spec, &other.spec) {
        (Some(own), Some(other)) => own.share(other),
        _ => false,
    }
});

object!(Network, networks, tag 5, unique true,
    name |network| &network.spec().annotations().name,
    annotations |network| network.spec().annotations(),
    index |_network, _add| {});

object!(Cluster, clusters, tag 6, unique true,
    name |cluster| &cluster.spec().annotations().name,
    annotations |cluster| cluster.spec().annotations(),
    index |_cluster, _add| {});

object!(Secret, secrets, tag 7, unique true,
    name |secret| &secret.spec().annotations().name,
    annotations |secret| secret.spec().annotations(),
    index |_secret, _add| {});

object!(Config, configs, tag 10, unique true,
    name |config| &config.spec().annotations().name,
    annotations |config| config.spec().annotations(),
    index |_config, _add| {});

object!(Resource, resources, tag 8, unique true,
    name |resource| &resource.annotations().name,
    annotations |resource| resource.annotations(),
    index |resource, add| { add(Index::Kind, Exact(&resource.kind)); });

object!(Extension, extensions, tag 9, unique true,
    name |extension| &extension.annotations().name,
    annotations |extension| extension.annotations(),
    index |_extension, _add| {});

object!(Volume, volumes, tag 11, unique true,
name |volume| &volume.spec().annotations().name,
annotations |volume| volume.spec().annotations(),
index |volume, add| {
    let spec = volume.spec();
    if !spec.group.is_empty() {
        add(Index::Group, Exact(&spec.group));
    }
    if let Some(driver) = &spec.driver {
        add(Index::Driver, Exact(&driver.name));
    }
    for status in &volume.publish_status {
        add(Index::Node, Exact(&status.node_id));
    }
});

fn index_task_spec<'a>(spec: &'a TaskSpec, add: &mut dyn FnMut(Index, Value<'a>)) {
    index_networks(&spec.networks, add);
    match &spec.runtime {
        Some(Runtime::Container(container)) => {
            add(Index::Runtime, Exact("container"));
            for secret in &container.secrets {
                add(Index::Secret, Exact(&secret.secret_id));
            }
            for config in &container.configs {
                add(Index::Config, Exact(&config.config_id));
            }
        }
        Some(Runtime::Attachment(_)) => add(Index::Runtime, Exact("attachment")),
        Some(Runtime::Generic(generic)) => add(Index::Runtime, NoCase(&generic.kind)),
        None => {}
    }
}

/// Where clients attached networks before they moved to the task spec.
#[allow(deprecated)]
fn service_networks(spec: &ServiceSpec) -> &[NetworkAttachmentConfig] {
    &spec.networks
}

fn index_networks<'a>(
    networks: &'a [NetworkAttachmentConfig],
    add: &mut dyn FnMut(Index, Value<'a>),
) {
    for network in networks {
        add(Index::Network, Exact(&network.target));
    }
}
