//! The log of the daemon, on standard error.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::{Log, LogFormat};

/// Starts logging. Fails if the level is no filter.
pub fn init(log: &Log) -> anyhow::Result<()> {
    // sled and raft-rs log routine things as info.
    let filter = EnvFilter::builder()
        .parse(format!("sled=warn,raft=warn,{}", log.log_level))
        .with_context(|| {
            format!(
                "--log-level {:?}: use error, warn, info, debug or trace",
                log.log_level
            )
        })?;
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match log.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|err| anyhow::anyhow!("logging cannot be started: {err}"))
}
