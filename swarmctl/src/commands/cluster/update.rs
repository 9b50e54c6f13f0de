//! `swarmctl cluster update`.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum, builder::NonEmptyStringValueParser, value_parser};
use skep_proto::v1::{Cluster, ClusterSpec, KeyRotation};

use super::{change, key};
use crate::{
    Error,
    commands::Context,
    lookup,
    output::{Format, write_pretty},
    spec::{LogFlags, values},
};

/// Changes the cluster. Everything not named stays as it is.
#[derive(Debug, Args)]
// The group would list all its flags there.
#[command(override_usage = "swarmctl cluster update [OPTIONS] [CLUSTER]")]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args([
    "autolock", "cert_expiry", "dispatcher_heartbeat", "task_history_limit", "snapshot_interval",
    "max_snapshots", "log_entries_for_slow_followers", "heartbeat_tick", "election_tick",
    "log_driver", "log_options", "rotate_join_token",
])))]
pub(crate) struct Update {
    /// Whether managers need the unlock key after a restart. Turning it on makes a key and shows it
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    autolock: Option<bool>,
    /// How long certificates of nodes are valid, at least 1h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    cert_expiry: Option<Duration>,
    /// How often nodes say that they are alive
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    dispatcher_heartbeat: Option<Duration>,
    /// Tasks that are kept of each slot, the running one included; -1 for all
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = value_parser!(i64).range(-1..))]
    task_history_limit: Option<i64>,
    /// Log entries between two snapshots
    #[arg(long, value_name = "N")]
    snapshot_interval: Option<u64>,
    /// Snapshots kept besides the newest
    #[arg(long, value_name = "N")]
    max_snapshots: Option<u64>,
    /// Log entries kept behind a snapshot, for managers that lag
    #[arg(long, value_name = "N")]
    log_entries_for_slow_followers: Option<u64>,
    /// Ticks between two heartbeats of the leader to the other managers
    #[arg(long, value_name = "N")]
    heartbeat_tick: Option<u32>,
    /// Ticks without a heartbeat after which managers elect another leader
    #[arg(long, value_name = "N")]
    election_tick: Option<u32>,
    /// Where the output of tasks goes whose service does not say it.
    #[command(flatten)]
    log: LogFlags,
    /// Make a new token for joining and show it; the old one works no more
    #[arg(long, value_name = "ROLE")]
    rotate_join_token: Vec<Token>,
    /// ID, name or unique ID prefix of the cluster
    #[arg(
        value_name = "CLUSTER",
        default_value = "default",
        value_parser = NonEmptyStringValueParser::new()
    )]
    cluster: String,
}

/// Which nodes a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Token {
    /// Workers
    Worker,
    /// Managers
    Manager,
}

impl Update {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = lookup::cluster(&client, &self.cluster).await?;
        let was_locked = found.spec().encryption_config().auto_lock_managers;
        let rotation = KeyRotation {
            worker_join_token: self.rotate_join_token.contains(&Token::Worker),
            manager_join_token: self.rotate_join_token.contains(&Token::Manager),
            ..Default::default()
        };
        let cluster = change(&client, found, rotation, |spec| self.edit(spec)).await?;
        if context.format == Format::Json {
            return write_pretty(&mut context.io.out, &cluster);
        }
        context.print_ids([&self.cluster])?;
        self.show_tokens(context, &cluster)?;
        let is_locked = cluster.spec().encryption_config().auto_lock_managers;
        if self.autolock.is_none() || !is_locked || was_locked {
            return Ok(());
        }
        match key::current(&client).await? {
            Some(key) => key::show(context, &key),
            None => Ok(()),
        }
    }

    fn edit(&self, spec: &mut ClusterSpec) {
        if let Some(autolock) = self.autolock {
            spec.encryption_config_mut().auto_lock_managers = autolock;
        }
        if let Some(expiry) = self.cert_expiry {
            spec.ca_config_mut().node_cert_expiry = Some(values::wire(expiry));
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec.dispatcher_mut().heartbeat_period = Some(values::wire(period));
        }
        if let Some(limit) = self.task_history_limit {
            spec.orchestration_mut().task_history_retention_limit = limit;
        }
        let raft = spec.raft_mut();
        for (place, said) in [
            (&mut raft.snapshot_interval, self.snapshot_interval),
            (&mut raft.keep_old_snapshots, self.max_snapshots),
            (
                &mut raft.log_entries_for_slow_followers,
                self.log_entries_for_slow_followers,
            ),
        ] {
            *place = said.unwrap_or(*place);
        }
        raft.heartbeat_tick = self.heartbeat_tick.unwrap_or(raft.heartbeat_tick);
        raft.election_tick = self.election_tick.unwrap_or(raft.election_tick);
        if self.log.is_said() {
            self.log.change(&mut spec.task_defaults_mut().log_driver);
        }
    }

    /// Shows the tokens that are new.
    fn show_tokens(&self, context: &mut Context<'_>, cluster: &Cluster) -> Result<(), Error> {
        let tokens = cluster.root_ca().join_tokens();
        for (token, role, text) in [
            (Token::Worker, "worker", &tokens.worker),
            (Token::Manager, "manager", &tokens.manager),
        ] {
            if self.rotate_join_token.contains(&token) {
                writeln!(
                    context.io.out,
                    "\nTo join as a {role} a node needs this token from now on:\n\n    {text}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn autolock(words: &[&str]) -> Result<(Option<bool>, String), clap::Error> {
        let words = ["update"].iter().chain(words);
        let update = Line::try_parse_from(words)?.update;
        Ok((update.autolock, update.cluster))
    }

    #[test]
    fn the_lock_is_turned_on_and_off() {
        for (words, expected) in [
            (&["--autolock"][..], (true, "default")),
            (&["--autolock=true"], (true, "default")),
            (&["--autolock=false", "c1"], (false, "c1")),
            // Not a value: the name of a cluster.
            (&["--autolock", "c1"], (true, "c1")),
        ] {
            let (lock, cluster) = autolock(words).unwrap();
            assert_eq!((lock, cluster.as_str()), (Some(expected.0), expected.1));
        }
        assert!(autolock(&[]).is_err(), "there is something to change");
        assert!(autolock(&["--autolock=maybe"]).is_err());
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let line = "update --cert-expiry=720h --dispatcher-heartbeat=10s --task-history-limit=-1 \
                    --snapshot-interval=5 --max-snapshots=1 --log-entries-for-slow-followers=6 \
                    --heartbeat-tick=2 --election-tick=20 --log-driver=syslog --log-opt=a=b";
        let update = Line::try_parse_from(line.split_whitespace())
            .unwrap()
            .update;
        let mut spec = ClusterSpec::default();
        spec.encryption_config_mut().auto_lock_managers = true;
        update.edit(&mut spec);
        assert!(spec.encryption_config().auto_lock_managers, "not named");
        let seconds = |span: Option<skep_proto::Duration>| span.unwrap().seconds;
        assert_eq!(seconds(spec.ca_config().node_cert_expiry), 720 * 3600);
        assert_eq!(seconds(spec.dispatcher().heartbeat_period), 10);
        assert_eq!(spec.orchestration().task_history_retention_limit, -1);
        let raft = spec.raft();
        assert_eq!((raft.snapshot_interval, raft.keep_old_snapshots), (5, 1));
        assert_eq!(raft.log_entries_for_slow_followers, 6);
        assert_eq!((raft.heartbeat_tick, raft.election_tick), (2, 20));
        let driver = spec.task_defaults().log_driver.clone().unwrap();
        assert_eq!((driver.name.as_str(), driver.options.len()), ("syslog", 1));
    }
}
