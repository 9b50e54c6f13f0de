//! The log of the daemon, on standard error.

use anyhow::bail;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

use crate::args::{Log, LogFormat};

/// What `level` lets through.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let unusable = || {
        format!(
            "--log-level {level:?} is no level: use error, warn, info, debug or trace, or a filter such \
             as info,skep_raft=debug"
        )
    };
    // A filter may name a module alone, but what looks like one here is a level with a typing error.
    let misspelt = |part: &str| {
        !part.contains(['=', '[']) && (part.is_empty() || part.parse::<LevelFilter>().is_err())
    };
    if level.split(',').any(misspelt) {
        bail!(unusable());
    }
    // sled and raft-rs log routine things as info; the latter by way of slog.
    EnvFilter::builder()
        .parse(format!("sled=warn,raft=warn,slog=error,{level}"))
        .map_err(|_| anyhow::Error::msg(unusable()))
}

/// Starts logging. Fails if the level is no filter.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let filter = filter(&log.log_level)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_typing_errors() {
        for level in [
            "info",
            "off",
            "WARN",
            "info,skep_raft=debug",
            "skep_raft=trace",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["", "debgu", "info,skep_raft", "info,skep_raft=loud", "="] {
            let told = filter(level).unwrap_err().to_string();
            assert!(told.contains("--log-level"), "{told}");
        }
    }
}
