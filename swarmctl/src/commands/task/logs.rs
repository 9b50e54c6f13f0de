//! `swarmctl task logs`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::LogSelector;

use crate::{
    Error,
    commands::{
        Context,
        logs::{self, LogsOptions},
    },
    lookup,
};

/// Shows what a task wrote.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    options: LogsOptions,
    /// ID, name or unique ID prefix of the task
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    task: String,
}

impl Logs {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let task = lookup::task(&client, &self.task).await?;
        let selector = LogSelector {
            task_ids: vec![task.id],
            ..Default::default()
        };
        logs::print(context, &client, selector, &self.options).await
    }
}
