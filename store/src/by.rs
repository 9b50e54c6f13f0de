//! What the objects of a table can be found by.

use std::borrow::Cow;

use skep_proto::v1::{NodeRole, TaskState, node_spec::Membership};

use crate::text::Text;

/// What objects can be found by, besides their ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// The name, in lower case.
    Name,
    /// `spec.annotations.indices`, as `key NUL value`.
    Custom,
    /// Tasks of a service.
    Service,
    /// Tasks on a node; volumes that are published to a node, or about to be or have been.
    Node,
    /// Tasks of a slot of a service.
    Slot,
    /// Tasks by desired state.
    DesiredState,
    /// Tasks by observed state.
    TaskState,
    /// Services and tasks by runtime: `container`, `attachment` or a generic kind.
    Runtime,
    /// Services and tasks by the target of a network attachment.
    Network,
    /// Services and tasks by secret ID.
    Secret,
    /// Services and tasks by config ID.
    Config,
    /// Tasks by the ID of an attached volume.
    VolumeAttachment,
    /// Nodes by observed role.
    Role,
    /// Nodes by membership.
    Membership,
    /// Resources by extension name.
    Kind,
    /// Volumes by group.
    Group,
    /// Volumes by driver name.
    Driver,
}

/// A selection of objects of one table.
#[derive(Clone, Debug)]
pub enum By<'a> {
    /// Every object.
    All,
    /// Objects whose ID starts so.
    IdPrefix(&'a str),
    /// Objects with exactly this index value.
    Is(Index, Cow<'a, str>),
    /// Objects with an index value that starts so.
    StartsWith(Index, Cow<'a, str>),
}

impl<'a> By<'a> {
    /// By name, without regard to case.
    pub fn name(name: &str) -> Self {
        Self::Is(Index::Name, name.to_lowercase().into())
    }
    /// By the start of the name, without regard to case.
    pub fn name_prefix(prefix: &str) -> Self {
        Self::StartsWith(Index::Name, prefix.to_lowercase().into())
    }
    /// Tasks of a service.
    pub fn service(id: &'a str) -> Self {
        Self::Is(Index::Service, id.into())
    }
    /// Tasks or published volumes on a node.
    pub fn node(id: &'a str) -> Self {
        Self::Is(Index::Node, id.into())
    }
    /// Tasks of a slot.
    pub fn slot(service_id: &str, slot: u64) -> Self {
        Self::Is(Index::Slot, format!("{service_id}\0{slot}").into())
    }
    /// Tasks by desired state.
    pub fn desired_state(state: TaskState) -> Self {
        Self::Is(Index::DesiredState, state.as_str_name().into())
    }
    /// Tasks by observed state.
    pub fn task_state(state: TaskState) -> Self {
        Self::Is(Index::TaskState, state.as_str_name().into())
    }
    /// Nodes by observed role.
    pub fn role(role: NodeRole) -> Self {
        Self::Is(Index::Role, role.as_str_name().into())
    }
    /// Nodes by membership.
    pub fn membership(membership: Membership) -> Self {
        Self::Is(Index::Membership, membership.as_str_name().into())
    }
    /// Services and tasks that refer to a secret.
    pub fn secret(id: &'a str) -> Self {
        Self::Is(Index::Secret, id.into())
    }
    /// Services and tasks that refer to a config.
    pub fn config(id: &'a str) -> Self {
        Self::Is(Index::Config, id.into())
    }
    /// By a custom index entry (`annotations.indices`).
    pub fn custom(key: &str, value: &str) -> Self {
        Self::Is(Index::Custom, format!("{key}\0{value}").into())
    }
}

/// A value of an index, as an object holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// As it is.
    Exact(&'a str),
    /// In lower case.
    NoCase(&'a str),
    /// A slot of the service of this ID.
    Slot(&'a str, u64),
}

impl<'a> Value<'a> {
    pub(crate) fn to_text(self) -> Text {
        match self {
            Self::Exact(text) => text.into(),
            Self::NoCase(text) => Text::lower(text),
            Self::Slot(service_id, slot) => Text::slot(service_id, slot),
        }
    }

    pub(crate) fn to_str(self) -> Cow<'a, str> {
        match self {
            Self::Exact(text) => text.into(),
            Self::NoCase(text) => text.to_lowercase().into(),
            Self::Slot(service_id, slot) => format!("{service_id}\0{slot}").into(),
        }
    }
}

impl Index {
    /// Whether a table keeps keys for all values of this index. Every key has to be maintained by
    /// every manager, so there are keys only for what is asked for often and of large tables; what
    /// else is asked for is found by a search through all objects.
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::Name | Self::Slot | Self::Node)
    }

    /// Whether a table keeps keys for this value. Of the states only those are kept in which a task
    /// waits for a part of the manager that looks for it: few tasks are in them, and one that runs
    /// goes through many others.
    pub(crate) fn keeps(self, value: Value<'_>) -> bool {
        let states: &[TaskState] = match self {
            Self::TaskState => &[TaskState::New, TaskState::Pending],
            Self::DesiredState => &[TaskState::Remove],
            _ => return self.is_kept(),
        };
        states
            .iter()
            .any(|state| value == Value::Exact(state.as_str_name()))
    }
}
