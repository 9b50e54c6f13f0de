//! The command line as clap sees it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    DEFAULT_SOCKET,
    commands::{
        cluster::ClusterCommand, config::ConfigCommand, node::NodeCommand, secret::SecretCommand,
        service::ServiceCommand, task::TaskCommand,
    },
    output::Format,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the server refused the request or failed
  2    the command line is wrong
  3    the control socket cannot be reached
  4    the service did not converge (update paused or rolled back, tasks failed for good, timeout)
  130  interrupted while waiting";

/// Controls a swarm through the control socket of one of its managers.
#[derive(Debug, Parser)]
#[command(name = "swarmctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Control socket of a manager
    #[arg(
        short,
        long,
        global = true,
        env = "SWARM_SOCKET",
        default_value = DEFAULT_SOCKET,
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// Form of the output
    #[arg(long, global = true, default_value = "table", value_name = "FORM")]
    pub format: Format,
    #[command(subcommand)]
    pub command: Command,
}

/// The kinds of objects.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Services: what is to run
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Nodes: where it can run
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tasks: what runs, and what ran
    #[command(subcommand)]
    Task(TaskCommand),
    /// Secrets: what tasks must know and nobody else
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Configs: files that tasks need
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The cluster itself
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_documents_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for code in [0, 1, 2, 3, 4, 130] {
            assert!(help.contains(&format!("\n  {code} ")), "{code} in {help}");
        }
    }
}
