//! `swarmd`: a node of a swarm.

use std::process::ExitCode;

use clap::Parser as _;
use skep_agent::executor::process::launch;
use skep_node::{
    args::{Cli, Command},
    dev, leave, log, run,
};

/// Measured: with glibc's allocator a manager under load spends a tenth of its time on getting pages
/// from the kernel and giving them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Launch) = cli.command {
        return launch();
    }
    let done = log::init(&cli.log).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match cli.command {
                Some(Command::Dev(args)) => Box::pin(dev::run(args, &cli.log)).await,
                Some(Command::Leave(args)) => Box::pin(leave::run(args)).await,
                Some(Command::Launch) | None => Box::pin(run::run(cli.run)).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("swarmd: {}", told(&err));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes on one line, without causes that it has told already.
fn told(err: &anyhow::Error) -> String {
    let mut text = err.to_string();
    for cause in err.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
