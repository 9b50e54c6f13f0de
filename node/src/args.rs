//! The command line of `swarmd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use skep_manager::secret_drivers::PLUGIN_DIRS;

/// A node of a swarm: an agent that runs tasks and, if its certificate says so, a manager.
///
/// Without --join-addr the first start makes a new cluster of which this node is the manager. With
/// it the node joins, as what the token says. Later starts find everything in the state directory.
#[derive(Clone, Debug, Parser)]
#[command(name = "swarmd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// A command other than running a node.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the node.
    #[command(flatten)]
    pub run: Run,
    /// What to log.
    #[command(flatten)]
    pub log: Log,
}

/// Commands besides running a node.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine and run a service on it.
    Dev(Dev),
    /// Become a task's command, as the daemon on the standard input says.
    #[command(hide = true)]
    Launch,
    /// Take this node out of its cluster for good, and delete its state.
    Leave(Leave),
}

/// How to run a node.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Where the node keeps its certificate, log and tasks.
    #[arg(
        short = 'd',
        long,
        value_name = "DIR",
        env = "SWARM_STATE_DIR",
        default_value = "./swarmkitstate"
    )]
    pub state_dir: PathBuf,
    /// Manager to join, on the first start. Later: where some manager is now, for a node whose
    /// managers have all moved.
    #[arg(long, value_name = "HOST:PORT", env = "SWARM_JOIN_ADDR")]
    pub join_addr: Option<String>,
    /// Token to join with: it decides whether the node becomes a worker or a manager.
    #[arg(
        long,
        value_name = "SWMTKN-…",
        env = "SWARM_JOIN_TOKEN",
        hide_env_values = true,
        requires = "join_addr"
    )]
    pub join_token: Option<String>,
    /// Where a manager listens for nodes and other managers.
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "SWARM_LISTEN_REMOTE_API",
        default_value = "0.0.0.0:4242"
    )]
    pub listen_remote_api: String,
    /// Address at which others reach this manager [default: that of --listen-remote-api, with the
    /// IP of the interface in use if it listens on all].
    #[arg(
        long,
        visible_alias = "advertise-remote-api",
        value_name = "HOST[:PORT]",
        env = "SWARM_ADVERTISE_ADDR"
    )]
    pub advertise_addr: Option<String>,
    /// Go on as the only manager of the cluster, with what this one's log holds. For when most managers
    /// are lost for ever: they are removed and cannot come back.
    #[arg(long)]
    pub force_new_cluster: bool,
    /// How a new manager keeps its raft log. One that has a log keeps it as it is.
    #[arg(long, value_enum, env = "SWARM_RAFT_LOG", default_value_t = RaftLog::Segments)]
    pub raft_log: RaftLog,
    /// Where a manager finds plugins that make the values of secrets: as NAME.sock, or NAME.spec with a
    /// URL. May be given several times.
    #[arg(
        long,
        value_name = "DIR",
        env = "SWARM_PLUGIN_DIR",
        value_delimiter = ':',
        default_values = PLUGIN_DIRS
    )]
    pub plugin_dir: Vec<PathBuf>,
    /// Unix socket for swarmctl and other clients of a manager.
    #[arg(
        long,
        value_name = "PATH",
        env = "SWARM_SOCKET",
        default_value = "/var/run/swarmd.sock"
    )]
    pub listen_control_api: PathBuf,
    /// Name of the node [default: that of the machine].
    #[arg(long, env = "SWARM_HOSTNAME")]
    pub hostname: Option<String>,
    /// What runs tasks.
    #[arg(long, value_enum, env = "SWARM_EXECUTOR", default_value_t = Executor::Auto)]
    pub executor: Executor,
    /// Something of this node that tasks can reserve: names, as in `gpu=GPU-1,GPU-2`, or an amount, as
    /// in `ssd=3`. May be given for several kinds.
    #[arg(
        long,
        value_name = "KIND=NAMES|AMOUNT",
        env = "SWARM_GENERIC_RESOURCES",
        value_delimiter = ';'
    )]
    pub generic_resource: Vec<String>,
    /// Unix socket of the Docker engine.
    #[arg(
        long,
        value_name = "unix:///PATH",
        env = "DOCKER_HOST",
        default_value = skep_agent::executor::docker::DEFAULT_HOST
    )]
    pub docker_host: String,
    /// Whether the node takes tasks, on the first start. Later it is changed with
    /// `swarmctl node update`.
    #[arg(long, value_enum, default_value_t = Availability::Active)]
    pub availability: Availability,
    /// Key that unlocks this manager. Others can read command lines: better set the variable, or
    /// start without it and use `swarmctl cluster unlock`.
    #[arg(
        long,
        value_name = "SWMKEY-…",
        env = "SWARM_UNLOCK_KEY",
        hide_env_values = true
    )]
    pub unlock_key: Option<String>,
    /// What happens to this node's tasks when swarmd is stopped. Kept ones run on, and the next
    /// start takes them over.
    #[arg(long, value_enum, default_value_t = OnStop::Keep)]
    pub on_stop: OnStop,
    /// Stop when the process that started this one ends.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// How a raft log lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RaftLog {
    /// As files that are written from front to back.
    Segments,
    /// In a sled database: slower.
    Sled,
}

