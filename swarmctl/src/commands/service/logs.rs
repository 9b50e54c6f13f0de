//! `swarmctl service logs`.

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

/// Shows what the tasks of a service wrote.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    options: LogsOptions,
    /// ID, name or unique ID prefix of the service, or of a task
    #[arg(value_name = "SERVICE|TASK", value_parser = NonEmptyStringValueParser::new())]
    service: String,
}

impl Logs {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let selector = selector(&client, &self.service).await?;
        logs::print(context, &client, selector, &self.options).await
    }
}

async fn selector(client: &crate::client::Client, wanted: &str) -> Result<LogSelector, Error> {
    let not_found = match lookup::service(client, wanted).await {
        Ok(service) => {
            return Ok(LogSelector {
                service_ids: vec![service.id],
                ..Default::default()
            });
        }
        Err(error @ Error::NotFound { .. }) => error,
        Err(error) => return Err(error),
    };
    match lookup::task(client, wanted).await {
        Ok(task) => Ok(LogSelector {
            task_ids: vec![task.id],
            ..Default::default()
        }),
        Err(Error::NotFound { .. }) => Err(not_found),
        Err(error) => Err(error),
    }
}
