//! `swarmctl cluster members`.

use clap::Args;
use skep_proto::skep::{GetRaftStatusResponse, RaftStatusMember};

use crate::{
    Error,
    commands::Context,
    output::{Format, Table, write_pretty},
};

/// Shows the managers as members of the Raft group, as the manager sees them that is asked.
#[derive(Debug, Args)]
pub(crate) struct Members {}

impl Members {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let missing = || Error::Answer("no status of Raft: this is no manager of Skep".to_owned());
        let raft = client.raft_status().await?.ok_or_else(missing)?;
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &raft),
            Format::Table => context.print_table(&table(&raft)),
        }
    }
}

fn table(raft: &GetRaftStatusResponse) -> Table {
    let mut table = Table::new(["RAFT ID", "NODE", "ADDRESS", "STATUS", "LOG"]);
    for member in &raft.members {
        let log = match member.matched_index {
            // Only the leader knows of others.
            0 => "-".to_owned(),
            index => index.to_string(),
        };
        table.row([
            format!("{:x}", member.raft_id),
            member.node_id.clone(),
            member.addr.clone(),
            standing(member),
            log,
        ]);
    }
    table
}

/// What a member is in the group.
pub(super) fn standing(member: &RaftStatusMember) -> String {
    let reached = match (member.leader, member.reachable) {
        (true, _) => "leader",
        (_, true) => "reachable",
        (_, false) => "unreachable",
    };
    let votes = if member.learner { "learner" } else { "voter" };
    format!("{reached}, {votes}")
}
