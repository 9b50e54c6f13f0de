//! Real manager processes under random failures, and whether they kept their word.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A tool at a terminal.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use skep_node::{
    args::{Log, LogFormat},
    log,
};
use skep_tests::chaos::{self, Options, child};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    about = "Real manager processes under random failures, and whether they kept their word"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the managers
    #[command(hide = true)]
    Manager(child::Child),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Manager(child)) = cli.command {
        log::init(&Log {
            log_level: std::env::var("SWARM_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned()),
            log_format: LogFormat::Text,
        })?;
        return Box::pin(child::run(child)).await;
    }
    let report = Box::pin(chaos::run(&cli.options)).await?;
    let value = serde_json::to_value(&report)?;
    if cli.json {
        println!("{value}");
    } else {
        for (name, value) in value.as_object().into_iter().flatten() {
            println!("{name:<16} {value}");
        }
    }
    Ok(match report.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
