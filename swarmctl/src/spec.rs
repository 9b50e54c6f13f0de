//! From parameters to service specs.
//!
//! What the user did not say stays absent in the spec: for most fields of the wire format absence
//! has a meaning of its own, the default of the place where the field is used. Three kinds of
//! parameters: [`NewService`] describes one to create, [`Settings`] are the values both new and
//! existing services can be given, [`Edits`] change an existing one.

mod edits;
mod env_file;
mod lists;
mod mount;
mod new_service;
mod pairs;
mod port;
mod reference;
mod registry;
mod settings;
pub mod values;

pub use edits::Edits;
pub use lists::{ListEdits, NewLists};
pub use new_service::{Mode, NewService};
pub(crate) use reference::resolve;
pub(crate) use registry::RegistryFlags;
pub use settings::{
    ContainerFlags, FailureAction, HealthFlags, LogFlags, Order, RestartCondition,
    RollbackFailureAction, RollbackFlags, Settings, UpdateFlags,
};

use skep_proto::v1::{ContainerSpec, TaskSpec, task_spec::Runtime};

use crate::Error;

pub use skep_proto::executor::PROCESS_IMAGE;

/// The container of `task`, made if the task has no runtime yet.
fn container(task: &mut TaskSpec) -> Result<&mut ContainerSpec, Error> {
    match task
        .runtime
        .get_or_insert_with(|| Runtime::Container(ContainerSpec::default()))
    {
        Runtime::Container(container) => Ok(container),
        Runtime::Attachment(_) | Runtime::Generic(_) => Err(Error::Usage(
            "this service does not run containers or processes".to_owned(),
        )),
    }
}
