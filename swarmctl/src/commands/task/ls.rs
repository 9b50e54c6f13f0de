//! `swarmctl task ls`.

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use skep_proto::v1::{ListTasksRequest, TaskState, list_tasks_request::Filters};

use super::print_tasks;
use crate::{Error, commands::Context, lookup};

/// Lists tasks.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Only tasks of this service
    #[arg(long, value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    service: Vec<String>,
    /// Only tasks on this node
    #[arg(long, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    node: Vec<String>,
    /// Only tasks that are to be in this state
    #[arg(long, value_name = "STATE")]
    desired_state: Vec<Desired>,
}

/// The states a task can be wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Desired {
    Ready,
    Running,
    Complete,
    Shutdown,
    Remove,
}

impl Ls {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut filters = Filters::default();
        for name in &self.service {
            filters
                .service_ids
                .push(lookup::service(&client, name).await?.id);
        }
        for name in &self.node {
            filters.node_ids.push(lookup::node(&client, name).await?.id);
        }
        let state = |desired: &Desired| match desired {
            Desired::Ready => TaskState::Ready,
            Desired::Running => TaskState::Running,
            Desired::Complete => TaskState::Complete,
            Desired::Shutdown => TaskState::Shutdown,
            Desired::Remove => TaskState::Remove,
        };
        filters.desired_states = self.desired_state.iter().map(|s| state(s).into()).collect();
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
