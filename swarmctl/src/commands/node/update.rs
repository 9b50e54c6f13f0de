//! `swarmctl node update`.

use clap::{ArgGroup, Args, ValueEnum, builder::NonEmptyStringValueParser};
use skep_proto::v1::{GetNodeRequest, Node, NodeRole, NodeSpec, UpdateNodeRequest, node_spec};

use crate::{
    Error,
    client::Client,
    commands::{
        Context,
        versions::{ATTEMPTS, is_out_of_sequence},
    },
    lookup,
    output::{Format, write_pretty},
    spec::values,
};

/// Changes a node. Everything not named stays as it is.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)
    .args(["availability", "role", "label_add", "label_rm"])))]
pub(crate) struct Update {
    /// Whether the node gets tasks
    #[arg(long, value_name = "AVAILABILITY")]
    availability: Option<Availability>,
    /// Whether the node is to be a worker or a manager
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// Set a label of the node
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    label_add: Vec<(String, String)>,
    /// Remove a label of the node
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// ID, hostname or unique ID prefix of the node
    #[arg(value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    node: String,
}

/// Whether a node gets tasks.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Availability {
    /// It gets tasks
    Active,
    /// It keeps its tasks and gets no new ones
    Pause,
    /// Its tasks move elsewhere
    Drain,
}

/// What a node is to be.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// It runs tasks
    Worker,
    /// It manages the cluster, too
    Manager,
}

impl Update {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = lookup::node(&client, &self.node).await?;
        let node = write(&client, found, |spec| self.edit(spec)).await?;
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &node),
            Format::Table => context.print_ids([&self.node]),
        }
    }

    fn edit(&self, spec: &mut NodeSpec) {
        if let Some(availability) = self.availability {
            spec.availability = match availability {
                Availability::Active => node_spec::Availability::Active,
                Availability::Pause => node_spec::Availability::Pause,
                Availability::Drain => node_spec::Availability::Drain,
            }
            .into();
        }
        if let Some(role) = self.role {
            spec.desired_role = match role {
                Role::Worker => NodeRole::Worker,
                Role::Manager => NodeRole::Manager,
            }
            .into();
        }
        if !self.label_add.is_empty() || !self.label_rm.is_empty() {
            let labels = &mut spec.annotations_mut().labels;
            labels.retain(|key, _| !self.label_rm.contains(key));
            labels.extend(self.label_add.iter().cloned());
        }
    }
}

/// Writes `node` edited, and again from a fresh copy if somebody else was faster: managers write to
/// nodes, too, whenever one comes or goes.
pub(super) async fn write(
    client: &Client,
    mut node: Node,
    edit: impl Fn(&mut NodeSpec),
) -> Result<Node, Error> {
    let mut control = client.control();
    let node_id = node.id.clone();
    let missing = || Error::Answer("no node".to_owned());
    let mut attempt = 1;
    loop {
        edit(node.spec_mut());
        let request = UpdateNodeRequest {
            node_id: node_id.clone(),
            node_version: Some(*node.meta().version()),
            spec: node.spec.take(),
        };
        match control.update_node(request).await {
            Ok(reply) => return reply.into_inner().node.ok_or_else(missing),
            Err(status) if attempt < ATTEMPTS && is_out_of_sequence(&status) => attempt += 1,
            Err(status) => return Err(status.into()),
        }
        let request = GetNodeRequest {
            node_id: node_id.clone(),
        };
        node = control
            .get_node(request)
            .await?
            .into_inner()
            .node
            .ok_or_else(missing)?;
    }
}
