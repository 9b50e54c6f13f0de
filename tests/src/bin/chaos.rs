//! Real manager processes under random failures, and whether they kept their word.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A tool at a terminal.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use skep_node::{
    args::{Log, LogFormat},
    log,
};

use skep_tests::chaos::{self, Options, big, child};

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
    /// A manager joins a cluster with a large state over a slow link, while writes go on
    Big(big::Options),
    /// One of the managers
    #[command(hide = true)]
    Manager(child::Child),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Manager(child)) => {
            log::init(&Log {
                log_level: std::env::var("SWARM_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned()),
                log_format: LogFormat::Text,
            })?;
            Box::pin(child::run(child)).await
        }
        Some(Command::Big(options)) => {
            let report = Box::pin(big::run(&options)).await?;
            print(&report, cli.json)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let report = Box::pin(chaos::run(&cli.options)).await?;
            print(&report, cli.json)?;
            Ok(match report.is_clean() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
    }
}

fn print(report: &impl Serialize, json: bool) -> anyhow::Result<()> {
    let value = serde_json::to_value(report)?;
    if json {
        println!("{value}");
        return Ok(());
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        println!("{name:<16} {value}");
    }
    Ok(())
}
