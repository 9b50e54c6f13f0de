//! The `swarmctl` command. Everything is in the library; see its documentation.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    Box::pin(swarmctl::run(std::env::args_os())).await
}
