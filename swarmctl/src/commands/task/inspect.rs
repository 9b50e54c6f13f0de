//! `swarmctl task inspect`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::{Task, TaskState, task_status::RuntimeStatus};

use crate::{
    Error,
    commands::{Context, service::task_fields},
    lookup,
    output::{Fields, enum_name, moment, published_ports, task_name},
};

/// Shows a task.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// ID, name or unique ID prefix of the task
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    task: String,
}

impl Inspect {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let task = lookup::task(&client, &self.task).await?;
        context.print_object(&task, fields)
    }
}

fn fields(task: &Task) -> Fields {
    let status = task.status();
    let mut fields = Fields::default();
    fields
        .add("ID", &task.id)
        .add("Name", task_name(task))
        .add("Service", &task.service_id);
    if task.slot > 0 {
        fields.add("Slot", task.slot);
    }
    fields
        .add("Node", &task.node_id)
        .maybe(
            "Created at",
            task.meta().created_at.as_ref().and_then(moment),
        )
        .add(
            "Desired state",
            enum_name(task.desired_state, TaskState::as_str_name),
        )
        .section("Status", |section| {
            section
                .add("State", enum_name(status.state, TaskState::as_str_name))
                .maybe("Since", status.timestamp.as_ref().and_then(moment))
                .add("Message", &status.message)
                .add("Error", &status.err);
            if let Some(RuntimeStatus::Container(container)) = &status.runtime_status {
                section.add("Container", &container.container_id);
                if container.pid != 0 {
                    section.add("PID", container.pid);
                }
                if status.state() > TaskState::Running {
                    section.add("Exit code", container.exit_code);
                }
            }
            section.add("Ports", published_ports(task).join(", "));
        });
    task_fields(&mut fields, task.spec());
    fields
}
