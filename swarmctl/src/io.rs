//! The streams a command writes to: the process's own, or buffers in tests.

use std::io::{self, IsTerminal as _, Write};

use crate::{Error, Exit};

/// Where results (`out`) and everything else (`err`: progress, errors) go.
pub struct Io {
    /// Results only, so that it can be piped on.
    pub out: Box<dyn Write + Send>,
    /// Progress, warnings and errors.
    pub err: Box<dyn Write + Send>,
    /// Whether progress may be drawn as bars, which go to the process's stderr.
    pub bars: bool,
}

impl Io {
    /// The streams of this process, with bars if stderr is a terminal.
    pub fn process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            bars: io::stderr().is_terminal(),
        }
    }

    /// Shows what clap says about a command line: help and version on `out`, errors on `err`.
    pub(crate) fn show_usage(&mut self, message: &clap::Error) -> Exit {
        let text = message.render();
        // There is no better place to report that a stream is closed.
        if message.use_stderr() {
            let _ = write!(self.err, "{text}");
            Exit::Usage
        } else {
            let _ = write!(self.out, "{text}");
            Exit::Ok
        }
    }

    /// Shows why a command failed.
    pub(crate) fn show_error(&mut self, error: &Error) -> Exit {
        let exit = error.exit();
        if !matches!(exit, Exit::Ok | Exit::Interrupted) {
            let _ = writeln!(self.err, "Error: {error}");
        }
        exit
    }
}
