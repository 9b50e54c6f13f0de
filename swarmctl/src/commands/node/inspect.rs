//! `swarmctl node inspect`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::{
    skep::GetRaftStatusResponse,
    v1::{
        Node, NodeRole,
        node_spec::{Availability, Membership},
        node_status::State,
    },
};

use super::ls::manager_status;
use crate::{
    Error,
    commands::{Context, service::resource_fields},
    lookup,
    output::{Fields, enum_name, moment},
};

/// Shows a node.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// ID, hostname or unique ID prefix of the node
    #[arg(value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    node: String,
}

impl Inspect {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let node = lookup::node(&client, &self.node).await?;
        let raft = match node.manager_status {
            Some(_) => client.raft_status().await?,
            None => None,
        };
        context.print_object(&node, |node| fields(node, raft.as_ref()))
    }
}

fn fields(node: &Node, raft: Option<&GetRaftStatusResponse>) -> Fields {
    let (spec, status) = (node.spec(), node.status());
    let description = node.description.clone().unwrap_or_default();
    let mut fields = Fields::default();
    fields
        .add("ID", &node.id)
        .add("Name", &spec.annotations().name)
        .add("Hostname", &description.hostname)
        .maybe(
            "Joined at",
            node.meta().created_at.as_ref().and_then(moment),
        )
        .section("Labels", |section| {
            section.entries(&spec.annotations().labels);
        })
        .section("Status", |section| {
            section
                .add("State", enum_name(status.state, State::as_str_name))
                .add("Message", &status.message)
                .add(
                    "Availability",
                    enum_name(spec.availability, Availability::as_str_name),
                )
                .add(
                    "Membership",
                    enum_name(spec.membership, Membership::as_str_name),
                )
                .add("Address", &status.addr);
        })
        .add("Role", enum_name(node.role, NodeRole::as_str_name));
    if spec.desired_role != node.role {
        fields.add(
            "Desired role",
            enum_name(spec.desired_role, NodeRole::as_str_name),
        );
    }
    if let Some(manager) = &node.manager_status {
        fields.section("Manager status", |section| {
            section
                .add("Status", manager_status(node, raft))
                .add("Address", &manager.addr)
                .add("Raft ID", format!("{:x}", manager.raft_id));
            let mut members = raft.iter().flat_map(|raft| &raft.members);
            let member = members.find(|member| member.raft_id == manager.raft_id);
            // Only the leader knows of others, and 0 is no position.
            let matched = member.map(|member| member.matched_index);
            section.maybe("Log", matched.filter(|matched| *matched > 0));
        });
    }
    if let Some(platform) = &description.platform {
        fields.section("Platform", |section| {
            section
                .add("OS", &platform.os)
                .add("Architecture", &platform.architecture);
        });
    }
    if let Some(resources) = &description.resources {
        fields.section("Resources", |section| resource_fields(section, resources));
    }
    if let Some(engine) = &description.engine {
        fields.section("Engine", |section| {
            section.add("Version", &engine.engine_version);
            section.entries(&engine.labels);
        });
    }
    fields
}
