//! `swarmctl cluster`.

mod inspect;

use clap::Subcommand;

use super::Context;
use crate::Error;

/// The verbs of the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the cluster, with the tokens for joining it
    Inspect(inspect::Inspect),
}

impl ClusterCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Inspect(command) => command.run(context).await,
        }
    }
}
