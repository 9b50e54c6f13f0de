//! `swarmctl service ps`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::{ListTasksRequest, list_tasks_request::Filters};

use crate::{
    Error,
    commands::{Context, task::print_tasks},
    lookup,
};

/// Lists the tasks of services, those that were replaced included.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// IDs, names or unique ID prefixes of services
    #[arg(required = true, value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    services: Vec<String>,
}

impl Ps {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut service_ids = Vec::new();
        for name in &self.services {
            service_ids.push(lookup::service(&client, name).await?.id);
        }
        let filters = Filters {
            service_ids,
            ..Default::default()
        };
        let request = ListTasksRequest {
            filters: Some(filters),
        };
        let tasks = client
            .control()
            .list_tasks(request)
            .await?
            .into_inner()
            .tasks;
        print_tasks(context, &client, tasks, self.quiet, self.no_trunc).await
    }
}
