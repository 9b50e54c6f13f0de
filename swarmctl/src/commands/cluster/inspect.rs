//! `swarmctl cluster inspect`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::{skep::GetRaftStatusResponse, v1::Cluster};

use super::members::standing;
use crate::{
    Error,
    commands::{Context, service::span},
    lookup,
    output::{Fields, Format, moment},
};

/// Shows a cluster.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// ID, name or unique ID prefix of the cluster
    #[arg(
        value_name = "CLUSTER",
        default_value = "default",
        value_parser = NonEmptyStringValueParser::new()
    )]
    cluster: String,
}

impl Inspect {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let cluster = lookup::cluster(&client, &self.cluster).await?;
        let raft = match context.format {
            Format::Table => client.raft_status().await?,
            Format::Json => None,
        };
        context.print_object(&cluster, |cluster| {
            let mut fields = fields(cluster);
            if let Some(raft) = &raft {
                add_raft(&mut fields, raft);
            }
            fields
        })
    }
}

/// How replication stands on the manager that was asked.
fn add_raft(fields: &mut Fields, raft: &GetRaftStatusResponse) {
    fields
        .section("Log of this manager", |section| {
            section
                .add("Raft ID", format!("{:x}", raft.raft_id))
                .add("Term", raft.term)
                .add(
                    "Entries",
                    format!("{} to {}", raft.first_index, raft.last_index),
                )
                .add("Committed", raft.committed_index)
                .add("Applied", raft.applied_index)
                .add("Snapshot", raft.snapshot_index);
        })
        .section("Members", |section| {
            for member in &raft.members {
                let place = format!("{} at {}", member.node_id, member.addr);
                section.add(
                    &format!("{:x}", member.raft_id),
                    format!("{place}: {}", standing(member)),
                );
            }
        });
}

fn fields(cluster: &Cluster) -> Fields {
    let spec = cluster.spec();
    let tokens = cluster.root_ca().join_tokens();
    let raft = spec.raft();
    let mut fields = Fields::default();
    fields
        .add("ID", &cluster.id)
        .add("Name", &spec.annotations().name)
        .maybe(
            "Created at",
            cluster.meta().created_at.as_ref().and_then(moment),
        )
        .add("Version", cluster.meta().version().index)
        .section("Join tokens", |section| {
            section
                .add("Worker", &tokens.worker)
                .add("Manager", &tokens.manager);
        })
        .add("Root CA hash", &cluster.root_ca().ca_cert_hash)
        .section("Orchestration", |section| {
            section.add(
                "Task history",
                spec.orchestration().task_history_retention_limit,
            );
        })
        .section("Dispatcher", |section| {
            section.maybe(
                "Heartbeat",
                spec.dispatcher().heartbeat_period.as_ref().map(span),
            );
        })
        .section("Certificates", |section| {
            section.maybe(
                "Validity",
                spec.ca_config().node_cert_expiry.as_ref().map(span),
            );
        })
        .section("Raft", |section| {
            section
                .add("Snapshot interval", raft.snapshot_interval)
                .add("Old snapshots kept", raft.keep_old_snapshots)
                .add(
                    "Entries for slow followers",
                    raft.log_entries_for_slow_followers,
                )
                .add("Heartbeat ticks", raft.heartbeat_tick)
                .add("Election ticks", raft.election_tick);
        })
        .add("Autolock", spec.encryption_config().auto_lock_managers)
        .add("Address pools", cluster.default_address_pool.join(", "));
    fields
}
