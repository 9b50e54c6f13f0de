//! Many agents in one process, over real mTLS, with an executor that does nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A tool at a terminal.

use std::{collections::BTreeMap, sync::Arc};

use clap::Parser;
use futures_util::{StreamExt as _, stream};
use skep_agent::{Agent, Config, OnStop, executor::null::NullExecutor};
use skep_proto::v1::{Peer, node_spec::Availability};
use skep_security::{JoinToken, TcpDial, Tls, join};

/// Joins of so many agents run at a time.
const JOINS: usize = 32;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "agents",
    about = "Many agents in one process that run tasks by doing nothing"
)]
struct Cli {
    /// Manager to join
    #[arg(long, value_name = "HOST:PORT")]
    join: String,
    /// Token to join with
    #[arg(long)]
    token: JoinToken,
    /// How many
    #[arg(long, default_value_t = 5)]
    count: usize,
    #[command(flatten)]
    log: skep_node::args::Log,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    skep_node::log::init(&cli.log)?;
    let dir = tempfile::tempdir()?;
    let started: Vec<_> = stream::iter(0..cli.count)
        .map(|number| start(&cli, dir.path().join(number.to_string()), number))
        .buffer_unordered(JOINS)
        .collect()
        .await;
    let agents = started.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for agent in &agents {
        agent.ready().wait_for(|ready| *ready).await?;
    }
    println!("{} agents are registered", agents.len());
    tokio::signal::ctrl_c().await?;
    stream::iter(agents)
        .for_each_concurrent(None, Agent::stop)
        .await;
    Ok(())
}

async fn start(cli: &Cli, state_dir: std::path::PathBuf, number: usize) -> anyhow::Result<Agent> {
    let credentials = join::join(
        Arc::new(TcpDial),
        &cli.join,
        &cli.token,
        Availability::Active,
    )
    .await?;
    let node_id = credentials.identity().node_id.clone();
    Ok(Agent::start(Config {
        node_id,
        state_dir,
        hostname: format!("agent-{number}"),
        tls: Tls::new(credentials),
        executor: Arc::new(NullExecutor),
        managers: vec![Peer {
            node_id: String::new(),
            addr: cli.join.clone(),
        }],
        labels: BTreeMap::new(),
        generic_resources: Vec::new(),
        on_stop: OnStop::Keep,
    })?)
}
