//! One condition of a watch on an object.

use skep_proto::v1::{Node, Resource, SelectByCustom, SelectBySlot, Task, select_by::By};
use skep_store::{AnyObject, Kind};

/// What must be true of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Id(String),
    IdPrefix(String),
    Name(String),
    NamePrefix(String),
    /// Key and value of an entry of the custom index.
    Custom(String, String),
    CustomPrefix(String, String),
    Service(String),
    Node(String),
    Slot(String, u64),
    DesiredState(i32),
    Role(i32),
    Membership(i32),
    ResourceKind(String),
}

/// What a condition looks at. Two conditions of a watch must not look at the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Name,
    Custom,
    Service,
    Node,
    Slot,
    DesiredState,
    Role,
    Membership,
    ResourceKind,
}

/// What objects of a kind can be selected by: the watch selectors of SwarmKit's store objects.
fn fields(kind: Kind) -> &'static [Field] {
    use Field::*;
    match kind {
        Kind::Node => &[Id, Name, Custom, Role, Membership],
        Kind::Task => &[Id, Name, Custom, Service, Node, Slot, DesiredState],
        Kind::Resource => &[Id, Name, Custom, ResourceKind],
        Kind::Service
        | Kind::Network
        | Kind::Cluster
        | Kind::Secret
        | Kind::Config
        | Kind::Extension
        | Kind::Volume => &[Id, Name, Custom],
    }
}

impl Condition {
    /// The condition that a selector is for objects of this kind. `None` if they cannot be selected
    /// by it: clients of a swarm rely on such a selector being ignored.
    pub(super) fn new(selector: By, kind: Kind) -> Option<Self> {
        let condition = match selector {
            By::Id(id) => Self::Id(id),
            By::IdPrefix(prefix) => Self::IdPrefix(prefix),
            By::Name(name) => Self::Name(name),
            By::NamePrefix(prefix) => Self::NamePrefix(prefix),
            By::Custom(SelectByCustom { index, value, .. }) => Self::Custom(index, value),
            By::CustomPrefix(SelectByCustom { index, value, .. }) => {
                Self::CustomPrefix(index, value)
            }
            By::ServiceId(id) => Self::Service(id),
            By::NodeId(id) => Self::Node(id),
            By::Slot(SelectBySlot { service_id, slot }) => Self::Slot(service_id, slot),
            By::DesiredState(state) => Self::DesiredState(state),
            By::Role(role) => Self::Role(role),
            By::Membership(membership) => Self::Membership(membership),
            By::Kind(kind) => Self::ResourceKind(kind),
            By::ReferencedNetworkId(_) | By::ReferencedSecretId(_) | By::ReferencedConfigId(_) => {
                return None;
            }
        };
        let possible = fields(kind);
        let applies = condition.fields().iter().all(|f| possible.contains(f));
        applies.then_some(condition)
    }

    /// What this condition looks at.
    pub(super) fn fields(&self) -> &'static [Field] {
        match self {
            Self::Id(_) | Self::IdPrefix(_) => &[Field::Id],
            Self::Name(_) | Self::NamePrefix(_) => &[Field::Name],
            Self::Custom(..) | Self::CustomPrefix(..) => &[Field::Custom],
            Self::Service(_) => &[Field::Service],
            Self::Node(_) => &[Field::Node],
            Self::Slot(..) => &[Field::Service, Field::Slot],
            Self::DesiredState(_) => &[Field::DesiredState],
            Self::Role(_) => &[Field::Role],
            Self::Membership(_) => &[Field::Membership],
            Self::ResourceKind(_) => &[Field::ResourceKind],
        }
    }

    /// Whether it is true of this object. Unlike look-ups, names are compared with regard to case.
    pub(super) fn holds(&self, object: &AnyObject) -> bool {
        let task = |test: &dyn Fn(&Task) -> bool| object.get().is_some_and(|task| test(task));
        let node = |test: &dyn Fn(&Node) -> bool| object.get().is_some_and(|node| test(node));
        let index = |key: &str, test: &dyn Fn(&str) -> bool| {
            let mut entries = object.annotations().indices.iter();
            entries.any(|entry| entry.key == key && test(&entry.val))
        };
        match self {
            Self::Id(id) => object.id() == id,
            Self::IdPrefix(prefix) => object.id().starts_with(prefix.as_str()),
            Self::Name(name) => object.name() == name,
            Self::NamePrefix(prefix) => object.name().starts_with(prefix.as_str()),
            Self::Custom(key, value) => index(key, &|found| found == value),
            Self::CustomPrefix(key, prefix) => {
                index(key, &|found| found.starts_with(prefix.as_str()))
            }
            Self::Service(id) => task(&|task| task.service_id == *id),
            Self::Node(id) => task(&|task| task.node_id == *id),
            Self::Slot(id, slot) => task(&|task| task.service_id == *id && task.slot == *slot),
            Self::DesiredState(state) => task(&|task| task.desired_state == *state),
            Self::Role(role) => node(&|node| node.role == *role),
            Self::Membership(membership) => node(&|node| node.spec().membership == *membership),
            Self::ResourceKind(kind) => object
                .get::<Resource>()
                .is_some_and(|resource| resource.kind == *kind),
        }
    }
}
