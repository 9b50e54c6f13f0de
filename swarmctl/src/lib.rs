//! The command line of a swarm.
//!
//! `swarmctl` is a client of a manager's control socket and nothing else: it turns flags into
//! specs, asks the Control service, and prints what comes back as tables or JSON. It decides
//! nothing about a cluster and stores nothing. The daemon uses three of its parts as a library:
//! [`client`] to reach a socket, [`spec`] to describe a service, [`progress`] to wait for one.

mod cli;
pub mod client;
mod commands;
mod error;
mod io;
mod lookup;
mod output;
pub mod progress;
pub mod spec;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

pub use error::{Error, Exit};
pub use io::Io;

/// The control socket used when neither `--socket` nor `SWARM_SOCKET` names one.
pub const DEFAULT_SOCKET: &str = "/var/run/swarmd.sock";

/// Runs the command line `args` (the program's name first) on the process's own streams.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_with(args, &mut Io::process()).await.into()
}

/// Runs the command line `args` and writes to the streams of `io`.
pub async fn run_with(args: impl IntoIterator<Item = OsString>, io: &mut Io) -> Exit {
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(message) => return io.show_usage(&message),
    };
    match Box::pin(commands::run(cli, io)).await {
        Ok(()) => Exit::Ok,
        Err(error) => io.show_error(&error),
    }
}