/// What runs tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Executor {
    /// `docker` if an engine answers that is not in a swarm itself, else `process`.
    Auto,
    /// Containers of the Docker engine.
    Docker,
    /// Commands of this host, each a process group of its own.
    Process,
    /// Nothing: tasks only seem to run, for tests of everything else.
    Null,
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Availability {
    /// It does.
    Active,
    /// It keeps what it has but takes no more.
    Pause,
    /// It gives away what it has.
    Drain,
}

/// What happens to tasks when the daemon is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// They run on.
    Keep,
    /// They are stopped, each with its signal and grace period.
    Stop,
}

/// What to log, and how.
#[derive(Clone, Debug, Args)]
pub struct Log {
    /// Least severity to log: error, warn, info, debug, trace, or a filter such as
    /// `info,skep_raft=debug`. `RUST_LOG` is not looked at.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "SWARM_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// Form of the log, which goes to standard error.
    #[arg(long, global = true, value_enum, env = "SWARM_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// How to leave a cluster.
#[derive(Clone, Debug, Args)]
pub struct Leave {
    /// The node's state directory. One that runs stops its tasks, its manager leaves the others, and
    /// it ends.
    #[arg(
        short = 'd',
        long,
        value_name = "DIR",
        env = "SWARM_STATE_DIR",
        default_value = "./swarmkitstate"
    )]
    pub state_dir: PathBuf,
    /// Leave even if the cluster loses its last manager or its quorum by that.
    #[arg(short, long)]
    pub force: bool,
}

/// How to run a whole cluster on this machine.
#[derive(Clone, Debug, Args)]
pub struct Dev {
    /// Managers to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub managers: u16,
    /// Workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=50))]
    pub workers: u16,
    /// Directory for the nodes' state, kept afterwards and resumed when it is there [default: a
    /// temporary one].
    #[arg(short = 'd', long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// End the cluster as soon as its service runs (with --bare, as its nodes are ready), and exit
    /// with 0 if it does.
    #[arg(long)]
    pub once: bool,
    /// Deploy nothing, and let managers take no tasks.
    #[arg(long, conflicts_with = "command")]
    pub bare: bool,
    /// Command of the service's three processes [default: one that prints the time each second].
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
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
    fn a_token_needs_an_address() {
        assert!(Cli::try_parse_from(["swarmd", "--join-token", "SWMTKN-1-a-b"]).is_err());
        assert!(Cli::try_parse_from(["swarmd", "--join-addr", "h:1"]).is_ok());
    }

    #[test]
    fn dev_takes_a_command() {
        let cli = Cli::try_parse_from(["swarmd", "dev", "--once", "--", "sleep", "5"]).unwrap();
        let Some(Command::Dev(dev)) = cli.command else {
            panic!("not dev")
        };
        assert_eq!(dev.command, ["sleep", "5"]);
        assert!(dev.once);
    }
}
