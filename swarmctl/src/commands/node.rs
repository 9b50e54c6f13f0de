//! `swarmctl node`.

mod demote;
mod inspect;
mod ls;
mod promote;
mod rm;
mod update;

use clap::Subcommand;

use super::Context;
use crate::Error;

/// The verbs of nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Make managers workers
    Demote(demote::Demote),
    /// Show a node
    Inspect(inspect::Inspect),
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Make workers managers
    Promote(promote::Promote),
    /// Remove nodes that are down
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    /// Change a node
    Update(update::Update),
}

impl NodeCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Demote(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Promote(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
        }
    }
}
