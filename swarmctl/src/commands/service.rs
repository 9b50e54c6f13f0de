//! `swarmctl service`.

mod create;
mod inspect;
mod ls;
mod ps;
mod rm;
mod rollback;
mod scale;
mod show;
mod update;
mod wait;

use clap::Subcommand;

use super::{Context, logs::Logs};
use crate::Error;
pub(crate) use show::{resources as resource_fields, span, task as task_fields};

/// The verbs of services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service and wait until it converged
    Create(Box<create::Create>),
    /// Show a service
    Inspect(inspect::Inspect),
    /// Show what the tasks of a service wrote
    #[command(mut_arg("name", |name| name
        .value_name("SERVICE|TASK")
        .help("ID, name or unique ID prefix of the service, or of a task")))]
    Logs(Logs),
    /// List services
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// List the tasks of services
    Ps(ps::Ps),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    /// Return a service to its previous spec and wait until it converged
    Rollback(rollback::Rollback),
    /// Set how many tasks services run and wait until they converged
    Scale(scale::Scale),
    /// Change a service and wait until it converged
    Update(Box<update::Update>),
}

impl ServiceCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Create(command) => Box::pin(command.run(context)).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Logs(command) => command.of_service(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Ps(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Rollback(command) => Box::pin(command.run(context)).await,
            Self::Scale(command) => Box::pin(command.run(context)).await,
            Self::Update(command) => Box::pin(command.run(context)).await,
        }
    }
}
