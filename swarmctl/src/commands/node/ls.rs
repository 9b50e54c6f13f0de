//! `swarmctl node ls`.

use clap::Args;
use skep_proto::{
    skep::GetRaftStatusResponse,
    v1::{
        ListNodesRequest, Node, NodeRole, node_spec::Availability, node_status::State,
        raft_member_status::Reachability,
    },
};

use crate::{
    Error,
    commands::Context,
    output::{Format, Table, enum_name, natural},
};

/// Lists nodes by hostname.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut nodes = client
            .control()
            .list_nodes(ListNodesRequest::default())
            .await?
            .into_inner()
            .nodes;
        nodes.sort_by(|a, b| natural(hostname(a), hostname(b)).then_with(|| a.id.cmp(&b.id)));
        if self.quiet {
            return context.print_ids(nodes.iter().map(|node| &node.id));
        }
        match context.format {
            Format::Json => context.print_lines(&nodes),
            Format::Table => {
                let raft = client.raft_status().await?;
                context.print_table(&table(&nodes, raft.as_ref()))
            }
        }
    }
}

fn hostname(node: &Node) -> &str {
    node.description
        .as_ref()
        .map_or("", |description| &description.hostname)
}

fn table(nodes: &[Node], raft: Option<&GetRaftStatusResponse>) -> Table {
    let mut table = Table::new([
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
    ]);
    for node in nodes {
        let engine = node
            .description
            .as_ref()
            .and_then(|description| description.engine.as_ref());
        table.row([
            node.id.clone(),
            hostname(node).to_owned(),
            enum_name(node.status().state, State::as_str_name),
            enum_name(node.spec().availability, Availability::as_str_name),
            manager_status(node, raft),
            engine.map_or_else(String::new, |engine| engine.engine_version.clone()),
        ]);
    }
    table
}

/// `Leader`, `Reachable`, `Unreachable` or, if the managers do not know either, `Unknown`, and whether
/// it has no vote yet; empty for workers.
pub(super) fn manager_status(node: &Node, raft: Option<&GetRaftStatusResponse>) -> String {
    let learner = |raft_id: u64| {
        let mut members = raft.iter().flat_map(|raft| &raft.members);
        members.any(|member| member.raft_id == raft_id && member.learner)
    };
    match &node.manager_status {
        Some(manager) if manager.leader => "Leader".to_owned(),
        Some(manager) => {
            let reachability = enum_name(manager.reachability, Reachability::as_str_name);
            match learner(manager.raft_id) {
                true => format!("{reachability} (learner)"),
                false => reachability,
            }
        }
        // About to become a manager.
        None if node.spec().desired_role() == NodeRole::Manager => "Unknown".to_owned(),
        None => String::new(),
    }
}
