//! Nothing but the launcher of the process executor, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_agent::executor::process::launch()
}
