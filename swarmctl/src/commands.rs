//! The commands: one folder per kind of object, one file per verb.

pub(crate) mod cluster;
pub(crate) mod config;
mod context;
mod logs;
mod many;
pub(crate) mod node;
mod payload;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod task;
mod versions;

use crate::{
    Error, Io,
    cli::{Cli, Command},
};
pub(crate) use context::Context;

/// Runs one command.
pub(crate) async fn run(cli: Cli, io: &mut Io) -> Result<(), Error> {
    let Cli {
        socket,
        format,
        command,
    } = cli;
    let mut context = Context::new(socket, format, io);
    match command {
        Command::Service(command) => Box::pin(command.run(&mut context)).await,
        Command::Node(command) => command.run(&mut context).await,
        Command::Task(command) => command.run(&mut context).await,
        Command::Secret(command) => command.run(&mut context).await,
        Command::Config(command) => command.run(&mut context).await,
        Command::Cluster(command) => command.run(&mut context).await,
    }?;
    Ok(context.io.out.flush()?)
}
