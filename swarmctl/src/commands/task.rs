//! `swarmctl task`.

mod inspect;
mod ls;

use clap::Subcommand;
use skep_proto::v1::{ListNodesRequest, Task};

use super::{Context, logs::Logs};
use crate::{
    Error,
    client::Client,
    output::{Format, NodeNames, task_table},
};

/// The verbs of tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show a task
    Inspect(inspect::Inspect),
    /// Show what a task wrote
    Logs(Logs),
    /// List tasks
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
}

impl TaskCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Inspect(command) => command.run(context).await,
            Self::Logs(command) => command.of_task(context).await,
            Self::Ls(command) => command.run(context).await,
        }
    }
}

/// Prints `tasks` in the form the user wants.
pub(crate) async fn print_tasks(
    context: &mut Context<'_>,
    client: &Client,
    tasks: Vec<Task>,
    quiet: bool,
    whole_ids: bool,
) -> Result<(), Error> {
    if quiet {
        return context.print_ids(tasks.iter().map(|task| &task.id));
    }
    if context.format == Format::Json {
        return context.print_lines(&tasks);
    }
    let nodes = client
        .control()
        .list_nodes(ListNodesRequest::default())
        .await?
        .into_inner()
        .nodes;
    let now = jiff::Timestamp::now();
    context.print_table(&task_table(tasks, &NodeNames::new(&nodes), now, whole_ids))
}
